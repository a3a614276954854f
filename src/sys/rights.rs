//! Sockets to which others may send descriptors (SCM_RIGHTS, `unix(7)`).
//!
//! To close such a descriptor can take as long as its sender likes: a FUSE server answers when it wants to, a socket with
//! SO_LINGER waits for its peer, and the last reference to gigabytes frees them. The kernel closes in the name of the
//! process that receives, and it closes the descriptors that find no room too. So guard only reads such a message ahead
//! (MSG_PEEK), and a copy of guard receives it and exits: an exiting process does not linger, and all else waits in the copy.

use super::fork::spawn_copy;
use super::signal_set::{SignalSet, change_mask};
use super::{Errno, Pid, socket_option};
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{self as nix_socket, Shutdown, SockType, SockaddrLike, UnixAddr, sockopt};
use std::mem::{ManuallyDrop, forget, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Space for the credentials of a sender, in bytes, and for nothing else.
// SAFETY: CMSG_SPACE(3) only computes.
const CREDENTIALS: usize = unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) } as usize;

/// Space for all that can come with a message: 253 descriptors at most (SCM_MAX_FD, `unix(7)`), and the credentials.
// SAFETY: CMSG_SPACE(3) only computes.
const ALL: usize = CREDENTIALS + unsafe { libc::CMSG_SPACE(253 * 4) } as usize;

/// A copy receives no more than this at a time, in bytes.
pub const LONGEST: usize = 4096;

/// `SO_PASSRIGHTS`, <asm-generic/socket.h>, since Linux 6.16.
const SO_PASSRIGHTS: libc::c_int = 83;

/// Reads at the end of a socket's life. A queue that holds more counts as one with descriptors.
const READS: usize = 1024;

/// Seconds after which a copy is killed that has not received its message.
const LIMIT: libc::c_uint = 1;

/// Who sent a message, as the kernel vouches for it (SCM_CREDENTIALS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// 0 if the sender is outside of this PID namespace.
    pub pid: Pid,
    pub uid: u32,
}

/// A message, or a piece of a stream, without the descriptors that came with it.
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    /// The length of a datagram before it was cut.
    pub(super) length: usize,
    pub(super) truncated: bool,
    pub(super) credentials: Option<Credentials>,
    pub(super) sender: Option<UnixAddr>,
    /// There are descriptors. A message that was read with MSG_PEEK still has them; of one that was received the kernel has
    /// closed them.
    pub(super) descriptors: bool,
}

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Every message has credentials (SO_PASSCRED).
    Datagrams,
    /// No message has any. Space for them would be space for descriptors.
    Stream,
}

