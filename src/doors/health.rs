//! What a health check says on its stdout and stderr: the beginning is kept for the log, the rest is read all the same,
//! lest the check waits for a reader.

use super::{Door, Taken, read_some};
use crate::sys::socket;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// 16 KiB per wake-up.
const READS: usize = 4;

/// What is kept, in bytes.
const LONGEST: usize = 300;

/// The output of one check.
pub struct Health {
    reader: OwnedFd,
    text: Vec<u8>,
}

impl Health {
    /// A pipe, and the end of it that is the check's stdout and stderr.
    pub fn open() -> io::Result<(Health, OwnedFd)> {
        let (reader, writer) = socket::pipe()?;
        Ok((Health { reader, text: Vec::new() }, writer))
    }

    /// What it has said, without white space around.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.text).trim().to_owned()
    }
}

impl Door for Health {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    fn take(&mut self) -> Taken {
        let text = &mut self.text;
        let closed = read_some(|buffer| nix::unistd::read(&self.reader, buffer), READS, &mut |bytes| {
            let room = LONGEST - text.len();
            text.extend(&bytes[..bytes.len().min(room)]);
        });
        Taken { closed, ..Taken::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    #[test]
    fn the_beginning_is_kept() {
        let (mut health, writer) = Health::open().expect("a pipe");
        let mut writer = File::from(writer);
        assert!(!health.take().closed, "nothing was said yet");
        writer.write_all(b"\n curl: (7) failed\nto connect \xff").expect("a reader");
        writer.write_all(&[b' '; 20_000]).expect("room");
        assert!(!health.take().closed);
        writer.write_all("x".repeat(40_000).as_bytes()).expect("a reader that goes on");
        drop(writer);
        let wakeups = (1..100).find(|_| health.take().closed).expect("an end");
        assert!(wakeups >= 3, "16 KiB at once, not more: {wakeups}");
        assert_eq!(health.text(), "curl: (7) failed\nto connect \u{fffd}");
        assert_eq!(health.text.len(), LONGEST);
    }
}
