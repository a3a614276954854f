//! Listening sockets that outlive a run (`listen(2)`, `sd_listen_fds(3)`).

use super::socket_option::{get, set};
use super::{Errno, spread};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{self as nix_socket, Shutdown, UnixAddr};
use nix::sys::stat::{Mode, fchmod, umask};
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

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

/// A TCP socket that is bound to this address and does not listen yet. It takes an address of which old connections are left
/// (SO_REUSEADDR, `socket(7)`).
pub fn bind(address: SocketAddr, only_v6: bool) -> Result<OwnedFd, Errno> {
    bind_as(address, only_v6, &|_| {})
}

/// The same beside others that share this address (SO_REUSEPORT). Fails also where the kernel takes no program that leads
/// connections: it would spread them over all.
pub fn bind_beside(address: SocketAddr, only_v6: bool, prepare: &dyn Fn(BorrowedFd)) -> Result<OwnedFd, Errno> {
    // A socket that has a program already could not listen beside others.
    let probe = open(libc::AF_INET)?;
    spread::share_address(probe.as_fd(), true);
    spread::lead_to(probe.as_fd(), &[0])?;
    bind_as(address, only_v6, &|socket| {
        spread::share_address(socket, true);
        prepare(socket);
    })
}

/// A socket with an address of its own. `prepare` comes before the bind.
pub fn bind_as(address: SocketAddr, only_v6: bool, prepare: &dyn Fn(BorrowedFd)) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let socket = open(family)?;
    set(socket.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if address.is_ipv6() {
        set(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only_v6.into())?;
    }
    prepare(socket.as_fd());
    let socket_number = socket.as_raw_fd();
    let result = match address {
        SocketAddr::V4(address) => {
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: bind(2) reads a structure of the length that is given with it.
            unsafe { libc::bind(socket_number, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t) }
        }
        SocketAddr::V6(address) => {
            let address = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: as above.
            unsafe { libc::bind(socket_number, (&raw const address).cast(), size_of_val(&address) as libc::socklen_t) }
        }
    };
    Errno::result(result)?;
    Ok(socket)
}

/// The same for a unix socket, which everybody may connect to. A path at which nobody listens any more is replaced; one at which
/// somebody does is `EADDRINUSE`, as is a file that is no socket.
pub fn bind_path(path: &Path) -> Result<OwnedFd, Errno> {
    /// As systemd makes them (SocketMode, `systemd.socket(5)`).
    const MODE: libc::mode_t = 0o666;
    let address = UnixAddr::new(path)?;
    let socket = open(libc::AF_UNIX)?;
    // The file gets the mode of the socket. To change the mode of a path that was bound would follow a link which another process
    // has put there meanwhile.
    fchmod(&socket, Mode::from_bits_truncate(MODE))?;
    let bind = || {
        let inherited = umask(Mode::empty());
        let result = nix_socket::bind(socket.as_raw_fd(), &address);
        umask(inherited);
        result
    };
    if let Err(error) = bind() {
        if error != Errno::EADDRINUSE || is_served(&address) || std::fs::remove_file(path).is_err() {
            return Err(error);
        }
        bind()?;
    }
    Ok(socket)
}

/// Whether something is at a path that must not be replaced: a socket that somebody listens on, or no socket at all.
fn is_served(address: &UnixAddr) -> bool {
    let connect = open(libc::AF_UNIX).and_then(|probe| nix_socket::connect(probe.as_raw_fd(), address));
    let is_socket =
        address.path().and_then(|path| path.symlink_metadata().ok()).is_some_and(|file| file.file_type().is_socket());
    connect != Err(Errno::ECONNREFUSED) || !is_socket
}

