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
const FEW: u32 = 8;
const MANY: u32 = 20;

/// As many in the longest time are worth a timer.
const WORTH: u32 = 4;

/// A batch of fewer tells that a stream has run dry.
const DRY: u32 = 2;

/// So many wake-ups for orphans are looked at together, since to read the clock for each would cost more than the rest of
/// it; more while they are far from each other.
const GROUP: u32 = 4;
const FAR_APART: u32 = 64;

/// A stream that runs dry at once makes the next one so much harder to begin, up to a point: whoever waits for each orphan to
/// be reaped before the next one leaves no two at a time.
const HARDER: u32 = 128;
const LARGEST: u32 = 16_384;

/// What the descriptors of guard's own processes are known by: no door's token, and no signal's.
const ENDED: Token = Token::MAX - 8;

/// How orphans come.
#[derive(Debug)]
pub(super) struct Stream {
    /// Wake-ups of the group that is being counted.
    counted: u32,
    /// So many make a group now, and at least.
    group: u32,
    least: u32,
    /// When the last group was full.
    last: Timestamp,
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
        Stream {
            counted: 0,
            group: GROUP,
            least: GROUP,
            last: Timestamp::default(),
            watches: None,
            gathering: SHORTEST,
        }
    }

    /// Whether orphans are reaped by the batch now.
    pub(super) fn flows(&self) -> bool {
        self.watches.is_some()
    }

    /// How long to wait, where it would be so long without a stream.
    pub(super) fn shorten(&self, left: Option<Duration>) -> Option<Duration> {
        if self.flows() { Some(left.unwrap_or(Duration::MAX).min(self.gathering)) } else { left }
    }

    /// How many wake-ups there are to come before the group that is being counted is full.
    pub(super) fn missing(&self) -> u32 {
        self.group - self.counted
    }

    /// Orphans have woken guard so many times. They are a stream when they have come so near to each other that they would
    /// gather.
    fn count(&mut self, times: u32, now: impl FnOnce() -> Timestamp) -> Change {
        self.counted += times;
        if self.counted < self.group {
            return Change::None;
        }
        let time = now().since(self.last);
        self.last = self.last.after(time);
        let pace = time / std::mem::take(&mut self.counted);
        if pace > LONGEST / WORTH {
            self.group = self.least.max(FAR_APART.min(self.group * 2));
            return Change::None;
        }
        // Unless it turns out to be one.
        self.least = LARGEST.min(self.least * HARDER);
        self.group = self.least;
        self.gathering = (pace * FEW).clamp(SHORTEST, LONGEST);
        Change::Begins
    }

    /// So many have gathered.
    fn gather(&mut self, orphans: u32) -> Change {
        // At the pace at which they came before there should have been more in the first one.
        let is_first = self.least > GROUP;
        if orphans < DRY && (is_first || self.gathering == LONGEST) {
            return Change::Ends;
        }
        if orphans >= DRY {
            (self.group, self.least) = (GROUP, GROUP);
        }
        if orphans > MANY {
            self.gathering = SHORTEST.max(self.gathering / 2);
        } else if orphans < FEW {
            self.gathering = LONGEST.min(self.gathering * 2);
        }
        Change::None
    }
}

impl Runtime<'_> {
    /// So many orphans, and nobody else, were reaped at a time, and others before, each as it came.
    pub(super) fn count_orphans(&mut self, before: u32, orphans: u32) {
        let change = match self.stream.flows() {
            true => self.stream.gather(orphans),
            false => self.stream.count(before + u32::from(orphans > 0), || self.clock.now()),
        };
        match change {
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
        (1..=50_000).find(|index| stream.count(1, at(start + pause * index)) == Change::Begins)
    }

    #[test]
    fn a_few_orphans_near_each_other_are_a_stream_and_many_now_and_then_are_none() {
        assert_eq!(until_it_begins(&mut Stream::new(), 1_000, 8), Some(4 + 8));
        assert_eq!(until_it_begins(&mut Stream::new(), 1_000, 9), None);
    }

    #[test]
    fn a_wake_up_for_something_else_counts_nothing() {
        let mut stream = Stream::new();
        assert!((0..100).all(|_| stream.count(0, || unreachable!("nobody asks for the time")) == Change::None));
    }

    #[test]
    fn several_that_were_reaped_as_they_came_are_counted_at_once() {
        let mut stream = Stream::new();
        assert_eq!((stream.missing(), stream.count(3, at(1_000)), stream.missing()), (4, Change::None, 1));
        assert_eq!((stream.count(2, at(1_001)), stream.missing()), (Change::None, 8));
        assert_eq!(stream.count(9, at(1_002)), Change::Begins);
    }

    #[test]
    fn a_stream_begins_as_its_pace_has_it() {
        for (pause, gathering) in [(0, SHORTEST), (1, Duration::from_millis(8)), (8, LONGEST)] {
            let mut stream = Stream::new();
            until_it_begins(&mut stream, 1_000, pause);
            assert_eq!(stream.gathering, gathering);
        }
    }

    #[test]
    fn batches_gather_for_longer_while_they_are_few_and_for_less_when_they_are_many() {
        let mut stream = flowing();
        let mut gathered = |orphans| (stream.gather(orphans), stream.gathering.as_millis());
        assert_eq!([1, 7, 8, 20, 21, 99, 99].map(&mut gathered).map(|(_, time)| time), [4, 8, 8, 8, 4, 2, 2]);
        assert_eq!([0, 1, 0, 7].map(&mut gathered).map(|(_, time)| time), [4, 8, 16, 32]);
        assert_eq!(gathered(2), (Change::None, 32));
        assert_eq!(gathered(1), (Change::Ends, 32));
    }

    #[test]
    fn what_ran_dry_at_once_is_believed_later_the_next_time() {
        let mut stream = Stream::new();
        let begins = [10_000, 20_000, 1_000_000].map(|start| {
            let begins = until_it_begins(&mut stream, start, 1);
            assert_eq!(stream.gather(1), Change::Ends);
            begins
        });
        assert_eq!(
            begins,
            [4 + 8, 512 + 512, 16_384 + 16_384].map(Some),
            "two groups, since a pause goes before the first"
        );
        assert_eq!(stream.gather(2), Change::None);
        assert_eq!(until_it_begins(&mut stream, 2_000_000, 1), Some(4 + 8), "the last one was worth it");
    }

    #[test]
    fn no_deadline_is_put_off() {
        let (dry, flowing) = (Stream::new(), flowing());
        let [never, long, now] = [None, Some(100), Some(0)].map(|time| time.map(Duration::from_millis));
        assert_eq!([never, long, now].map(|left| dry.shorten(left)), [never, long, now]);
        assert_eq!([never, long, now].map(|left| flowing.shorten(left)), [Some(SHORTEST), Some(SHORTEST), now]);
    }
}
