//! The state of the supervisor: guard's own mode, its instances, and their runs.
//!
//! A run goes forward through its states, from Spawning to Clearing, and may skip some of them. One step goes back: the old
//! run of a reload from which new connections are led away is Ready again where the new one fails. A deadline lives in the
//! state that it belongs to, so leaving the state drops it. A deadline that ends in SIGKILL never moves later.

use super::cause::Cause;
use super::diagnose::Diagnosis;
use super::exit_code::{Ending, Failure};
use super::health::Checks;
use super::idle::Idle;
use super::linger::Linger;
use super::policy::History;
use super::run_id::RunId;
use super::timestamp::Timestamp;
use crate::signal::Signal;
use std::time::Duration;

/// guard's own life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    /// guard keeps the app running.
    Serving,
    /// guard ends, and a main process still lives.
    Draining(Shutdown),
    /// guard ends, every main process has ended, and leftovers or the pre-stop hook have what is left of the time.
    Sweeping(Shutdown),
    /// SIGKILL went to everything. guard waits until the kernel has handed over what it killed, until a last deadline.
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

/// guard's end, from its beginning to SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shutdown {
    /// When SIGKILL goes to everything; `None` leaves it to the orchestrator.
    pub(super) kill_at: Option<Timestamp>,
    /// How long connections have in the end.
    pub(super) linger_until: Timestamp,
    /// The stop request's signal, for the hook to know.
    pub(super) signal: Option<Signal>,
    /// What guard exits with where that was settled when the end began.
    pub(super) code: Option<u8>,
}

/// A slot that holds one running copy of the app. During a reload it also holds the run that is about to be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Instance {
    /// As in [`RunId`].
    pub(super) number: u32,
    pub(super) slot: Slot,
    /// The old run in a reload.
    pub(super) retiring: Option<Run>,
    /// The number of the newest run.
    pub(super) runs: u32,
    pub(super) history: History,
    /// How the last run ended.
    pub(super) last: Option<Ending>,
    /// Somebody asked for a restart, and its run is not ready yet.
    pub(super) restarting: bool,
    /// It is new, and has had no run that was ready.
    pub(super) awaited: bool,
    /// There are to be fewer instances: its runs end, and guard forgets it when they are over.
    pub(super) leaving: bool,
}

/// What an instance holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Slot {
    /// No run, until the backoff is over; before [`Event::Start`](super::Event::Start) there is no time for the next one.
    Waiting {
        spawn_at: Option<Timestamp>,
    },
    Live(Run),
    /// No further run.
    Finished,
}

/// A run, from its spawn until nothing is left of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) state: RunState,
    /// Since when it can take work; `None` again when it has failed, since a run that fails is never stable.
    pub(super) ready_since: Option<Timestamp>,
    /// Why it ends; `None` while nobody wants it to end, and where its main process ends without a word.
    pub(super) cause: Option<Cause>,
    /// How often it must send WATCHDOG=1 once it is ready.
    pub(super) watchdog: Option<Duration>,
    /// Its health checks, while it serves.
    pub(super) checks: Option<Checks>,
    pub(super) diagnosis: Diagnosis,
    /// `drain` was sent over Node's channel while it drained.
    pub(super) announced: bool,
    /// A QUIT that nobody mapped was forwarded to it: an end before this time counts as its stop.
    pub(super) quit_until: Option<Timestamp>,
    /// Its deadline is that of a failed run, and not that of a stop.
    pub(super) is_hurried: bool,
    /// When it is replaced: its lifetime is over (GUARD_MAX_LIFETIME), or its time to answer a diagnosis of its memory.
    pub(super) replace_at: Option<Timestamp>,
    /// It uses too much memory, and is diagnosed before it is replaced.
    pub(super) is_too_large: bool,
    /// A reload that was to replace it for a limit has failed: for its memory it is restarted in place the next time.
    pub(super) was_kept: bool,
}

