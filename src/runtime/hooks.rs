//! What a drain shows to the outside: the drain file and the pre-stop hook. Their failures are logged and change nothing. And
//! how all commands start that guard runs beside the app.

use super::Runtime;
use super::children::Owner;
use super::environment::Environment;
use crate::config::Config;
use crate::report::surroundings::{is_device, problem};
use crate::signal::Signal;
use crate::supervisor::Event;
use crate::sys::Pid;
use crate::sys::spawn::{Output, Program, Start};
use std::ffi::OsString;
use std::fs::{OpenOptions, remove_file, symlink_metadata};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Makes the drain file if guard drains and removes it if not; at the start it may be there from an earlier life.
pub(super) fn set_drain_file(path: Option<&Path>, drains: bool) {
    let Some(path) = path else { return };
    let result = if drains { make_file(path) } else { remove(path) };
    match result {
        Err(error) if drains || error.kind() != io::ErrorKind::NotFound => {
            log::warn!(path:% = path.display(), error:% = error; "drain-file");
        }
        Ok(()) | Err(_) => {}
    }
}

/// Makes an empty file, or leaves a regular file alone that is there. The app may have put a link in its place, to have root
/// make or empty another file, or a pipe, to have guard wait. So guard opens nothing that is there (O_EXCL, `open(2)`).
fn make_file(path: &Path) -> io::Result<()> {
    /// The app may put another link there meanwhile.
    const ATTEMPTS: u32 = 3;
    let mut result = Ok(());
    for _ in 0..ATTEMPTS {
        result = OpenOptions::new().write(true).create_new(true).open(path).map(drop);
        match &result {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if symlink_metadata(path).is_ok_and(|metadata| metadata.is_file()) {
                    return Ok(());
                }
                remove(path)?;
            }
            Ok(()) | Err(_) => return result,
        }
    }
    result
}

/// Removes what is there, unless it is a device: the container needs its /dev/null.
fn remove(path: &Path) -> io::Result<()> {
    if is_device(path) { Err(io::Error::from(io::ErrorKind::AlreadyExists)) } else { remove_file(path) }
}

/// A configured command, which is found by the PATH of the app.
pub(super) fn program(config: &Config, words: &[String]) -> Program {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    Program::new(&words, config.variable_of_the_app("PATH"))
}

impl Runtime<'_> {
    /// Starts a hook, a check or a diagnosis in a group of its own, and without the app's stdin: at a terminal the kernel would
    /// stop it for a read (`SIGTTIN`, `termios(3)`). The error is why it cannot be started.
    pub(super) fn start_beside(
        &mut self,
        program: &Program,
        environment: &Environment,
        output: Output,
    ) -> Result<Pid, String> {
        let entries = environment.entries();
        let start = Start { output, ..Start::new(&entries, self.launch.directory.as_deref()) };
        let pid = program.spawn(&start).map_err(|failure| {
            let problem = problem(program, self.config.directory.as_deref());
            self.journal.explain(failure, problem).2
        })?;
        self.reaping.childless = false;
        Ok(pid)
    }

    /// Starts the pre-stop hook. One that cannot be started has ended.
    pub(super) fn start_hook(&mut self, signal: Option<Signal>, left: Option<Duration>) -> Option<Event> {
        let environment = self.launch.environment.for_hook(signal, left);
        let program = program(self.config, &self.config.pre_stop);
        match self.start_beside(&program, &environment, Output::WithoutStdin) {
            Ok(pid) => {
                log::info!(pid = pid, command:% = self.config.pre_stop.join(" "); "pre-stop");
                self.journal.hook_signalled = false;
                self.children.hook = Some(pid);
                debug_assert_eq!(self.children.owner(pid), Owner::Hook);
                None
            }
            Err(problem) => {
                self.journal.hook_failed(&problem);
                Some(Event::HookEnded)
            }
        }
    }
}
