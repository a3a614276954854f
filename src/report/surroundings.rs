//! What the configuration needs and the container has not: files and directories. Nothing here is an error, since they may come
//! later.

use crate::config::user::User;
use crate::config::{Config, Instances, ListenAddress, Warning, WarningKind};
use crate::sys::cgroup;
use crate::sys::directory::is_writable;
use crate::sys::process;
use crate::sys::spawn::Program;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is missing, or may be, as guard looks for it at its start.
pub fn doubts(config: &Config) -> Vec<Warning> {
    let mut doubts = Vec::new();
    let mut add = |variable: &str, text| {
        doubts.push(Warning { kind: WarningKind::Doubt, variable: variable.to_owned(), text });
    };
    if let Some(problem) = config.drain_file.as_deref().and_then(drain_file_problem) {
        add("GUARD_DRAIN_FILE", problem);
    }
    for (name, words) in config.commands() {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        if let Some(problem) = missing(config, &words) {
            add(name, format!("{name}: {problem}"));
        }
    }
    let mut note = |variable: &str, text| {
        doubts.push(Warning { kind: WarningKind::Note, variable: variable.to_owned(), text });
    };
    let is_set = |name: &str| config.set_variable_of_the_app(name).is_some();
    for name in config.env_files.iter().filter(|name| !is_set(name) && config.file_of(name).is_none()) {
        note("GUARD_ENV_FILES", format!("GUARD_ENV_FILES={name}: neither {name}_FILE nor {name} is set"));
    }
    doubts
}

fn drain_file_problem(path: &Path) -> Option<String> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let shown = directory.display();
    let problem = if path.is_dir() {
        "it is a directory; name a file".to_owned()
    } else if is_device(path) {
        "it is a device; name a file".to_owned()
    } else if !directory.is_dir() {
        format!("there is no directory {shown}; mount or make one")
    } else if !is_writable(directory) {
        format!("{shown} cannot be written; mount a tmpfs or an emptyDir there")
    } else {
        return None;
    };
    Some(format!("GUARD_DRAIN_FILE={}: {problem}", path.display()))
}

/// Whether there is a device.
pub fn is_device(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.rdev() != 0)
}

/// What guard does not look for at its start: the app, which the first spawn finds missing in a moment, and paths of others, at
/// which a file system may hang.
pub fn doubts_of_check(config: &Config) -> Vec<Warning> {
    let mut doubts = Vec::new();
    let mut add = |kind, text| doubts.push(Warning { kind, variable: String::new(), text });
    for (path, _) in config.on_change.iter().filter(|(path, _)| !path.exists()) {
        add(WarningKind::Note, format!("GUARD_ON_CHANGE={}: nothing is there yet", path.display()));
    }
    if let Some(problem) = missing(config, &config.command) {
        add(WarningKind::Doubt, format!("the command: {problem}"));
    }
    if config.instances == Instances::Auto && cgroup::cpus() == Ok(None) {
        add(WarningKind::Note, "GUARD_INSTANCES=auto: there is no CPU quota here: one instance".to_owned());
    }
    for listen in &config.listen {
        if let ListenAddress::Unix(path) = &listen.address
            && let Some(directory) = path.parent().filter(|parent| is_missing(parent))
        {
            let directory = directory.display();
            add(WarningKind::Doubt, format!("GUARD_LISTEN: there is no directory {directory}; mount or make one"));
        }
    }
    if let Some(user) = &config.user {
        let own = process::effective_ids();
        let gid = user.gid_of_process(own);
        if own.0 != 0 && own != (user.uid, gid) {
            add(WarningKind::Doubt, format!("GUARD_USER={user}: uid {} may not become it; start guard as root", own.0));
        }
        let may = |access, path: &Path| may(user, gid, access, path);
        // At its start guard becomes the user, and then knows for sure.
        let directory = config.drain_file.as_deref().and_then(Path::parent);
        if let Some(directory) = directory.filter(|directory| !may(WRITE | SEARCH, directory)) {
            let directory = directory.display();
            let text = format!("GUARD_DRAIN_FILE: {user} cannot write {directory}; name a directory that {user} owns");
            add(WarningKind::Doubt, text);
        }
        for path in config.env_files.iter().filter_map(|name| config.file_of(name)) {
            if !may(READ, &path) {
                let path = path.display();
                add(WarningKind::Doubt, format!("GUARD_ENV_FILES: {user} cannot read {path}; let {user} read it"));
            }
        }
        for (path, _) in &config.on_change {
            let is_seen = path.parent().is_none_or(|parent| may(SEARCH, parent));
            if !may(READ, path) || !is_seen {
                let path = path.display();
                let sees = if is_seen { "its size and time alone" } else { "no change" };
                let text =
                    format!("GUARD_ON_CHANGE={path}: {user} cannot read it, so guard sees {sees}; let {user} read it");
                add(WarningKind::Doubt, text);
            }
        }
    }
    doubts
}

