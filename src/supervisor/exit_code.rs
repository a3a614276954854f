//! How a run ended, and what guard exits with for it.

use super::event::SpawnError;
use crate::config::codes::CodeSet;
use crate::signal::Signal;
use std::fmt;

/// guard's own error: bad configuration, no resources to begin.
pub const OWN_ERROR: u8 = 125;
/// The command is there and cannot be executed, as shells have it.
pub const CANNOT_EXECUTE: u8 = 126;
/// The command is not there, as shells have it.
pub const NOT_FOUND: u8 = 127;
/// The stop timeout passed and the main process had to be killed: 128 + SIGKILL.
pub const KILLED: u8 = 137;

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The main process exited with this code.
    Exited(u8),
    /// The main process died of this signal.
    Signaled(Signal),
    /// The kernel's out-of-memory killer chose the main process.
    OutOfMemory,
    /// There was no process.
    NotSpawned(SpawnError),
    /// guard ended it for this, and it exited with this code.
    Failed(Failure, u8),
}

/// Why guard itself ends a run as a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// It was not ready in time.
    NotReady,
    /// It has not sent WATCHDOG=1 in time.
    Watchdog,
    /// Its health checks failed in a row.
    Health,
}

impl Ending {
    /// The code as a shell would show it: 128 + n for a death by signal n.
    pub fn code(self) -> u8 {
        match self {
            Ending::Exited(code) => code,
            Ending::NotSpawned(error) => error.code,
            Ending::Signaled(signal) => of_signal(signal),
            Ending::OutOfMemory => KILLED,
            // However it ended, it is a failure.
            Ending::Failed(_, code) => code.max(1),
        }
    }

    /// Whether one of `codes` names this ending.
    pub fn is_in(self, codes: &CodeSet) -> bool {
        match self {
            Ending::OutOfMemory => codes.oom || codes.contains(KILLED),
            // What may pass is not what a list of hopeless codes means.
            Ending::NotSpawned(error) => !error.transient && codes.contains(error.code),
            // The code is guard's doing, and says nothing of the app.
            Ending::Failed(..) => false,
            Ending::Exited(_) | Ending::Signaled(_) => codes.contains(self.code()),
        }
    }

    /// Ended by Ctrl-C, Ctrl-\ or the end of the terminal, or saying so as shells and many a runtime do.
    pub(super) fn by_terminal(self) -> bool {
        let signals = [Signal::INT, Signal::QUIT, Signal::HUP];
        !matches!(self, Ending::Failed(..)) && signals.map(of_signal).contains(&self.code())
    }
}

/// 128 + n.
pub fn of_signal(signal: Signal) -> u8 {
    128 + signal.number()
}

/// `1`, `SIGSEGV`, `oom` or `watchdog`, as GUARD_LAST_EXIT says it.
impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exited(code) => code.fmt(f),
            Ending::NotSpawned(error) => error.code.fmt(f),
            Ending::Signaled(signal) => signal.fmt(f),
            Ending::OutOfMemory => f.write_str("oom"),
            Ending::Failed(failure, _) => failure.fmt(f),
        }
    }
}

/// As GUARD_LAST_EXIT says it.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::NotReady => "not-ready",
            Failure::Watchdog => "watchdog",
            Failure::Health => "health",
        })
    }
}
