//! Unix sockets (`unix(7)`): datagrams with the credentials of who sent them, and a channel to a child. All are closed on
//! exec, and nothing here waits but [`wait_readable`].

use super::{Errno, Pid};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket as nix_socket;
use nix_socket::{AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, SockaddrLike, UnixAddr, sockopt};
use std::ffi::OsStr;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Space for all that comes along with a datagram, in bytes: descriptors, of which there are 253 at most (SCM_RIGHTS), and
/// the credentials.
// SAFETY: CMSG_SPACE(3) only computes.
const CONTROL: usize =
    unsafe { libc::CMSG_SPACE(253 * 4) + libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) } as usize;

/// The address of a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(UnixAddr);

impl Address {
    /// The abstract address of this name, which comes without its leading NUL; an error if it is longer than 107 bytes.
    pub fn abstract_name(name: &[u8]) -> io::Result<Address> {
        Ok(Address(UnixAddr::new_abstract(name)?))
    }

    /// What NOTIFY_SOCKET says: `/path`, or `@name` for an abstract address (`sd_notify(3)`).
    pub fn of_notify_socket(value: &OsStr) -> Option<Address> {
        let address = match value.as_bytes() {
            [b'@', name @ ..] if !name.is_empty() => UnixAddr::new_abstract(name),
            [b'/', ..] => UnixAddr::new(value),
            _ => return None,
        };
        address.ok().map(Address)
    }
}

/// Who sent a datagram, as the kernel vouches for it (SCM_CREDENTIALS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// 0 if the sender is outside of this PID namespace.
    pub pid: Pid,
    pub uid: u32,
}

/// A message, and what came along.
#[derive(Debug)]
pub struct Datagram {
    pub bytes: Vec<u8>,
    /// `None` if the sender has no address, and so cannot be answered.
    pub sender: Option<Address>,
    pub credentials: Option<Credentials>,
    /// They close with the datagram.
    pub descriptors: Vec<OwnedFd>,
    /// It was longer than there was room.
    pub truncated: bool,
}

/// A socket for datagrams that never waits and has the kernel tell who sent what.
#[derive(Debug)]
pub struct DatagramSocket(OwnedFd);

impl DatagramSocket {
    /// A socket of this address; `AddrInUse` if it is taken.
    pub fn bind(address: &Address) -> io::Result<DatagramSocket> {
        DatagramSocket::bind_to(&address.0)
    }

    /// A socket of an abstract name that the kernel picks, which no other has ("autobind", `unix(7)`).
    pub fn bind_anew() -> io::Result<DatagramSocket> {
        DatagramSocket::bind_to(&UnixAddr::new_unnamed())
    }

    fn bind_to(address: &UnixAddr) -> io::Result<DatagramSocket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = nix_socket::socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        // Before there is an address to send to: only what is sent from here on has credentials.
        nix_socket::setsockopt(&socket, sockopt::PassCred, &true)?;
        nix_socket::bind(socket.as_raw_fd(), address)?;
        Ok(DatagramSocket(socket))
    }

    /// The abstract name without its leading NUL.
    pub fn name(&self) -> io::Result<Vec<u8>> {
        let address: UnixAddr = nix_socket::getsockname(self.0.as_raw_fd())?;
        Ok(address.as_abstract().unwrap_or_default().to_vec())
    }

    /// Whether there is a datagram to take.
    pub fn has_something(&self) -> bool {
        nix_socket::recv(self.0.as_raw_fd(), &mut [], MsgFlags::MSG_PEEK.union(MsgFlags::MSG_DONTWAIT)).is_ok()
    }

    /// Takes the next datagram, no more of it than this many bytes; `WouldBlock` if there is none.
    pub fn receive(&self, longest: usize) -> io::Result<Datagram> {
        let mut bytes: Vec<u8> = Vec::with_capacity(longest);
        let mut control = [0_u64; CONTROL.div_ceil(size_of::<u64>())];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: longest };
        // SAFETY: both are plain data, for which all zeros is a value.
        let (mut sender, mut header): (libc::sockaddr_un, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
        header.msg_name = (&raw mut sender).cast();
        header.msg_namelen = UnixAddr::size();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        // SAFETY: recvmsg(2) writes no more into each of the places above than the size that is given with it.
        let count = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
        let count = Errno::result(count)?;
        // SAFETY: so many bytes were written, and there is room for them.
        unsafe { bytes.set_len(usize::try_from(count).unwrap_or(0)) };
        // SAFETY: the kernel has filled in the control messages.
        let (credentials, descriptors) = unsafe { came_along(&header) };
        descriptors.iter().for_each(never_linger);
        // A path of full length comes with one byte more than the structure has.
        let length = header.msg_namelen.min(UnixAddr::size());
        // SAFETY: so much of the address was written; nix looks at its family before anything else.
        let sender = unsafe { UnixAddr::from_raw((&raw const sender).cast(), Some(length)) };
        Ok(Datagram {
            bytes,
            sender: sender.filter(|address| !address.is_unnamed()).map(Address),
            credentials,
            descriptors,
            truncated: header.msg_flags & libc::MSG_TRUNC != 0,
        })
    }

    /// Makes a poll for writing wait for room at this receiver, which is nothing that it knows of others (`unix(7)`).
    pub fn connect(&self, to: &Address) -> io::Result<()> {
        nix_socket::connect(self.0.as_raw_fd(), &to.0)?;
        Ok(())
    }

    /// Sends a datagram, or fails: with `WouldBlock` if the receiver has no room, with `ConnectionRefused` if there is none.
    pub fn send(&self, bytes: &[u8], to: &Address) -> io::Result<()> {
        nix_socket::sendto(self.0.as_raw_fd(), bytes, &to.0, NEVER_WAIT)?;
        Ok(())
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const NEVER_WAIT: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);

