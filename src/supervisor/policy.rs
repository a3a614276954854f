//! The restart policy: whether another run follows one that has ended, how soon, and when guard gives up.
//!
//! Each instance has a history of its own, so the limit and the backoff are per instance.

use super::exit_code::{Ending, contribution};
use super::timestamp::Timestamp;
use crate::config::{RestartPolicy, RestartSettings};
use std::time::Duration;

/// Why no run follows under GUARD_RESTART=never.
pub const NEVER: &str = "GUARD_RESTART is never";

/// What follows the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Restart {
        count: u32,
        delay: Duration,
    },
    GiveUp {
        limit: u32,
        /// The restarts that count were within this time: the window, or longer where no run was stable.
        within: Duration,
    },
    /// No further run of this instance; guard goes on while another lives.
    Finish {
        code: u8,
        why: &'static str,
    },
    /// No further run at all: guard exits with this code at once.
    Abort {
        code: u8,
        why: &'static str,
    },
}

/// What an instance remembers of its earlier runs. [`History::stable`] comes when a stable run has ended, then
/// [`History::decide`] for that run, unless somebody asked for its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct History {
    /// Restarts since the last stable run.
    row: u32,
    remembered: Vec<Restart>,
    /// All restarts that nobody asked for; the app learns them from GUARD_RESTARTS.
    pub(super) restarts: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Restart {
    at: Timestamp,
    /// A run since then was stable, so the restart is forgotten when it leaves the window.
    settled: bool,
}

impl History {
    /// A stable run has ended: the row ends, and every restart so far may be forgotten in time.
    pub(super) fn stable(&mut self) {
        self.row = 0;
        for restart in &mut self.remembered {
            restart.settled = true;
        }
    }

    /// Decides what follows the end of a run that nobody asked for.
    pub(super) fn decide(
        &mut self,
        now: Timestamp,
        ending: Ending,
        settings: &RestartSettings,
        jitter: &mut Jitter,
    ) -> Verdict {
        let code = contribution(ending, settings);
        if ending.is_in(&settings.no_restart_codes) {
            return Verdict::Abort { code, why: "GUARD_NO_RESTART_CODES names it" };
        }
        match settings.policy {
            RestartPolicy::Never => return Verdict::Finish { code, why: NEVER },
            RestartPolicy::OnFailure if code == 0 => return Verdict::Finish { code, why: "success" },
            RestartPolicy::OnFailure | RestartPolicy::Always => {}
        }
        if settings.max == Some(0) {
            return Verdict::Finish { code, why: "GUARD_MAX_RESTARTS is 0" };
        }
        self.remembered.retain(|restart| !restart.settled || now.since(restart.at) <= settings.window);
        if let Some(limit) = settings.max {
            if self.remembered.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
                let oldest = self.remembered.first().map_or(now, |restart| restart.at);
                return Verdict::GiveUp { limit, within: settings.window.max(now.since(oldest)) };
            }
            self.remembered.push(Restart { at: now, settled: false });
        }
        let delay = jitter.upper_half(backoff(self.row, settings));
        self.row = self.row.saturating_add(1);
        self.restarts = self.restarts.saturating_add(1);
        let count = if settings.max.is_some() { self.remembered.len() } else { usize::try_from(self.row).unwrap_or(0) };
        Verdict::Restart { count: u32::try_from(count).unwrap_or(u32::MAX), delay }
    }
}

/// The full delay before a restart that follows `row` others.
fn backoff(row: u32, settings: &RestartSettings) -> Duration {
    match row {
        0 => Duration::ZERO,
        _ => {
            let factor = 1_u32.checked_shl(row - 1).unwrap_or(u32::MAX);
            settings.backoff_initial.saturating_mul(factor).min(settings.backoff_max)
        }
    }
}

/// Randomness that the core owns: the seed is an input, so the same events give the same actions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Jitter {
        Jitter(seed | 1)
    }

    /// A delay between half of `full` and `full`, so that a fleet does not restart in step.
    fn upper_half(&mut self, full: Duration) -> Duration {
        full / 2 + self.up_to(full / 2)
    }

    /// A time from zero to `most`.
    pub(super) fn up_to(&mut self, most: Duration) -> Duration {
        // Marsaglia's xorshift64, good enough to spread delays.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let nanoseconds = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.0.checked_rem(nanoseconds.saturating_add(1)).unwrap_or(0))
    }
}

#[cfg(test)]
impl History {
    /// Moves all times, and forgets what only counts.
    pub(super) fn shift(&mut self, shift: &impl Fn(Timestamp) -> Timestamp) {
        for restart in &mut self.remembered {
            restart.at = shift(restart.at);
        }
        self.row = self.row.min(2);
        self.restarts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of xorshift64 with 13, 7 and 17, from the seed 1.
    #[test]
    fn the_jitter_is_marsaglias() {
        let mut jitter = Jitter::new(0);
        let full = Duration::from_nanos(u64::MAX);
        let drawn = [(); 2].map(|()| jitter.upper_half(full) - full / 2);
        assert_eq!(drawn.map(|time| time.as_nanos()), [1_082_269_761, 1_152_992_998_833_853_505]);
    }

    #[test]
    fn the_jitter_keeps_to_the_upper_half() {
        let mut jitter = Jitter::new(7);
        let full = Duration::from_nanos(9);
        let drawn: Vec<u128> = (0..1_000).map(|_| jitter.upper_half(full).as_nanos()).collect();
        assert!((4..=8).all(|time| drawn.contains(&time)) && drawn.iter().all(|time| (4..=8).contains(time)));
        assert_eq!(jitter.upper_half(Duration::ZERO), Duration::ZERO);
    }
}
