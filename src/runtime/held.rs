//! The listening sockets of which guard keeps a duplicate, so that their queues outlive a run.
//!
//! A run gets the passed ones as descriptors from 3 on, by the protocol of `sd_listen_fds(3)`: first those that guard was handed
//! itself, then those of GUARD_LISTEN. Each of GUARD_LISTEN's is in one state:
//!
//! | state | what it means | left when |
//! | --- | --- | --- |
//! | open | clients are served, or wait for the next run | the hold timeout has passed since the last run ended → refusing |
//! | refusing | clients are refused; a TCP socket keeps its port | the next run starts → open |
//!
//! guard's end lets go of all (`Action::Release`). The sockets that guard was handed are open until then: others have them too.

use super::Runtime;
use super::environment::Environment;
use crate::config::{Config, Listen, ListenAddress, TcpAddress};
use crate::report::status::HeldStatus;
use crate::supervisor::{RunId, Timestamp};
use crate::sys::listen::{self, FIRST};
use crate::sys::{Errno, process};
use anyhow::{Context, anyhow};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

/// What a socket without a name is called (`sd_listen_fds_with_names(3)`).
const NAMELESS: &str = "unknown";

/// A socket that each run is handed.
struct Passed {
    descriptor: OwnedFd,
    name: String,
    /// Where guard has opened it; `None` for one that guard was handed.
    address: Option<ListenAddress>,
    /// It is one that listens, and no pipe or datagram socket.
    listens: bool,
    /// Clients are refused.
    refusing: bool,
}

/// Who owns what outlives a run.
#[derive(Default)]
pub(super) struct Held {
    timeout: Duration,
    /// In the order of their numbers.
    passed: Vec<Passed>,
    /// When clients of the sockets of GUARD_LISTEN are refused, unless a run starts before.
    refuse_at: Option<Timestamp>,
}

impl Held {
    /// Takes the sockets that guard was handed by Podman or systemd.
    pub(super) fn take(config: &Config) -> Held {
        let variable = |name| config.variable_of_the_app(name).and_then(|value| value.to_str());
        let is_ours = variable("LISTEN_PID").is_some_and(|pid| pid.parse() == Ok(process::id()));
        let count = variable("LISTEN_FDS").filter(|_| is_ours).and_then(|count| count.parse().ok());
        let mut names = variable("LISTEN_FDNAMES").unwrap_or_default().split(':').filter(|name| !name.is_empty());
        let handed = count.map(listen::take_handed).unwrap_or_default().into_iter();
        let passed = handed.map(|descriptor| Passed {
            name: names.next().unwrap_or(NAMELESS).to_owned(),
            listens: listen::is_listening(descriptor.as_fd()),
            descriptor,
            address: None,
            refusing: false,
        });
        Held { timeout: config.hold_timeout, passed: passed.collect(), refuse_at: None }
    }

    /// Opens the sockets of GUARD_LISTEN besides.
    pub(super) fn open(mut self, config: &Config) -> anyhow::Result<Held> {
        let above = self.above(config.listen.len());
        for Listen { name, address } in &config.listen {
            let descriptor = open(address).and_then(|socket| listen::move_above(socket, above));
            let descriptor = descriptor.map_err(|error| explain(error, address));
            let descriptor = descriptor.with_context(|| format!("GUARD_LISTEN: cannot listen on {address}"))?;
            let name = name.as_deref().unwrap_or(NAMELESS).to_owned();
            let address = Some(address.clone());
            self.passed.push(Passed { descriptor, name, address, listens: true, refusing: false });
        }
        Ok(self)
    }

    /// The first number above those that a run is handed, with so many more.
    fn above(&self, more: usize) -> RawFd {
        RawFd::try_from(self.passed.len() + more).unwrap_or(RawFd::MAX).saturating_add(FIRST)
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
        Ok(listen::move_above(descriptor, self.above(0))?)
    }

    /// A run is about to start: it finds every socket listening. Returns when clients are refused if it does not start.
    pub(super) fn run_starts(&mut self, now: Timestamp) -> Option<Timestamp> {
        let above = self.above(0);
        let refused = self.passed.iter().any(|socket| socket.refusing);
        for socket in self.passed.iter_mut().filter(|socket| socket.refusing) {
            match socket.reopen(above) {
                Ok(()) => log::info!(address = socket.shown(); "held-again"),
                Err(error) => log::error!(address = socket.shown(), error = error.desc(); "not-held"),
            }
        }
        if refused { Some(now) } else { self.refuse_at }
    }

    /// A run has started, or could not be: clients are refused from `refuse_at` on.
    pub(super) fn run_started(&mut self, refuse_at: Option<Timestamp>) {
        self.refuse_at = refuse_at;
    }

