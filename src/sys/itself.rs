//! Whether a command is guard's own binary, and how it takes the place of this process.

use super::early::inherited;
use super::signal_set::change_mask;
use super::spawn::Program;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{canonicalize, metadata, read_link};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const NAME: &str = "guard";

/// The file of a command that is guard itself: the same file as /proc/self/exe (`proc(5)`), or the script beside it by which npm
/// starts it, or, without a /proc, one called `guard`. `None` for all other commands.
pub fn find(command: &[OsString], path: Option<&OsStr>) -> Option<PathBuf> {
    const OWN: &str = "/proc/self/exe";
    let found = Program::new(command, path).found(None)?;
    let identity = |path: &Path| metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let is_guard = match identity(Path::new(OWN)) {
        Some(own) => identity(&found) == Some(own) || is_script_of(&found, &read_link(OWN).ok()?),
        None => found.file_name() == Some(OsStr::new(NAME)),
    };
    is_guard.then_some(found)
}

/// release/npm/guard is one script for all architectures, whose binaries are each in a directory beside it.
fn is_script_of(file: &Path, binary: &Path) -> bool {
    let script = binary.parent().and_then(Path::parent).map(|directory| directory.join(NAME));
    script.is_some_and(|script| canonicalize(file).is_ok_and(|file| file == script))
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