/// What a received header has in its control messages (`cmsg(3)`).
///
/// # Safety
///
/// The kernel has written the header, and what it points to is still there.
unsafe fn came_along(header: &libc::msghdr) -> (Option<Credentials>, Vec<OwnedFd>) {
    let (mut credentials, mut descriptors) = (None, Vec::new());
    // SAFETY: the macros of cmsg(3) stay inside of what the kernel has written, which is not aligned for every type. A
    // descriptor that was received is new, and nobody else's.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = next.as_ref() {
            let data = libc::CMSG_DATA(message);
            match (message.cmsg_level, message.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                    let sender = data.cast::<libc::ucred>().read_unaligned();
                    credentials = Some(Credentials { pid: sender.pid, uid: sender.uid });
                }
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    let length: usize = message.cmsg_len as _;
                    let length = length.saturating_sub(libc::CMSG_LEN(0) as usize);
                    let numbers = data.cast::<libc::c_int>();
                    let numbers =
                        (0..length / size_of::<libc::c_int>()).map(|index| numbers.add(index).read_unaligned());
                    descriptors.extend(numbers.map(|number| OwnedFd::from_raw_fd(number)));
                }
                _ => {}
            }
            next = libc::CMSG_NXTHDR(header, message);
        }
    }
    (credentials, descriptors)
}

/// Has the close of somebody else's socket not wait for its peer (SO_LINGER, `socket(7)`), as it would even where nothing
/// else on it waits.
fn never_linger(descriptor: &OwnedFd) {
    let lingers = |linger: libc::linger| linger.l_onoff != 0 && linger.l_linger > 0;
    if nix_socket::getsockopt(descriptor, sockopt::Linger).is_ok_and(lingers) {
        let off = libc::linger { l_onoff: 0, l_linger: 0 };
        let _ = nix_socket::setsockopt(descriptor, sockopt::Linger, &off);
    }
}

/// Waits until one of these can be read from or has been closed, and no longer than this. `false` if none has, which may be
/// sooner where the time is more than 24 days or a signal came (`poll(2)`).
pub fn wait_readable(descriptors: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<bool> {
    let mut descriptors: Vec<_> = descriptors.iter().map(|&one| PollFd::new(one, PollFlags::POLLIN)).collect();
    // Rounded up, since down would spin.
    let milliseconds = i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
    match poll(&mut descriptors, PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)) {
        Err(Errno::EINTR) => Ok(false),
        result => Ok(result? > 0),
    }
}

/// Two ends of a stream, of which the first never waits.
pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let (own, other) = nix_socket::socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
    never_wait(&own)?;
    Ok((own, other))
}

/// Reads from a stream what is there, 0 at its end. Descriptors that come along are closed: to leave that to the kernel would
/// be to wait for their peers.
pub fn read(stream: &OwnedFd, bytes: &mut [u8]) -> Result<usize, Errno> {
    let mut control = [0_u64; CONTROL.div_ceil(size_of::<u64>())];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: it is plain data, for which all zeros is a value.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: recvmsg(2) writes no more into each of the places above than the size that is given with it.
    let count = Errno::result(unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) })?;
    // SAFETY: the kernel has filled in the control messages.
    let (_, descriptors) = unsafe { came_along(&header) };
    descriptors.iter().for_each(never_linger);
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Writes to a stream what can be written at once, and returns how much that was.
pub fn send(stream: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(nix_socket::send(stream.as_raw_fd(), bytes, NEVER_WAIT)?)
}

/// Ends a stream for both sides, though it stays open: whoever waits for it is told.
pub fn end(stream: &OwnedFd) {
    let _ = nix_socket::shutdown(stream.as_raw_fd(), Shutdown::Both);
}

/// A pipe: the end to read, which never waits, and the end to write, which is a child's and does (`pipe(2)`).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    never_wait(&reader)?;
    Ok((reader, writer))
}

fn never_wait(descriptor: &OwnedFd) -> io::Result<()> {
    fcntl(descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(test)]
mod tests;
