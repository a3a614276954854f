//! Waiting for descriptors (`epoll(7)`): it costs the same however many there are, and one that is closed has left.

use super::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::BorrowedFd;

/// What a descriptor is known by.
pub type Token = u64;

/// A set of descriptors.
pub struct Poll(Epoll);

impl Poll {
    /// An empty set, closed on exec.
    pub fn new() -> Result<Poll, Errno> {
        Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map(Poll)
    }

    /// Waits for this one too, until it is closed.
    pub fn add(&self, descriptor: BorrowedFd, token: Token) -> Result<(), Errno> {
        self.0.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, token))
    }

    /// Waits, once, until this one can be written to. Said again, it waits again.
    pub fn add_once_for_writing(&self, descriptor: BorrowedFd, token: Token) -> Result<(), Errno> {
        let mut event = EpollEvent::new(EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT, token);
        match self.0.add(descriptor, event) {
            Err(Errno::EEXIST) => self.0.modify(descriptor, &mut event),
            result => result,
        }
    }

    /// Waits until some can be read from, or their other ends are closed, or the timeout has passed. What is left, since
    /// no more than a few are told at a time, comes next.
    pub fn wait(&self, timeout: EpollTimeout) -> impl Iterator<Item = Token> + use<> {
        let mut events = [EpollEvent::empty(); 8];
        let count = match self.0.wait(&mut events, timeout) {
            // A handler has just written to its pipe.
            Err(Errno::EINTR) => self.0.wait(&mut events, EpollTimeout::ZERO),
            result => result,
        };
        events.into_iter().take(count.unwrap_or(0)).map(|event| event.data())
    }
}
