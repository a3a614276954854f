//! Listening sockets that outlive a run (`listen(2)`, `sd_listen_fds(3)`).

use super::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The first descriptor that is handed over (SD_LISTEN_FDS_START, `sd_listen_fds(3)`).
pub const FIRST: RawFd = 3;

/// Takes the descriptors that guard was handed, so many from [`FIRST`] on, as far as they are there. They are closed on exec
/// from now on. What is closed on exec already was not handed to guard: it has opened that itself.
pub fn take_handed(count: usize) -> Vec<OwnedFd> {
    let end = FIRST.saturating_add(RawFd::try_from(count).unwrap_or(RawFd::MAX));
    let close_on_exec = |number: &RawFd| {
        // SAFETY: fcntl(2) takes any number.
        unsafe {
            libc::fcntl(*number, libc::F_GETFD) == 0 && libc::fcntl(*number, libc::F_SETFD, libc::FD_CLOEXEC) != -1
        }
    };
    // SAFETY: it is open, and guard was given it to own.
    (FIRST..end).take_while(close_on_exec).map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect()
}

/// Moves a descriptor to a number from `lowest` on (`F_DUPFD_CLOEXEC`, `fcntl(2)`).
pub fn move_above(descriptor: OwnedFd, lowest: RawFd) -> Result<OwnedFd, Errno> {
    if descriptor.as_raw_fd() >= lowest {
        return Ok(descriptor);
    }
    let moved = fcntl(&descriptor, FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
    // SAFETY: it was just made, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(moved) })
}

/// Lets the queue of a listening socket be as long as the kernel allows, and has one that was shut down (`shutdown(2)`) listen
/// again.
pub fn listen(socket: BorrowedFd) -> Result<(), Errno> {
    // SAFETY: listen(2) takes numbers. The kernel takes its own maximum for a longer queue.
    Errno::result(unsafe { libc::listen(socket.as_raw_fd(), libc::c_int::MAX) }).map(drop)
}

/// Whether this is a socket that listens, or has listened until it was shut down.
pub fn is_listening(socket: BorrowedFd) -> bool {
    option(socket, libc::SOL_SOCKET, libc::SO_ACCEPTCONN) == Some(1)
}

/// An option that is a number (`getsockopt(2)`).
fn option(socket: BorrowedFd, level: libc::c_int, name: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: getsockopt(2) writes no more than `length` bytes.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length) };
    (result == 0).then_some(value)
}
