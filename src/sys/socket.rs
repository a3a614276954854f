//! Unix sockets (`unix(7)`): datagrams with the credentials of their senders, and a stream to a child. All are closed on
//! exec, and nothing here waits but [`wait_readable`], whatever others have sent (see [`rights`]).

use super::poll::whole_milliseconds;
use super::rights::{self, Inbox, Kind, Message, Receiver};
use super::{Errno, Pid, socket_option};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket as nix_socket;
use nix_socket::{AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, sockopt};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

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

pub use super::rights::Credentials;

/// A message, without the descriptors that came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub bytes: Vec<u8>,
    /// `None` if the sender has no address, and so cannot be answered.
    pub sender: Option<Address>,
    pub credentials: Option<Credentials>,
    /// It was longer than there was room.
    pub truncated: bool,
}

/// What is at the head of a queue. The message is still there.
#[derive(Debug)]
pub enum Head {
    Datagram(Datagram),
    /// One that came with descriptors: [`DatagramSocket::receive_in_copy`] is the way to receive it.
    WithDescriptors(Datagram),
}

impl Datagram {
    fn of(message: Message) -> Datagram {
        let Message { bytes, truncated, credentials, sender, .. } = message;
        let sender = sender.filter(|address| !address.is_unnamed()).map(Address);
        Datagram { bytes, sender, credentials, truncated }
    }
}

impl Head {
    fn of(message: Message) -> Head {
        let of = if message.descriptors { Head::WithDescriptors } else { Head::Datagram };
        of(Datagram::of(message))
    }
}

/// A socket for datagrams that never waits and has the kernel name the sender of each. To drop it never waits either.
#[derive(Debug)]
pub struct DatagramSocket(Inbox);

impl DatagramSocket {
    /// A socket of this address; `AddrInUse` if it is taken.
    pub fn bind(address: &Address) -> io::Result<DatagramSocket> {
        DatagramSocket::bind_to(&address.0)
    }

    /// A socket of an abstract name that the kernel picks, which no other has ("autobind", `unix(7)`).
    pub fn bind_anew() -> io::Result<DatagramSocket> {
        DatagramSocket::bind_to(&UnixAddr::new_unnamed())
    }

    /// A socket that can send, and that nobody can send to.
    pub fn unbound() -> io::Result<DatagramSocket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = nix_socket::socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        Ok(DatagramSocket(Inbox::new(socket)))
    }

    fn bind_to(address: &UnixAddr) -> io::Result<DatagramSocket> {
        let socket = DatagramSocket::unbound()?;
        // Before there is an address to send to: only what is sent from here on has credentials.
        nix_socket::setsockopt(&socket.0, sockopt::PassCred, &true)?;
        nix_socket::bind(socket.0.as_raw_fd(), address)?;
        Ok(socket)
    }

    /// Has senders of descriptors fail, where the kernel can do so (Linux 6.16). What was sent before stays.
    pub fn refuse_descriptors(self) -> DatagramSocket {
        let _ = rights::refuse(self.0.as_fd());
        self
    }

    /// As to drop it, and returns the copy of guard in which it closes, where it does: a child that has to be reaped.
    pub fn close(self) -> Option<Pid> {
        self.0.close()
    }

    /// Takes longer datagrams to send: of this many bytes, or as many as the kernel allows (SO_SNDBUF, `socket(7)`).
    pub fn make_room(self, bytes: usize) -> DatagramSocket {
        let _ = nix_socket::setsockopt(&self.0, sockopt::SndBuf, &bytes);
        self
    }

    /// The abstract name without its leading NUL.
    pub fn name(&self) -> io::Result<Vec<u8>> {
        let address: UnixAddr = nix_socket::getsockname(self.0.as_raw_fd())?;
        Ok(address.as_abstract().unwrap_or_default().to_vec())
    }

    /// Whether there is a datagram.
    pub fn has_something(&self) -> bool {
        nix_socket::recv(self.0.as_raw_fd(), &mut [], MsgFlags::MSG_PEEK).is_ok()
    }

    /// Looks at the next datagram, no more of it than this many bytes; `WouldBlock` if there is none.
    pub fn peek(&self, longest: usize) -> io::Result<Head> {
        Ok(Head::of(rights::receive(self.0.as_fd(), Kind::Datagrams, longest, libc::MSG_PEEK)?))
    }

    /// Removes the next datagram, which is to be a [`Head::Datagram`].
    pub fn discard(&self) {
        let _ = rights::receive(self.0.as_fd(), Kind::Datagrams, 0, 0);
    }

    /// The datagrams that are in the queue, those behind one with descriptors too (SO_PEEK_OFF, `socket(7)`). A copy of guard
    /// may receive one meanwhile. Empty where the kernel knows no such option.
    pub fn peek_all(&self, longest: usize, most: usize) -> Vec<Datagram> {
        let seek = |offset| socket_option::set(self.0.as_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset).is_ok();
        let peek = |longest| rights::receive(self.0.as_fd(), Kind::Datagrams, longest, libc::MSG_PEEK);
        let mut found = Vec::new();
        if !seek(0) {
            return found;
        }
        // The kernel goes on behind each piece that was seen, and back when somebody receives one.
        while found.len() < most
            && let Ok(message) = peek(longest)
        {
            let mut unseen = message.length.saturating_sub(message.bytes.len());
            while unseen > 0
                && let Ok(rest) = peek(unseen)
            {
                unseen = unseen.saturating_sub(rest.bytes.len().max(1));
            }
            found.push(Datagram::of(message));
        }
        let _ = seek(-1);
        found
    }

    /// Starts a copy of guard that receives the next datagram with its descriptors, and closes them.
    pub fn receive_in_copy(&self) -> Result<Receiver, Errno> {
        rights::receive_in_copy(self.0.as_fd(), 0)
    }

    /// Makes a poll for writing wait for room at this receiver, and lets nobody else send to this socket (`unix(7)`).
    pub fn connect(&self, to: &Address) -> io::Result<()> {
        nix_socket::connect(self.0.as_raw_fd(), &to.0)?;
        Ok(())
    }

    /// The same as [`DatagramSocket::send`], to the receiver that it is connected to.
    pub fn send_on(&self, bytes: &[u8]) -> io::Result<()> {
        nix_socket::send(self.0.as_raw_fd(), bytes, NEVER_WAIT)?;
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

/// Whether this can be read from or has been closed; `true` where the kernel cannot tell. For a descriptor of
/// [`process::watch_process`](super::process::watch_process) that the process has ended.
pub fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
    wait_readable(&[descriptor], Duration::ZERO).unwrap_or(true)
}

