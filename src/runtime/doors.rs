//! The doors that guard polls, and those that rest while a copy of guard receives a message with descriptors.

use super::children::{Children, RunProcess};
use super::operator::Operator;
use super::{RETRY, Runtime};
use crate::doors::Door;
use crate::doors::http::Http;
use crate::supervisor::{RunId, Timestamp};
use crate::sys::Errno;
use crate::sys::errno::reason;
use crate::sys::poll::Token;
use crate::sys::rights::has_received;
use crate::sys::socket::is_readable;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Copies of guard that may live at a time. One that hangs waits for a descriptor to close, or for a process or a file system that
/// it looks at.
pub(super) const MOST_COPIES: usize = 8;

/// When guard asks again for a copy that it could not make.
pub(super) const COPY_RETRY: Duration = Duration::from_millis(100);

/// One of the things that guard polls beside signals.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) enum DoorId {
    Notify(RunId),
    Channel(RunId),
    Check(RunId),
    Control,
    Http,
    /// Something may have changed at a path of GUARD_ON_CHANGE.
    Changes,
    /// There is room again at the receiver of guard's own notifications.
    Outer,
    /// A copy of guard has reported, so the door that rests for it may be polled again.
    Resting,
    /// A process of the run asks about its sockets.
    Hold(RunId),
    /// Memory of such a process was read.
    HoldMemory(RunId),
    /// A socket that an app has bound connects, perhaps, or one that listens was shut down.
    Bound,
    /// The kernel's out-of-memory killer may have struck.
    OomKills,
}

impl DoorId {
    /// What a poll knows it by: the kind, the instance and the run's number, in this order of bits.
    pub(super) fn token(self) -> Token {
        let (kind, id) = match self {
            DoorId::Notify(id) => (0, Some(id)),
            DoorId::Channel(id) => (1, Some(id)),
            DoorId::Check(id) => (2, Some(id)),
            DoorId::Control => (3, None),
            DoorId::Outer => (4, None),
            DoorId::Resting => (5, None),
            DoorId::Http => (6, None),
            DoorId::Changes => (7, None),
            DoorId::Hold(id) => (8, Some(id)),
            DoorId::HoldMemory(id) => (9, Some(id)),
            DoorId::Bound => (10, None),
            DoorId::OomKills => (11, None),
        };
        let instance = id.map_or(0, |id| u64::from(id.instance));
        kind << 56 | instance << 32 | id.map_or(0, |id| u64::from(id.number))
    }

    /// As the log names its kind.
    fn kind(self) -> &'static str {
        match self {
            DoorId::Notify(_) => "notify",
            DoorId::Channel(_) => "node-channel",
            DoorId::Check(_) => "health-check",
            DoorId::Control => "control",
            DoorId::Http => "http",
            DoorId::Changes => "changed-files",
            DoorId::Outer => "outer",
            DoorId::Resting => "copy",
            DoorId::Hold(_) | DoorId::HoldMemory(_) => "hold",
            DoorId::Bound => "bound-sockets",
            DoorId::OomKills => "oom-kills",
        }
    }

    /// The door of a token; `None` if it is none of a door's.
    pub(super) fn of(token: Token) -> Option<DoorId> {
        let number = u32::try_from(token & u64::from(u32::MAX)).ok()?;
        let instance = u32::try_from(token >> 32 & 0xff_ffff).ok()?;
        let id = RunId { instance, number };
        match token >> 56 {
            0 => Some(DoorId::Notify(id)),
            1 => Some(DoorId::Channel(id)),
            2 => Some(DoorId::Check(id)),
            3 => Some(DoorId::Control),
            4 => Some(DoorId::Outer),
            5 => Some(DoorId::Resting),
            6 => Some(DoorId::Http),
            7 => Some(DoorId::Changes),
            8 => Some(DoorId::Hold(id)),
            9 => Some(DoorId::HoldMemory(id)),
            10 => Some(DoorId::Bound),
            11 => Some(DoorId::OomKills),
            _ => None,
        }
    }
}

