//! A set of descriptors (`epoll(7)`): to look at it costs the same however many there are, and one that is closed has left.

use super::{Errno, signal_io};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};

/// What a descriptor is known by.
pub type Token = u64;

/// Descriptors that may have something.
pub struct Poll {
    epoll: Epoll,
    /// Each of them announces itself, see [`signal_io`].
    announced: Cell<bool>,
    /// None had anything at the last look, and none came in since.
    quiet: Cell<bool>,
    /// Waits for room to write, which is not announced.
    writing: Cell<Option<Token>>,
}

impl Poll {
    /// An empty set, closed on exec.
    pub fn new() -> Result<Poll, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Poll { epoll, announced: Cell::new(true), quiet: Cell::new(true), writing: Cell::new(None) })
    }

    /// Puts a socket or a pipe in, until it is closed, and has it announce itself.
    pub fn add(&self, descriptor: BorrowedFd, token: Token) -> Result<(), Errno> {
        self.add_unannounced(descriptor, token)?;
        if signal_io::announce(descriptor).is_err() {
            self.announced.set(false);
        }
        // What it had before is not announced.
        self.quiet.set(false);
        Ok(())
    }

    /// Puts one in, until it is closed, that cannot announce itself, or need not.
    pub fn add_unannounced(&self, descriptor: BorrowedFd, token: Token) -> Result<(), Errno> {
        self.epoll.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, token))
    }

    /// Puts one in, once, until it can be written to. Said again, it is in again.
    pub fn add_once_for_writing(&self, descriptor: BorrowedFd, token: Token) -> Result<(), Errno> {
        let mut event = EpollEvent::new(EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT, token);
        match self.epoll.add(descriptor, event) {
            Err(Errno::EEXIST) => self.epoll.modify(descriptor, &mut event)?,
            result => result?,
        }
        self.writing.set(Some(token));
        Ok(())
    }

    /// Whether a signal tells of all that comes in, those apart that were added unannounced. Of what is there already
    /// [`Poll::is_quiet`] tells.
    pub fn is_announced(&self) -> bool {
        self.announced.get() && self.writing.get().is_none()
    }

    /// Whether there was nothing at the last look. What has come since then has announced itself.
    pub fn is_quiet(&self) -> bool {
        self.quiet.get()
    }

    /// Those that can be read from, or whose other ends are closed. What is left, since no more than a few are told at a
    /// time, comes next.
    pub fn look(&self) -> impl Iterator<Item = Token> + use<> {
        let mut events = [EpollEvent::empty(); 8];
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO);
        let events = events.into_iter().take(count.unwrap_or(0)).map(|event| event.data());
        self.quiet.set(count == Ok(0));
        if events.clone().any(|token| self.writing.get() == Some(token)) {
            self.writing.set(None);
        }
        events
    }
}

/// It can be read from while one of those in the set has something (`epoll(7)`).
impl AsFd for Poll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}
