//! The listening sockets of which guard keeps a duplicate, so that their queues outlive a run.
//!
//! A run gets the passed ones as descriptors from 3 on, by the protocol of `sd_listen_fds(3)`: first those that guard was handed
//! itself, then those of GUARD_LISTEN. Of a TCP address of GUARD_LISTEN each run has a socket to itself (`pool.rs`), which listens before
//! it starts. All runs share the others. When the hold timeout has passed since the last run ended clients are refused, until the
//! next one starts; a TCP socket keeps its port.
//!
//! guard's end lets go of all (`Action::Release`). The sockets that guard was handed are open until then: others have them too.

use super::Runtime;
use super::environment::Environment;
use super::pool::Pool;
use super::sockets::{explain, file_at, open};
use crate::config::{Config, Listen, ListenAddress};
use crate::report::status::HeldStatus;
use crate::supervisor::{Fitness, RunId, Timestamp};
use crate::sys::errno::reason;
use crate::sys::listen::{self, FIRST};
use crate::sys::poll::Poll;
use crate::sys::{Errno, Pid, process, rights, user};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

/// What a socket without a name is called (`sd_listen_fds_with_names(3)`).
const NAMELESS: &str = "unknown";

/// A socket that each run is handed.
struct Passed {
    pool: Pool,
    name: String,
    /// Where guard has opened it; `None` for one that guard was handed.
    address: Option<ListenAddress>,
    /// The file of a unix socket of guard's, by its inode. Another program may put its own in the place.
    file: Option<u64>,
    /// It is one that listens, and no pipe or datagram socket.
    listens: bool,
}

/// The sockets that each run is handed, and how long their clients wait for a run (GUARD_HOLD_TIMEOUT).
#[derive(Default)]
pub(super) struct Held {
    timeout: Duration,
    /// In the order of their numbers.
    passed: Vec<Passed>,
}

impl Held {
    /// Takes the sockets that guard was handed by Podman or systemd.
    pub(super) fn take(config: &Config) -> Held {
        let variable = |name| config.variable_of_the_app(name).and_then(|value| value.to_str());
        let is_ours = variable("LISTEN_PID").is_some_and(|pid| pid.parse() == Ok(process::id()));
        let count = variable("LISTEN_FDS").filter(|_| is_ours).and_then(|count| count.parse().ok());
        let mut names = variable("LISTEN_FDNAMES").unwrap_or_default().split(':');
        let handed = count.map(listen::take_handed).unwrap_or_default().into_iter();
        let passed = handed.map(|descriptor| Passed {
            name: names.next().filter(|name| !name.is_empty()).unwrap_or(NAMELESS).to_owned(),
            listens: listen::is_listening(descriptor.as_fd()),
            pool: Pool::new(Some(descriptor), false),
            address: None,
            file: None,
        });
        Held { timeout: config.hold_timeout, passed: passed.collect() }
    }

