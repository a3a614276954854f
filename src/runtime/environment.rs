//! The environment that the app, its health checks and the hooks get.

use super::failed_starts::name_of;
use crate::config::entry::Entry;
use crate::config::{Config, duration};
use crate::signal::Signal;
use crate::supervisor::{Ending, RunId};
use crate::sys::Errno;
use crate::sys::errno::reason;
use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Variables, each as `NAME=value`.
#[derive(Clone)]
pub(super) struct Environment {
    /// Entries that guard was started with.
    inherited: Rc<Vec<&'static CStr>>,
    /// Entries that guard adds.
    added: Vec<CString>,
    /// What GUARD_ID is, in this guard's runs alone: the mark by which guard knows what it has started.
    id: Rc<str>,
}

/// Variables of a manager above guard, which are for guard alone (`sd_notify(3)`, `sd_watchdog_enabled(3)`). guard gives the
/// app variables of the same names.
const OF_MANAGER: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The protocol of sockets that a process is handed (`sd_listen_fds(3)`). The app gets values of its own.
const OF_SOCKETS: [&str; 4] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"];

/// Variables of a Node channel above guard. The app does not get them where guard opens a channel of its own.
const OF_NODE: [&str; 2] = ["NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE"];

/// The kernel takes no longer entry, its NUL included (MAX_ARG_STRLEN, `execve(2)`), in bytes.
const LONGEST_ENTRY: usize = 128 * 1024;

/// A variable of GUARD_ENV_FILES whose file could not be read, and why.
pub(super) struct UnreadVariable<'a> {
    pub(super) variable: &'a str,
    pub(super) path: PathBuf,
    pub(super) problem: String,
    /// EINVAL for a file that is there, and holds no value.
    pub(super) errno: Errno,
}

impl fmt::Display for UnreadVariable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {} ({})", self.variable, self.path.display(), self.problem, name_of(self.errno))
    }
}

impl Environment {
    /// With `sockets` the app is handed some by guard. `id` is no other guard's, whatever PID namespace that is in.
    pub(super) fn new(config: &Config, sockets: bool, id: u64) -> Environment {
        // Where /etc/passwd knows no home it is the root directory, as engines have it.
        let home = config.user.as_ref().map(|user| user.home.as_deref().unwrap_or(Path::new("/")));
        let is_read = |variable: &String| config.file_of(variable).is_some();
        let from_file = config.env_files.iter().any(|variable| variable == "HOME" && is_read(variable));
        let home = home.filter(|_| is_of_root(config) && !from_file);
        let is_taken = |entry: &Entry| {
            home.is_some() && entry.is("HOME")
                || config.env_files.iter().any(|variable| entry.is(variable) && is_read(variable))
                || OF_MANAGER.iter().any(|taken| entry.is(taken))
                || sockets && OF_SOCKETS.iter().any(|taken| entry.is(taken))
                || config.node_ipc && OF_NODE.iter().any(|taken| entry.is(taken))
        };
        let mut inherited = Vec::with_capacity(config.environment.len());
        inherited.extend(config.environment.iter().filter(|entry| !is_taken(entry)).map(|entry| entry.text()));
        let mut environment =
            Environment { inherited: Rc::new(inherited), added: Vec::new(), id: format!("{id:016x}").into() };
        environment.set("GUARD_STOP_TIMEOUT", seconds(config.stop.timeout));
        if let Some(home) = home {
            environment.set("HOME", home);
        }
        environment
    }

