//! What a drain shows to the outside: the drain file and the pre-stop hook. Their failures are logged and change nothing.

use super::environment::Environment;
use crate::config::Config;
use crate::report::surroundings::{is_device, problem};
use crate::sys::Pid;
use crate::sys::spawn::{Output, Program, SpawnFailure, Start};
use std::ffi::{CStr, OsString};
use std::fs::{OpenOptions, remove_file, symlink_metadata};
use std::io;
use std::path::Path;

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

/// Starts the pre-stop hook in a group of its own, and without the app's stdin: at a terminal the kernel would stop it for a read
/// (`SIGTTIN`, `termios(3)`). A failure comes with what its file shows of the cause.
pub(super) fn start_pre_stop(
    config: &Config,
    environment: &Environment,
    directory: Option<&CStr>,
) -> Result<Pid, (SpawnFailure, Option<String>)> {
    let entries = environment.entries();
    let start = Start { output: Output::WithoutStdin, ..Start::new(&entries, directory) };
    let program = program(config, &config.pre_stop);
    let pid = program.spawn(&start).map_err(|failure| (failure, problem(&program, config.directory.as_deref())))?;
    log::info!(pid = pid, command:% = config.pre_stop.join(" "); "pre-stop");
    Ok(pid)
}
