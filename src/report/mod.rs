//! The log on stderr, and the last word in the termination log. Nothing here waits for a reader, except for errors before the
//! app runs, and nothing panics.

mod format;
mod last_word;
pub mod metrics;
pub mod settings;
pub mod status;
pub mod surroundings;
mod writer;

pub use format::{mebibytes, shorten, size, time};
pub use last_word::LastWord;

use crate::config::{Config, LogFormat};
use crate::sys::process;
use crate::sys::stderr::Stderr;
use crate::text::printable_lines;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::Ordering;
use writer::Writer;

/// Log lines that stderr had no room for, from the start on.
pub fn lines_dropped() -> u64 {
    writer::LOST.load(Ordering::Relaxed)
}

/// Sets up the logger that the macros of `log` use.
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

/// Writes why guard cannot run the app into the termination log. It ignores errors, since stderr gets the same text. Only
/// PID 1 writes, so that a mistyped command in an exec session leaves the last word of the running guard alone.
pub fn write_last_word(termination_log: Option<&Path>, code: u8, reason: &str) {
    if process::id() != 1 {
        return;
    }
    if let Ok(word) = LastWord::open(termination_log) {
        let _ = word.say(&format!("exit code {code}: {reason}"));
    }
}

/// Prints an error of a guard that runs no app. The caller keeps text of unknown origin on one line (`text::printable`); all
/// other control characters are escaped here.
pub fn print_error(text: &str) {
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