    /// A run has ended: it may have made a queue shorter, or shut its socket down. `last` says when, if no other run lives.
    pub(super) fn run_ended(&mut self, last: Option<Timestamp>) {
        let above = self.above(0);
        for socket in self.passed.iter_mut().filter(|socket| socket.listens && !socket.refusing) {
            let revived = listen::listen(socket.descriptor.as_fd());
            // A unix socket that was shut down stays so.
            if revived.is_err() || listen::is_shut_down(socket.descriptor.as_fd()) {
                let _ = socket.reopen(above);
            }
        }
        let is_held = self.passed.iter().any(|socket| socket.address.is_some());
        if let Some(now) = last.filter(|_| is_held) {
            self.refuse_at = Some(now.after(self.timeout));
        }
    }

    /// When something is due here; see [`Held::timer_elapsed`].
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.refuse_at
    }

    /// So long no run has served the sockets that their clients are refused now.
    pub(super) fn timer_elapsed(&mut self) {
        self.refuse_at = None;
        for socket in self.passed.iter_mut().filter(|socket| socket.address.is_some() && !socket.refusing) {
            socket.refusing = true;
            listen::refuse(socket.descriptor.as_fd());
            log::warn!(address = socket.shown(), msg = "no run for GUARD_HOLD_TIMEOUT: clients are refused"; "not-held");
        }
    }

    /// Lets go of all.
    pub(super) fn release(&mut self) {
        self.refuse_at = None;
        for socket in self.passed.drain(..) {
            if let Some(ListenAddress::Unix(path)) = &socket.address {
                let _ = std::fs::remove_file(path);
            }
        }
    }

    /// What is held now.
    pub(super) fn sockets(&self) -> Vec<HeldStatus> {
        let held = |socket: &Passed| HeldStatus {
            address: socket.shown(),
            name: Some(socket.name.clone()).filter(|name| name != NAMELESS),
            queue: listen::queue(socket.descriptor.as_fd()),
            refusing: socket.refusing,
        };
        self.passed.iter().filter(|socket| socket.listens).map(held).collect()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

impl Passed {
    /// For people.
    fn shown(&self) -> String {
        let address = listen::address(self.descriptor.as_fd());
        let of_config = || self.address.as_ref().map_or_else(String::new, ToString::to_string);
        address.unwrap_or_else(of_config)
    }

    /// Listens again at the same address. guard was handed the others, and cannot open them.
    fn reopen(&mut self, above: RawFd) -> Result<(), Errno> {
        match &self.address {
            Some(address @ ListenAddress::Unix(path)) => {
                // guard's own file, which a shut socket leaves behind.
                let _ = std::fs::remove_file(path);
                self.descriptor = listen::move_above(open(address)?, above)?;
            }
            Some(ListenAddress::Tcp(_)) | None => listen::listen(self.descriptor.as_fd())?,
        }
        self.refusing = false;
        Ok(())
    }
}

/// A socket that listens at this address.
fn open(address: &ListenAddress) -> Result<OwnedFd, Errno> {
    let socket = match address {
        ListenAddress::Tcp(address) => bind_tcp(*address),
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
pub(super) fn listen_tcp(address: TcpAddress) -> anyhow::Result<OwnedFd> {
    let socket = bind_tcp(address).and_then(|socket| listen::listen(socket.as_fd()).map(|()| socket));
    socket.map_err(|error| explain(error, &ListenAddress::Tcp(address)))
}

fn explain(error: Errno, address: &ListenAddress) -> anyhow::Error {
    match (error, address) {
        (Errno::EADDRINUSE, ListenAddress::Tcp(_)) => anyhow!("another process has this port"),
        (Errno::EADDRINUSE, ListenAddress::Unix(_)) => anyhow!("somebody listens there, or it is not a socket"),
        (Errno::EACCES | Errno::EPERM, ListenAddress::Tcp(_)) => {
            anyhow!("not permitted; such a port takes CAP_NET_BIND_SERVICE, one from 1024 on does not")
        }
        _ => anyhow!("{}", error.desc()),
    }
}

impl Runtime<'_> {
    /// A main process has ended.
    pub(super) fn queue_after_run(&mut self, run: RunId) {
        if self.holding.is_on() {
            self.holding.run_ended(run, self.clock.now(), &self.poll);
        }
        let is_last = self.children.runs().all(|run| run.reaped);
        let last = is_last.then(|| self.clock.now());
        self.held.run_ended(last);
    }

    /// Tells what is held from the start on.
    pub(super) fn log_held(&self) {
        for socket in self.held.sockets() {
            match socket.name {
                Some(name) => log::info!(address = socket.address, name; "held"),
                None => log::info!(address = socket.address; "held"),
            }
        }
    }
}