/// Bits of a mode (`inode(7)`).
const READ: u32 = 0o4;
const WRITE: u32 = 0o2;
const SEARCH: u32 = 0o1;

fn is_missing(path: &Path) -> bool {
    path.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Whether a user with this group has access to a file, as far as its mode tells (`path_resolution(7)`).
fn may(user: &User, gid: u32, access: u32, path: &Path) -> bool {
    let Ok(metadata) = path.metadata() else { return true };
    let place = if user.uid == metadata.uid() {
        6
    } else if gid == metadata.gid() || user.groups.contains(&metadata.gid()) {
        3
    } else {
        0
    };
    user.uid == 0 || metadata.mode() >> place & access == access
}

fn missing(config: &Config, words: &[OsString]) -> Option<String> {
    let program = Program::new(words, config.variable_of_the_app("PATH"));
    let problem = problem(&program, config.directory.as_deref())?;
    Some(format!("{}: {problem}", words.first()?.to_string_lossy()))
}

/// Why a program cannot be started from this directory, as far as its file shows, and the way out.
pub fn problem(program: &Program, directory: Option<&Path>) -> Option<String> {
    const OF_A_SHELL: [&str; 8] = [".", "cd", "eval", "exec", "export", "set", "source", "ulimit"];
    let Some(path) = program.found(directory) else {
        let name = program.name();
        let path = directory.unwrap_or(Path::new("")).join(&*name);
        if name.contains('/') && path.metadata().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return Some("this user may not search a directory above it; chmod +x that".to_owned());
        }
        let way_out = if OF_A_SHELL.contains(&name.as_ref()) {
            "; it is a shell's own: use sh -c"
        } else if name.contains(char::is_whitespace) {
            "; these are several words: write each by itself, or use sh -c"
        } else if name.starts_with('-') {
            " in PATH; options of guard's come before --"
        } else if name.contains('/') {
            "; install it, or write its right path"
        } else {
            " in PATH; install it, or write its whole path"
        };
        return Some(format!("no such file{way_out}"));
    };
    let metadata = path.metadata().ok()?;
    // Who reads this has read the name.
    let shown = if path.as_os_str() == &*program.name() { "it".into() } else { path.to_string_lossy() };
    if metadata.is_dir() {
        return Some(format!("{shown} is a directory"));
    }
    if metadata.mode() & 0o111 == 0 {
        return Some(format!("{shown} may not be executed; chmod +x it"));
    }
    // The kernel reads so much of a script (`execve(2)`). A pipe would make guard wait.
    let mut head = [0; 256];
    let length = metadata.is_file().then(|| File::open(&path).ok())??.read(&mut head).ok()?;
    let line = head[..length].strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let interpreter = line.trim_matches([' ', '\t']).split([' ', '\t']).next()?;
    if directory.unwrap_or(Path::new("")).join(interpreter).exists() {
        return None;
    }
    let way_out = if line.ends_with('\r') { "; its lines end in CRLF: turn them into LF" } else { "" };
    let interpreter = interpreter.trim_end();
    Some(format!("{shown} is there, but not the interpreter {interpreter} that it names{way_out}"))
}
