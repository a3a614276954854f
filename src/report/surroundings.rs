//! What the configuration needs and the container has not: files and directories. Nothing here is an error, since they may come
//! later.

use crate::config::{Config, Diagnose, HealthCheck, Warning, WarningKind};
use crate::sys::directory::is_writable;
use crate::sys::spawn::Program;
use std::ffi::OsString;
use std::path::Path;

/// What is missing, without the app itself, which the first spawn finds missing in a moment.
pub fn doubts(config: &Config) -> Vec<Warning> {
    let mut doubts = Vec::new();
    let mut add = |variable: &str, text| {
        doubts.push(Warning { kind: WarningKind::Doubt, variable: variable.to_owned(), text });
    };
    if let Some(path) = &config.drain_file {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (file, shown) = (path.display(), directory.display());
        if !directory.is_dir() {
            add(
                "GUARD_DRAIN_FILE",
                format!("GUARD_DRAIN_FILE={file}: there is no directory {shown}; mount or make one"),
            );
        } else if !is_writable(directory) {
            let text =
                format!("GUARD_DRAIN_FILE={file}: {shown} cannot be written; mount a tmpfs or an emptyDir there");
            add("GUARD_DRAIN_FILE", text);
        }
    }
    let health = match &config.health_check {
        Some(HealthCheck::Exec(words)) => Some(("GUARD_HEALTH_CHECK", words)),
        Some(HealthCheck::Probe(_)) | None => None,
    };
    let diagnose = match &config.diagnose {
        Some(Diagnose::Exec(words)) => Some(("GUARD_DIAGNOSE", words)),
        Some(Diagnose::Signal(_)) | None => None,
    };
    for (name, words) in [Some(("GUARD_PRE_STOP", &config.pre_stop)), health, diagnose].into_iter().flatten() {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        if let Some(problem) = missing(config, &words) {
            add(name, format!("{name}: {problem}"));
        }
    }
    doubts
}

/// The app, where it is missing.
pub fn doubt_of_command(config: &Config) -> Option<Warning> {
    let problem = missing(config, &config.command)?;
    Some(Warning { kind: WarningKind::Doubt, variable: String::new(), text: format!("the command: {problem}") })
}

fn missing(config: &Config, words: &[OsString]) -> Option<String> {
    let name = words.first()?.to_string_lossy();
    let program = Program::new(words, config.variable_of_the_app("PATH"));
    if program.found(config.directory.as_deref()).is_some() {
        return None;
    }
    let way_out =
        if name.contains('/') { "install it, or write its right path" } else { "install it, or write its whole path" };
    let place = if name.contains('/') { "there" } else { "in PATH" };
    Some(format!("{name} is not {place}; {way_out}"))
}
