//! Whether a command is guard's own binary, and how it takes the place of this process.

use super::early::inherited;
use super::signal_set::change_mask;
use super::spawn::Program;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{metadata, read_link};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const NAME: &str = "guard";
const OWN: &str = "/proc/self/exe";

/// The file of a command that is guard itself: the same file as /proc/self/exe (`proc(5)`), or the script beside it by which npm
/// starts it, or, without a /proc, one called `guard`. `None` for all other commands. A relative path is one from this directory.
pub fn find(command: &[OsString], path: Option<&OsStr>, directory: Option<&Path>) -> Option<PathBuf> {
    let found = Program::new(command, path).found(directory)?;
    let identity = |path: &Path| metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let file = identity(&found)?;
    let is_guard = match identity(Path::new(OWN)) {
        Some(own) => own == file || npm_script().as_deref().and_then(identity) == Some(file),
        None => found.file_name() == Some(OsStr::new(NAME)),
    };
    is_guard.then_some(found)
}

/// Where release/npm/guard is if this is the binary of that package: one script for all architectures, whose binaries are each in
/// a directory beside it.
fn npm_script() -> Option<PathBuf> {
    let binary = read_link(OWN).ok()?;
    let directory = binary.parent().filter(|directory| directory.ends_with(std::env::consts::ARCH))?;
    Some(directory.with_file_name(NAME))
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
