//! Whoever started guard and waits to hear from it (NOTIFY_SOCKET, `sd_notify(3)`): systemd, Podman, an outer guard.

use crate::sys::socket::{Address, DatagramSocket};
use std::ffi::OsStr;

/// Passes on how guard is; what cannot be sent at once is lost.
pub(super) struct Outer {
    socket: DatagramSocket,
    address: Address,
    ready: bool,
    stopping: bool,
}

impl Outer {
    /// Nobody, where no socket is named or it is none.
    pub(super) fn of(notify_socket: Option<&OsStr>) -> Option<Outer> {
        let value = notify_socket?;
        let socket = Address::of_notify_socket(value).map(|address| (address, DatagramSocket::bind_anew()));
        match socket {
            Some((address, Ok(socket))) => Some(Outer { socket, address, ready: false, stopping: false }),
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

    /// Says what has changed.
    pub(super) fn look(&mut self, ready: bool, stopping: bool) {
        if ready && !self.ready {
            self.send("READY=1");
        }
        if stopping && !self.stopping {
            self.send("STOPPING=1");
        }
        (self.ready, self.stopping) = (ready, stopping);
    }

    pub(super) fn status(&self, text: &str) {
        self.send(&format!("STATUS={text}"));
    }

    fn send(&self, text: &str) {
        if let Err(error) = self.socket.send(text.as_bytes(), &self.address) {
            log::debug!(error:%; "notify-socket");
        }
    }
}
