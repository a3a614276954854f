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

/// How long a batch gathers: an orphan is a zombie for no longer, and counts against a limit of processes (pids.max).
const SHORTEST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(8);

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

/// What looks like a stream and is none makes the next one so much harder to begin, up to a point: whoever waits until some
/// orphans have been reaped before the next ones leaves no more of them, however long they gather.
const HARDER: u32 = 128;
const LARGEST: u32 = 16_384;

/// What the descriptors of guard's own processes are known by: no door's token, and no signal's.
const ENDED: Token = Token::MAX - 8;

/// How orphans come.
#[derive(Debug)]
pub(super) struct Stream {
    /// Wake-ups of the group that is being counted, and orphans in it.
    counted: u32,
    orphans: u32,
    /// So many wake-ups make a group now, and at least.
    group: u32,
    least: u32,
    /// When the last group was full.
    last: Timestamp,
    /// While it lasts: what becomes readable when a process that guard has started has ended.
    watches: Option<Vec<OwnedFd>>,
    /// How long a batch gathers now.
    gathering: Duration,
    /// A batch of no more than this tells that somebody waits, or that no more come.
    too_few: u32,
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
            orphans: 0,
            group: GROUP,
            least: GROUP,
            last: Timestamp::default(),
            watches: None,
            gathering: SHORTEST,
            too_few: 0,
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

    /// So many orphans have woken guard so many times. They are a stream when they have come so near to each other that they
    /// would gather.
    fn count(&mut self, times: u32, orphans: u32, now: impl FnOnce() -> Timestamp) -> Change {
        self.counted += times;
        self.orphans = self.orphans.saturating_add(orphans);
        if self.counted < self.group {
            return Change::None;
        }
        let time = now().since(self.last);
        self.last = self.last.after(time);
        self.counted = 0;
        let pace = time / std::mem::take(&mut self.orphans).max(1);
        if pace > LONGEST / WORTH {
            self.group = self.least.max(FAR_APART.min(self.group * 2));
            return Change::None;
        }
        // Unless it turns out to be one.
        self.least = LARGEST.min(self.least * HARDER);
        self.group = self.least;
        self.gathering = (pace * FEW).clamp(SHORTEST, LONGEST);
        let expected = self.gathering.as_nanos() / pace.as_nanos().max(1);
        self.too_few = u32::try_from(expected / 2).unwrap_or(u32::MAX).min(MANY);
        Change::Begins
    }

    /// So many have gathered.
    fn gather(&mut self, orphans: u32) -> Change {
        if orphans <= self.too_few || orphans < DRY && self.gathering == LONGEST {
            return Change::Ends;
        }
        (self.group, self.least) = (GROUP, GROUP);
        self.too_few = 0;
        if orphans > MANY {
            self.gathering = SHORTEST.max(self.gathering / 2);
        } else if orphans < FEW && self.gathering < LONGEST {
            self.gathering = LONGEST.min(self.gathering * 2);
            self.too_few = orphans;
        }
        Change::None
    }
}

impl Runtime<'_> {
    /// So many orphans, and nobody else, were reaped at a time, and others before, each as it came.
    pub(super) fn count_orphans(&mut self, before: u32, orphans: u32) {
        let change = match self.stream.flows() {
            true => self.stream.gather(orphans),
            false => self.stream.count(before + u32::from(orphans > 0), before + orphans, || self.clock.now()),
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

    /// Counts orphans that come alone, so many milliseconds after each other, until a stream begins.
    fn until_it_begins(stream: &mut Stream, start: u64, pause: u64) -> Option<u64> {
        (1..=50_000).find(|index| stream.count(1, 1, at(start + pause * index)) == Change::Begins)
    }

    #[test]
    fn a_few_orphans_near_each_other_are_a_stream_and_many_now_and_then_are_none() {
        assert_eq!(until_it_begins(&mut Stream::new(), 1_000, 2), Some(4 + 8));
        assert_eq!(until_it_begins(&mut Stream::new(), 1_000, 3), None);
    }

    #[test]
    fn a_wake_up_for_something_else_counts_nothing() {
        let mut stream = Stream::new();
        assert!((0..100).all(|_| stream.count(0, 0, || unreachable!("nobody asks for the time")) == Change::None));
    }

    #[test]
    fn several_that_were_reaped_as_they_came_are_counted_at_once() {
        let mut stream = Stream::new();
        assert_eq!((stream.missing(), stream.count(3, 3, at(1_000)), stream.missing()), (4, Change::None, 1));
        assert_eq!((stream.count(2, 2, at(1_001)), stream.missing()), (Change::None, 8));
        assert_eq!(stream.count(9, 9, at(1_002)), Change::Begins);
    }

    #[test]
    fn a_stream_begins_as_its_pace_has_it_and_ends_where_less_than_half_comes() {
        for (pause, orphans, gathering, too_few) in
            [(0, 1, SHORTEST, MANY), (1, 1, LONGEST, 4), (2, 1, LONGEST, 2), (2, 4, Duration::from_millis(4), 4)]
        {
            let mut stream = Stream::new();
            (1..=12).for_each(|index| _ = stream.count(1, orphans, at(1_000 + pause * index)));
            assert_eq!((stream.gathering, stream.too_few), (gathering, too_few), "{pause} {orphans}");
            assert_eq!(stream.gather(too_few), Change::Ends);
            assert_eq!(stream.gather(too_few + 1), Change::None);
        }
    }

    #[test]
    fn batches_gather_for_longer_while_they_are_few_and_for_less_when_they_are_many() {
        let mut stream = flowing();
        let mut gathered = |orphans| (stream.gather(orphans), stream.gathering.as_millis());
        assert_eq!([7, 8, 20, 21, 99, 99].map(&mut gathered).map(|(_, time)| time), [4, 4, 4, 2, 2, 2]);
        assert_eq!([1, 2].map(&mut gathered), [(Change::None, 4), (Change::None, 8)]);
        assert_eq!([3, 2].map(&mut gathered), [(Change::None, 8), (Change::None, 8)]);
        assert_eq!(gathered(1), (Change::Ends, 8));
    }

    #[test]
    fn where_no_more_come_though_they_gather_for_longer_somebody_waits_for_them() {
        for waits_for in 1..FEW {
            let mut stream = flowing();
            assert_eq!([waits_for; 2].map(|orphans| stream.gather(orphans)), [Change::None, Change::Ends]);
        }
    }

    #[test]
    fn what_was_none_is_believed_later_the_next_time() {
        let mut stream = Stream::new();
        let begins = [10_000, 20_000, 1_000_000].map(|start| {
            let begins = until_it_begins(&mut stream, start, 1);
            assert_eq!(stream.gather(1), Change::Ends);
            begins
        });
        let expected = [4 + 8, 512 + 512, 16_384 + 16_384].map(Some);
        assert_eq!(begins, expected, "two groups, since a pause goes before the first");
        assert_eq!(stream.gather(5), Change::None);
        assert_eq!(until_it_begins(&mut stream, 2_000_000, 1), Some(4 + 8), "the last one was one");
    }

    #[test]
    fn no_deadline_is_put_off() {
        let (dry, flowing) = (Stream::new(), flowing());
        let [never, long, now] = [None, Some(100), Some(0)].map(|time| time.map(Duration::from_millis));
        assert_eq!([never, long, now].map(|left| dry.shorten(left)), [never, long, now]);
        assert_eq!([never, long, now].map(|left| flowing.shorten(left)), [Some(SHORTEST), Some(SHORTEST), now]);
    }
}
