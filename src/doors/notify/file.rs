//! The file of a run's notify socket. Many clients know no other address than a path, and from another network namespace
//! there is no other.
//!
//! Each socket has a directory of its own, so that its owner need not remember one: a directory with a socket that nobody
//! listens on is what a killed guard has left.

use crate::sys::process::effective_uid;
use crate::sys::socket::{Address, DatagramSocket};
use std::fs::{self, DirBuilder, DirEntry, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the directory is made: in the first of these that lets it be made, with the socket in it.
const PLACES: [&str; 3] = ["/run", "/dev/shm", "/tmp"];

/// How its name begins; random digits follow.
const PREFIX: &str = "guard-notify-";

/// The socket's name.
const NAME: &str = "socket";

/// A guard that has not made its socket in this time was killed before it could.
const WHILE: Duration = Duration::from_secs(60);

/// How many entries of a place guard searches for the sockets of killed guards.
const MOST_ENTRIES: usize = 4096;

/// A socket's file and its directory. Both are removed when this is dropped.
pub(super) struct SocketFile {
    directory: PathBuf,
}

impl SocketFile {
    /// A socket that every user may write to, in a directory that only guard's user may list or change.
    pub(super) fn bind() -> Option<(SocketFile, DatagramSocket)> {
        PLACES.iter().find_map(|place| SocketFile::bind_in(Path::new(place)).ok())
    }

    fn bind_in(place: &Path) -> io::Result<(SocketFile, DatagramSocket)> {
        if !is_safe(place) || !may_be_passed(place) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let directory = place.join(format!("{PREFIX}{:016x}", RandomState::new().hash_one(NAME)));
        // It takes no directory and follows no link that is there already (mkdir(2)).
        DirBuilder::new().mode(0o700).create(&directory)?;
        let file = SocketFile { directory };
        // Whatever guard's umask is.
        fs::set_permissions(&file.directory, Permissions::from_mode(0o711))?;
        let socket = DatagramSocket::bind(&address(&file.directory)?)?;
        fs::set_permissions(file.path(), Permissions::from_mode(0o666))?;
        Ok((file, socket))
    }

    pub(super) fn path(&self) -> PathBuf {
        path(&self.directory)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        remove(&self.directory);
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(NAME)
}

fn address(directory: &Path) -> io::Result<Address> {
    Address::of_notify_socket(path(directory).as_os_str()).ok_or(io::ErrorKind::InvalidInput.into())
}

fn remove(directory: &Path) {
    let _ = fs::remove_file(path(directory));
    let _ = fs::remove_dir(directory);
}

/// Whether only the directory's owner can replace what guard makes there: others may not
/// write to it, or it is sticky (`unlink(2)`).
fn is_safe(place: &Path) -> bool {
    fs::metadata(place).is_ok_and(|metadata| metadata.mode() & (libc::S_IWOTH | libc::S_ISVTX) != libc::S_IWOTH)
}

/// Whether other users reach what is in a directory, as an app that has changed its user does.
fn may_be_passed(place: &Path) -> bool {
    fs::metadata(place).is_ok_and(|metadata| metadata.mode() & libc::S_IXOTH != 0)
}

/// Removes the directories that killed guards of this user have left. A living guard's directory always has a socket that answers,
/// except for the moment in which guard makes it: a directory without a socket is left alone for a while.
pub fn remove_stale() {
    for place in PLACES.map(Path::new).into_iter().filter(|place| is_safe(place)) {
        let Ok(entries) = fs::read_dir(place) else { continue };
        let own = entries.take(MOST_ENTRIES).flatten().filter(is_own).map(|entry| entry.path());
        own.filter(|directory| is_stale(directory)).for_each(|directory| remove(&directory));
    }
}

/// Whether the directory has a socket, and no process has that open (`unix(7)`), or has had none for a while.
fn is_stale(directory: &Path) -> bool {
    match fs::symlink_metadata(path(directory)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return is_old(directory),
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) | Err(_) => return false,
    }
    let connected = address(directory).and_then(|address| DatagramSocket::unbound()?.connect(&address));
    connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn is_old(directory: &Path) -> bool {
    let changed = fs::metadata(directory).and_then(|metadata| metadata.modified());
    changed.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > WHILE))
}

/// Whether this is a directory of guard's user with a name such as guard gives.
fn is_own(entry: &DirEntry) -> bool {
    entry.file_name().as_bytes().starts_with(PREFIX.as_bytes())
        && entry.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == effective_uid())
}
