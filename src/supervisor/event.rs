//! What can happen to the supervisor. A door or the shell turns facts of the world into these; nothing else reaches the core.

use super::exit_code::Ending;
use super::linger::Unsent;
use super::state::RunId;
use crate::signal::Signal;
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
    /// The pre-stop hook has ended, however it did.
    HookEnded,
    /// guard received a signal.
    Signal(Signal),
    /// An operator asks guard to end.
    StopRequested,
    /// An operator asks for a restart in place.
    RestartRequested,
    /// The app says that it can take work.
    SaidReady(RunId),
    /// The app says that it has begun to end.
    SaidStopping(RunId),
    /// The app says that it is alive.
    WatchdogPing(RunId),
    /// The app says that it is not.
    WatchdogTriggered(RunId),
    /// The app wants to be heard from this often; zero is not at all.
    WatchdogPeriod(RunId, Duration),
    /// The app needs this much time from now on.
    TimeoutExtended(RunId, Duration),
    /// Answers [`Action::SayShutdown`](super::Action::SayShutdown) where nobody can hear it.
    Unheard(RunId),
    /// A health check has ended, and has passed or not; one that was killed has not.
    Checked(RunId, bool),
    /// guard was kept from running for this long at most, and the app most likely with it.
    Overslept(Duration),
    /// No child is left to reap.
    NothingLeft,
    /// What closed connections have not sent: answers [`Action::Look`](super::Action::Look), before any other event.
    Unsent(Unsent),
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
