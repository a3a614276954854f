//! The termination log: a small file from which Kubernetes and others read why a container ended.

use crate::text::cut;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// What Kubernetes reads at most.
const LONGEST: usize = 4096;

/// The file, or nothing where there is none to write.
pub struct LastWord(Option<File>);

impl LastWord {
    /// Opens the file and empties it of an earlier container's word.
    pub fn open(path: Option<&Path>) -> io::Result<LastWord> {
        let Some(path) = path else { return Ok(LastWord(None)) };
        let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
        let file = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(path)?;
        Ok(LastWord(Some(file)))
    }

    /// No file at all.
    pub fn none() -> LastWord {
        LastWord(None)
    }

    /// Replaces what the file says. Errors are those of `write(2)`.
    pub fn say(&self, text: &str) -> io::Result<()> {
        let Some(mut file) = self.0.as_ref() else { return Ok(()) };
        let line = format!("{text}\n");
        let bytes = cut(&line, LONGEST).as_bytes();
        // What has no positions, a pipe or a terminal, simply gets another line.
        match file.write_all_at(bytes, 0) {
            // A device cannot be cut, and need not be.
            Ok(()) => file
                .set_len(u64::try_from(bytes.len()).unwrap_or(0))
                .or_else(|error| if error.kind() == io::ErrorKind::InvalidInput { Ok(()) } else { Err(error) }),
            Err(_) => file.write(bytes).map(drop),
        }
    }
}
