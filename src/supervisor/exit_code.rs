//! How a run ended, and what guard exits with for it.
//!
//! docs/exit-codes.md has the same for users.

use super::cause::Asker;
use crate::config::RestartSettings;
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
    /// The main process died of this signal, and the kernel has written a core file.
    Dumped(Signal),
    /// guard ended it for this, and it exited with this code.
    Failed(Failure, u8),
    /// Another run was to follow it, and it exited with this code.
    Replaced(Asker, u8),
    /// It was still there when the time for that was over, and guard has killed it.
    Killed,
}

/// Why there is no process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpawnError {
    /// What guard exits with if this is not mended: 125, 126 or 127.
    pub code: u8,
    /// It may well be different next time (EAGAIN, ENOMEM, ETXTBSY, …), so even a first run is tried again.
    pub transient: bool,
    /// What was wrong: the name of an errno (`errno(3)`), such as ENOENT.
    pub name: &'static str,
}

/// Why guard itself ends a run as a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Failure {
    /// It was not ready in time.
    NotReady,
    /// It has not sent WATCHDOG=1 in time.
    Watchdog,
    /// Its health checks failed in a row.
    Health,
    /// It has used more memory than it may, before it was stable.
    Memory,
}

/// How GUARD_LAST_EXIT calls GUARD_MAX_MEMORY.
pub(super) const MEMORY_LIMIT: &str = "memory-limit";

impl Ending {
    /// The code as a shell would show it: 128 + n for a death by signal n.
    pub fn code(self) -> u8 {
        match self {
            Ending::Exited(code) => code,
            Ending::NotSpawned(error) => error.code,
            Ending::Signaled(signal) | Ending::Dumped(signal) => of_signal(signal),
            Ending::OutOfMemory | Ending::Killed => KILLED,
            Ending::Replaced(_, code) => code,
            // However the app ended, guard ended it as a failure.
            Ending::Failed(_, code) => code.max(1),
        }
    }

    /// Whether one of `codes` names this ending.
    pub fn is_in(self, codes: &CodeSet) -> bool {
        match self {
            Ending::OutOfMemory => codes.oom || codes.contains(KILLED),
            // The list is for what no restart can mend.
            Ending::NotSpawned(error) => !error.transient && codes.contains(error.code),
            // guard's own signal made the code, so it says nothing of the app.
            Ending::Failed(..) | Ending::Replaced(..) | Ending::Killed => false,
            Ending::Exited(_) | Ending::Signaled(_) | Ending::Dumped(_) => codes.contains(self.code()),
        }
    }

    /// Whether it counts as a success, where `codes` do too. No list makes one of what guard or the kernel's OOM killer has killed, or
    /// of a failure that guard has seen.
    pub fn is_success(self, codes: &CodeSet) -> bool {
        match self {
            Ending::NotSpawned(_) | Ending::OutOfMemory | Ending::Failed(..) | Ending::Killed => false,
            Ending::Exited(0) | Ending::Replaced(_, 0) => true,
            // Of SIGKILL, from the OOM killer perhaps.
            Ending::Replaced(_, KILLED) => false,
            Ending::Replaced(_, code) => codes.contains(code),
            Ending::Exited(_) | Ending::Signaled(_) | Ending::Dumped(_) => self.is_in(codes),
        }
    }

    /// Ctrl-C, Ctrl-\ or the end of the terminal ended it, or it exits with 128 + n for them, as shells and runtimes do.
    pub(super) fn by_terminal(self) -> bool {
        Signal::TERMINAL_ENDS.map(of_signal).contains(&self.code())
    }
}

/// What a run that ended like this contributes to guard's own exit code: 0 for a success.
pub(super) fn contribution(ending: Ending, settings: &RestartSettings) -> u8 {
    if ending.is_success(&settings.success_codes) { 0 } else { ending.code() }
}

/// 128 + n.
pub fn of_signal(signal: Signal) -> u8 {
    128 + signal.number()
}

/// `1`, `SIGSEGV`, `oom`, `watchdog` or `ENOENT`, as GUARD_LAST_EXIT says it.
impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exited(code) => code.fmt(f),
            Ending::NotSpawned(error) => f.write_str(error.name),
            Ending::Signaled(signal) => signal.fmt(f),
            Ending::Dumped(signal) => write!(f, "{signal}+core"),
            Ending::OutOfMemory => f.write_str("oom"),
            Ending::Failed(failure, _) => f.write_str(failure.word()),
            Ending::Replaced(asker, _) => f.write_str(asker.word()),
            Ending::Killed => f.write_str("deadline"),
        }
    }
}

impl Failure {
    /// As GUARD_LAST_EXIT says it.
    pub fn word(self) -> &'static str {
        match self {
            Failure::NotReady => "not-ready",
            Failure::Watchdog => "watchdog",
            Failure::Health => "health",
            Failure::Memory => MEMORY_LIMIT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_named_as_guard_last_exit_has_them() {
        let endings = [Ending::Exited(3), Ending::Signaled(Signal::TERM), Ending::OutOfMemory];
        assert_eq!(endings.map(|ending| ending.to_string()), ["3", "SIGTERM", "oom"]);
        let missing = SpawnError { code: NOT_FOUND, transient: false, name: "ENOENT" };
        let endings = [Ending::Dumped(Signal::ABRT), Ending::NotSpawned(missing), Ending::Killed];
        assert_eq!(endings.map(|ending| ending.to_string()), ["SIGABRT+core", "ENOENT", "deadline"]);
        let replaced = [Asker::Memory, Asker::Lifetime, Asker::File, Asker::Operator];
        let replaced = replaced.map(|asker| Ending::Replaced(asker, 0).to_string());
        assert_eq!(replaced, ["memory-limit", "lifetime", "changed-file", "operator"]);
        let failures = [Failure::NotReady, Failure::Watchdog, Failure::Health];
        let failures = failures.map(|failure| Ending::Failed(failure, 1).to_string());
        assert_eq!(failures, ["not-ready", "watchdog", "health"]);
    }

    #[test]
    fn a_spawn_error_that_may_pass_is_in_no_list() {
        let codes = CodeSet::parse("126").expect("a code");
        let of = |transient| {
            Ending::NotSpawned(SpawnError { code: CANNOT_EXECUTE, transient, name: "EACCES" }).is_in(&codes)
        };
        assert_eq!([of(false), of(true)], [true, false]);
    }
}