/// Receives a message, no more of it than `longest` bytes, or reads it with MSG_PEEK.
pub(super) fn receive(socket: BorrowedFd, kind: Kind, longest: usize, flags: libc::c_int) -> Result<Message, Errno> {
    let mut bytes: Vec<u8> = Vec::with_capacity(longest);
    let mut control = [0_u64; CREDENTIALS.div_ceil(size_of::<u64>())];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: longest };
    // SAFETY: both are plain data, for which all zeros is a value.
    let (mut sender, mut header): (libc::sockaddr_un, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
    header.msg_name = (&raw mut sender).cast();
    header.msg_namelen = UnixAddr::size();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    let mut flags = flags;
    if kind == Kind::Datagrams {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = CREDENTIALS as _;
        // The result is the length before the datagram was cut.
        flags |= libc::MSG_TRUNC;
    }
    // SAFETY: recvmsg(2) writes no more into each of the places above than the size that is given with it.
    let length = Errno::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) })?;
    let length = usize::try_from(length).unwrap_or(0);
    // SAFETY: so many bytes were written, and there is room for them.
    unsafe { bytes.set_len(length.min(longest)) };
    // A path of full length comes with one byte more than the structure has.
    let address_length = header.msg_namelen.min(UnixAddr::size());
    Ok(Message {
        bytes,
        length,
        truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        // SAFETY: the kernel has filled in the control messages.
        credentials: unsafe { credentials(&header) },
        // SAFETY: so much of the address was written; nix looks at its family before anything else.
        sender: unsafe { UnixAddr::from_raw((&raw const sender).cast(), Some(address_length)) },
        descriptors: header.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

/// The credentials in the control messages of a header (`cmsg(3)`).
///
/// # Safety
///
/// The kernel has written the header, and what it points to is still there.
unsafe fn credentials(header: &libc::msghdr) -> Option<Credentials> {
    // SAFETY: CMSG_FIRSTHDR(3) stays inside of what the kernel has written, which is not aligned for every type.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(header).as_ref()?;
        if (first.cmsg_level, first.cmsg_type) != (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) {
            return None;
        }
        let sender = libc::CMSG_DATA(first).cast::<libc::ucred>().read_unaligned();
        Some(Credentials { pid: sender.pid, uid: sender.uid })
    }
}

/// Has senders of descriptors fail with EPERM. Fails itself before Linux 6.16.
pub(super) fn refuse(socket: BorrowedFd) -> Result<(), Errno> {
    socket_option::set(socket, libc::SOL_SOCKET, SO_PASSRIGHTS, 0)
}

/// A copy of guard that receives one message with its descriptors.
#[derive(Debug)]
pub struct Receiver {
    pub pid: Pid,
    /// Readable when the copy has received the message, or has ended. See [`has_received`].
    pub report: OwnedFd,
}

/// Starts a copy of guard that receives the next message, of a stream the next `length` bytes ([`LONGEST`] at most), and
/// exits. Until the [`Receiver`] reports, nobody else may receive.
pub(super) fn receive_in_copy(socket: BorrowedFd, length: usize) -> Result<Receiver, Errno> {
    let (report, reporter) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let pid = spawn_copy(|| {
        limit_time();
        keep_only([socket.as_raw_fd(), reporter.as_raw_fd()]);
        raise_descriptor_limit();
        if receive_all(socket, length).is_ok() {
            let _ = nix::unistd::write(&reporter, b"r");
        }
        // SAFETY: close(2) takes any number, and the copy uses neither again. The exit would close them after others.
        unsafe {
            libc::close(socket.as_raw_fd());
            libc::close(reporter.as_raw_fd());
        }
    })?;
    Ok(Receiver { pid, report })
}

/// Whether the copy says that it has received the message; `false` if it has ended without a report, so nobody knows.
pub fn has_received(report: &OwnedFd) -> bool {
    nix::unistd::read(report, &mut [0]) == Ok(1)
}

fn receive_all(socket: BorrowedFd, length: usize) -> Result<(), Errno> {
    let mut bytes = [0_u8; LONGEST];
    let mut control = [0_u64; ALL.div_ceil(size_of::<u64>())];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length.min(LONGEST) };
    // SAFETY: it is plain data, for which all zeros is a value.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: recvmsg(2) writes no more into each of the places above than the size that is given with it.
    Errno::result(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) }).map(drop)
}

/// A socket to which others may send descriptors. To drop it never waits; senders get EPIPE from then on.
#[derive(Debug)]
pub(super) struct Inbox(ManuallyDrop<OwnedFd>);

