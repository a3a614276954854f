//! The sockets that guard opens: those of GUARD_LISTEN for the app, and that of GUARD_HTTP.

use crate::config::{ListenAddress, TcpAddress};
use crate::sys::errno::reason;
use crate::sys::{Errno, listen, spread};
use anyhow::anyhow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

/// The file at the path of a unix socket, by its inode; `None` where guard sees none.
pub(super) fn file_at(address: &ListenAddress) -> Option<u64> {
    match address {
        ListenAddress::Unix(path) => path.symlink_metadata().ok().map(|metadata| metadata.ino()),
        ListenAddress::Tcp(_) => None,
    }
}

/// A socket that listens at this address.
pub(super) fn open(address: &ListenAddress) -> Result<OwnedFd, Errno> {
    let socket = match address {
        // A socket that shares its address binds one that another process shares. So guard lets it share after the bind.
        ListenAddress::Tcp(address) => bind_tcp(*address).inspect(|socket| spread::share_address(socket.as_fd(), true)),
        ListenAddress::Unix(path) => listen::bind_path(path),
    }?;
    listen::listen(socket.as_fd())?;
    // As a program finds a socket that it has made itself.
    listen::set_waiting(socket.as_fd(), true);
    Ok(socket)
}

fn bind_tcp(address: TcpAddress) -> Result<OwnedFd, Errno> {
    match address {
        TcpAddress::Port(port) => {
            let all = |ip| SocketAddr::new(ip, port);
            match listen::bind(all(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), false) {
                Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => {
                    listen::bind(all(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), false)
                }
                result => result,
            }
        }
        TcpAddress::Ip(address) => listen::bind(address, true),
    }
}

/// A TCP socket that listens and never waits, for guard itself.
pub(super) fn listen_tcp(address: TcpAddress) -> Result<OwnedFd, Errno> {
    bind_tcp(address).and_then(|socket| listen::listen(socket.as_fd()).map(|()| socket))
}

/// Why the socket that a variable asks for cannot be opened.
pub(super) fn explain(variable: &str, address: &ListenAddress, error: Errno) -> anyhow::Error {
    let why = match (error, address) {
        (Errno::EADDRINUSE, ListenAddress::Tcp(_)) => "another process has this port",
        (Errno::EADDRINUSE, ListenAddress::Unix(_)) => "somebody listens there, or it is not a socket",
        (Errno::EACCES, ListenAddress::Tcp(_)) => {
            "not permitted; such a port takes CAP_NET_BIND_SERVICE, one from 1024 on does not"
        }
        _ => reason(error),
    };
    anyhow!("{variable}: cannot listen on {address}: {why}")
}
