//! Orphans that come in a stream are reaped by the batch.
//!
//! Most of what an orphan costs is guard's waking up for it. So while a stream lasts guard lets SIGCHLD come to nothing,
//! which is its default, and looks for dead children every few milliseconds instead. Nobody but an orphan ends unseen for
//! so long: what guard has started itself is watched through descriptors meanwhile, and whatever else happens ends the
//! stream first. Who is stopped by a terminal may wait for the look.

use super::Runtime;
use crate::supervisor::Timestamp;
use crate::sys::poll::Token;
use crate::sys::process;
use nix::sys::epoll::EpollTimeout;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long a batch gathers, in milliseconds: an orphan is a zombie for no longer.
const GATHERING: u8 = 2;

/// So many wake-ups for orphans, each within [`GATHERING`] of the one before, are a stream. A later one takes as many back.
const STREAM: u32 = 4;

/// A batch of fewer is not worth a timer: the stream has run dry.
const WORTH: usize = 2;

/// A stream that ran dry at once makes the next one so much harder to begin, up to a point: whoever waits for each orphan to
/// be reaped before the next one leaves no two at a time.
const HARDER: u32 = 4;
const MOST_WANTED: u32 = 1024;

/// What the descriptors of guard's own processes are known by: no door's token, and no signal's.
const ENDED: Token = Token::MAX - 8;

/// How orphans come.
#[derive(Debug)]
pub(super) struct Stream {
    last: Timestamp,
    /// Wake-ups that came near the one before, less what late ones took back.
    near: u32,
    /// So many make a stream.
    wanted: u32,
    /// While it lasts: what becomes readable when a process that guard has started has ended.
    watches: Option<Vec<OwnedFd>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Begins,
    Ends,
}

impl Stream {
    pub(super) fn new() -> Stream {
        Stream { last: Timestamp::default(), near: 0, wanted: STREAM, watches: None }
    }

    /// How long to wait, where it would be `timeout` without a stream. Not at all before a look at the children that is
    /// due: one may have ended after the last look and before SIGCHLD was taken again.
    pub(super) fn shorten(&self, timeout: EpollTimeout, look_is_due: bool) -> EpollTimeout {
        if look_is_due {
            return EpollTimeout::ZERO;
        }
        let gathering = EpollTimeout::from(GATHERING);
        let longer = timeout.is_none() || i32::from(timeout) > i32::from(gathering);
        if self.watches.is_some() && longer { gathering } else { timeout }
    }

    /// So many orphans were reaped at a time.
    fn count(&mut self, now: Timestamp, orphans: usize) -> Change {
        if self.watches.is_some() {
            if orphans < WORTH {
                return Change::Ends;
            }
            self.wanted = STREAM;
            return Change::None;
        }
        if orphans == 0 {
            return Change::None;
        }
        let near = now.since(self.last) <= Duration::from_millis(GATHERING.into());
        self.near = if near { self.near + 1 } else { self.near.saturating_sub(STREAM) };
        self.last = now;
        if self.near < self.wanted {
            return Change::None;
        }
        // Until a batch has been worth it.
        self.wanted = (self.wanted * HARDER).min(MOST_WANTED);
        self.near = 0;
        Change::Begins
    }
}

impl Runtime<'_> {
    /// So many orphans, and nobody else, were reaped at a time.
    pub(super) fn count_orphans(&mut self, orphans: usize) {
        match self.stream.count(self.clock.now(), orphans) {
            Change::None => {}
            Change::Begins => self.begin_stream(),
            Change::Ends => self.end_stream(),
        }
    }

    fn begin_stream(&mut self) {
        let watch = |pid| {
            let watch = process::watch_process(pid).ok()?;
            self.poll.add(watch.as_fd(), ENDED).ok()?;
            Some(watch)
        };
        // Where one cannot be watched, SIGCHLD has to tell of its end.
        self.stream.watches = self.children.started().map(watch).collect();
        if self.stream.watches.is_some() {
            self.signals.ignore_children();
        }
    }

    /// Something other than an orphan has come, or none has.
    pub(super) fn end_stream(&mut self) {
        if self.stream.watches.take().is_some() {
            self.signals.heed_children();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp(Duration::from_millis(milliseconds))
    }

    /// Counts single orphans that come so many milliseconds after each other until a stream begins.
    fn until_it_begins(stream: &mut Stream, start: u64, pause: u64) -> Option<usize> {
        (0..2000).position(|index| stream.count(at(start + pause * index), 1) == Change::Begins)
    }

    #[test]
    fn a_few_orphans_near_each_other_are_a_stream_and_many_now_and_then_are_none() {
        assert_eq!(until_it_begins(&mut Stream::new(), 10, 1), Some(4));
        assert_eq!(until_it_begins(&mut Stream::new(), 10, 3), None);
    }

    #[test]
    fn a_stream_lasts_while_batches_are_worth_it() {
        let mut stream = Stream { watches: Some(Vec::new()), ..Stream::new() };
        assert_eq!(stream.count(at(1), 2), Change::None);
        assert_eq!(stream.count(at(3), 1), Change::Ends);
        assert_eq!(stream.count(at(5), 0), Change::Ends);
    }

    #[test]
    fn what_ran_dry_at_once_is_believed_later_the_next_time() {
        let mut stream = Stream::new();
        let begins: Vec<_> = (1..=3).map(|round| until_it_begins(&mut stream, round * 10_000, 1)).collect();
        assert_eq!(begins, [Some(4), Some(16), Some(64)]);
        stream.watches = Some(Vec::new());
        assert_eq!(stream.count(at(90_000), 2), Change::None);
        stream.watches = None;
        assert_eq!(until_it_begins(&mut stream, 100_000, 1), Some(4), "the last one was worth it");
        for round in 0..20 {
            until_it_begins(&mut stream, 200_000 + round * 10_000, 1);
        }
        assert_eq!(stream.wanted, MOST_WANTED);
    }

    #[test]
    fn no_deadline_is_put_off() {
        let (dry, flowing) = (Stream::new(), Stream { watches: Some(Vec::new()), ..Stream::new() });
        let short = |stream: &Stream, timeout| i32::from(stream.shorten(timeout, false));
        let (never, long, now) = (EpollTimeout::NONE, EpollTimeout::from(100_u8), EpollTimeout::ZERO);
        assert_eq!([never, long, now].map(|timeout| short(&dry, timeout)), [-1, 100, 0]);
        assert_eq!([never, long, now].map(|timeout| short(&flowing, timeout)), [2, 2, 0]);
        assert_eq!([&dry, &flowing].map(|stream| i32::from(stream.shorten(never, true))), [0, 0]);
    }
}
