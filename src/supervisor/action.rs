//! What the supervisor wants done. The runtime does each action in order, decides nothing, and answers with events.
//!
//! Nothing that the program does depends on a [`Notice`]: notices are for people.

use super::cause::Asker;
use super::event::UnsentData;
use super::exit_code::{Ending, Failure};
use super::run_id::RunId;
use super::shutdown::ShutdownCause;
use crate::signal::Signal;
use std::time::Duration;

/// A thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Start the app. Answered at once by `Spawned` or `SpawnFailed`.
    Spawn { run: RunId, restarts: u32, last: Option<Ending> },
    /// Send a signal to the run's main process, or to its group as GUARD_SIGNAL_SCOPE says.
    Signal(RunId, Signal),
    /// Send SIGKILL, in the same way: its time is over.
    Kill(RunId),
    /// Send the stop signal, in the same way.
    Stop(RunId, Signal),
    /// The terminal has sent the stop signal: send it to a run that the terminal does not reach.
    StopUnreached(RunId, Signal),
    /// SIGSTOP, for the run's whole group.
    Freeze(RunId),
    /// SIGCONT, for the run's whole group.
    Thaw(RunId),
    /// Stop guard itself until somebody continues it.
    Suspend,
    /// Signal the leftovers of a run whose main process has ended. Answered by `Leftovers`.
    Sweep(RunId, Signal),
    /// SIGTERM to the children of PID 1 that belong to no run. Answered by `UnmarkedCounted`.
    SweepUnmarked,
    /// The run is over: nothing of it is left, or only what SIGKILL does not end.
    Forget(RunId),
    /// Count a restart: the run is over, and another has followed it or will. `asked` is who has asked for the other one, where
    /// somebody has.
    CountRestart { run: RunId, ending: Ending, asked: Option<(InPlace, Asker)> },
    /// Create the drain file, or remove it: it exists exactly while guard drains.
    SetDrainFile(bool),
    /// Start the pre-stop hook, with the signal that came and the time that is left. Answered by `HookEnded` in the end.
    StartHook { signal: Option<Signal>, left: Option<Duration> },
    /// Send a signal to the pre-stop hook and all below it.
    SignalHook(Signal),
    /// Send `drain` over Node's channel: the app will be stopped.
    SayDrain(RunId),
    /// Send `shutdown` over Node's channel: the app is to stop. Answered by `ShutdownUndelivered` if it cannot be sent.
    SayShutdown(RunId),
    /// Start a health check. Answered by `Checked` in the end.
    StartCheck(RunId),
    /// SIGKILL to the health check and all below it.
    KillCheck(RunId),
    /// Ask a run for a diagnosis, by a signal or a command. A command is answered by `Diagnosed` in the end.
    Diagnose(RunId),
    /// SIGKILL to the command of a diagnosis and all below it, if it still runs.
    EndDiagnosis(RunId),
    /// Let go of the sockets that outlive a run: nobody will serve what waits there. Comes once, in guard's end.
    Release,
    /// Answer every client that has asked for this: with the new run that is ready, or why there is none.
    Conclude { request: InPlace, outcome: Outcome },
    /// Answer every client that has asked for another number of instances: with the number that run, or why it was not
    /// reached.
    ConcludeScale(Result<u32, &'static str>),
    /// Count the CPUs that the container may use. Answered at once by `CpusCounted`.
    CountCpus,
    /// SIGKILL to everything that can be reached. Answered by `NothingLeft` when all is reaped.
    KillEverything(KillReason),
    /// Write a line to the log.
    Report(Notice),
    /// Count what closed connections still have to send. Answered at once by `UnsentCounted`.
    CountUnsent,
    /// Find what the app listens on, before anybody tells it that a drain begins.
    FindPorts,
    /// Count the connections to what `FindPorts` has found. Answered at once by `ConnectionsCounted`.
    CountConnections,
    /// Count the connections that wait to be accepted by a run. Answered at once by `QueueCounted`.
    CountQueue(RunId),
    /// guard's work is done; it exits with this code.
    Exit { code: u8 },
}

/// What can be asked for while guard goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InPlace {
    /// Stop the old run, then start the new one.
    Restart,
    /// Start the new run, then stop the old one.
    Reload,
}

