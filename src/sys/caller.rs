//! What guard learns of a process that asks about a socket of its own: from /proc, and from its memory.
//!
//! A hostile process can make each access wait: a descriptor may be of a file system that never answers, and so may be the
//! memory behind an address. So guard pins a descriptor by O_PATH, which asks no file system, before it asks anything of it,
//! and a copy of guard reads the memory.

use super::file::{errno_of, read, read_text};
use super::fork::spawn_copy;
use super::{Errno, Pid, listeners, process, socket, socket_option};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, fstat};
use std::ffi::CString;
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a socket is. The kernel gives the name of its protocol as an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// MPTCP too.
    Tcp {
        v6: bool,
    },
    /// A stream of another kind: a unix socket.
    Stream,
    Other,
}

/// A socket of another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    pub kind: Kind,
    /// No other socket has this number as long as it is there.
    pub inode: u64,
    /// The user that made it.
    pub owner: u32,
}

/// What a process has at a number: `None` where it is no socket, `EACCES` where guard has no access (`ptrace(2)`), the error of
/// getxattr(2) where that is not allowed.
pub fn socket_of(pid: Pid, number: RawFd) -> Result<Option<Socket>, Errno> {
    let path = format!("/proc/{pid}/fd/{number}");
    let pinned = match open(path.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ESRCH) => return Ok(None),
        result => result?,
    };
    let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    let target = nix::fcntl::readlink(path.as_str())?;
    let inode = listeners::socket_inode(Path::new(&target));
    // Only of a socket, since a file of another kind may never answer.
    let socket = |inode| Ok(Socket { kind: kind(&path)?, inode, owner: fstat(&pinned)?.st_uid });
    inode.map(socket).transpose()
}

/// Fails where guard may not ask, as in a sandbox.
fn kind(path: &str) -> Result<Kind, Errno> {
    let mut name = [0_u8; 32];
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    let attribute = c"system.sockprotoname";
    // SAFETY: getxattr(2) reads two strings, and writes no more than the size that is given.
    let length = unsafe { libc::getxattr(path.as_ptr(), attribute.as_ptr(), name.as_mut_ptr().cast(), name.len()) };
    let length = Errno::result(length)?;
    let name = name.get(..usize::try_from(length).unwrap_or(0)).unwrap_or_default();
    Ok(match name.strip_suffix(b"\0").unwrap_or(name) {
        b"TCP" | b"MPTCP" => Kind::Tcp { v6: false },
        b"TCPv6" | b"MPTCPv6" => Kind::Tcp { v6: true },
        b"UNIX" | b"UNIX-STREAM" => Kind::Stream,
        _ => Kind::Other,
    })
}

/// Whether reads of a descriptor wait, and whether it is closed on exec (`/proc/PID/fdinfo`, `proc(5)`).
pub fn flags_of(pid: Pid, number: RawFd) -> Result<(bool, bool), Errno> {
    let text = read_text(&format!("/proc/{pid}/fdinfo/{number}"))?;
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).ok_or(Errno::EINVAL)?.trim();
    let flags = libc::c_int::from_str_radix(flags, 8).map_err(|_| Errno::EINVAL)?;
    Ok((flags & libc::O_NONBLOCK == 0, flags & libc::O_CLOEXEC != 0))
}

