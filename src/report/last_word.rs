//! The termination log: a small file from which Kubernetes and others read why a container ended.

use crate::text::{cut, printable_lines};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// The most that Kubernetes reads, in bytes.
const LONGEST: usize = 4096;

/// The file, or nothing where there is none to write.
pub struct LastWord(Option<File>);

/// Opens the file, and makes it if it is not there. A link may lead to a device, as /dev/stderr does, but to no regular
/// file: the app may have planted it.
fn open(path: &Path) -> io::Result<File> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
    let mut options = OpenOptions::new();
    let new = options.write(true).create(true).truncate(false).custom_flags(flags | nix::libc::O_NOFOLLOW).open(path);
    match new {
        Err(error) if error.raw_os_error() == Some(nix::libc::ELOOP) => {
            let file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
            let is_file = file.metadata()?.is_file();
            if is_file { Err(io::Error::other(format!("{} is a link to a file", path.display()))) } else { Ok(file) }
        }
        new => new,
    }
}

impl LastWord {
    /// Opens the file and empties it of an earlier container's word. Where another guard holds the lock on the file, the word is
    /// that one's, and this guard writes nothing: below `docker run --init` the first guard has it, nested guards have not.
    pub fn open(path: Option<&Path>) -> io::Result<LastWord> {
        let Some(path) = path else { return Ok(LastWord(None)) };
        let file = open(path)?;
        // Pipes and devices are not emptied, and others may use them too.
        if file.metadata()?.is_file() {
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => {
                    log::debug!(path:% = path.display(), msg = "another guard writes it"; "termination-log");
                    return Ok(LastWord(None));
                }
                // Without locks, as on some network file systems, guard writes as ever.
                Ok(()) | Err(TryLockError::Error(_)) => file.set_len(0)?,
            }
        }
        Ok(LastWord(Some(file)))
    }

    /// No file at all.
    pub fn none() -> LastWord {
        LastWord(None)
    }

    /// Replaces what the file says. Errors are those of `write(2)`.
    pub fn say(&self, text: &str) -> io::Result<()> {
        let Some(mut file) = self.0.as_ref() else { return Ok(()) };
        let line = format!("{}\n", printable_lines(text));
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
