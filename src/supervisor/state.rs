//! The state of the supervisor: guard's own mode, its instances, and their runs.
//!
//! A deadline lives in the state that it belongs to, so leaving the state drops it.

use super::exit_code::{Ending, Failure};
use super::health::Checks;
use super::linger::Linger;
use super::restart::History;
use crate::signal::Signal;
use std::fmt;
use std::time::Duration;

/// Time since guard began, on the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub Duration);

impl Timestamp {
    /// This much later.
    pub fn after(self, delay: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(delay))
    }

    /// The time from `earlier` to this, zero if it is not earlier.
    pub fn since(self, earlier: Timestamp) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// One life of the app in an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId {
    /// The slot, from 0.
    pub instance: usize,
    /// From 1 in each instance.
    pub number: u32,
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.instance, self.number)
    }
}

/// guard's own life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The app is kept running.
    Serving,
    /// guard ends, and a main process still lives.
    Draining(End),
    /// guard ends, every main process has ended, and leftovers or the pre-stop hook have what is left of the time.
    Sweeping(End),
    /// SIGKILL went to everything; waiting for the kernel to hand over the bodies, until a last deadline.
    Killing {
        code: u8,
        give_up_at: Timestamp,
        /// How long connections have for what was written to them.
        linger_until: Timestamp,
    },
    /// Nothing is left to reap; closed connections still send.
    Lingering(Linger),
    /// guard exits.
    Done,
}

/// The end of guard, once it has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct End {
    /// When SIGKILL goes to everything; `None` leaves it to the orchestrator.
    pub(super) kill_at: Option<Timestamp>,
    /// How long connections have in the end.
    pub(super) linger_until: Timestamp,
    /// The stop request's, for the hook to know.
    pub(super) signal: Option<Signal>,
    /// What guard exits with where that was settled when the end began.
    pub(super) code: Option<u8>,
}

/// A slot that holds one running copy of the app, and for the time of a reload the one that it replaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Instance {
    pub(super) slot: Slot,
    pub(super) retiring: Option<Run>,
    /// The number of the newest run.
    pub(super) runs: u32,
    pub(super) history: History,
    pub(super) last: Option<Ending>,
    /// Somebody asked for a restart, and its run is not ready yet.
    pub(super) awaited: bool,
}

/// What an instance is at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    /// Between two runs, until the backoff is over; before guard has begun, without an end.
    Waiting {
        until: Option<Timestamp>,
    },
    Live(Run),
    /// No further run, and what the last one is worth to guard's exit code.
    Finished {
        code: u8,
    },
}

/// A run, from its spawn until its leftovers are gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) state: RunState,
    /// Since when it can take work.
    pub(super) ready_since: Option<Timestamp>,
    /// Somebody asked for its end: the next run follows at once and does not count.
    pub(super) asked: bool,
    /// Why guard ends it, where that is a failure of its own.
    pub(super) failure: Option<Failure>,
    /// How often it must send WATCHDOG=1 once it is ready.
    pub(super) watchdog: Option<Duration>,
    /// Its health checks, while it serves.
    pub(super) checks: Option<Checks>,
    /// It was told over Node's channel that it will be stopped.
    pub(super) announced: bool,
}

/// Where a run is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunState {
    /// Being spawned.
    Spawning,
    /// Lives, and is not ready yet.
    Starting { ready_by: Option<Timestamp> },
    /// Can take work, and must send WATCHDOG=1 until then.
    Ready { watchdog: Option<Timestamp> },
    /// Still serves, until the drain delay and the pre-stop hook are over.
    Draining { signal: Signal, until: Timestamp, kill_at: Option<Timestamp> },
    /// Was asked to stop, or stops by itself. Where it was asked over Node's channel, a signal follows.
    Stopping { kill_at: Option<Timestamp>, signal: Option<(Timestamp, Signal)> },
    /// Has got SIGKILL, in a restart in place.
    Killing { give_up_at: Timestamp },
    /// The main process has ended; its leftovers have got SIGTERM.
    Sweeping { ending: Ending, kill_at: Option<Timestamp>, told: bool },
    /// The leftovers have got SIGKILL.
    Clearing { ending: Ending, give_up_at: Timestamp, left: usize },
}

impl Run {
    /// A run that is being spawned.
    pub(super) fn new(id: RunId, watchdog: Option<Duration>) -> Run {
        Run {
            id,
            state: RunState::Spawning,
            ready_since: None,
            asked: false,
            failure: None,
            watchdog,
            checks: None,
            announced: false,
        }
    }

    /// Whether the main process lives, so that it may be signalled.
    pub(super) fn main_lives(&self) -> bool {
        match self.state {
            RunState::Starting { .. } | RunState::Ready { .. } | RunState::Draining { .. } => true,
            RunState::Stopping { .. } | RunState::Killing { .. } => true,
            RunState::Spawning | RunState::Sweeping { .. } | RunState::Clearing { .. } => false,
        }
    }

    /// Whether it works, or is about to, and nobody has asked for its end.
    pub(super) fn serves(&self) -> bool {
        match self.state {
            RunState::Starting { .. } | RunState::Ready { .. } => true,
            RunState::Spawning | RunState::Draining { .. } | RunState::Stopping { .. } => false,
            RunState::Killing { .. } | RunState::Sweeping { .. } | RunState::Clearing { .. } => false,
        }
    }

    /// Can take work from now on.
    pub(super) fn ready_state(&self, now: Timestamp) -> RunState {
        RunState::Ready { watchdog: self.watchdog.map(|period| now.after(period)) }
    }

    /// Whether it can take work.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, RunState::Ready { .. })
    }

    /// When this run needs attention though nothing happens to it.
    pub(super) fn deadline(&self, hook_runs: bool) -> Option<Timestamp> {
        match self.state {
            RunState::Spawning => None,
            RunState::Starting { ready_by: at } | RunState::Ready { watchdog: at } => {
                earlier(at, self.checks.as_ref().and_then(Checks::deadline))
            }
            RunState::Draining { until, kill_at, .. } => earlier((!hook_runs).then_some(until), kill_at),
            RunState::Stopping { kill_at, signal } => earlier(signal.map(|(at, _)| at), kill_at),
            RunState::Sweeping { kill_at, .. } => kill_at,
            RunState::Killing { give_up_at } | RunState::Clearing { give_up_at, .. } => Some(give_up_at),
        }
    }
}

impl Instance {
    /// The current run and the retiring one.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        let current = match &self.slot {
            Slot::Live(run) => Some(run),
            Slot::Waiting { .. } | Slot::Finished { .. } => None,
        };
        current.into_iter().chain(&self.retiring)
    }

    /// The runs whose main process lives.
    pub(super) fn living(&self) -> impl Iterator<Item = &Run> {
        self.runs().filter(|run| run.main_lives())
    }

    pub(super) fn runs_mut(&mut self) -> impl Iterator<Item = &mut Run> {
        let current = match &mut self.slot {
            Slot::Live(run) => Some(run),
            Slot::Waiting { .. } | Slot::Finished { .. } => None,
        };
        current.into_iter().chain(&mut self.retiring)
    }
}

/// The earlier of two deadlines, `None` being never.
pub(super) fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