/// Whether a process sees the network that guard sees, with the rights that guard's user namespace gives.
pub fn shares_network(pid: Pid) -> Result<bool, Errno> {
    let link = |pid, name| fs::read_link(format!("/proc/{pid}/ns/{name}")).map_err(|error| errno_of(&error));
    for name in ["net", "user"] {
        if link(pid, name)? != link(process::id(), name)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a process may bind this port itself (CAP_NET_BIND_SERVICE, `capabilities(7)`).
pub fn may_bind(pid: Pid, port: u16) -> bool {
    const NET_BIND_SERVICE: u64 = 1 << 10;
    let first = read_text("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok());
    if u32::from(port) >= first.unwrap_or(1024) {
        return true;
    }
    let status = read_text(&format!("/proc/{pid}/status")).unwrap_or_default();
    let effective = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
    effective.is_some_and(|set| set & NET_BIND_SERVICE != 0)
}

/// Whether sockets of IPv6 take IPv6 alone where nobody says so (`ip(7)`, bindv6only).
pub fn only_v6_by_default() -> bool {
    read_text("/proc/sys/net/ipv6/bindv6only").is_ok_and(|text| text.trim() == "1")
}

/// Whether a process polls a socket, which has this inode, by an epoll (`/proc/PID/fdinfo`, `proc_pid_fdinfo(5)`). The epoll goes on with
/// this socket and knows nothing of another that takes its place. It may have a number in its list that is another file's by now.
fn is_polled(pid: Pid, inode: u64) -> bool {
    const MOST: usize = 16_384;
    const LONGEST: u64 = 1 << 20;
    let is_epoll = |path: &Path| fs::read_link(path).is_ok_and(|to| to.as_os_str() == "anon_inode:[eventpoll]");
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().take(MOST);
    let epolls =
        entries.filter(|entry| is_epoll(&entry.path())).filter_map(|entry| entry.file_name().into_string().ok());
    let has_it = |epoll: String| {
        let text = read(&format!("/proc/{pid}/fdinfo/{epoll}"), LONGEST).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut polled =
            text.lines().filter_map(|line| line.split_ascii_whitespace().find_map(|field| field.strip_prefix("ino:")));
        polled.any(|polled| u64::from_str_radix(polled, 16) == Ok(inode))
    };
    epolls.into_iter().any(has_it)
}

/// As much as is read of a process's memory: the longest address of a TCP socket.
pub const LONGEST: usize = size_of::<libc::sockaddr_in6>();

/// Options that an app may set before it binds, and that matter from then on.
const OPTIONS: [(libc::c_int, libc::c_int); 20] = [
    (libc::SOL_SOCKET, libc::SO_RCVBUF),
    (libc::SOL_SOCKET, libc::SO_SNDBUF),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX),
    (libc::SOL_SOCKET, libc::SO_MARK),
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (libc::IPPROTO_TCP, libc::TCP_FASTOPEN),
    (libc::IPPROTO_TCP, libc::TCP_MAXSEG),
    (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP),
    (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IP, libc::IP_FREEBIND),
    (libc::IPPROTO_IP, libc::IP_TRANSPARENT),
    (libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT),
];

/// Options of an app's socket, as far as guard may read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options([Option<libc::c_int>; OPTIONS.len()]);

impl Options {
    fn read(socket: BorrowedFd) -> Options {
        Options(OPTIONS.map(|(level, name)| socket_option::get(socket, level, name)))
    }

    /// Gives another socket the same.
    pub fn give_to(&self, socket: BorrowedFd) {
        for ((level, name), wanted) in OPTIONS.into_iter().zip(self.0) {
            let Some(value) = wanted.filter(|_| wanted != socket_option::get(socket, level, name)) else { continue };
            // The kernel doubles the value that is set (`socket(7)`).
            let is_buffer = level == libc::SOL_SOCKET && [libc::SO_RCVBUF, libc::SO_SNDBUF].contains(&name);
            let _ = socket_option::set(socket, level, name, if is_buffer { value / 2 } else { value });
        }
    }
}

/// Who asks about a socket.
#[derive(Clone, Copy)]
pub struct Asks {
    pub pid: Pid,
    /// The socket's number there, and its inode.
    pub number: RawFd,
    pub inode: u64,
}

/// What a copy of guard learns of a process that asks.
#[derive(Debug)]
pub struct Memory {
    /// The copy, which is a child that has to be reaped.
    pub copy: Pid,
    /// Readable when the copy has ended.
    pub report: OwnedFd,
}

/// What the copy writes: first whether guard has access, then how much was read.
#[repr(C)]
struct Report {
    forbidden: bool,
    length: u8,
    bytes: [u8; LONGEST],
    options: Options,
    polled: bool,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents {
    pub bytes: Vec<u8>,
    pub options: Options,
    /// The process polls the socket already.
    pub polled: bool,
}

/// Starts a copy of guard that reads so many bytes, [`LONGEST`] at most. If these say that the socket `is_held`, the copy learns more
/// of it, which takes longer the more descriptors the process has. It is killed if all that takes a second.
pub fn read_memory(
    Asks { pid, number, inode }: Asks,
    address: u64,
    length: usize,
    is_held: &dyn Fn(&[u8]) -> bool,
) -> std::io::Result<Memory> {
    let (report, writer) = socket::pipe()?;
    let copy = spawn_copy(|| {
        super::rights::limit_time();
        super::rights::keep_only([writer.as_raw_fd(); 2]);
        let mut bytes = [0_u8; LONGEST];
        let wanted = length.min(LONGEST);
        let own = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: wanted };
        let other = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: wanted };
        // SAFETY: process_vm_readv(2) writes no more than `wanted` bytes into `bytes`, which has room for them.
        let mut result =
            Errno::result(unsafe { libc::process_vm_readv(pid, &raw const own, 1, &raw const other, 1, 0) });
        if matches!(result, Err(Errno::EPERM | Errno::ENOSYS)) {
            // A seccomp profile may forbid the call and leave the file.
            let memory = File::open(format!("/proc/{pid}/mem"));
            let count = memory.and_then(|memory| memory.read_at(&mut bytes[..wanted], address));
            result = count.map(|count| count as isize).map_err(|_| Errno::EPERM);
        }
        let forbidden = result == Err(Errno::EPERM);
        let length = u8::try_from(result.unwrap_or(0)).unwrap_or(0);
        let (mut options, mut polled) = (Options::default(), false);
        if is_held(&bytes[..usize::from(length)]) {
            options = duplicate(pid, number).map(|socket| Options::read(socket.as_fd())).unwrap_or_default();
            polled = is_polled(pid, inode);
        }
        let report = Report { forbidden, length, bytes, options, polled };
        // SAFETY: write(2) reads so many bytes; the reader takes them for the same structure of the same program.
        unsafe { libc::write(writer.as_raw_fd(), (&raw const report).cast(), size_of::<Report>()) };
    })?;
    Ok(Memory { copy, report })
}

/// A duplicate of another process's descriptor (`pidfd_getfd(2)`), which engines forbid as a rule. For a copy of guard alone: to
/// close it may take for ever.
fn duplicate(pid: Pid, number: RawFd) -> Result<OwnedFd, Errno> {
    /// `PIDFD_THREAD`, <linux/pidfd.h>, since Linux 6.9; before that the main thread alone has one.
    const PIDFD_THREAD: libc::c_int = libc::O_EXCL;
    // SAFETY: both calls take numbers, and return a descriptor that is nobody else's.
    unsafe {
        let open = |flags: libc::c_int| Errno::result(libc::syscall(libc::SYS_pidfd_open, pid, flags));
        let process = OwnedFd::from_raw_fd(open(PIDFD_THREAD).or_else(|_| open(0))? as RawFd);
        let copy = Errno::result(libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0))?;
        Ok(OwnedFd::from_raw_fd(copy as RawFd))
    }
}

