//! guard's working directory, which is to be `/`: a volume cannot be unmounted while a process works in it.

use std::env::{current_dir, set_current_dir};
use std::fs::metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Changes to `/` and returns the working directory that guard had. guard stays where it is, and the result is `None`, if
/// that is `/` already, or if a child could not enter the directory by its path: it was removed, something is mounted over
/// it, or the user may not search a directory above it.
pub fn leave() -> Option<PathBuf> {
    let path = current_dir().ok().filter(|path| path != Path::new("/"))?;
    let is_same = identity(Path::new(".")).ok()? == identity(&path).ok()?;
    (is_same && set_current_dir("/").is_ok()).then_some(path)
}

/// Whether guard's user could make a file in this directory (`access(2)`).
pub fn is_writable(path: &Path) -> bool {
    nix::unistd::access(path, nix::unistd::AccessFlags::W_OK).is_ok()
}

/// Device and inode of a directory; fails, as chdir(2) does, where it cannot be searched.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = metadata(path.join("."))?;
    Ok((metadata.dev(), metadata.ino()))
}
