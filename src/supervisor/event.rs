//! What can happen to the supervisor. The doors and the runtime turn what happens in the world into events; nothing else
//! reaches the core.

use super::exit_code::{Ending, SpawnError};
use super::run_id::RunId;
use crate::config::Meaning;
use crate::config::Scale;
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
    /// As `Exited`, after a person at the terminal has told the app to exit: no run follows.
    Left(RunId, Ending),
    /// How many leftovers of a run live: answers [`Action::Sweep`](super::Action::Sweep), and comes again after
    /// reaps, at a pace of guard's, until it says none.
    Leftovers(RunId, usize),
    /// The terminal has stopped the main process (TSTP, TTIN or TTOU).
    Suspended(RunId),
    /// The pre-stop hook has ended, however it did. Answers [`Action::StartHook`](super::Action::StartHook) in the end.
    HookEnded,
    /// guard received a signal.
    Signal(Signal),
    /// The terminal has sent a signal to guard and its runs at once: Ctrl-C, Ctrl-\, Ctrl-Z, or because it is closed.
    Pressed(Signal),
    /// A path of GUARD_ON_CHANGE has changed, with this meaning.
    FileChanged(Meaning),
    /// An operator asks guard to end.
    StopRequested,
    /// An operator asks for a restart in place. [`Action::Conclude`](super::Action::Conclude) answers in the end.
    RestartRequested,
    /// An operator asks for a reload. [`Action::Conclude`](super::Action::Conclude) answers in the end.
    ReloadRequested,
    /// An operator asks for another number of instances. [`Action::ConcludeScale`](super::Action::ConcludeScale) answers in
    /// the end, if the number is in range.
    ScaleRequested(Scale),
    /// This number of instances fits the container's CPU quota: answers [`Action::CountCpus`](super::Action::CountCpus), at once.
    CpusCounted(u32),
    /// The app says that it can take work.
    SaidReady(RunId),
    /// The run listens on a stream socket.
    Listens(RunId),
    /// A socket of the app's outlives its runs from now on.
    Holds,
    /// The app says that it has begun to end.
    SaidStopping(RunId),
    /// The app says that it is alive.
    WatchdogPing(RunId),
    /// The app says that it is not well.
    WatchdogTriggered(RunId),
    /// The app wants to send WATCHDOG=1 this often from now on; zero switches the watchdog off.
    WatchdogPeriod(RunId, Duration),
    /// The app needs this much time from now on.
    TimeoutExtended(RunId, Duration),
    /// Answers [`Action::SayShutdown`](super::Action::SayShutdown) where Node's channel is closed or full.
    ShutdownUndelivered(RunId),
    /// A health check has ended, and has passed or not. A check that guard has killed has not passed. Answers
    /// [`Action::StartCheck`](super::Action::StartCheck) in the end.
    Checked(RunId, bool),
    /// The command of a run's diagnosis has ended, or cannot be started. Answers
    /// [`Action::Diagnose`](super::Action::Diagnose) in the end.
    Diagnosed(RunId),
    /// guard was kept from running for this long at most, and the app most likely with it.
    Overslept(Duration),
    /// How many children of PID 1 live that belong to no run: answers [`Action::SweepUnmarked`](super::Action::SweepUnmarked),
    /// and comes again after reaps, at a pace of guard's, until it says none.
    UnmarkedCounted(usize),
    /// No child is left to reap. Answers [`Action::KillEverything`](super::Action::KillEverything) in the end.
    NothingLeft,
    /// What closed connections have not sent: answers [`Action::CountUnsent`](super::Action::CountUnsent), before any
    /// other event.
    UnsentCounted(UnsentData),
    /// The processes of this run use more memory than they may.
    MemoryExceeded(RunId),
    /// This number of connections is left to what the app listens on: answers
    /// [`Action::CountConnections`](super::Action::CountConnections).
    ConnectionsCounted(usize),
    /// This number of connections waits to be accepted by this run: answers [`Action::CountQueue`](super::Action::CountQueue).
    QueueCounted(RunId, usize),
    /// The next deadline may have passed. Always safe to send.
    Timeout,
}

/// What closed connections still have to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UnsentData {
    pub connections: usize,
    pub bytes: u64,
}