/// Waits until one of these can be read from or has been closed, and no longer than this. `false` if none has, which may be
/// sooner where the time is more than 24 days or a signal came (`poll(2)`).
pub fn wait_readable(descriptors: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<bool> {
    let mut descriptors: Vec<_> = descriptors.iter().map(|&one| PollFd::new(one, PollFlags::POLLIN)).collect();
    match poll(&mut descriptors, PollTimeout::try_from(whole_milliseconds(timeout)).unwrap_or(PollTimeout::MAX)) {
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

/// One end of a stream that never waits. To drop it never waits either.
#[derive(Debug)]
pub struct Stream(Inbox);

/// What is at the head of a stream, and is still there.
#[derive(Debug)]
pub enum Piece {
    Bytes(Vec<u8>),
    /// Bytes that came with descriptors: [`Stream::receive_in_copy`] is the way to receive them.
    WithDescriptors(Vec<u8>),
    End,
}

impl Stream {
    /// As [`DatagramSocket::close`].
    pub fn close(self) -> Option<Pid> {
        self.0.close()
    }

    /// guard's end, and the other one.
    pub fn open() -> io::Result<(Stream, OwnedFd)> {
        let (own, other) = channel()?;
        // Descriptors are not refused: where they were Node would not say so, and keep back all that the app sends after one.
        // The kernel would throw an urgent byte away unseen, and close its descriptors in guard's name. A kernel that knows no
        // such bytes (Linux before 5.15) need not know the option.
        let _ = socket_option::set(own.as_fd(), libc::SOL_SOCKET, libc::SO_OOBINLINE, 1);
        Ok((Stream(Inbox::new(own)), other))
    }

    /// Looks at what comes next; `EAGAIN` if there is nothing yet.
    pub fn peek(&self) -> Result<Piece, Errno> {
        let message = rights::receive(self.0.as_fd(), Kind::Stream, rights::LONGEST, libc::MSG_PEEK)?;
        Ok(match message {
            Message { descriptors: true, bytes, .. } => Piece::WithDescriptors(bytes),
            Message { bytes, .. } if bytes.is_empty() => Piece::End,
            Message { bytes, .. } => Piece::Bytes(bytes),
        })
    }

    /// Removes so many bytes, which are to be a [`Piece::Bytes`].
    pub fn discard(&self, length: usize) -> Result<(), Errno> {
        rights::receive(self.0.as_fd(), Kind::Stream, length, 0).map(drop)
    }

    /// Starts a copy of guard that receives so many bytes with their descriptors, and closes those.
    pub fn receive_in_copy(&self, length: usize) -> Result<Receiver, Errno> {
        rights::receive_in_copy(self.0.as_fd(), length)
    }

    /// Writes what can be written at once, and returns how much that was.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix_socket::send(self.0.as_raw_fd(), bytes, NEVER_WAIT)?)
    }

    /// Shuts the stream down for both sides, and leaves it open (`shutdown(2)`).
    pub fn end(&self) {
        let _ = nix_socket::shutdown(self.0.as_raw_fd(), Shutdown::Both);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
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
