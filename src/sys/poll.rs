//! The one set of descriptors that guard waits for (`epoll(7)`). A descriptor that is closed has left the set.

use super::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// The number that a descriptor is known by.
pub type Token = u64;

/// Descriptors, each with its token.
pub struct Poll(Epoll);

impl Poll {
    /// An empty set, closed on exec.
    pub fn new() -> io::Result<Poll> {
        Ok(Poll(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Adds a descriptor that guard reads from. Its token comes back from each wait while there is something to read or
    /// its other end is closed.
    pub fn add(&self, descriptor: BorrowedFd, token: Token) -> Result<(), Errno> {
        self.0.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, token))
    }

    /// Adds a descriptor that guard reads until it is empty. Its token comes back only when something new has come, which
    /// spares the kernel a check in each wait (EPOLLET).
    pub fn add_edge(&self, descriptor: BorrowedFd, token: Token) -> Result<(), Errno> {
        self.0.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, token))
    }

    /// Adds a descriptor whose token comes back whenever its state changes (EPOLLET), and once at first.
    pub fn add_for_changes(&self, descriptor: BorrowedFd, token: Token) -> Result<(), Errno> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        self.0.add(descriptor, EpollEvent::new(flags, token))
    }

    /// Watches a socket that listens: its token comes back when it is shut down (EPOLLHUP), and with `clients` also whenever a client
    /// has come.
    pub fn watch_listener(&self, socket: BorrowedFd, token: Token, clients: bool) {
        let clients = if clients { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
        let _ = self.set(socket, EpollEvent::new(EpollFlags::EPOLLET | clients, token));
    }

    /// Removes a descriptor, which a copy of guard may still have open.
    pub fn remove(&self, descriptor: BorrowedFd) {
        let _ = self.0.delete(descriptor);
    }

    /// Adds a descriptor, or arms it again. Its token comes back once, when there is room to write.
    pub fn add_once_for_writing(&self, descriptor: BorrowedFd, token: Token) -> Result<(), Errno> {
        self.set(descriptor, EpollEvent::new(EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT, token))
    }

    /// Adds a descriptor, or arms it again. Its token comes back once, when there is something to read.
    pub fn add_once_for_reading(&self, descriptor: BorrowedFd, token: Token) -> Result<(), Errno> {
        self.set(descriptor, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, token))
    }

    /// Adds a file of the kernel's, or arms it again. Its token comes back once, when the file has changed since it was read
    /// (`cgroups(7)`).
    pub fn add_once_for_news(&self, file: BorrowedFd, token: Token) -> Result<(), Errno> {
        self.set(file, EpollEvent::new(EpollFlags::EPOLLPRI | EpollFlags::EPOLLONESHOT, token))
    }

    /// Adds a descriptor, or changes what it is watched for.
    fn set(&self, descriptor: BorrowedFd, mut event: EpollEvent) -> Result<(), Errno> {
        match self.0.add(descriptor, event) {
            Err(Errno::EEXIST) => self.0.modify(descriptor, &mut event),
            result => result,
        }
    }

    /// Waits until a descriptor has something, a signal's handler has run, or `timeout` is over; `None` is no limit.
    /// Returns the tokens of some descriptors that have something; the next wait returns the others.
    pub fn wait(&self, timeout: Option<Duration>) -> Tokens {
        let mut events = [EpollEvent::empty(); MOST];
        // EINTR is the only error that there can be. What has come before the time is over is heard before it counts as over.
        let count = self.0.wait(&mut events, milliseconds(timeout));
        let count = count.or_else(|_| self.0.wait(&mut events, EpollTimeout::ZERO)).unwrap_or(0);
        Tokens { events, count }
    }
}

/// A set can itself be waited for (`epoll(7)`).
impl AsFd for Poll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

/// Tokens that one wait returns.
const MOST: usize = 8;

/// What a wait has returned.
pub struct Tokens {
    events: [EpollEvent; MOST],
    count: usize,
}

impl Tokens {
    /// None at all.
    #[cfg(test)]
    pub fn none() -> Tokens {
        Tokens { events: [EpollEvent::empty(); MOST], count: 0 }
    }

    pub fn iter(&self) -> impl Iterator<Item = Token> {
        self.events[..self.count].iter().map(EpollEvent::data)
    }
}

/// As epoll takes it, which is 24 days at most.
fn milliseconds(timeout: Option<Duration>) -> EpollTimeout {
    let Some(timeout) = timeout else { return EpollTimeout::NONE };
    EpollTimeout::try_from(whole_milliseconds(timeout)).unwrap_or(EpollTimeout::MAX)
}

/// Rounded up, since a timeout that is rounded down ends too early again and again.
pub(super) fn whole_milliseconds(timeout: Duration) -> i32 {
    const ALMOST_ONE: Duration = Duration::from_nanos(999_999);
    i32::try_from(timeout.saturating_add(ALMOST_ONE).as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_rounded_up_and_bounded() {
        for (micros, expected) in [(0, 0_u8), (1, 1), (1_000, 1), (1_001, 2)] {
            assert_eq!(milliseconds(Some(Duration::from_micros(micros))), EpollTimeout::from(expected));
        }
        assert_eq!(milliseconds(Some(Duration::MAX)), EpollTimeout::MAX);
        assert_eq!(milliseconds(None), EpollTimeout::NONE);
    }
}
