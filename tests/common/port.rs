//! A port at which nobody listens yet, and that nobody else can have meanwhile.

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, socket};
use std::os::fd::{AsRawFd, OwnedFd};

/// Bound, so that connections are refused until it listens (`listen(2)`).
pub(crate) struct Port {
    socket: OwnedFd,
    pub(crate) number: u16,
}

impl Port {
    pub(crate) fn reserve() -> Port {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
        bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("a port");
        let number = getsockname::<SockaddrIn>(socket.as_raw_fd()).expect("it is bound").port();
        Port { socket, number }
    }

    /// From now on the kernel accepts connections, some dozens of them.
    pub(crate) fn listen(&self) {
        listen(&self.socket, Backlog::new(64).expect("a number in range")).expect("a bound socket can listen");
    }
}
