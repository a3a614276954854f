//! The filter that has the processes of a run ask guard about their listening sockets (`seccomp_unotify(2)`).
//!
//! A child installs it in itself before it executes the app, and sends the descriptor with the questions to guard. In guard
//! itself the filter would wait for guard's own answers. All other system calls pass, as do those of a foreign architecture.

use super::{Errno, Pid};
use libc::{seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp, sock_filter};
use nix::sys::socket::{self as nix_socket, AddressFamily, SockFlag, SockType};
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// <linux/audit.h>
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
/// Of no machine, so that everything passes.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: u32 = 0;

pub(super) const fn statement(code: u32, value: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k: value }
}

/// Goes on so many statements further if the word that was loaded is `value`, else so many.
const fn jump(value: u32, equal: u8, other: u8) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: equal, jf: other, k: value }
}

/// Loads a word of `seccomp_data`.
const fn load(offset: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

/// Where the low half of an argument is on a little-endian machine. The kernel looks at no more of an `int`.
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// bind(2), listen(2), setsockopt(2) of IPV6_V6ONLY, and getsockopt(2) of SO_ACCEPTCONN.
static FILTER: [sock_filter; 17] = [
    load(4),
    jump(ARCHITECTURE, 0, 13),
    load(0),
    jump(libc::SYS_bind as u32, 12, 0),
    jump(libc::SYS_listen as u32, 11, 0),
    jump(libc::SYS_setsockopt as u32, 0, 4),
    load(argument(1)),
    jump(libc::IPPROTO_IPV6 as u32, 0, 7),
    load(argument(2)),
    jump(libc::IPV6_V6ONLY as u32, 6, 5),
    jump(libc::SYS_getsockopt as u32, 0, 4),
    load(argument(1)),
    jump(libc::SOL_SOCKET as u32, 0, 2),
    load(argument(2)),
    jump(libc::SO_ACCEPTCONN as u32, 1, 0),
    statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF),
];

/// Installs the filter in this process, and in all that descend from it. Returns the descriptor with the questions, which is
/// closed on exec. It only makes system calls.
fn install() -> Result<RawFd, Errno> {
    let program =
        libc::sock_fprog { len: FILTER.len() as libc::c_ushort, filter: (&raw const FILTER).cast_mut().cast() };
    let try_with = |flags: libc::c_ulong| {
        let flags = flags | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        // SAFETY: seccomp(2) reads the program, which outlives the call.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
        Errno::result(result).map(|descriptor| descriptor as RawFd)
    };
    // Once guard has read a question no signal interrupts it; not before Linux 5.19.
    let install = || match try_with(libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(Errno::EINVAL) => try_with(0),
        result => result,
    };
    match install() {
        // Without CAP_SYS_ADMIN a filter takes a process that gains no privileges (`seccomp(2)`).
        Err(Errno::EACCES) => {
            // SAFETY: prctl(2) takes numbers here.
            let no_new_privs = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            Errno::result(no_new_privs)?;
            install()
        }
        result => result,
    }
}

/// The way by which a child sends the descriptor with its questions to guard.
pub struct Channel {
    own: OwnedFd,
    of_the_child: OwnedFd,
}

/// Space for one descriptor in a message.
// SAFETY: CMSG_SPACE(3) only computes.
const ONE: usize = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as usize;

/// Whether the kernel has what guard answers a bind(2) with. Linux has the filter since 5.0, and lets guard send a descriptor since
/// 5.9; before 5.5 it would not even go on with a call, and the app would wait for ever. Who has the filter in an older kernel has
/// brought all of it there.
pub fn is_supported() -> bool {
    // SAFETY: it is plain data, for which all zeros is a value.
    let mut names: libc::utsname = unsafe { zeroed() };
    // SAFETY: uname(2) fills it in.
    unsafe { libc::uname(&raw mut names) };
    !lacks_answers(&names.release.map(|byte| byte as u8))
}

/// Whether this is a release of Linux 5.0 to 5.8, such as `5.4.0-150-generic`.
fn lacks_answers(release: &[u8]) -> bool {
    matches!(release, [b'5', b'.', b'0'..=b'8', rest @ ..] if !rest.first().is_some_and(u8::is_ascii_digit))
}

impl Channel {
    /// `move_up` changes the number of the child's end.
    pub fn open(move_up: impl FnOnce(OwnedFd) -> io::Result<OwnedFd>) -> io::Result<Channel> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (own, other) = nix_socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok(Channel { own, of_the_child: move_up(other)? })
    }

    /// In the child: installs the filter, and sends the descriptor or the error. It only makes system calls.
    pub(super) fn install(&self) {
        let result = install();
        let mut errno = result.err().map_or(0, |errno| errno as libc::c_int);
        let mut part = libc::iovec { iov_base: (&raw mut errno).cast(), iov_len: size_of_val(&errno) };
        let mut control = [0_u64; ONE.div_ceil(size_of::<u64>())];
        // SAFETY: the header is plain data, and points to what outlives the call; the one control message fits.
        unsafe {
            let mut header: libc::msghdr = zeroed();
            header.msg_iov = &raw mut part;
            header.msg_iovlen = 1;
            if let Ok(descriptor) = result {
                header.msg_control = control.as_mut_ptr().cast();
                header.msg_controllen = ONE as _;
                let message = libc::CMSG_FIRSTHDR(&raw const header);
                (*message).cmsg_level = libc::SOL_SOCKET;
                (*message).cmsg_type = libc::SCM_RIGHTS;
                (*message).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
                libc::CMSG_DATA(message).cast::<RawFd>().write_unaligned(descriptor);
            }
            libc::sendmsg(self.of_the_child.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL);
        }
    }

    /// In guard, once the child has executed its program: the questions, or why there are none.
    pub fn receive(self) -> Result<Questions, Errno> {
        let Channel { own, of_the_child } = self;
        // Makes room for the descriptor.
        drop(of_the_child);
        let mut errno: libc::c_int = 0;
        let mut part = libc::iovec { iov_base: (&raw mut errno).cast(), iov_len: size_of_val(&errno) };
        let mut control = [0_u64; ONE.div_ceil(size_of::<u64>())];
        // SAFETY: the header is plain data, and recvmsg(2) writes no more than the sizes that are given.
        let header = unsafe {
            let mut header: libc::msghdr = zeroed();
            header.msg_iov = &raw mut part;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = ONE as _;
            Errno::result(libc::recvmsg(own.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC))?;
            header
        };
        if errno != 0 {
            return Err(Errno::from_raw(errno));
        }
        // SAFETY: the kernel has filled in the control messages; the descriptor is new, and nobody else's.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(&raw const header).as_ref().ok_or(Errno::EPROTO)?;
            if (message.cmsg_level, message.cmsg_type) != (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                return Err(Errno::EPROTO);
            }
            let descriptor = libc::CMSG_DATA(message).cast::<RawFd>().read_unaligned();
            Ok(Questions(OwnedFd::from_raw_fd(descriptor)))
        }
    }
}