/// Doors that guard leaves alone until a copy of guard has received a message with descriptors, or can be made.
#[derive(Default)]
pub(super) struct Resting {
    /// Each with the report of its copy, where there is one.
    doors: Vec<(DoorId, Option<OwnedFd>)>,
    /// When guard tries again to make a copy for the others.
    pub(super) retry_at: Option<Timestamp>,
}

impl Runtime<'_> {
    /// Polls a door from now on. Where that cannot be, the door is closed again; the errors are those of `epoll_ctl(2)`.
    pub(super) fn register<D: Door>(&self, id: DoorId, door: D) -> Result<D, Errno> {
        self.poll.add(door.descriptor(), id.token()).inspect_err(|error| warn_of_door(id, *error))?;
        Ok(door)
    }

    /// Closes a door. A copy of guard that has the socket too must not keep it in the poll.
    pub(super) fn close(&mut self, door: impl Door) {
        self.poll.remove(door.descriptor());
        door.close().into_iter().for_each(|copy| self.note_copy(copy));
    }

    /// Forgets a run, and closes its doors.
    pub(super) fn forget(&mut self, id: RunId) {
        let Some(RunProcess { notify, channel, .. }) = self.children.forget(id) else { return };
        notify.into_iter().for_each(|door| self.close(door));
        channel.into_iter().for_each(|door| self.close(door));
    }

    /// Receives what has come through a door, and closes one through which nothing more can come.
    pub(super) fn handle_door(&mut self, id: DoorId) {
        match id {
            DoorId::Notify(_) | DoorId::Channel(_) | DoorId::Control | DoorId::Http => {
                let Some(received) = self.door(id).map(Door::receive) else { return };
                let (closed, descriptors) = (received.closed, received.descriptors);
                self.handle_messages(received);
                if closed {
                    self.close_door(id);
                } else if descriptors {
                    self.receive_in_copy(id);
                }
            }
            DoorId::Check(id) => {
                if let Some(check) = self.children.check_mut(id) {
                    check.read_output();
                }
            }
            DoorId::Outer => {
                if let Some(outer) = &mut self.outer {
                    outer.send(&self.poll);
                }
            }
            DoorId::Resting => self.wake_doors(false),
            DoorId::Changes => self.check_files(),
            DoorId::Hold(id) => self.handle_hold(id),
            DoorId::HoldMemory(id) => self.handle_hold_memory(id),
            DoorId::Bound => self.note_changed_sockets(),
            DoorId::OomKills => self.oom_noticed(),
        }
    }

    fn door(&mut self, id: DoorId) -> Option<&mut dyn Door> {
        open_door(&mut self.children, &mut self.operator, &mut self.http, id)
    }

    fn close_door(&mut self, id: DoorId) {
        match id {
            DoorId::Notify(id) => {
                let door = self.children.get_mut(id).and_then(|run| run.notify.take());
                door.into_iter().for_each(|door| self.close(door));
            }
            DoorId::Channel(id) => {
                let door = self.children.get_mut(id).and_then(|run| run.channel.take());
                door.into_iter().for_each(|door| self.close(door));
            }
            DoorId::Control => {
                self.operator.control.take().into_iter().for_each(|door| self.close(door));
                self.operator.open_control_at = Some(self.clock.now().after(RETRY));
            }
            DoorId::Http
            | DoorId::Check(_)
            | DoorId::Hold(_)
            | DoorId::HoldMemory(_)
            | DoorId::Bound
            | DoorId::OomKills
            | DoorId::Outer
            | DoorId::Resting
            | DoorId::Changes => {}
        }
    }

    /// Has a copy of guard receive the message with descriptors at a door. The door is not polled until that is done; where no
    /// copy can be made, until it is time to try again.
    fn receive_in_copy(&mut self, id: DoorId) {
        let may_copy = self.children.copies.len() < MOST_COPIES && !self.ending.killing;
        let Some(door) = self.door(id) else { return };
        let receiver = if may_copy { door.receive_in_copy() } else { Err(Errno::EAGAIN) };
        let rests = match receiver {
            Ok(receiver) => {
                self.note_copy(receiver.pid);
                let polled = self.poll.add(receiver.report.as_fd(), DoorId::Resting.token());
                polled.map(|()| Some(receiver.report))
            }
            Err(error) => {
                log::debug!(door = id.kind(), error = reason(error); "no-copy");
                self.resting.retry_at = Some(self.clock.now().after(COPY_RETRY));
                Ok(None)
            }
        };
        match rests {
            Ok(report) => {
                self.unpoll(id);
                self.resting.doors.push((id, report));
            }
            Err(error) => {
                warn_of_door(id, error);
                self.close_door(id);
            }
        }
    }

    /// Polls the doors again whose copy has reported; with `retry`, those as well for which no copy could be made.
    pub(super) fn wake_doors(&mut self, retry: bool) {
        let wakes = |(_, report): &(DoorId, Option<OwnedFd>)| {
            report.as_ref().map_or(retry, |report| is_readable(report.as_fd()))
        };
        let (awake, resting) = std::mem::take(&mut self.resting.doors).into_iter().partition(wakes);
        self.resting.doors = resting;
        let awake: Vec<_> = awake;
        for (id, report) in awake {
            let Some(door) = self.door(id) else { continue };
            if let Some(report) = report {
                door.received(has_received(&report));
            }
            match self.poll_again(id) {
                Ok(()) => self.handle_door(id),
                Err(error) => {
                    warn_of_door(id, error);
                    self.close_door(id);
                }
            }
        }
    }

    fn unpoll(&mut self, id: DoorId) {
        if let Some(door) = open_door(&mut self.children, &mut self.operator, &mut self.http, id) {
            self.poll.remove(door.descriptor());
        }
    }

    fn poll_again(&mut self, id: DoorId) -> Result<(), Errno> {
        let door = open_door(&mut self.children, &mut self.operator, &mut self.http, id);
        door.map_or(Ok(()), |door| self.poll.add(door.descriptor(), id.token()))
    }
}

