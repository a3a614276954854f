//! Keeps walks of /proc apart, so that processes which come and go without an end cannot keep guard busy.

use crate::supervisor::Timestamp;
use std::time::Duration;

/// The pause after the second walk for a run's leftovers. Each pause is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// When the next walk is due. [`Pace::ask`] asks for one, its owner takes it when [`Pace::is_due`] says so, and then calls
/// [`Pace::taken`]. The first one comes at once, since most leftovers end at once.
#[derive(Debug, Default)]
pub(super) struct Pace {
    pub(super) due: Option<Timestamp>,
    /// No walk before this.
    earliest: Timestamp,
    pause: Duration,
}

impl Pace {
    /// Asks for a walk as soon as the pace allows.
    pub(super) fn ask(&mut self, now: Timestamp) {
        let at = now.max(self.earliest);
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Asks for a walk after the longest pause: the last one has run out of time, so the next would too.
    pub(super) fn ask_later(&mut self, now: Timestamp) {
        self.due.get_or_insert(now.after(LONGEST_PAUSE));
    }

    /// Asks for one at once: without children it costs nothing.
    pub(super) fn ask_now(&mut self, now: Timestamp) {
        self.due = Some(now);
    }

    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// A walk has been made. The next one comes after a longer pause.
    pub(super) fn taken(&mut self, now: Timestamp) {
        self.due = None;
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.earliest = now.after(self.pause);
    }

    /// The same, where hardly anything can have been missed.
    pub(super) fn taken_by_all(&mut self, now: Timestamp) {
        self.pause = LONGEST_PAUSE;
        self.taken(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Timestamp {
        Timestamp(Duration::from_millis(milliseconds))
    }

    #[test]
    fn looks_come_at_once_and_then_ever_later() {
        let mut pace = Pace::default();
        let mut now = at(1_000);
        let mut times = Vec::new();
        // Something has ended at every moment.
        for millisecond in 1_000..3_000 {
            now = at(millisecond);
            pace.ask(now);
            if pace.is_due(now) {
                pace.taken(now);
                times.push(millisecond - 1_000);
            }
        }
        assert_eq!(times[..8], [0, 5, 15, 35, 75, 155, 315, 565]);
        assert!(times.len() <= 14, "{times:?}");
        pace.ask_now(now);
        assert!(pace.is_due(now));
    }
}
