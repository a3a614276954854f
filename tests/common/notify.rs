//! A stranger at a run's notify socket.

use crate::common;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

/// Says something as this process, which is no child of guard's, at a path or an abstract name.
pub(crate) fn speak(socket: &str, bytes: &[u8], descriptors: &[RawFd]) -> nix::Result<usize> {
    let address = match socket {
        path if path.starts_with('/') => UnixAddr::new(path)?,
        name => UnixAddr::new_abstract(name.trim_start_matches('@').as_bytes())?,
    };
    let own = UnixDatagram::unbound().expect("a socket");
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() { &[] } else { &rights[..] };
    sendmsg(own.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::empty(), Some(&address))
}

/// Waits until guard has handled all that was said (`sd_notify_barrier(3)`).
pub(crate) fn barrier(socket: &str) {
    let (mut own, other) = UnixStream::pair().expect("two sockets");
    own.set_read_timeout(Some(common::DEADLINE)).expect("a timeout");
    speak(socket, b"BARRIER=1", &[other.as_raw_fd()]).expect("it is sent");
    drop(other);
    assert_eq!(own.read(&mut [0]).expect("guard answers"), 0);
}