/// A stream socket that never waits and is closed on exec.
fn open(family: libc::c_int) -> Result<OwnedFd, Errno> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket(2) takes numbers.
    let socket = Errno::result(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: it was just made, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// Has a descriptor's reads and accepts wait, or not (O_NONBLOCK, `fcntl(2)`), for all that have a duplicate of it.
pub fn set_waiting(socket: BorrowedFd, waits: bool) {
    let flags = if waits { OFlag::empty() } else { OFlag::O_NONBLOCK };
    let _ = fcntl(socket, FcntlArg::F_SETFL(flags));
}

/// Refuses all clients, those in the queue included. A TCP socket keeps its address, and can [`listen`] again.
pub fn refuse(socket: BorrowedFd) {
    // Or another could have the address of a socket that does not listen.
    let _ = set(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 0);
    spread::share_address(socket, false);
    shut_down(socket);
}

/// Clients that wait in the queue of a TCP socket, and how many can (`tcp_get_info` of the kernel for a socket that listens).
pub fn queue(socket: BorrowedFd) -> Option<(u32, u32)> {
    /// <net/tcp_states.h>
    const TCP_LISTEN: u8 = 10;
    let info = info(socket).filter(|info| info.tcpi_state == TCP_LISTEN)?;
    Some((info.tcpi_unacked, info.tcpi_sacked))
}

fn info(socket: BorrowedFd) -> Option<libc::tcp_info> {
    // SAFETY: it is plain data, for which all zeros is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: getsockopt(2) writes no more than `length` bytes.
    let result = unsafe {
        let info = (&raw mut info).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info, &raw mut length)
    };
    (result == 0).then_some(info)
}

/// The address of a TCP socket.
pub fn tcp_address(socket: BorrowedFd) -> Option<SocketAddr> {
    // SAFETY: it is open, and the value that seems to own it is never dropped.
    let listener = ManuallyDrop::new(unsafe { TcpListener::from_raw_fd(socket.as_raw_fd()) });
    listener.local_addr().ok()
}

/// Whether a socket of IPv6 takes IPv6 alone.
pub fn takes_only_v6(socket: BorrowedFd) -> bool {
    get(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) == Some(1)
}

/// The address of a socket, as GUARD_LISTEN writes it; `None` for one that has none.
pub fn address(socket: BorrowedFd) -> Option<String> {
    if let Some(address) = tcp_address(socket) {
        return Some(address.to_string());
    }
    let address: UnixAddr = nix_socket::getsockname(socket.as_raw_fd()).ok()?;
    Some(format!("unix:{}", address.path()?.display()))
}

/// Lets the queue of a listening socket be as long as the kernel allows, and has one that was shut down (`shutdown(2)`) listen
/// again.
pub fn listen(socket: BorrowedFd) -> Result<(), Errno> {
    let _ = set(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
    // SAFETY: listen(2) takes numbers. The kernel takes its own maximum for a longer queue.
    Errno::result(unsafe { libc::listen(socket.as_raw_fd(), libc::c_int::MAX) }).map(drop)
}

/// Gives the socket back, unless it took one of the last numbers that guard may have: those are for guard itself.
pub fn spare(socket: OwnedFd) -> Result<OwnedFd, Errno> {
    const RESERVE: libc::rlim_t = 128;
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if socket.as_raw_fd() as libc::rlim_t >= limit.saturating_sub(RESERVE.min(limit / 2)) {
        return Err(Errno::EMFILE);
    }
    Ok(socket)
}

/// The number by which /proc names a socket.
pub fn inode(socket: BorrowedFd) -> Option<u64> {
    nix::sys::stat::fstat(socket).ok().map(|of| of.st_ino)
}

/// Whether a TCP socket is unused: it does not listen, and it never had a connection (`tcp(7)`, TCP_INFO).
pub fn is_unconnected(socket: BorrowedFd) -> bool {
    /// <net/tcp_states.h>
    const TCP_CLOSE: u8 = 7;
    info(socket).is_some_and(|info| info.tcpi_state == TCP_CLOSE)
}

/// Shuts a socket down for all processes that have it (`shutdown(2)`). It listens no more, and keeps its address.
pub fn shut_down(socket: BorrowedFd) {
    let _ = nix_socket::shutdown(socket.as_raw_fd(), Shutdown::Both);
}

/// Whether a socket that listened was shut down (POLLRDHUP, `poll(2)`).
pub fn is_shut_down(socket: BorrowedFd) -> bool {
    let mut one = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: poll(2) reads and writes one structure.
    let count = unsafe { libc::poll(&raw mut one, 1, 0) };
    count == 1 && one.revents & (libc::POLLRDHUP | libc::POLLHUP) != 0
}

/// Whether this is a socket that listens, or has listened until it was shut down.
pub fn is_listening(socket: BorrowedFd) -> bool {
    get(socket, libc::SOL_SOCKET, libc::SO_ACCEPTCONN) == Some(1)
}