impl Memory {
    /// What the copy has read, as far as it could; `EPERM` where guard has no access.
    pub fn take(self) -> Result<Contents, Errno> {
        let mut report = MaybeUninit::<Report>::uninit();
        // SAFETY: read(2) writes no more than the structure has; a copy of this program has written it as a whole, if at all.
        let report = unsafe {
            let size = size_of::<Report>();
            let count = libc::read(self.report.as_raw_fd(), report.as_mut_ptr().cast(), size);
            if usize::try_from(count) != Ok(size) {
                return Err(Errno::ETIMEDOUT);
            }
            report.assume_init()
        };
        if report.forbidden {
            return Err(Errno::EPERM);
        }
        let bytes = report.bytes.get(..usize::from(report.length)).unwrap_or_default();
        Ok(Contents { bytes: bytes.to_vec(), options: report.options, polled: report.polled })
    }
}

/// The address in the bytes that a program gives to bind(2), for a socket of this family; `None` where it is of another.
pub fn address(bytes: &[u8], v6: bool) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let number = |from: usize| Some(u32::from_ne_bytes(bytes.get(from..from + 4)?.try_into().ok()?));
    if v6 {
        let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
        // The scope may be left out (`ipv6(7)`).
        let (flow, scope) = (number(4)?, number(24).unwrap_or(0));
        (family == libc::AF_INET6 as u16).then(|| SocketAddrV6::new(ip.into(), port, flow, scope).into())
    } else {
        let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
        let is_whole = bytes.len() >= size_of::<libc::sockaddr_in>();
        (family == libc::AF_INET as u16 && is_whole).then(|| SocketAddrV4::new(ip.into(), port).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_reads_them() {
        let v4 = [2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(address(&v4, false), "127.0.0.1:8080".parse().ok());
        assert_eq!(address(&v4, true), None, "of another family");
        assert_eq!(address(&v4[..15], false), None, "too short");
        let mut v6 = [0_u8; 28];
        v6[0] = 10;
        v6[3] = 80;
        v6[23] = 1;
        assert_eq!(address(&v6, true), "[::1]:80".parse().ok());
        assert_eq!(address(&v6[..24], true), "[::1]:80".parse().ok());
        assert_eq!(address(&v6[..23], true), None);
        assert_eq!(address(&v6, false), None);
        assert_eq!(address(&[], false), None);
    }

    #[test]
    fn a_socket_is_told_by_its_protocol() {
        let own = std::process::id() as Pid;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
        let found = socket_of(own, listener.as_raw_fd()).expect("guard may look").expect("a socket");
        assert_eq!(found.kind, Kind::Tcp { v6: false });
        assert_eq!(flags_of(own, listener.as_raw_fd()), Ok((true, true)));
        listener.set_nonblocking(true).expect("a socket");
        assert_eq!(flags_of(own, listener.as_raw_fd()), Ok((false, true)));
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        assert_eq!(
            socket_of(own, datagrams.as_raw_fd()).map(|found| found.map(|found| found.kind)),
            Ok(Some(Kind::Other))
        );
        let (stream, _other) = std::os::unix::net::UnixStream::pair().expect("sockets");
        assert_eq!(
            socket_of(own, stream.as_raw_fd()).map(|found| found.map(|found| found.kind)),
            Ok(Some(Kind::Stream))
        );
        let file = File::open("/dev/null").expect("a file");
        assert_eq!(socket_of(own, file.as_raw_fd()), Ok(None));
        assert_eq!(socket_of(own, 4_711), Ok(None));
        assert!(shares_network(own) == Ok(true) && may_bind(own, 65_535));
    }

    #[test]
    fn memory_is_read_by_a_copy() {
        let secret = *b"sixteen bytes...";
        let asks = Asks { pid: std::process::id() as Pid, number: -1, inode: 0 };
        let memory = read_memory(asks, secret.as_ptr() as u64, 16, &|_| true).expect("a copy");
        socket::wait_readable(&[memory.report.as_fd()], std::time::Duration::from_secs(10)).expect("poll");
        let copy = memory.copy;
        let contents = Contents { bytes: secret.to_vec(), options: Options::default(), polled: false };
        assert_eq!(memory.take(), Ok(contents));
        let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(copy), None);
    }
}
