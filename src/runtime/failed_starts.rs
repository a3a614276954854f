//! Programs that could not be started, as lines of the log: the app, hooks, health checks.

use super::environment::UnreadVariable;
use super::journal::{Journal, of_run};
use crate::supervisor::{CANNOT_EXECUTE, NOT_FOUND, OWN_ERROR, RunId, SpawnError};
use crate::sys::Errno;
use crate::sys::errno::{is_shortage, reason};
use crate::sys::spawn::SpawnFailure;
use log::Level;

/// Whether it may be over when guard tries again.
fn is_transient(errno: Errno) -> bool {
    is_shortage(errno) || matches!(errno, Errno::ETXTBSY | Errno::EIO | Errno::ESTALE)
}

impl Journal<'_> {
    /// There is no process; returns what that means to the core.
    pub(super) fn spawn_failed(&mut self, run: RunId, failure: SpawnFailure, problem: Option<String>) -> SpawnError {
        let (errno, code, problem) = self.explain(failure, problem);
        let transient = is_transient(errno);
        let command = self.config.command.first().map(|word| word.to_string_lossy()).unwrap_or_default();
        of_run!(self, Level::Error, run, command:%, code, errno = name_of(errno), error:% = problem; "spawn-failed");
        self.note_spawn_failure(run, name_of(errno), format!("{command}: {problem} ({})", name_of(errno)));
        SpawnError { code, transient, name: name_of(errno) }
    }

    /// A file of GUARD_ENV_FILES could not be read, so the run cannot begin.
    pub(super) fn unread_variable(&mut self, run: RunId, error: &UnreadVariable) -> SpawnError {
        let (variable, path, name) = (error.variable, error.path.display(), name_of(error.errno));
        of_run!(self, Level::Error, run, variable:%, path:%, errno = name, error:% = error.problem; "variable-file");
        self.note_spawn_failure(run, name, error.to_string());
        SpawnError { code: OWN_ERROR, transient: is_transient(error.errno), name }
    }

    /// The status tells no path, since GUARD_HTTP shows it to strangers.
    fn note_spawn_failure(&mut self, run: RunId, name: &str, what: String) {
        let record = self.of_instance(run);
        record.last = what;
        record.last_run = format!("run {} could not be started ({name})", run.number);
        self.write_down(&self.reason());
    }

    /// What the failure is to the kernel and as an exit code, and in words. `problem` is what the file shows of the cause.
    pub(super) fn explain(&self, failure: SpawnFailure, problem: Option<String>) -> (Errno, u8, String) {
        match failure {
            SpawnFailure::Clone(errno) => (
                errno,
                CANNOT_EXECUTE,
                format!("no new process ({}): is a limit of processes, descriptors or memory reached?", reason(errno)),
            ),
            SpawnFailure::Directory(errno) => {
                (errno, OWN_ERROR, format!("{}: {}", self.config.directory_name(), reason(errno)))
            }
            SpawnFailure::Limit(errno) => {
                (errno, OWN_ERROR, format!("a limit of GUARD_LIMIT_* cannot be set: {}", reason(errno)))
            }
            SpawnFailure::Architecture => (Errno::ENOEXEC, CANNOT_EXECUTE, "built for another architecture".to_owned()),
            SpawnFailure::Shell(errno) => {
                let problem =
                    format!("it is no binary and has no #! line, and /bin/sh cannot run it: {}", reason(errno));
                (errno, CANNOT_EXECUTE, problem)
            }
            SpawnFailure::Execute(errno @ (Errno::ENOENT | Errno::ENOTDIR)) => {
                let problem = problem.unwrap_or("it is there, but not the loader that it names".to_owned());
                (errno, NOT_FOUND, problem)
            }
            SpawnFailure::Execute(errno) => {
                let problem = problem.filter(|_| errno == Errno::EACCES);
                (errno, CANNOT_EXECUTE, problem.unwrap_or(reason(errno).to_owned()))
            }
        }
    }

    pub(super) fn hook_failed(&self, problem: &str) {
        let command = self.config.pre_stop.join(" ");
        log::warn!(command:%, error:% = problem, msg = "the stop goes on without"; "pre-stop-failed");
    }

    pub(super) fn diagnosis_failed(&self, run: RunId, problem: &str) {
        of_run!(self, Level::Warn, run, error:% = problem; "diagnose-failed");
    }

    /// Said in the start period too, since time will not mend it; and once as long as it stays the same.
    pub(super) fn check_not_started(&mut self, run: RunId, problem: &str) {
        let problem = format!("cannot be started: {problem}");
        if self.check(run) != problem {
            let command = self.config.health_check.as_ref().map_or_else(String::new, ToString::to_string);
            of_run!(self, Level::Warn, run, command:%, error:% = problem; "check-not-started");
            self.of_instance(run).check = problem;
        }
    }
}

/// The name of an errno (`errno(3)`), of those that a failed start has.
pub(super) fn name_of(errno: Errno) -> &'static str {
    const NAMES: [(Errno, &str); 20] = [
        (Errno::E2BIG, "E2BIG"),
        (Errno::EACCES, "EACCES"),
        (Errno::EAGAIN, "EAGAIN"),
        (Errno::EINVAL, "EINVAL"),
        (Errno::EIO, "EIO"),
        (Errno::EISDIR, "EISDIR"),
        (Errno::ELIBBAD, "ELIBBAD"),
        (Errno::ELOOP, "ELOOP"),
        (Errno::EMFILE, "EMFILE"),
        (Errno::ENAMETOOLONG, "ENAMETOOLONG"),
        (Errno::ENFILE, "ENFILE"),
        (Errno::ENOENT, "ENOENT"),
        (Errno::ENOEXEC, "ENOEXEC"),
        (Errno::ENOMEM, "ENOMEM"),
        (Errno::ENOSPC, "ENOSPC"),
        (Errno::ENOSYS, "ENOSYS"),
        (Errno::ENOTDIR, "ENOTDIR"),
        (Errno::EPERM, "EPERM"),
        (Errno::ESTALE, "ESTALE"),
        (Errno::ETXTBSY, "ETXTBSY"),
    ];
    NAMES.iter().find(|(known, _)| *known == errno).map_or("not-started", |(_, name)| name)
}
