//! What a health check prints: guard keeps the beginning for the log, and reads the rest too, so that no check waits for a
//! reader.

use super::{Door, Received};
use crate::sys::{Errno, socket};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// 16 KiB per wake-up.
const READS: usize = 4;

/// How much guard keeps, in bytes.
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

    /// The beginning of the output, without white space around.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.text).trim().to_owned()
    }
}

impl Door for Health {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    fn receive(&mut self) -> Received {
        let mut closed = false;
        let mut buffer = [0; 4096];
        for _ in 0..READS {
            match nix::unistd::read(&self.reader, &mut buffer) {
                Ok(0) => closed = true,
                Ok(count) => {
                    let room = LONGEST - self.text.len();
                    self.text.extend(&buffer[..count.min(room)]);
                    continue;
                }
                Err(Errno::EINTR) => continue,
                Err(error) => closed = error != Errno::EAGAIN,
            }
            break;
        }
        Received { closed, ..Received::default() }
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
        assert!(!health.receive().closed, "nothing was said yet");
        writer.write_all(b"\n curl: (7) failed\nto connect \xff").expect("a reader");
        writer.write_all(&[b' '; 20_000]).expect("room");
        assert!(!health.receive().closed);
        writer.write_all("x".repeat(40_000).as_bytes()).expect("a reader that goes on");
        drop(writer);
        let wakeups = (1..100).find(|_| health.receive().closed).expect("an end");
        assert!(wakeups >= 3, "16 KiB at once, not more: {wakeups}");
        assert_eq!(health.text(), "curl: (7) failed\nto connect \u{fffd}");
        assert_eq!(health.text.len(), LONGEST);
    }
}
