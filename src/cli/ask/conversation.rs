//! Datagrams to a guard and from it, of which only those count that the kernel says are from one.

use crate::doors::wire::{Reply, Request};
use crate::sys::clock::Deadline;
use crate::sys::socket::{Address, Credentials, DatagramSocket, wait_readable};
use crate::sys::{Pid, process};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// An answer is no longer, in bytes: a status of several hundred instances.
const LONGEST: usize = 64 * 1024;

/// How long to wait where guard has no room for one more request, since it takes all that it has at once, and where it has
/// just begun.
pub(super) const PAUSE: Duration = Duration::from_millis(10);

pub(super) struct Conversation {
    socket: DatagramSocket,
    /// The user that asks.
    uid: u32,
}

/// What has come.
pub(super) enum Heard {
    Reply {
        address: Address,
        pid: Pid,
        /// It is from root or from the user that asks.
        trusted: bool,
        reply: Reply,
    },
    /// Nothing until the deadline.
    Nothing,
    /// The process that was to answer has ended.
    End,
}

impl Conversation {
    pub(super) fn open() -> io::Result<Conversation> {
        Ok(Conversation { socket: DatagramSocket::bind_anew()?, uid: process::effective_uid() })
    }

    /// Sends a request; `ConnectionRefused` if nobody listens there.
    pub(super) fn send(&self, request: Request, to: &Address, deadline: Deadline) -> io::Result<()> {
        loop {
            match self.socket.send(request.to_text().as_bytes(), to) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && !deadline.left().is_zero() => {
                    wait_readable(&[], PAUSE.min(deadline.left()))?;
                }
                // What could not be sent in time will not be answered in time.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                result => return result,
            }
        }
    }

    /// Waits for the next reply, or for the end of the `process` that is to send one.
    pub(super) fn listen(&self, deadline: Deadline, process: Option<&OwnedFd>) -> io::Result<Heard> {
        let descriptors: Vec<_> = [self.socket.as_fd()].into_iter().chain(process.map(AsFd::as_fd)).collect();
        loop {
            let left = deadline.left();
            if left.is_zero() {
                return Ok(Heard::Nothing);
            }
            if !wait_readable(&descriptors, left)? {
                continue;
            }
            let datagram = match self.socket.receive(LONGEST) {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == ErrorKind::WouldBlock && process.is_some() => return Ok(Heard::End),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            let reply = Reply::parse(&datagram.bytes);
            if let (Some(address), Some(sender), Some(reply)) = (datagram.sender, datagram.credentials, reply)
                && is_believed(sender, &reply, self.uid)
            {
                let trusted = is_trusted(sender, self.uid);
                return Ok(Heard::Reply { address, pid: sender.pid, trusted, reply });
            }
        }
    }
}

/// Root, or the user that asks.
fn is_trusted(sender: Credentials, own: u32) -> bool {
    sender.uid == 0 || sender.uid == own
}

/// guard is root's or of the user that asks; root believes all, since guard may be anybody's. Another user's guard refuses,
/// which is believed too, as it does nothing. A pid of 0 is another container's.
fn is_believed(sender: Credentials, reply: &Reply, own: u32) -> bool {
    let refusal = matches!(reply, Reply::Refused(_));
    sender.pid != 0 && (is_trusted(sender, own) || own == 0 || refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_oneself_are_believed() {
        let refusal = Reply::Refused(String::new());
        for (pid, uid, own, expected) in [
            (7, 0, 1000, true),
            (7, 1000, 1000, true),
            (7, 1001, 1000, false),
            (7, 1001, 0, true),
            (0, 0, 0, false),
            (0, 1000, 1000, false),
        ] {
            let sender = Credentials { pid, uid };
            assert_eq!(is_believed(sender, &Reply::Yes(String::new()), own), expected, "{pid} {uid} {own}");
            assert_eq!(is_believed(sender, &refusal, own), pid != 0, "{pid} {uid} {own}");
        }
    }
}