    /// Opens the sockets of GUARD_LISTEN besides.
    pub(super) fn open(mut self, config: &Config) -> anyhow::Result<Held> {
        let above = self.above(config.listen.len());
        for Listen { name, address } in &config.listen {
            let descriptor = open(address).and_then(|socket| listen::move_above(socket, above));
            let descriptor = descriptor.map_err(|error| explain("GUARD_LISTEN", address, error))?;
            let name = name.as_deref().unwrap_or(NAMELESS).to_owned();
            let pool = Pool::new(Some(descriptor), matches!(address, ListenAddress::Tcp(_)));
            let (file, address) = (file_at(address), Some(address.clone()));
            self.passed.push(Passed { pool, name, address, file, listens: true });
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

    /// Whether a run is handed one that listens.
    pub(super) fn any_listens(&self) -> bool {
        self.passed.iter().any(|socket| socket.listens)
    }

    /// Those that this run is handed.
    pub(super) fn passed(&self, run: RunId) -> Vec<BorrowedFd<'_>> {
        self.passed.iter().filter_map(|socket| socket.pool.of(run)).collect()
    }

    pub(super) fn pools(&mut self) -> impl Iterator<Item = &mut Pool> {
        self.passed.iter_mut().map(|socket| &mut socket.pool)
    }

    /// Gives the sockets of GUARD_LISTEN to the user that guard becomes, whose later ones share an address with these alone.
    pub(super) fn give_to(&self, uid: u32) {
        let own = self.passed.iter().filter(|socket| matches!(socket.address, Some(ListenAddress::Tcp(_))));
        own.filter_map(|socket| socket.pool.first()).for_each(|socket| user::give(socket, uid));
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

    /// A run is about to start: it finds every socket listening.
    pub(super) fn run_starts(&mut self, run: RunId, poll: &Poll) {
        let above = self.above(0);
        for socket in &mut self.passed {
            if !socket.pool.take(run) && socket.make(run, above, poll).is_err() {
                socket.pool.share(run);
            }
            let was_refusing = socket.pool.refusing;
            if socket.address.is_some() && !socket.pool.is_shared(run) {
                // The last run may have set O_NONBLOCK.
                socket.pool.of(run).into_iter().for_each(|own| listen::set_waiting(own, true));
            }
            match socket.open_for(run, above, poll) {
                Ok(()) if was_refusing => log::info!(address = socket.shown(); "held-again"),
                Ok(()) => {}
                Err(error) => log::error!(address = socket.shown(), error = reason(error); "not-held"),
            }
        }
    }

    /// A run has started.
    pub(super) fn run_started(&mut self, run: RunId, now: Timestamp) {
        self.pools().for_each(|pool| pool.serve(run, now));
    }

    /// A run could not be started.
    pub(super) fn run_failed(&mut self, run: RunId, now: Timestamp) {
        let timeout = self.timeout;
        for socket in &mut self.passed {
            socket.pool.run_not_started(run, now, socket.address.is_some().then_some(timeout));
        }
    }

    /// A run has ended: it may have made a queue shorter, or shut its socket down.
    pub(super) fn run_ended(&mut self, run: RunId, now: Timestamp, poll: &Poll) {
        let (above, timeout) = (self.above(0), self.timeout);
        for socket in &mut self.passed {
            socket.pool.run_ended(run, now, socket.address.is_some().then_some(timeout), poll);
            if socket.listens && !socket.pool.spreads && !socket.pool.refusing {
                // The log has it when the next run starts, for which guard tries again.
                let _ = socket.revive(run, above, poll);
            }
        }
    }

    /// When something is due here; see [`Held::timer_elapsed`].
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.passed.iter().filter_map(|socket| socket.pool.deadline()).min()
    }

    /// Refuses the clients of sockets that no run has served for the hold timeout. Returns the copies of guard that cut off clients in
    /// the queues of unix sockets; the kernel does so for TCP.
    pub(super) fn timer_elapsed(&mut self, now: Timestamp, poll: &Poll) -> Vec<Pid> {
        let mut copies = Vec::new();
        for socket in &mut self.passed {
            if socket.pool.timer_elapsed(now, poll) {
                log::warn!(address = socket.shown(), msg = "nobody has listened for GUARD_HOLD_TIMEOUT: clients are refused"; "not-held");
                let unix = socket.pool.first().filter(|_| !socket.pool.spreads);
                copies.extend(unix.and_then(|socket| rights::cut_queue(socket).ok()));
            }
        }
        copies
    }

    /// Lets go of all.
    pub(super) fn release(&mut self, poll: Option<&Poll>) {
        for socket in self.passed.drain(..) {
            if let Some(address @ ListenAddress::Unix(path)) = &socket.address
                && file_at(address).is_none_or(|file| Some(file) == socket.file)
                && let Err(error) = nix::unistd::unlink(path)
                && error != Errno::ENOENT
            {
                // GUARD_USER may not write the directory, perhaps.
                log::warn!(path:% = path.display(), error = reason(error), msg = "guard cannot remove its socket"; "not-removed");
            }
            if let Some(poll) = poll {
                socket.pool.close(poll);
            }
        }
    }

    /// What is held now.
    pub(super) fn sockets(&self) -> Vec<HeldStatus> {
        let held = |socket: &Passed| HeldStatus {
            address: socket.shown(),
            name: Some(socket.name.clone()).filter(|name| name != NAMELESS),
            queue: socket.pool.queue(None),
            refusing: socket.pool.refusing,
        };
        self.passed.iter().filter(|socket| socket.listens).map(held).collect()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release(None);
    }
}

impl Passed {
    /// For people.
    fn shown(&self) -> String {
        let address = self.pool.first().and_then(listen::address);
        let of_config = || self.address.as_ref().map_or_else(String::new, ToString::to_string);
        address.unwrap_or_else(of_config)
    }

