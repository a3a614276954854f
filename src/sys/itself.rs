//! Whether a command is guard's own binary, and how it takes the place of this process.

use super::early::inherited;
use super::signal_set::change_mask;
use super::spawn::Program;
use std::ffi::{CString, OsStr, OsString};
use std::fs::metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file of a command that is guard itself: the same file as /proc/self/exe (`proc(5)`), or, without a /proc, one called
/// `guard`. `None` for all other commands.
pub fn find(command: &[OsString], path: Option<&OsStr>) -> Option<PathBuf> {
    let found = Program::new(command, path).found(None)?;
    let identity = |path: &Path| metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let is_guard = match identity(Path::new("/proc/self/exe")) {
        Some(own) => identity(&found) == Some(own),
        None => found.file_name() == Some(OsStr::new("guard")),
    };
    is_guard.then_some(found)
}

/// Executes the file in place of this process, with the environment and the signal mask that guard was started with. Returns
/// only where that fails.
pub fn execute(file: &Path, words: &[OsString]) {
    let text = |word: &OsStr| CString::new(word.as_bytes()).unwrap_or_default();
    let words: Vec<CString> = words.iter().map(|word| text(word)).collect();
    let blocked = change_mask(libc::SIG_SETMASK, inherited().mask);
    let _ = nix::unistd::execv(&text(file.as_os_str()), &words);
    change_mask(libc::SIG_SETMASK, blocked);
}