    /// For the pre-stop hook, which belongs to no run: adds the signal that guard received, and the time until SIGKILL.
    pub(super) fn for_hook(&self, signal: Option<Signal>, left: Option<Duration>) -> Environment {
        let mut environment = self.clone();
        if let Some(signal) = signal {
            environment.set("GUARD_STOP_SIGNAL_RECEIVED", signal.to_string());
        }
        environment.set("GUARD_STOP_TIME_LEFT", seconds(left));
        environment
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// For a run and its health checks: adds the run's mark, the numbers of the run and its instance, one of `instances`.
    pub(super) fn for_run(&self, run: RunId, instances: usize) -> Environment {
        let mut environment = self.clone();
        environment.set("GUARD_ID", &*self.id);
        environment.set("GUARD_RUN", run.number.to_string());
        environment.set("GUARD_INSTANCE", run.instance.to_string());
        if instances > 1 {
            // Of two entries the first would count.
            let inherited = environment.inherited.iter().copied();
            let is_other = |entry: &&CStr| !entry.to_bytes().starts_with(b"NODE_APP_INSTANCE=");
            if !inherited.clone().all(|entry| is_other(&entry)) {
                environment.inherited = Rc::new(inherited.filter(is_other).collect());
            }
            environment.set("NODE_APP_INSTANCE", run.instance.to_string());
        }
        environment
    }

    /// For the app: adds the number of restarts, and how the last run ended.
    pub(super) fn set_history(&mut self, restarts: u32, last: Option<Ending>) {
        self.set("GUARD_RESTARTS", restarts.to_string());
        if let Some(last) = last {
            self.set("GUARD_LAST_EXIT", last.to_string());
        }
    }

    /// Adds what the files of GUARD_ENV_FILES hold now.
    pub(super) fn read_files<'a>(&mut self, config: &'a Config) -> Result<(), UnreadVariable<'a>> {
        for variable in &config.env_files {
            let Some(path) = config.file_of(variable) else { continue };
            match read_value(&path, (LONGEST_ENTRY - "=\0".len()).saturating_sub(variable.len())) {
                Ok(value) => self.set(variable, OsStr::from_bytes(&value)),
                Err((problem, errno)) => return Err(UnreadVariable { variable, path, problem, errno }),
            }
        }
        Ok(())
    }

    pub(super) fn entries(&self) -> Vec<&CStr> {
        self.inherited.iter().copied().chain(self.added.iter().map(CString::as_c_str)).collect()
    }

    pub(super) fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.added.extend(entry(name.as_ref(), value.as_ref()));
    }
}

/// The content of a file without the newline at its end. A pipe is no such file: guard would wait for its writer.
fn read_value(path: &Path, longest: usize) -> Result<Vec<u8>, (String, Errno)> {
    let read = || {
        let file =
            OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY).open(path)?;
        let is_file = file.metadata()?.is_file();
        let mut value = Vec::new();
        if is_file {
            file.take(LONGEST_ENTRY as u64 + 1).read_to_end(&mut value)?;
        }
        Ok(is_file.then_some(value))
    };
    let value = read().map_err(|error: std::io::Error| match error.raw_os_error() {
        Some(errno) => (reason(Errno::from_raw(errno)).to_owned(), Errno::from_raw(errno)),
        None => (error.to_string(), Errno::EINVAL),
    })?;
    let mut value = value.ok_or_else(|| ("not a regular file".to_owned(), Errno::EINVAL))?;
    if value.last() == Some(&b'\n') {
        value.pop();
    }
    if value.contains(&0) {
        Err(("holds a NUL byte, which no variable can".to_owned(), Errno::EINVAL))
    } else if value.len() > longest {
        Err(("longer than the 128 KiB that a variable can have".to_owned(), Errno::EINVAL))
    } else {
        Ok(value)
    }
}

/// `None` if name or value holds a NUL byte, which would end the entry.
fn entry(name: &OsStr, value: &OsStr) -> Option<CString> {
    // With room for the NUL at its end.
    let mut entry = Vec::with_capacity(name.len() + value.len() + 2);
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'=');
    entry.extend_from_slice(value.as_bytes());
    CString::new(entry).ok()
}

/// Whether HOME is root's, or not set: engines set it by the user that guard was started as.
fn is_of_root(config: &Config) -> bool {
    config.variable_of_the_app("HOME").is_none_or(|home| home.is_empty() || home == "/root" || home == "/")
}

/// A bare number of seconds, so that no app needs to parse a duration.
fn seconds(duration: Option<Duration>) -> String {
    duration.map_or("none".to_owned(), duration::show_seconds)
}
