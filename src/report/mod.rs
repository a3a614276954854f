//! What guard tells: the log on stderr, and the last word in the termination log. It never waits and never panics.

mod format;
mod last_word;
pub mod status;
mod writer;

pub use format::shorten;
pub use last_word::LastWord;

use crate::config::{Config, LogFormat};
use crate::sys::process;
use crate::sys::stderr::Stderr;
use crate::text::printable_lines;
use std::io::ErrorKind;
use std::path::Path;
use writer::Writer;

/// Sets the logger up; from here on the macros of `log` work.
pub fn init(config: &Config) {
    let line = match config.log_format {
        LogFormat::Text => format::text,
        LogFormat::Json => format::json,
    };
    let writer = Writer::new(Stderr::open(), line);
    env_logger::Builder::new()
        .parse_filters(&config.log_filter)
        .target(env_logger::Target::Pipe(Box::new(writer)))
        .format(move |buffer, record| std::io::Write::write_all(buffer, line(record).as_bytes()))
        .init();
}

/// The last word of a guard that has not begun to run. Errors are nobody's: the log says the same. Only PID 1 says it, lest
/// a mistyped command in an exec session takes the word of the guard that runs.
pub fn say_last(termination_log: Option<&Path>, code: u8, reason: &str) {
    if process::id() != 1 {
        return;
    }
    if let Ok(word) = LastWord::open(termination_log) {
        let _ = word.say(&format!("exit code {code}: {reason}"));
    }
}

/// Says something before there is a configuration to say how. Text of unknown origin in it has been made one line before;
/// what else could control the terminal is escaped here.
pub fn complain(text: &str) {
    let lines: String = printable_lines(text).lines().map(|line| format!("guard: {line}\n")).collect();
    let output = Stderr::open();
    let mut rest = lines.as_bytes();
    while !rest.is_empty() {
        match output.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock && output.wait_for_room() => {}
            Err(_) => return,
        }
    }
}
