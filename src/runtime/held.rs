//! The listening sockets of which guard keeps a duplicate, so that their queues outlive a run.
//!
//! A run gets the passed ones as descriptors from 3 on, by the protocol of `sd_listen_fds(3)`: first those that guard was handed
//! itself.

use super::environment::Environment;
use crate::config::Config;
use crate::sys::{listen, process};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// What a socket without a name is called (`sd_listen_fds_with_names(3)`).
const NAMELESS: &str = "unknown";

/// A socket that each run is handed.
struct Passed {
    descriptor: OwnedFd,
    name: String,
    /// It is one that listens, and no pipe or datagram socket.
    listens: bool,
}

/// Who owns what outlives a run.
#[derive(Default)]
pub(super) struct Held {
    /// In the order of their numbers.
    passed: Vec<Passed>,
}

impl Held {
    /// Takes the sockets that guard was handed by Podman or systemd. To be called before guard opens a descriptor.
    pub(super) fn take(config: &Config) -> Held {
        let variable = |name| config.variable_of_the_app(name).and_then(|value| value.to_str());
        let is_ours = variable("LISTEN_PID").is_some_and(|pid| pid.parse() == Ok(process::id()));
        let count = variable("LISTEN_FDS").filter(|_| is_ours).and_then(|count| count.parse().ok());
        let mut names = variable("LISTEN_FDNAMES").unwrap_or_default().split(':').filter(|name| !name.is_empty());
        let handed = count.map(listen::take_handed).unwrap_or_default().into_iter();
        let passed = handed.map(|descriptor| {
            let name = names.next().unwrap_or(NAMELESS).to_owned();
            Passed { listens: listen::is_listening(descriptor.as_fd()), descriptor, name }
        });
        Held { passed: passed.collect() }
    }

    /// Whether a run is handed any.
    pub(super) fn any_passed(&self) -> bool {
        !self.passed.is_empty()
    }

    pub(super) fn passed(&self) -> Vec<BorrowedFd<'_>> {
        self.passed.iter().map(|socket| socket.descriptor.as_fd()).collect()
    }

    /// Tells a run of the sockets that it is handed.
    pub(super) fn announce(&self, environment: &mut Environment) {
        if self.any_passed() {
            let names: Vec<&str> = self.passed.iter().map(|socket| socket.name.as_str()).collect();
            environment.set("LISTEN_FDS", names.len().to_string());
            environment.set("LISTEN_FDNAMES", names.join(":"));
        }
    }

    /// Moves a descriptor of the app's above those that it is handed.
    pub(super) fn make_room(&self, descriptor: OwnedFd) -> io::Result<OwnedFd> {
        let above = RawFd::try_from(self.passed.len()).unwrap_or(RawFd::MAX).saturating_add(listen::FIRST);
        Ok(listen::move_above(descriptor, above)?)
    }

    /// A run has ended: it may have made a queue shorter, or shut its socket down.
    pub(super) fn run_ended(&self) {
        for socket in self.passed.iter().filter(|socket| socket.listens) {
            let _ = listen::listen(socket.descriptor.as_fd());
        }
    }
}