/// The questions of all processes of a run.
#[derive(Debug)]
pub struct Questions(OwnedFd);

/// A system call that waits for guard's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// What the answer goes to.
    pub id: u64,
    /// The thread that asks; 0 if it is outside of guard's PID namespace.
    pub caller: Pid,
    /// The socket, as the caller numbers it.
    pub socket: RawFd,
    pub call: Call,
}

/// What is asked. Memory is the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Bind {
        address: u64,
        length: u64,
    },
    Listen,
    /// getsockopt(2) of SO_ACCEPTCONN: the caller does not listen on what listens already.
    AcceptConn,
    /// setsockopt(2) of IPV6_V6ONLY.
    OnlyV6 {
        value: u64,
        length: u64,
    },
}

/// What the descriptor has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Question(Question),
    /// Who asked is gone, or does not wait any more.
    Withdrawn,
    Nothing,
    /// No process of the run lives, or the kernel answers no more.
    End,
}

/// What guard answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel is to do what was asked for.
    GoOn,
    /// It is done.
    Done,
    Failed(Errno),
}

/// The number of an ioctl of this kind ('!' and a structure's size, <linux/seccomp.h>), where 1 is to write and 2 to read.
const fn request(direction: u32, number: u32, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | 0x21 << 8 | number
}

const RECEIVE: u32 = request(3, 0, size_of::<seccomp_notif>());
const SEND: u32 = request(3, 1, size_of::<seccomp_notif_resp>());
const IS_VALID: u32 = request(1, 2, size_of::<u64>());
const ADD: u32 = request(1, 3, size_of::<seccomp_notif_addfd>());

impl Questions {
    /// The next question, without waiting for one.
    pub fn next(&self) -> Next {
        let mut one = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: poll(2) reads and writes one structure.
        unsafe { libc::poll(&raw mut one, 1, 0) };
        if one.revents & libc::POLLIN == 0 {
            return if one.revents == 0 { Next::Nothing } else { Next::End };
        }
        // SAFETY: it is plain data, and the kernel wants it to be zero.
        let mut asked: seccomp_notif = unsafe { zeroed() };
        match self.control(RECEIVE, &raw mut asked) {
            Ok(()) => {}
            Err(Errno::ENOENT | Errno::EINTR | Errno::EAGAIN) => return Next::Withdrawn,
            Err(_) => return Next::End,
        }
        let [socket, second, third, fourth, fifth, _] = asked.data.args;
        let call = match i64::from(asked.data.nr) {
            libc::SYS_bind => Call::Bind { address: second, length: third },
            libc::SYS_listen => Call::Listen,
            libc::SYS_getsockopt => Call::AcceptConn,
            _ => Call::OnlyV6 { value: fourth, length: fifth },
        };
        // The kernel takes an int.
        Next::Question(Question { id: asked.id, caller: asked.pid as Pid, socket: socket as u32 as RawFd, call })
    }

    /// Whether a question still waits: if so what was read of its caller is the caller's, and not that of another process with
    /// the same pid.
    pub fn is_waiting(&self, question: &Question) -> bool {
        let mut id = question.id;
        self.control(IS_VALID, &raw mut id).is_ok()
    }

    /// Puts a duplicate of `source` in the place of the socket that was asked about. The caller still waits.
    pub fn replace(&self, question: &Question, source: BorrowedFd, close_on_exec: bool) -> Result<(), Errno> {
        let mut add = seccomp_notif_addfd {
            id: question.id,
            flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
            srcfd: source.as_raw_fd() as u32,
            newfd: question.socket as u32,
            newfd_flags: if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 },
        };
        self.control(ADD, &raw mut add)
    }

    /// Answers. Fails with `ENOENT` if nobody waits any more.
    pub fn answer(&self, question: &Question, answer: Answer) -> Result<(), Errno> {
        let (error, flags) = match answer {
            Answer::GoOn => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Answer::Done => (0, 0),
            Answer::Failed(errno) => (-(errno as i32), 0),
        };
        let mut response = seccomp_notif_resp { id: question.id, val: 0, error, flags };
        self.control(SEND, &raw mut response)
    }

    fn control<T>(&self, request: u32, argument: *mut T) -> Result<(), Errno> {
        // SAFETY: the request's number has the size of the structure that the kernel reads and writes.
        Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, argument) }).map(drop)
    }
}

impl AsFd for Questions {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests;
