//! What comes in through the doors.

use super::Runtime;
use super::children::{Children, Heir, Owner};
use crate::doors::control::Control;
use crate::doors::{Door, Message, Taken};
use crate::supervisor::{Event, RunId};
use crate::sys::{Pid, process};
use std::os::fd::BorrowedFd;

/// Which door it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Notify(RunId),
    Channel(RunId),
    Check(RunId),
    Control,
}

/// All doors that are open, the notify sockets first: what a run says comes before what became of it.
pub(super) fn open<'a>(children: &'a Children, control: Option<&'a Control>) -> Vec<(Which, BorrowedFd<'a>)> {
    let mut doors = Vec::new();
    let runs = || children.runs();
    doors.extend(runs().filter_map(|run| Some((Which::Notify(run.id), run.notify.as_ref()?.descriptor()))));
    doors.extend(runs().filter_map(|run| Some((Which::Channel(run.id), run.channel.as_ref()?.descriptor()))));
    let output = |run: &'a super::children::RunProcess| run.check.as_ref()?.output.as_ref();
    doors.extend(runs().filter_map(|run| Some((Which::Check(run.id), output(run)?.descriptor()))));
    doors.extend(control.map(|control| (Which::Control, control.descriptor())));
    doors
}

impl Runtime<'_> {
    /// Takes what has come through a door, and closes one through which nothing more can come.
    pub(super) fn hear(&mut self, which: Which) {
        let taken = match which {
            Which::Notify(id) => take(self.children.get_mut(id).map(|run| &mut run.notify)),
            Which::Channel(id) => take(self.children.get_mut(id).map(|run| &mut run.channel)),
            Which::Check(id) => {
                take(self.children.get_mut(id).and_then(|run| run.check.as_mut()).map(|check| &mut check.output))
            }
            Which::Control => take(Some(&mut self.control)),
        };
        self.heed(taken);
    }

    /// Reads what a run said before it ended.
    pub(super) fn hear_last(&mut self, id: RunId) {
        let notify = self.children.get_mut(id).and_then(|run| run.notify.as_mut());
        if let Some(taken) = notify.map(|notify| notify.take_rest()) {
            self.heed(taken);
        }
    }

    fn heed(&mut self, mut taken: Taken) {
        for message in taken.messages.drain(..) {
            match message {
                Message::Event(event) => {
                    if let Event::SaidReady(id) = event
                        && let Some(run) = self.children.get_mut(id)
                    {
                        run.reloading = false;
                    }
                    self.dispatch(event);
                }
                Message::Status(id, text) => self.note_status(id, text),
                Message::Reloading(id) => {
                    if let Some(run) = self.children.get_mut(id) {
                        run.reloading = true;
                    }
                }
                Message::MainPid(id, pid) => self.name_heir(id, pid),
                Message::Refused => self.refused(),
                Message::Request(request, client) => self.serve(request, client),
            }
        }
    }

    fn note_status(&mut self, id: RunId, text: String) {
        log::debug!(run = id.number, text:%; "status");
        if let Some(outer) = &self.outer {
            outer.status(&text);
        }
        if let Some(run) = self.children.get_mut(id) {
            run.status = text;
        }
    }

    /// Somebody names the process that will be the main one. Whether it can be is seen when the present one has ended.
    fn name_heir(&mut self, id: RunId, pid: Pid) {
        if self.children.owner(pid) == Owner::Nobody && pid != process::id() {
            log::debug!(run = id.number, pid; "heir");
            if let Some(run) = self.children.get_mut(id) {
                run.heir = Some(Heir::Alive(pid));
            }
        }
    }

    /// Said once, since whoever keeps on knocking must not fill the log; `guard status` has the count.
    fn refused(&mut self) {
        self.refused += 1;
        if self.refused == 1 {
            log::warn!(msg = "a datagram from another user or PID namespace was refused"; "refused");
        }
    }
}

/// Takes from a door, if it is open.
fn take<D: Door>(door: Option<&mut Option<D>>) -> Taken {
    let Some(door) = door else { return Taken::default() };
    let taken = door.as_mut().map(Door::take).unwrap_or_default();
    if taken.closed {
        *door = None;
    }
    taken
}
