//! The log's writer: it drops and counts lines that it cannot write at once, and reports the count when there is room again.

use crate::sys::stderr::Stderr;
use log::{Level, Record};
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// All lines that were lost.
pub(super) static LOST: AtomicU64 = AtomicU64::new(0);

/// How often guard tries to write a line while another process writes to the terminal.
const TRIES: u32 = 50;

pub(super) struct Writer {
    output: Stderr,
    format: fn(&Record) -> String,
    /// The rest of a line that was written in part.
    rest: Vec<u8>,
    lost: u64,
}

impl Writer {
    pub(super) fn new(output: Stderr, format: fn(&Record) -> String) -> Writer {
        Writer { output, format, rest: Vec::new(), lost: 0 }
    }

    /// Writes a line, and keeps the part that does not fit for later; `false` if nothing of it could be written.
    fn write_line(&mut self, line: &[u8]) -> bool {
        // Where lines are being lost nobody reads.
        let mut tries = if self.lost == 0 { TRIES } else { 1 };
        loop {
            match self.output.write(line) {
                Ok(count) => {
                    self.rest = line.get(count..).unwrap_or_default().to_vec();
                    return count > 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && tries > 1 && self.output.is_free_soon() => {
                    tries -= 1;
                }
                Err(_) => return false,
            }
        }
    }

    fn finish_last_line(&mut self) -> bool {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() {
            return true;
        }
        if !self.write_line(&rest) {
            self.rest = rest;
        }
        self.rest.is_empty()
    }

    fn report_lost_lines(&mut self) -> bool {
        if self.lost == 0 {
            return true;
        }
        let pairs = [("lines", log::kv::Value::from(self.lost))];
        let pairs = &pairs[..];
        let args = format_args!("dropped");
        let line = (self.format)(&Record::builder().args(args).level(Level::Warn).key_values(&pairs).build());
        let written = self.write_line(line.as_bytes());
        if written {
            self.lost = 0;
        }
        written && self.rest.is_empty()
    }
}

impl Write for Writer {
    /// Takes one line. It always succeeds: an error of the log concerns nobody but its reader.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !(self.finish_last_line() && self.report_lost_lines() && self.write_line(line)) {
            self.lost += 1;
            LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
