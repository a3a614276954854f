//! Options of sockets that are numbers (`socket(7)`).

use super::Errno;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets an option that is a number (`setsockopt(2)`).
pub(super) fn set(socket: BorrowedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> Result<(), Errno> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: setsockopt(2) reads so many bytes.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) };
    Errno::result(result).map(drop)
}

/// An option that is a number (`getsockopt(2)`).
pub(super) fn get(socket: BorrowedFd, level: libc::c_int, name: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: getsockopt(2) writes no more than `length` bytes.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length) };
    (result == 0).then_some(value)
}