/// Where a run is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum RunState {
    /// The spawn was asked for, and its answer comes next.
    Spawning,
    /// The main process lives, and is not ready yet.
    Starting { ready_by: Option<Timestamp> },
    /// It can take work, and must send WATCHDOG=1 by then.
    Ready { ping_by: Option<Timestamp> },
    /// It still serves, until the drain delay and the pre-stop hook are over.
    Draining { signal: Signal, until: Timestamp, idle: Idle, kill_at: Option<Timestamp> },
    /// It was asked to stop, or stops by itself. Where it was asked over Node's channel, a signal follows.
    Stopping { kill_at: Option<Timestamp>, fallback: Option<(Timestamp, Signal)> },
    /// It has failed, and is diagnosed before its end. `kill_at` is the deadline of a stop or a restart that came meanwhile.
    Diagnosing { failure: Failure, until: Timestamp, kill_at: Option<Timestamp> },
    /// Its watchdog has failed: it has got SIGABRT, and may be writing a core file.
    Aborting { kill_at: Timestamp },
    /// It has got SIGKILL while guard goes on. Without a deadline guard has given up on it: not even SIGKILL ends it.
    Killing { give_up_at: Option<Timestamp> },
    /// The main process has ended; its leftovers have got SIGTERM. `counted` once guard knows that there are some.
    Sweeping { ending: Ending, kill_at: Option<Timestamp>, counted: bool },
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
            cause: None,
            watchdog,
            checks: None,
            diagnosis: Diagnosis::Unasked,
            announced: false,
            quit_until: None,
            is_hurried: false,
            replace_at: None,
            is_too_large: false,
            was_kept: false,
        }
    }

    /// Notes why the run ends; see [`Cause`] for what counts where there is a cause already.
    pub(super) fn end_for(&mut self, cause: Cause) {
        self.cause = self.cause.max(Some(cause));
    }

    /// A limit's reload has failed, and this run goes on until `replace_at`.
    pub(super) fn outlast_limit(&mut self, replace_at: Option<Timestamp>) {
        (self.was_kept, self.is_too_large, self.replace_at) = (true, false, replace_at);
    }

    /// Whether the main process lives, so that it may be signalled.
    pub(super) fn main_lives(&self) -> bool {
        match self.state {
            RunState::Starting { .. } | RunState::Ready { .. } | RunState::Draining { .. } => true,
            RunState::Stopping { .. } | RunState::Diagnosing { .. } => true,
            RunState::Aborting { .. } | RunState::Killing { .. } => true,
            RunState::Spawning | RunState::Sweeping { .. } | RunState::Clearing { .. } => false,
        }
    }

    /// Whether not even SIGKILL has ended the main process in time.
    pub(super) fn is_stuck(&self) -> bool {
        self.state == RunState::Killing { give_up_at: None }
    }

    /// Whether it works, or is about to, and nobody has asked for its end.
    pub(super) fn serves(&self) -> bool {
        match self.state {
            RunState::Starting { .. } | RunState::Ready { .. } => true,
            RunState::Spawning | RunState::Draining { .. } | RunState::Stopping { .. } => false,
            RunState::Diagnosing { .. } | RunState::Aborting { .. } | RunState::Killing { .. } => false,
            RunState::Sweeping { .. } | RunState::Clearing { .. } => false,
        }
    }

    /// The state of a run that can take work from now on, with its next WATCHDOG=1 a whole period away.
    pub(super) fn ready_state(&self, now: Timestamp) -> RunState {
        RunState::Ready { ping_by: self.watchdog.map(|period| now.after(period)) }
    }

    /// Whether it can take work.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.state, RunState::Ready { .. })
    }

    /// Whether the stop signal waits for the drain delay and the hook.
    pub(super) fn is_draining(&self) -> bool {
        matches!(self.state, RunState::Draining { .. })
    }
}

impl Instance {
    /// An instance that has had no run yet.
    pub(super) fn new(number: u32) -> Instance {
        Instance {
            number,
            slot: Slot::Waiting { spawn_at: None },
            retiring: None,
            runs: 0,
            history: History::default(),
            last: None,
            restarting: false,
            awaited: false,
            leaving: false,
        }
    }

    /// Whether it has a run, or will have one.
    pub(super) fn works(&self) -> bool {
        !self.leaving
            && match self.slot {
                Slot::Waiting { .. } | Slot::Live(_) => true,
                Slot::Finished => false,
            }
    }

    /// Nothing is left of its runs, and none will follow.
    pub(super) fn is_over(&self) -> bool {
        match self.slot {
            Slot::Finished => self.retiring.is_none(),
            Slot::Waiting { .. } | Slot::Live(_) => false,
        }
    }

    /// The current run, which is the new one in a reload.
    pub(super) fn current(&self) -> Option<&Run> {
        match &self.slot {
            Slot::Live(run) => Some(run),
            Slot::Waiting { .. } | Slot::Finished => None,
        }
    }

    /// The current run and the retiring one.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.current().into_iter().chain(&self.retiring)
    }

    pub(super) fn runs_mut(&mut self) -> impl Iterator<Item = &mut Run> {
        let current = match &mut self.slot {
            Slot::Live(run) => Some(run),
            Slot::Waiting { .. } | Slot::Finished => None,
        };
        current.into_iter().chain(&mut self.retiring)
    }

    /// The runs whose main process lives.
    pub(super) fn living(&self) -> impl Iterator<Item = &Run> {
        self.runs().filter(|run| run.main_lives())
    }

    /// Whether this run is the old one of a reload.
    pub(super) fn retires(&self, id: RunId) -> bool {
        self.retiring.as_ref().is_some_and(|run| run.id == id)
    }

    /// The old run of a reload, where nothing has asked for its end yet.
    pub(super) fn serves_while_replaced(&self) -> bool {
        self.retiring.as_ref().is_some_and(Run::serves)
    }

    /// Whether the next reload waits for the old run of this one, which ends or may come back in its place. It waits for none that
    /// cannot be killed.
    pub(super) fn delays_reload(&self) -> bool {
        !self.leaving && self.retiring.is_some() && !self.runs().any(Run::is_stuck)
    }
}
