//! Reading files of the kernel's, such as those of `proc(5)`, which say their length only by their end.

use super::Errno;
use std::fs::File;
use std::io::{self, Read};

/// Reads a file, or its first `longest` bytes.
pub fn read(path: &str, longest: u64) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(longest).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|error| errno_of(&error))
}

/// The text of a short file. EILSEQ where it is no text.
pub fn read_text(path: &str) -> Result<String, Errno> {
    const LONGEST: u64 = 64 * 1024;
    read(path, LONGEST).and_then(|bytes| String::from_utf8(bytes).map_err(|_| Errno::EILSEQ))
}

/// The error of the kernel; EINVAL where it is none of the kernel's.
pub fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}
