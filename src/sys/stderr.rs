//! Writing to stderr without ever waiting for its reader, and without changing it for the app, which shares it.

use super::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write, stderr};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

/// How to write to what stderr is.
pub enum Stderr {
    /// A pipe or a terminal, opened again: O_NONBLOCK on the description that the app has would be the app's too.
    Reopened(File),
    /// A pipe or a terminal that could not be opened again: asked each time not to wait (`RWF_NOWAIT`, `pwritev2(2)`).
    Shared,
    /// A socket: MSG_DONTWAIT (`send(2)`).
    Socket,
    /// A regular file, or a device without readers. Opened again, a file would be written from its beginning.
    Plain,
}

impl Stderr {
    /// Looks at what stderr is.
    pub fn open() -> Stderr {
        let kind = borrowed().metadata().map(|metadata| metadata.file_type());
        match kind {
            Ok(kind) if kind.is_socket() => Stderr::Socket,
            Ok(kind) if kind.is_fifo() || stderr().is_terminal() => {
                let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
                let again = OpenOptions::new().append(true).custom_flags(flags).open("/proc/self/fd/2");
                again.map_or(Stderr::Shared, Stderr::Reopened)
            }
            Ok(_) | Err(_) => Stderr::Plain,
        }
    }

    /// Writes what can be written at once, and returns how much that was. A closed reader is an error like others:
    /// the SIGPIPE that comes with it is blocked, and known as guard's own.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stderr::Reopened(file) => (&*file).write(bytes),
            Stderr::Shared => write_if_ready(bytes),
            Stderr::Socket => {
                let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                // SAFETY: send(2) reads at most as many bytes as there are.
                let sent = unsafe { libc::send(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len(), flags) };
                Ok(Errno::result(sent).map(|count| usize::try_from(count).unwrap_or(0))?)
            }
            Stderr::Plain => borrowed().write(bytes),
        }
    }
}

impl Stderr {
    /// Waits for a reader, a second at most; `false` if there is still no room.
    pub fn wait_for_room(&self) -> bool {
        has_room(PollTimeout::from(1_000_u16))
    }

    /// Waits a moment, in which a terminal is free again to which another process writes: who does not want to wait is
    /// told EAGAIN then, though there is room. `false` if it is not, or stderr is no terminal.
    pub fn is_free_soon(&self) -> bool {
        stderr().is_terminal() && has_room(PollTimeout::from(50_u16))
    }
}

fn has_room(timeout: PollTimeout) -> bool {
    let stderr = stderr();
    poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)], timeout) == Ok(1)
}

/// stderr as a file that is never closed, without std's habit to call a closed descriptor a success.
fn borrowed() -> ManuallyDrop<File> {
    // SAFETY: descriptor 2 is open (see `early`), and is not closed here.
    ManuallyDrop::new(unsafe { File::from_raw_fd(libc::STDERR_FILENO) })
}

fn write_if_ready(bytes: &[u8]) -> io::Result<usize> {
    let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    const AT_POSITION: libc::c_long = -1;
    const RWF_NOWAIT: libc::c_int = 8;
    // SAFETY: pwritev2(2) reads one part of the given length. musl has no function for it.
    let written = unsafe {
        let descriptor = stderr().as_raw_fd();
        libc::syscall(libc::SYS_pwritev2, descriptor, &raw const part, 1, AT_POSITION, AT_POSITION, RWF_NOWAIT)
    };
    match Errno::result(written) {
        Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
        Err(Errno::EOPNOTSUPP) if has_room(PollTimeout::ZERO) => borrowed().write(bytes),
        Err(Errno::EOPNOTSUPP) => Err(io::ErrorKind::WouldBlock.into()),
        Err(error) => Err(error.into()),
    }
}