impl Inbox {
    pub(super) fn new(socket: OwnedFd) -> Inbox {
        Inbox(ManuallyDrop::new(socket))
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Inbox {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Inbox {
    /// As to drop it, and returns the copy of guard in which it closes, where it does.
    pub(super) fn close(self) -> Option<Pid> {
        let mut inbox = ManuallyDrop::new(self);
        // SAFETY: nobody uses it again, and it is not dropped.
        close_unread(unsafe { ManuallyDrop::take(&mut inbox.0) })
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // SAFETY: it is dropped, so nobody uses it again.
        close_unread(unsafe { ManuallyDrop::take(&mut self.0) });
    }
}

/// Closes a socket, in a copy of guard where its queue has descriptors.
fn close_unread(socket: OwnedFd) -> Option<Pid> {
    // Nothing can come after the queue was read.
    let _ = nix_socket::shutdown(socket.as_raw_fd(), Shutdown::Read);
    if !holds_descriptors(socket.as_fd()) {
        return None;
    }
    // Without another process the socket stays open until guard exits, and its exit does not linger.
    close_in_copy(socket).map_err(|(socket, _)| forget(socket)).ok()
}

/// Whether a message of a queue has descriptors. What comes before that message is lost.
fn holds_descriptors(socket: BorrowedFd) -> bool {
    let is_stream = nix_socket::getsockopt(&socket, sockopt::SockType) == Ok(SockType::Stream);
    let kind = if is_stream { Kind::Stream } else { Kind::Datagrams };
    for _ in 0..READS {
        let next = receive(socket, kind, LONGEST, libc::MSG_PEEK | libc::MSG_DONTWAIT);
        match next {
            Ok(message) if message.descriptors => return true,
            Ok(message) if kind == Kind::Stream && message.bytes.is_empty() => return false,
            Ok(message) => drop(receive(socket, kind, message.bytes.len(), libc::MSG_DONTWAIT)),
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// Closes a socket so that a copy of guard closes it last. Gives it back where no copy can be made.
fn close_in_copy(socket: OwnedFd) -> Result<Pid, (OwnedFd, Errno)> {
    let (closed, ours) = match nix::unistd::pipe2(OFlag::O_CLOEXEC) {
        Ok(pipe) => pipe,
        Err(error) => return Err((socket, error)),
    };
    let copy = spawn_copy(|| {
        // SAFETY: close(2) takes any number. The pipe ends when guard has closed its own end.
        unsafe { libc::close(ours.as_raw_fd()) };
        keep_only([socket.as_raw_fd(), closed.as_raw_fd()]);
        while nix::unistd::read(&closed, &mut [0]) == Err(Errno::EINTR) {}
    });
    match copy {
        Ok(copy) => {
            drop(socket);
            drop(ours);
            Ok(copy)
        }
        Err(error) => Err((socket, error)),
    }
}

/// A copy of guard cuts off the clients in the queue of a unix socket that was shut down: their connections end with it. A client may
/// have sent a descriptor that makes guard wait when guard closes it.
pub fn cut_queue(socket: BorrowedFd) -> Result<Pid, Errno> {
    spawn_copy(|| {
        limit_time();
        keep_only([socket.as_raw_fd(); 2]);
        raise_descriptor_limit();
        // Fails without a wait when the queue is empty, since the socket is shut down (EINVAL, `unix_accept` of the kernel).
        while nix_socket::accept(socket.as_raw_fd()).is_ok() {}
    })
}

/// Has a copy of guard end when its time is over, though something makes it wait.
pub(super) fn limit_time() {
    // SAFETY: signal(2) and alarm(2) take numbers.
    unsafe {
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        libc::alarm(LIMIT);
    }
    change_mask(libc::SIG_UNBLOCK, SignalSet::from_bits(1 << (libc::SIGALRM - 1)));
}

/// Closes what a copy of guard has from guard, the standard descriptors apart: what guard closes later is to be closed then.
pub(super) fn keep_only(descriptors: [RawFd; 2]) {
    let [one, other] = descriptors.map(|descriptor| u32::try_from(descriptor).unwrap_or(0));
    let (lower, higher) = (one.min(other), one.max(other));
    for (first, last) in [(3, lower.saturating_sub(1)), (lower + 1, higher.saturating_sub(1)), (higher + 1, u32::MAX)] {
        if first.max(3) <= last {
            close_range(first.max(3), last);
        }
    }
}

/// close_range(2), which is not there before Linux 5.9.
fn close_range(first: u32, last: u32) {
    /// Higher numbers than guard's own: a thousand instances have a few each.
    const MOST: u32 = 16_384;
    // SAFETY: close_range(2) and close(2) take any numbers, and the copy has no use for what they close.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, last, 0) != 0 {
            (first..=last.min(MOST)).filter_map(|number| RawFd::try_from(number).ok()).for_each(|number| {
                libc::close(number);
            });
        }
    }
}

/// Makes room in a copy of guard for as many descriptors as may come, as far as it can. What comes with a message and finds no room is
/// closed before the copy can report.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

#[cfg(test)]
mod tests;
