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
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long a batch gathers: an orphan is a zombie for no longer. The slower they come, the longer.
const SHORTEST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(32);

/// A batch of fewer is to gather for longer, one of more for less.
const FEW: usize = 4;
const MANY: usize = 8;

/// Wake-ups for orphans are counted by so many, since to read the clock for each would cost more than the rest of it.
const GROUP: u32 = 4;

/// A batch of fewer is not worth a timer: the stream has run dry.
const WORTH: usize = 2;

/// A stream that ran dry before a batch was worth it makes the next one so much harder to begin, up to a point: whoever
/// waits for each orphan to be reaped before the next one leaves no two at a time.
const HARDER: u32 = 16;
const MOST_WANTED: u32 = 4096;

/// What the descriptors of guard's own processes are known by: no door's token, and no signal's.
const ENDED: Token = Token::MAX - 8;

/// How orphans come.
#[derive(Debug)]
pub(super) struct Stream {
    /// Wake-ups of the group that is being counted.
    counted: u32,
    /// When the last group was full.
    last: Timestamp,
    /// Groups in which they came so near to each other that they would gather, less those in which they did not.
    near: u32,
    /// So many make a stream.
    wanted: u32,
    /// While it lasts: what becomes readable when a process that guard has started has ended.
    watches: Option<Vec<OwnedFd>>,
    /// How long a batch gathers now.
    gathering: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Begins,
    Ends,
}

impl Stream {
    pub(super) fn new() -> Stream {
        Stream { counted: 0, last: Timestamp::default(), near: 0, wanted: 1, watches: None, gathering: SHORTEST }
    }

    /// Whether orphans are reaped by the batch now.
    pub(super) fn flows(&self) -> bool {
        self.watches.is_some()
    }

    /// How long to wait, where it would be so long without a stream.
    pub(super) fn shorten(&self, left: Option<Duration>) -> Option<Duration> {
        if self.flows() { Some(left.unwrap_or(Duration::MAX).min(self.gathering)) } else { left }
    }

    /// So many orphans were reaped at a time.
    fn count(&mut self, orphans: usize, now: impl FnOnce() -> Timestamp) -> Change {
        if self.flows() {
            return self.gather(orphans);
        }
        self.counted += u32::from(orphans > 0);
        if self.counted < GROUP {
            return Change::None;
        }
        self.counted = 0;
        let now = now();
        let near = now.since(self.last) <= LONGEST / WORTH as u32 * GROUP;
        self.near = if near { self.near + 1 } else { self.near.saturating_sub(1) };
        self.last = now;
        if self.near < self.wanted {
            return Change::None;
        }
        // Until a batch has been worth it.
        self.wanted = (self.wanted * HARDER).min(MOST_WANTED);
        (self.near, self.gathering) = (0, SHORTEST);
        Change::Begins
    }

    /// So many have gathered.
    fn gather(&mut self, orphans: usize) -> Change {
        if orphans >= WORTH {
            self.wanted = 1;
        }
        if orphans > MANY {
            self.gathering = SHORTEST.max(self.gathering / 2);
        } else if orphans < FEW && self.gathering < LONGEST {
            self.gathering *= 2;
        } else if orphans < WORTH {
            return Change::Ends;
        }
        Change::None
    }
}

impl Runtime<'_> {
    /// So many orphans, and nobody else, were reaped at a time.
    pub(super) fn count_orphans(&mut self, orphans: usize) {
        match self.stream.count(orphans, || self.clock.now()) {
            Change::None => {}
            Change::Begins => self.begin_stream(),
            Change::Ends => self.end_stream(),
        }
    }

    fn begin_stream(&mut self) {
        let watch = |pid| {
            let watch = process::watch_process(pid).ok()?;
            self.poll.add_unannounced(watch.as_fd(), ENDED).ok()?;
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

    fn flowing() -> Stream {
        Stream { watches: Some(Vec::new()), ..Stream::new() }
    }

    fn at(milliseconds: u64) -> impl FnOnce() -> Timestamp {
        move || Timestamp(Duration::from_millis(milliseconds))
    }

    /// Counts single orphans that come so many milliseconds after each other until a stream begins.
    fn until_it_begins(stream: &mut Stream, start: u64, pause: u64) -> Option<u64> {
        (1..=20_000).find(|index| stream.count(1, at(start + pause * index)) == Change::Begins)
    }

    #[test]
    fn a_few_orphans_near_each_other_are_a_stream_and_many_now_and_then_are_none() {
        assert_eq!(until_it_begins(&mut Stream::new(), 1_000, 16), Some(8));
        assert_eq!(until_it_begins(&mut Stream::new(), 1_000, 17), None);
    }

    #[test]
    fn a_wake_up_for_something_else_counts_nothing() {
        let mut stream = Stream::new();
        assert!((0..100).all(|_| stream.count(0, || unreachable!("nobody asks for the time")) == Change::None));
    }

    #[test]
    fn batches_gather_for_longer_until_they_are_worth_it_and_for_less_when_they_are_many() {
        let mut stream = flowing();
        let mut gathered = |orphans| (stream.count(orphans, at(1)), stream.gathering.as_millis());
        assert_eq!([1, 3, 4, 8, 9, 9, 9].map(&mut gathered).map(|(_, time)| time), [4, 8, 8, 8, 4, 2, 2]);
        assert_eq!([0, 1, 0, 3].map(&mut gathered).map(|(_, time)| time), [4, 8, 16, 32]);
        assert_eq!(gathered(2), (Change::None, 32));
        assert_eq!(gathered(1), (Change::Ends, 32));
    }

    #[test]
    fn what_ran_dry_at_once_is_believed_later_the_next_time() {
        let mut stream = Stream::new();
        let begins: Vec<_> = (1..=3).map(|round| until_it_begins(&mut stream, round * 10_000, 1)).collect();
        assert_eq!(begins, [Some(8), Some(68), Some(1028)], "1, 16 and 256 groups, and one before");
        stream.watches = Some(Vec::new());
        assert_eq!(stream.count(2, at(90_000)), Change::None);
        stream.watches = None;
        assert_eq!(until_it_begins(&mut stream, 100_000, 1), Some(8), "the last one was worth it");
        for round in 0..4 {
            until_it_begins(&mut stream, 200_000 + round * 100_000, 1);
        }
        assert_eq!(stream.wanted, MOST_WANTED);
    }

    #[test]
    fn no_deadline_is_put_off() {
        let (dry, flowing) = (Stream::new(), flowing());
        let [never, long, now] = [None, Some(100), Some(0)].map(|time| time.map(Duration::from_millis));
        assert_eq!([never, long, now].map(|left| dry.shorten(left)), [never, long, now]);
        assert_eq!([never, long, now].map(|left| flowing.shorten(left)), [Some(SHORTEST), Some(SHORTEST), now]);
    }
}
