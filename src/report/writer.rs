//! The log's writer: what cannot be written at once is lost and counted, and the count is told when there is room again.

use crate::sys::stderr::Stderr;
use log::{Level, Record};
use std::io::{self, Write};

pub(super) struct Writer {
    output: Stderr,
    format: fn(&Record) -> String,
    /// The rest of a line of which a part was written.
    rest: Vec<u8>,
    lost: u64,
}

impl Writer {
    pub(super) fn new(output: Stderr, format: fn(&Record) -> String) -> Writer {
        Writer { output, format, rest: Vec::new(), lost: 0 }
    }

    /// Writes a whole line, keeping back what does not fit; `false` if nothing of it could be written.
    fn write_line(&mut self, line: &[u8]) -> bool {
        match self.output.write(line) {
            Ok(count) => {
                self.rest = line.get(count..).unwrap_or_default().to_vec();
                count > 0
            }
            Err(_) => false,
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

    fn tell_of_lost_lines(&mut self) -> bool {
        if self.lost == 0 {
            return true;
        }
        let pairs = [("lines", log::kv::Value::from(self.lost))];
        let pairs = &pairs[..];
        let args = format_args!("dropped");
        let line = (self.format)(&Record::builder().args(args).level(Level::Warn).key_values(&pairs).build());
        let told = self.write_line(line.as_bytes());
        if told {
            self.lost = 0;
        }
        told && self.rest.is_empty()
    }
}

impl Write for Writer {
    /// Takes one line. Always a success, for there is nobody to tell of a failure.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !(self.finish_last_line() && self.tell_of_lost_lines() && self.write_line(line)) {
            self.lost += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