/// A door that cannot be polled is closed.
fn warn_of_door(id: DoorId, error: Errno) {
    log::warn!(door = id.kind(), error = reason(error), msg = "guard cannot poll it"; "door");
}

/// A door that is a socket, if it is open. It stands beside the poll that knows it.
fn open_door<'a>(
    children: &'a mut Children,
    operator: &'a mut Operator,
    http: &'a mut Option<Http>,
    id: DoorId,
) -> Option<&'a mut dyn Door> {
    match id {
        DoorId::Notify(id) => children.get_mut(id)?.notify.as_mut().map(|door| door as &mut dyn Door),
        DoorId::Channel(id) => children.get_mut(id)?.channel.as_mut().map(|door| door as &mut dyn Door),
        DoorId::Control => operator.control.as_mut().map(|door| door as &mut dyn Door),
        DoorId::Http => http.as_mut().map(|door| door as &mut dyn Door),
        DoorId::Check(_)
        | DoorId::Hold(_)
        | DoorId::HoldMemory(_)
        | DoorId::Bound
        | DoorId::OomKills
        | DoorId::Outer
        | DoorId::Resting
        | DoorId::Changes => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_door_again() {
        let id = RunId { instance: 1_000, number: u32::MAX };
        for door in [
            DoorId::Notify(id),
            DoorId::Channel(id),
            DoorId::Check(id),
            DoorId::Hold(id),
            DoorId::HoldMemory(id),
            DoorId::Bound,
            DoorId::OomKills,
            DoorId::Control,
            DoorId::Http,
            DoorId::Changes,
            DoorId::Outer,
            DoorId::Resting,
        ] {
            assert_eq!(DoorId::of(door.token()), Some(door));
        }
        assert_eq!(DoorId::of(Token::MAX), None);
    }
}
