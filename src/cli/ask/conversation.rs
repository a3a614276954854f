//! Datagrams to one guard and from it. The kernel says which process and user sent each.

use crate::doors::wire::{LONGEST_ANSWER, Reply, Request, is_trusted};
use crate::sys::socket::{Address, Credentials, Datagram, DatagramSocket, Head};
use crate::sys::{Pid, process};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};

/// A socket that is connected to a guard's. Nobody else can send to it (`unix(7)`), so nobody else can fill it.
pub(super) struct Conversation {
    socket: DatagramSocket,
    guard: Address,
    /// The user that asks.
    uid: u32,
}

/// A reply, and its sender.
pub(super) struct Answer {
    pub(super) pid: Pid,
    /// It is from root or from the user that asks.
    pub(super) trusted: bool,
    pub(super) reply: Reply,
}

/// How many datagrams that are no replies the client skips. A sender of more is no guard.
const MOST_SKIPPED: usize = 32;

impl Conversation {
    /// `ConnectionRefused` if nobody listens there.
    pub(super) fn with(guard: &Address) -> io::Result<Conversation> {
        let socket = DatagramSocket::bind_anew()?.refuse_descriptors();
        socket.connect(guard)?;
        Ok(Conversation { socket, guard: *guard, uid: process::effective_uid() })
    }

    /// Sends a request without waiting; `false` if there is no room for it. `ConnectionRefused` if nobody listens any more.
    pub(super) fn ask(&self, request: Request) -> io::Result<bool> {
        match self.socket.send_on(request.to_text().as_bytes()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The next reply. Errors: `WouldBlock` if there is none yet, `PermissionDenied` if it is of a user that is not believed,
    /// others if the peer is no guard, since it sends descriptors or too much that is no reply.
    pub(super) fn answer(&self) -> io::Result<Answer> {
        for _ in 0..MOST_SKIPPED {
            let Head::Datagram(Datagram { bytes, sender, credentials, .. }) = self.socket.peek(LONGEST_ANSWER)? else {
                return Err(ErrorKind::InvalidData.into());
            };
            self.socket.discard();
            // Anybody may have sent something before the socket was connected.
            let known = credentials.filter(|_| sender == Some(self.guard)).zip(Reply::parse(&bytes));
            let Some((sender, reply)) = known else { continue };
            if !is_believed(sender, &reply, self.uid) {
                return Err(ErrorKind::PermissionDenied.into());
            }
            return Ok(Answer { pid: sender.pid, trusted: is_trusted(sender.uid, self.uid), reply });
        }
        Err(ErrorKind::InvalidData.into())
    }
}

/// Readable when there is an answer.
impl AsFd for Conversation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A guard is root's or of the user that asks. Root believes all users, since any may run guard. Another user's guard refuses,
/// and a refusal is believed too, as it does nothing. A pid of 0 is another container's.
fn is_believed(sender: Credentials, reply: &Reply, own: u32) -> bool {
    let refusal = matches!(reply, Reply::Refused(_));
    sender.pid != 0 && (is_trusted(sender.uid, own) || own == 0 || refusal)
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
