//! What can happen to the supervisor. A door or the shell turns facts of the world into these; nothing else reaches the core.

use super::exit_code::Ending;
use super::state::RunId;
use crate::config::signal::Signal;
use std::time::Duration;

/// A fact that the supervisor reacts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Begin: every instance gets its first run. Comes first, and once.
    Start,
    /// Answers [`Action::Spawn`](super::Action::Spawn), before any other event: the main process has begun.
    Spawned(RunId),
    /// Answers [`Action::Spawn`](super::Action::Spawn), before any other event: there is no process.
    SpawnFailed(RunId, SpawnError),
    /// The main process of a run was reaped. From here on its pid means nothing.
    Exited(RunId, Ending),
    /// How many leftovers of a run live: answers [`Action::Sweep`](super::Action::Sweep), and comes again after each
    /// reap until it says none.
    Leftovers(RunId, usize),
    /// The main process was stopped by its terminal (TSTP, TTIN or TTOU).
    Suspended(RunId),
    /// A run says that it is ready (READY=1, or Node's `ready`).
    SaidReady(RunId),
    /// A run says that it has begun to end (STOPPING=1).
    SaidStopping(RunId),
    /// A run shows that it lives (WATCHDOG=1).
    WatchdogPing(RunId),
    /// A run knows that something is wrong with it (WATCHDOG=trigger).
    WatchdogTriggered(RunId),
    /// How often a run will show that it lives from now on; zero for no more.
    WatchdogPeriod(RunId, Duration),
    /// A run needs so much time from now (EXTEND_TIMEOUT_USEC).
    TimeoutExtended(RunId, Duration),
    /// The pre-stop hook has ended, however it did.
    HookEnded,
    /// guard received a signal.
    Signal(Signal),
    /// No child is left to reap.
    NothingLeft,
    /// The next deadline may have passed. Always safe to send.
    Timeout,
}

/// Why there is no process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpawnError {
    /// What guard exits with if this is not mended: 125, 126 or 127.
    pub code: u8,
    /// It may well be different next time (EAGAIN, ENOMEM, ETXTBSY, …), so even a first run is tried again.
    pub transient: bool,
}
