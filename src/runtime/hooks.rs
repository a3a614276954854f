//! What a drain shows to the outside: the drain file and the pre-stop hook. Their failures are logged and change nothing.

use super::environment::Environment;
use crate::config::Config;
use crate::sys::Pid;
use crate::sys::spawn::{Program, SpawnFailure, Start};
use nix::libc::O_NONBLOCK;
use std::ffi::{CStr, OsString};
use std::fs::{OpenOptions, remove_file};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Makes the file if guard drains and removes it if not; at the start it may be there from an earlier life.
pub(super) fn set_drain_file(path: Option<&Path>, drains: bool) {
    let Some(path) = path else { return };
    // What is there may be a pipe without a reader, which must not keep guard waiting.
    let create = || OpenOptions::new().write(true).create(true).truncate(true).custom_flags(O_NONBLOCK).open(path);
    let result = if drains { create().map(drop) } else { remove_file(path) };
    match result {
        Err(error) if drains || error.kind() != io::ErrorKind::NotFound => {
            log::warn!(path:% = path.display(), error:% = error; "drain-file");
        }
        Ok(()) | Err(_) => {}
    }
}

/// A configured command, which is looked for where the app is.
pub(super) fn program(config: &Config, words: &[String]) -> Program {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    Program::new(&words, config.variable_of_the_app("PATH"))
}

/// Starts the pre-stop hook in a group of its own. A failure comes with the file that could not be executed, if it is there.
pub(super) fn start_pre_stop(
    config: &Config,
    environment: &Environment,
    directory: Option<&CStr>,
) -> Result<Pid, (SpawnFailure, Option<PathBuf>)> {
    let entries = environment.entries();
    let start = Start::new(&entries, directory);
    let program = program(config, &config.pre_stop);
    let pid = program.spawn(&start).map_err(|failure| (failure, program.found(config.directory.as_deref())))?;
    log::info!(pid = pid, command:% = config.pre_stop.join(" "); "pre-stop");
    Ok(pid)
}