    /// Makes one more socket, for this run.
    fn make(&mut self, run: RunId, above: RawFd, poll: &Poll) -> Result<(), Errno> {
        if !self.pool.spreads {
            return Err(Errno::EOPNOTSUPP);
        }
        let first = self.pool.first().ok_or(Errno::EOPNOTSUPP)?;
        let address = listen::tcp_address(first).ok_or(Errno::EOPNOTSUPP)?;
        let socket = listen::bind_beside(address, listen::takes_only_v6(first), &|_| {})?;
        let socket = listen::spare(listen::move_above(socket, above)?)?;
        listen::set_waiting(socket.as_fd(), true);
        self.pool.add(socket, run, poll)?;
        self.pool.open_for(run, poll).inspect_err(|_| self.pool.abandon(run, poll))
    }

    /// Has the socket listen that a run has which is about to start.
    fn open_for(&mut self, run: RunId, above: RawFd, poll: &Poll) -> Result<(), Errno> {
        if self.pool.refusing {
            self.reopen(run, above, poll)
        } else if self.pool.spreads {
            self.pool.open_for(run, poll)
        } else if self.listens {
            self.revive(run, above, poll)
        } else {
            Ok(())
        }
    }

    /// Listens again at the same address.
    fn reopen(&mut self, run: RunId, above: RawFd, poll: &Poll) -> Result<(), Errno> {
        if let Some(address @ ListenAddress::Unix(path)) = &self.address {
            if file_at(address) == self.file {
                // A shut socket leaves it behind.
                nix::unistd::unlink(path).or_else(|error| if error == Errno::ENOENT { Ok(()) } else { Err(error) })?;
            }
            self.pool.replace(listen::move_above(open(address)?, above)?);
            self.file = file_at(address);
            return Ok(());
        }
        self.pool.open_for(run, poll)
    }

    /// After a run that has shared it. guard was handed some, and cannot open them. Where it fails clients are refused.
    fn revive(&mut self, run: RunId, above: RawFd, poll: &Poll) -> Result<(), Errno> {
        let is_revived = |socket: BorrowedFd| listen::listen(socket).is_ok() && !listen::is_shut_down(socket);
        // A unix socket that was shut down stays so.
        if self.pool.first().is_some_and(is_revived) {
            return Ok(());
        }
        self.reopen(run, above, poll).inspect_err(|_| self.pool.refuse())
    }
}

impl Runtime<'_> {
    /// The main process of a run has ended: its sockets are free for the next run.
    pub(super) fn free_sockets_of(&mut self, run: RunId) {
        let now = self.clock.now();
        self.holding.run_ended(run, now, &self.poll);
        self.held.run_ended(run, now, &self.poll);
    }

    /// The time of a queue that no run serves is over.
    pub(super) fn queue_timer_elapsed(&mut self) {
        let now = self.clock.now();
        let supervisor = &self.supervisor;
        let serves = |run| matches!(supervisor.fitness(run), Fitness::Ready | Fitness::Starting);
        self.holding.timer_elapsed(now, &serves, &self.poll);
        let copies = self.held.timer_elapsed(now, &self.poll);
        copies.into_iter().for_each(|copy| self.note_copy(copy));
        self.lead_connections();
    }

    /// guard has stood still for so long, as in a pause of the container: clients wait for a run that much longer.
    pub(super) fn postpone_queues(&mut self, delay: Duration) {
        self.held.pools().chain(self.holding.pools()).for_each(|pool| pool.postpone(delay));
    }

    /// Leads new connections to the runs that can take them, and gives up queues that no run will take.
    pub(super) fn lead_connections(&mut self) {
        let supervisor = &self.supervisor;
        for pool in self.held.pools().chain(self.holding.pools()) {
            let fitness = |run| supervisor.fitness(run);
            pool.give_up(&fitness);
            pool.lead(&fitness);
        }
    }

    /// A socket was connected, perhaps, or shut down, or a client has come.
    pub(super) fn note_changed_sockets(&mut self) {
        self.holding.note_changes(self.clock.now(), &self.poll);
        self.held.pools().for_each(Pool::note_shut);
        self.lead_connections();
    }

    /// How many connections wait to be accepted by this run.
    pub(super) fn waiting_for(&mut self, run: RunId) -> usize {
        let queues = self.held.pools().chain(self.holding.pools()).filter_map(|pool| pool.queue(Some(run)));
        queues.map(|(waiting, _)| usize::try_from(waiting).unwrap_or(usize::MAX)).sum()
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
