//! The datagrams of a door, some of which come with descriptors.
//!
//! guard reads such a datagram with MSG_PEEK and leaves it in the queue until a copy of guard has received it. So
//! [`Queue::receive`] ends with it, the door's owner calls [`Queue::receive_in_copy`] and asks for nothing more until the copy
//! reports, and then calls [`Queue::received`].

use super::{Message, Received, is_lasting};
use crate::sys::rights::Receiver;
use crate::sys::socket::{Datagram, DatagramSocket, Head};
use crate::sys::{Errno, Pid};
use std::os::fd::{AsFd, BorrowedFd};

pub(super) struct Queue {
    pub(super) socket: DatagramSocket,
    /// The longest datagram, in bytes.
    longest: usize,
    /// How many datagrams at the head of the queue were handled already.
    handled: usize,
    /// The first of them.
    head: Option<Datagram>,
    /// A copy of guard is about to receive it.
    copy: bool,
}

/// Adds the messages that a datagram makes; the socket is the one that it came to.
type Reader<'a> = dyn FnMut(&DatagramSocket, &Datagram, &mut Vec<Message>) + 'a;

/// What is next in a queue.
enum Next {
    Datagram(Datagram),
    /// A datagram, unless it was handled before. Its descriptors are still there.
    WithDescriptors(Option<Datagram>),
    Nothing,
    /// Nothing, and nothing can come.
    Closed,
}

impl Queue {
    pub(super) fn new(socket: DatagramSocket, longest: usize) -> Queue {
        Queue { socket, longest, handled: 0, head: None, copy: false }
    }

    pub(super) fn close(self) -> Option<Pid> {
        self.socket.close()
    }

    /// Receives datagrams up to the first with descriptors, this many at most. `read` adds the messages that one makes.
    pub(super) fn receive(&mut self, most: usize, read: &mut Reader) -> Received {
        let mut received = Received::default();
        for _ in 0..most {
            match self.next() {
                Next::Datagram(datagram) => read(&self.socket, &datagram, &mut received.messages),
                Next::WithDescriptors(datagram) => {
                    datagram.iter().for_each(|datagram| read(&self.socket, datagram, &mut received.messages));
                    received.descriptors = true;
                    break;
                }
                Next::Nothing => break,
                Next::Closed => {
                    received.closed = true;
                    break;
                }
            }
        }
        received
    }

    fn next(&mut self) -> Next {
        loop {
            match self.socket.peek(self.longest) {
                Ok(Head::Datagram(datagram)) => {
                    self.socket.discard();
                    if self.handled == 0 {
                        return Next::Datagram(datagram);
                    }
                    self.handled -= 1;
                }
                Ok(Head::WithDescriptors(datagram)) => {
                    if self.handled > 0 {
                        self.head = Some(datagram);
                        return Next::WithDescriptors(None);
                    }
                    (self.handled, self.head) = (1, Some(datagram.clone()));
                    return Next::WithDescriptors(Some(datagram));
                }
                Err(error) if is_lasting(&error) => return Next::Closed,
                Err(_) => return Next::Nothing,
            }
        }
    }

    /// All that is in the queue behind the datagram with descriptors and was not handled, this many datagrams at most. It stays
    /// in the queue, and counts as handled. Needs no report of the copy, which may be late.
    pub(super) fn peek_queue(&mut self, most: usize) -> Vec<Datagram> {
        let mut all = self.socket.peek_all(self.longest, most);
        // The copy may have received the head already, and not reported.
        let is_there = all.first().zip(self.head.as_ref()).is_some_and(|(first, head)| is_same(first, head));
        let received = usize::from(!is_there).min(self.handled);
        let new = all.split_off((self.handled - received).min(all.len()));
        self.handled += new.len();
        new
    }

    /// Whether a copy of guard is about to receive the head.
    pub(super) fn has_copy(&self) -> bool {
        self.copy
    }

    pub(super) fn receive_in_copy(&mut self) -> Result<Receiver, Errno> {
        let receiver = self.socket.receive_in_copy()?;
        self.copy = true;
        Ok(receiver)
    }

    /// The copy has ended; `reported` if it has said that it has received the head.
    pub(super) fn received(&mut self, reported: bool) {
        self.copy = false;
        // Of two that say the same the second may count as the first.
        let is_there = || match self.socket.peek(self.longest) {
            Ok(Head::WithDescriptors(datagram)) => self.head.as_ref().is_some_and(|head| is_same(head, &datagram)),
            Ok(Head::Datagram(_)) | Err(_) => false,
        };
        if reported || !is_there() {
            self.handled = self.handled.saturating_sub(1);
        }
    }
}

/// Whether two reads with MSG_PEEK have returned the same datagram. Its sender may have got an address in between.
fn is_same(one: &Datagram, other: &Datagram) -> bool {
    one.bytes == other.bytes && one.credentials == other.credentials
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
