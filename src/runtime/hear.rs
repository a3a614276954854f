//! What comes in through the doors.

use super::Runtime;
use super::children::{Heir, Owner, RunProcess};
use crate::doors::notify::{LONGEST, Notify};
use crate::doors::{Door, Message, Taken};
use crate::supervisor::{Event, RunId};
use crate::sys::poll::Token;
use crate::sys::{Pid, process};

/// Which door it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Notify(RunId),
    Channel(RunId),
    Check(RunId),
    Control,
    /// There is room again at whoever waits to hear from guard.
    Outer,
}

impl Which {
    /// What a poll knows it by: the kind, the instance and the run's number, in this order of bits.
    pub(super) fn token(self) -> Token {
        let (kind, id) = match self {
            Which::Notify(id) => (0, Some(id)),
            Which::Channel(id) => (1, Some(id)),
            Which::Check(id) => (2, Some(id)),
            Which::Control => (3, None),
            Which::Outer => (4, None),
        };
        let instance = id.map_or(0, |id| u64::from(id.instance));
        kind << 56 | instance << 32 | id.map_or(0, |id| u64::from(id.number))
    }

    /// The door of a token; `None` if it is none of a door's.
    pub(super) fn of(token: Token) -> Option<Which> {
        let number = u32::try_from(token & u64::from(u32::MAX)).ok()?;
        let instance = u32::try_from(token >> 32 & 0xff_ffff).ok()?;
        let id = RunId { instance, number };
        match token >> 56 {
            0 => Some(Which::Notify(id)),
            1 => Some(Which::Channel(id)),
            2 => Some(Which::Check(id)),
            3 => Some(Which::Control),
            4 => Some(Which::Outer),
            _ => None,
        }
    }
}

impl Runtime<'_> {
    /// Waits for a door from now on; `None` where that cannot be, and the door is closed again.
    pub(super) fn attend<D: Door>(&self, which: Which, door: D) -> Option<D> {
        match self.poll.add(door.descriptor(), which.token()) {
            Ok(()) => Some(door),
            Err(error) => {
                log::warn!(door:? = which, error = error.desc(); "door");
                None
            }
        }
    }

    /// Takes what has come through a door, and closes one through which nothing more can come.
    pub(super) fn hear(&mut self, which: Which) {
        let taken = match which {
            Which::Notify(id) => take(self.children.get_mut(id).map(|run| &mut run.notify)),
            Which::Channel(id) => take(self.children.get_mut(id).map(|run| &mut run.channel)),
            Which::Check(id) => {
                if let Some(check) = self.children.check_mut(id) {
                    check.listen();
                }
                return;
            }
            Which::Control => take(Some(&mut self.control)),
            Which::Outer => {
                if let Some(outer) = &mut self.outer {
                    outer.send(&self.poll);
                }
                return;
            }
        };
        self.heed(taken);
    }

    /// Reads what all runs have said up to now.
    pub(super) fn hear_runs(&mut self) {
        let speaks = |run: &&RunProcess| run.notify.as_ref().is_some_and(Notify::has_something);
        let speaking: Vec<RunId> = self.children.runs().filter(speaks).map(|run| run.id).collect();
        for id in speaking {
            let notify = self.children.get_mut(id).and_then(|run| run.notify.as_mut());
            if let Some(taken) = notify.map(Notify::take_rest) {
                self.heed(taken);
            }
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
                Message::Stopping(id, pid) => {
                    // A helper, such as the server that a database's image starts for its set-up, ends without its run.
                    if self.children.get(id).is_some_and(|run| run.pid == pid) {
                        self.dispatch(Event::SaidStopping(id));
                    }
                }
                Message::TooLong(id) => self.note_too_long(id),
                Message::Refused => self.refused(),
                Message::Request(request, client) => self.serve(request, client),
            }
        }
    }

    /// Said once a run.
    fn note_too_long(&mut self, id: RunId) {
        if let Some(run) = self.children.get_mut(id)
            && !std::mem::replace(&mut run.was_too_long, true)
        {
            let msg = format!("a datagram to the notify socket was longer than {LONGEST} bytes, and is not heard");
            log::warn!(run = id.number, msg:%; "refused");
        }
    }

    fn note_status(&mut self, id: RunId, text: String) {
        log::debug!(run = id.number, text:%; "status");
        if let Some(outer) = &mut self.outer {
            outer.status(&text, &self.poll);
        }
        if let Some(run) = self.children.get_mut(id) {
            run.status = text;
        }
    }

    /// Somebody names the process that will be the main one. Whether it can be is seen when the present one has ended.
    fn name_heir(&mut self, id: RunId, pid: Pid) {
        let heir = match self.children.owner(pid) {
            Owner::Nobody if pid != process::id() => Some(Heir::Alive(pid)),
            // The present one stays: an upgrade was taken back.
            Owner::Run(owner) if owner == id => None,
            Owner::Run(_) | Owner::Check(_) | Owner::Hook | Owner::Nobody => return,
        };
        log::debug!(run = id.number, pid; "heir");
        if let Some(run) = self.children.get_mut(id) {
            run.heir = heir;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_door_again() {
        let id = RunId { instance: 1_000, number: u32::MAX };
        for which in [Which::Notify(id), Which::Channel(id), Which::Check(id), Which::Control, Which::Outer] {
            assert_eq!(Which::of(which.token()), Some(which));
        }
        assert_eq!(Which::of(Token::MAX), None);
    }
}
