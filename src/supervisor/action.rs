//! What the supervisor wants done. The runtime does each in order, decides nothing, and answers with events.

use super::exit_code::{Ending, Failure};
use super::linger::Unsent;
use super::state::RunId;
use crate::signal::Signal;
use std::time::Duration;

/// A thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Start the app. Answered at once by `Spawned` or `SpawnFailed`.
    Spawn { run: RunId, restarts: u32, last: Option<Ending> },
    /// Send a signal to the run's main process, or to its group as GUARD_SIGNAL_SCOPE says.
    Signal(RunId, Signal),
    /// Send the stop signal, in the same way.
    Stop(RunId, Signal),
    /// SIGSTOP, for the run's whole group.
    Freeze(RunId),
    /// The terminal's foreground, where there is a terminal, and SIGCONT, for the run's whole group.
    Thaw(RunId),
    /// Stop guard itself until somebody continues it.
    Suspend,
    /// Signal the leftovers of a run whose main process has ended. Answered by `Leftovers`.
    Sweep(RunId, Signal),
    /// The drain has begun (or is over): the drain file exists exactly in between.
    Draining(bool),
    /// Start the pre-stop hook, and tell it which signal came and how much time is left. Answered by `HookEnded` in the
    /// end.
    StartHook { signal: Option<Signal>, left: Option<Duration> },
    /// Send a signal to the pre-stop hook and its group.
    SignalHook(Signal),
    /// Tell the app over Node's channel that it will be stopped.
    SayDrain(RunId),
    /// Tell the app over Node's channel to stop. Answered by `Unheard` where that cannot be.
    SayShutdown(RunId),
    /// Start a health check. Answered by `Checked` in the end.
    StartCheck(RunId),
    /// SIGKILL to the health check and its group.
    KillCheck(RunId),
    /// SIGKILL to everything that can be reached. Answered by `NothingLeft` when all is reaped.
    KillEverything,
    /// Tell the user.
    Report(Notice),
    /// Look which closed connections still have something to send. Answered at once by `Unsent`.
    Look,
    /// guard's work is done; it exits with this code.
    Exit { code: u8 },
}

/// A decision that is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The run ended and another follows after the delay. `count` restarts of `limit` are used up, this one included.
    Restarting { run: RunId, ending: Ending, count: u32, limit: Option<u32>, delay: Duration },
    /// A restart that somebody asked for begins.
    RestartRequested { run: RunId },
    /// The run that was asked for is ready.
    Restarted { run: RunId },
    /// The restart that was asked for came to nothing.
    RestartFailed { why: &'static str },
    /// The run can take work, which took more than its start.
    Ready { run: RunId },
    /// guard ends the run.
    Failing { run: RunId, failure: Failure },
    /// A health check failed; `count` of `limit` in a row.
    CheckFailed { run: RunId, count: u32, limit: u32 },
    /// A health check passed after others had failed.
    Recovered { run: RunId },
    /// The app has begun to end by itself.
    Stopping { run: RunId },
    /// A signal came while no main process lived.
    NotForwarded { signal: Signal },
    /// An operator's restart or reload found nothing that it could be done to.
    Ignored { what: &'static str, why: &'static str },
    /// The new run is ready, the old one will be stopped.
    Reloading { old: RunId, new: RunId },
    /// The new run could not be started; the old one stays.
    ReloadFailed { old: RunId, new: RunId },
    /// guard ends: a stop request, or the end of an instance that takes the others along.
    Draining { signal: Option<Signal>, delay: Duration },
    /// The app was told.
    StopSignal { run: RunId, signal: Signal },
    /// The app cannot be told over Node's channel, and gets its stop signal.
    Unheard { run: RunId, signal: Signal },
    /// The app was told over Node's channel, is still there, and gets its stop signal.
    Unheeded { run: RunId, signal: Signal },
    /// Somebody at the terminal ended the app: by Ctrl-C or Ctrl-\, or by leaving a shell.
    StoppedAtTerminal { run: RunId, ending: Ending },
    /// The main process exited 0 and left others running, as one does that daemonises itself.
    Background { run: RunId },
    /// The stop timeout passed, or the watchdog's, and the main process lives.
    KillRun { run: RunId, failure: Option<Failure> },
    /// Leftovers got their time, and live.
    KillLeftovers { run: RunId },
    /// The main process survived even SIGKILL; the run goes on.
    Unkillable { run: RunId },
    /// Leftovers survived even SIGKILL; guard goes on without them.
    Abandoned { run: RunId, count: usize },
    /// The pre-stop hook took more than half of the stop timeout.
    KillHook,
    /// The stop timeout passed, or a second Ctrl-C came: SIGKILL to everything.
    KillEverything { interrupted: bool },
    /// Every run has ended, and guard will exit with this code.
    Over { code: u8 },
    /// guard waits for connections.
    Lingering { unsent: Unsent },
    /// guard does not wait for them any longer.
    Unsent { unsent: Unsent },
    /// The restart limit is reached.
    GiveUp { run: RunId, ending: Ending, limit: u32, window: Duration },
    /// The run ended and none follows.
    NotRestarted { run: RunId, ending: Ending, why: &'static str },
}
