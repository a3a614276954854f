//! The manager that started guard with a NOTIFY_SOCKET (`sd_notify(3)`): systemd, Podman, an outer guard.

use super::doors::DoorId;
use crate::sys::poll::Poll;
use crate::sys::socket::{Address, DatagramSocket};
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;

/// Sends guard's state to the manager. Where there is no room at once, guard sends the state of the moment at which there is.
pub(super) struct Outer {
    socket: DatagramSocket,
    address: Address,
    ready: bool,
    stopping: bool,
    unsent: Unsent,
}

#[derive(Default)]
struct Unsent {
    ready: bool,
    stopping: bool,
    /// The last one.
    status: Option<String>,
}

impl Outer {
    /// `None` where the variable is unset or names no socket.
    pub(super) fn of(notify_socket: Option<&OsStr>) -> Option<Outer> {
        let value = notify_socket?;
        let socket = Address::of_notify_socket(value).map(|address| (address, DatagramSocket::unbound()));
        match socket {
            Some((address, Ok(socket))) => {
                Some(Outer { socket, address, ready: false, stopping: false, unsent: Unsent::default() })
            }
            Some((_, Err(error))) => {
                log::warn!(error:%; "notify-socket");
                None
            }
            None => {
                log::warn!(value:% = value.to_string_lossy(), error = "neither a path nor an abstract name"; "notify-socket");
                None
            }
        }
    }

    /// Sends what has changed.
    pub(super) fn update(&mut self, ready: bool, stopping: bool, poll: &Poll) {
        let (now_ready, now_stopping) = (ready && !self.ready, stopping && !self.stopping);
        (self.ready, self.stopping) = (ready, stopping);
        if now_ready || now_stopping {
            self.unsent.ready |= now_ready;
            self.unsent.stopping |= now_stopping;
            self.send(poll);
        }
    }

    pub(super) fn status(&mut self, text: &str, poll: &Poll) {
        self.unsent.status = Some(text.to_owned());
        self.send(poll);
    }

    /// Sends all that is unsent, in one datagram. Where there is no room the poll waits for it; where nobody listens the
    /// datagram is lost.
    pub(super) fn send(&mut self, poll: &Poll) {
        let status = self.unsent.status.as_ref().map(|text| format!("STATUS={text}"));
        let ready = self.unsent.ready.then(|| "READY=1".to_owned());
        let stopping = self.unsent.stopping.then(|| "STOPPING=1".to_owned());
        let lines: Vec<String> = [status, ready, stopping].into_iter().flatten().collect();
        if lines.is_empty() {
            return;
        }
        match self.socket.send(lines.join("\n").as_bytes(), &self.address) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_for_room(poll),
            result => {
                self.unsent = Unsent::default();
                if let Err(error) = result {
                    log::debug!(error:%; "notify-socket");
                }
            }
        }
    }

    fn wait_for_room(&self, poll: &Poll) {
        let waits = || poll.add_once_for_writing(self.socket.as_fd(), DoorId::Outer.token()).map_err(io::Error::from);
        if let Err(error) = self.socket.connect(&self.address).and_then(|()| waits()) {
            log::debug!(error:%; "notify-socket");
        }
    }
}