/// The new run that is ready, the last one where there are several; or why there is none.
pub type Outcome = Result<RunId, &'static str>;

/// Why everything gets SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KillReason {
    /// Every run has ended, and guard is about to exit.
    AllEnded,
    /// The stop timeout has passed.
    StopTimeout,
    /// A second SIGINT came from the terminal.
    Interrupted,
}

/// What bounds the time that a run has for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeLimit {
    StopTimeout,
    /// It has failed, and so has this long, though the stop timeout is longer.
    Failure(Duration),
    /// It has got SIGABRT, and this long to write a core file.
    Abort(Duration),
}

/// A decision, as a line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The run ended and another follows after the delay. `count` restarts of `limit` are used up, this one included.
    Restarting { next: RunId, ending: Ending, count: u32, limit: Option<u32>, delay: Duration },
    /// A restart that somebody asked for begins.
    RestartRequested { run: RunId, asker: Asker },
    /// What became of a restart or a reload.
    Concluded { request: InPlace, outcome: Outcome },
    /// There are to be more instances, or fewer.
    Scaling { from: u32, to: u32 },
    /// What became of it.
    Scaled(Result<u32, &'static str>),
    /// The run can take work, which took more than its start.
    Ready { run: RunId },
    /// guard ends the run, since it has failed.
    Failing { run: RunId, failure: Failure },
    /// A health check failed; `count` of `limit` in a row.
    CheckFailed { run: RunId, count: u32, limit: u32 },
    /// A health check passed after others had failed.
    Recovered { run: RunId },
    /// The app has begun to end by itself.
    Stopping { run: RunId },
    /// A signal came while no main process lived.
    NotForwarded { signal: Signal },
    /// Something of what an operator asks for is not done.
    Ignored { what: &'static str, why: &'static str },
    /// A reload was asked for while one runs: another follows.
    ReloadQueued,
    /// The new run is ready; the old one is about to be stopped.
    Reloading { old: RunId, new: RunId, asker: Asker },
    /// guard's end begins, and the runs are drained for so long.
    Draining { cause: ShutdownCause, delay: Duration },
    /// The app has got its stop signal.
    StopSignal { run: RunId, signal: Signal },
    /// The message over Node's channel could not be sent, and the app has got its stop signal.
    ShutdownUndelivered { run: RunId, signal: Signal },
    /// The app has got the message over Node's channel, has not ended, and has got its stop signal.
    ShutdownIgnored { run: RunId, signal: Signal },
    /// Somebody at the terminal ended the app: by a key, or by what was typed.
    StoppedAtTerminal { run: RunId, ending: Ending },
    /// The main process ended within the stop timeout after a QUIT that guard has forwarded, so none follows.
    StoppedByQuit { run: RunId, ending: Ending },
    /// The main process exited 0 and left others running, as a program does that goes to the background.
    Background { run: RunId },
    /// The main process was still there when its time was over, and has got SIGKILL.
    KillRun { run: RunId, limit: TimeLimit },
    /// Leftovers were still there when their time was over, and have got SIGKILL.
    KillLeftovers { run: RunId },
    /// Daemons that belong to no run were still there when their time was over.
    KillUnmarked,
    /// The main process survived even SIGKILL; the run goes on.
    Unkillable { run: RunId },
    /// This number of leftovers survived even SIGKILL; guard goes on without them.
    Abandoned { run: RunId, count: usize },
    /// The pre-stop hook took more than half of the stop timeout, and has got SIGKILL.
    KillHook,
    /// Everything has got SIGKILL before all runs had ended.
    KillEverything { reason: KillReason },
    /// Every run has ended, and guard will exit with this code.
    Over { code: u8 },
    /// This number of connections was left when their time was over.
    StillConnected { connections: usize },
    /// guard waits for connections.
    Lingering { unsent: UnsentData },
    /// guard does not wait for them any longer.
    Unsent { unsent: UnsentData },
    /// The restart limit is reached.
    GiveUp { run: RunId, ending: Ending, limit: u32, within: Duration },
    /// The run ended and none follows.
    NotRestarted { run: RunId, ending: Ending, why: &'static str },
}
