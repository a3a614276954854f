//! GUARD_HOLD: what an app that knows nothing of guard listens on is held (`seccomp_unotify(2)`).
//!
//! At a bind(2) guard puts a duplicate of a socket of its own in the place of the app's: one of the address's pool, which has one
//! for each run (`pool.rs`). A pool begins with the first bind of its address. It is gone with its last socket: when the run ends that
//! has bound it and never listened, or when its place is needed while it refuses clients.
//!
//! guard's end lets go of all (`Action::Release`); from then on the kernel does what apps ask for.

use super::pool::Pool;
use crate::config::Hold as Ports;
use crate::doors::hold::{Bind, Hold};
use crate::report::status::HeldStatus;
use crate::supervisor::{RunId, Timestamp};
use crate::sys::caller::{self, Socket};
use crate::sys::clock::Deadline;
use crate::sys::poll::Poll;
use crate::sys::seccomp::{Answer, Question};
use crate::sys::{Errno, listen, listeners, spread};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Addresses for which guard makes sockets. What is bound beyond that is the app's own.
const MOST_ADDRESSES: usize = 1024;

/// Sockets that guard makes. Beyond that runs share those that there are.
const MOST_SOCKETS: usize = 4096;

/// So long after a client has come guard looks whether clients wait in vain.
const PATIENCE: Duration = Duration::from_secs(1);

/// So long guard looks for processes that have a socket open. A container with a tenth of a CPU may stand still for 90 ms meanwhile
/// (`cpu.max` of `cgroups(7)`).
const LONGEST_SEARCH: Duration = Duration::from_millis(100);

/// What a socket is held by. A later run that binds the same gets the same socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    /// Its family is the socket's: an app of IPv4 would misread the peers of a socket of IPv6.
    address: SocketAddr,
    only_v6: bool,
}

/// An address that apps have bound.
struct Caught {
    key: Key,
    pool: Pool,
    /// The user that bound it last.
    owner: u32,
    /// The log says that it is held.
    is_told: bool,
}

/// Everything about GUARD_HOLD.
pub(super) struct Holding {
    ports: Ports,
    timeout: Duration,
    /// Nothing is held from now on.
    is_released: bool,
    /// Each for the run of its number, some of which are over.
    pub(super) doors: Vec<Hold>,
    caught: Vec<Caught>,
    /// Since then questions wait for a copy of guard.
    pub(super) starved_since: Option<Timestamp>,
    /// Runs in a row that have not told guard of their filter.
    pub(super) lost: u32,
    /// The log says that the app binds what GUARD_HOLD does not name.
    told: bool,
    /// The log says that guard may not look at an app's sockets.
    pub(super) blind: bool,
    /// The log says that an app polls a socket which is not bound.
    polled: bool,
    /// When guard looks whether a run has closed what clients wait at. `None` until the next client comes.
    look_at: Option<Timestamp>,
}

impl Holding {
    pub(super) fn new(ports: Ports, timeout: Duration) -> Holding {
        Holding {
            ports,
            timeout,
            is_released: false,
            doors: Vec::new(),
            caught: Vec::new(),
            starved_since: None,
            lost: 0,
            told: false,
            blind: false,
            polled: false,
            look_at: None,
        }
    }

    /// Whether a run is to have the filter.
    pub(super) fn is_on(&self) -> bool {
        self.ports != Ports::Off && !self.is_released
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.caught.iter().filter_map(|caught| caught.pool.deadline()).chain(self.look_at).min()
    }

    /// Queues whose time is over refuse their clients.
    pub(super) fn timer_elapsed(&mut self, now: Timestamp, serves: &impl Fn(RunId) -> bool, poll: &Poll) {
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            self.find_closed(now.after(self.timeout), serves);
            self.caught.iter().for_each(|caught| caught.pool.watch_clients(true, poll));
        }
        for Caught { key, pool, .. } in &mut self.caught {
            if pool.timer_elapsed(now, poll) {
                log::warn!(address:% = key.address, msg = "nobody has listened for GUARD_HOLD_TIMEOUT: clients are refused"; "not-held");
            }
        }
    }

    /// guard sees no close(2) of a run's, only that nobody accepts.
    fn find_closed(&mut self, until: Timestamp, serves: &impl Fn(RunId) -> bool) {
        let mut is_stuck = false;
        self.caught.iter_mut().for_each(|caught| is_stuck |= caught.pool.looks_stuck(serves));
        if is_stuck {
            let closed = self.closed();
            self.caught.iter_mut().for_each(|caught| caught.pool.free(&closed, until));
        }
    }

    /// The sockets that no process has open.
    fn closed(&self) -> Vec<u64> {
        let all = self.caught.iter().flat_map(|caught| caught.pool.inodes()).collect();
        listeners::closed_among(all, Deadline::after(LONGEST_SEARCH))
    }

    /// The main process of a run has ended.
    pub(super) fn run_ended(&mut self, run: RunId, now: Timestamp, poll: &Poll) {
        let timeout = Some(self.timeout);
        self.caught.iter_mut().for_each(|caught| caught.pool.run_ended(run, now, timeout, poll));
        self.forget_empty();
    }

    /// Lets go of all, or holds nothing in the first place.
    pub(super) fn release(&mut self, poll: &Poll) {
        self.is_released = true;
        self.caught.drain(..).for_each(|caught| caught.pool.close(poll));
    }

    /// A socket was connected, perhaps, or shut down, or a client has come.
    pub(super) fn note_changes(&mut self, now: Timestamp, poll: &Poll) {
        for caught in &mut self.caught {
            caught.pool.let_clients_go(poll);
            caught.pool.note_shut();
        }
        self.forget_empty();
        if self.look_at.is_none() {
            self.look_at = Some(now.after(PATIENCE));
            self.caught.iter().for_each(|caught| caught.pool.watch_clients(false, poll));
        }
    }

    fn forget_empty(&mut self) {
        self.caught.retain(|caught| caught.pool.len() > 0);
    }

    pub(super) fn pools(&mut self) -> impl Iterator<Item = &mut Pool> {
        self.caught.iter_mut().map(|caught| &mut caught.pool)
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = HeldStatus> {
        self.caught.iter().filter(|caught| caught.pool.is_held()).map(|caught| HeldStatus {
            address: caught.key.address.to_string(),
            name: None,
            queue: caught.pool.queue(None),
            refusing: caught.pool.refusing,
        })
    }

    /// Whether clients of this port reach other runs, and never this one.
    pub(super) fn is_others_port(&self, run: RunId, port: u16) -> bool {
        let mut held = self.caught.iter().filter(|caught| caught.key.address.port() == port).peekable();
        !self.blind && held.peek().is_some() && !held.any(|caught| caught.pool.has_listener_of(run))
    }

    pub(super) fn door(&self, run: RunId) -> Option<&Hold> {
        self.doors.iter().find(|door| door.run() == run)
    }

    pub(super) fn door_mut(&mut self, run: RunId) -> Option<&mut Hold> {
        self.doors.iter_mut().find(|door| door.run() == run)
    }

    /// Whether a run asks guard when it listens.
    pub(super) fn hears(&self, run: RunId) -> bool {
        self.door(run).is_some()
    }

    fn wants(&self, port: u16) -> bool {
        port != 0
            && match &self.ports {
                Ports::Off => false,
                Ports::All => true,
                Ports::These(ports) => ports.contains(&port),
            }
    }

    /// The pool with the socket that a bind gets. The error is the answer.
    fn pool_for(&mut self, run: RunId, question: &Question, bind: &Bind, poll: &Poll) -> Result<usize, Answer> {
        let key = Key { address: bind.address, only_v6: bind.only_v6 };
        if !self.wants(key.address.port()) {
            let is_named = self.caught.is_empty() && key.address.port() != 0 && matches!(self.ports, Ports::These(_));
            if is_named && !std::mem::replace(&mut self.told, true) {
                log::info!(address:% = key.address, msg = "GUARD_HOLD names other ports"; "not-held");
            }
            return Err(Answer::GoOn);
        }
        if let Some(caught) = self.caught.iter().find(|caught| caught.pool.has(bind.socket.inode)) {
            // A signal has interrupted the bind after guard did its part, and it is tried again.
            return Err(if caught.key == key { Answer::Done } else { Answer::GoOn });
        }
        if bind.polled {
            if !std::mem::replace(&mut self.polled, true) {
                log::warn!(address:% = key.address, msg = "GUARD_HOLD: the app polls its socket before it binds it, and would miss clients; it binds as ever"; "not-held");
            }
            return Err(Answer::GoOn);
        }
        if !caller::shares_network(question.caller) || !caller::may_bind(question.caller, key.address.port()) {
            return Err(Answer::GoOn);
        }
        let prepare = |socket: BorrowedFd| bind.options.give_to(socket);
        if self.is_released {
            // A run that ends may have the address still, and shares it.
            let socket = listen::bind_beside(key.address, key.only_v6, &prepare).map_err(|_| Answer::GoOn)?;
            listen::set_waiting(socket.as_fd(), bind.waits);
            return Err(self.replace(run, question, bind, socket.as_fd()));
        }
        if let Some(index) = self.pool_of(key, poll) {
            let count: usize = self.caught.iter().map(|caught| caught.pool.len()).sum();
            let Caught { pool, owner, .. } = &mut self.caught[index];
            if *owner != bind.socket.owner && pool.is_served() {
                // A worker without privileges is not to take the clients of the app that it belongs to.
                return Err(Answer::Failed(Errno::EADDRINUSE));
            }
            *owner = bind.socket.owner;
            if !pool.take(run) {
                let make = || listen::bind_beside(key.address, key.only_v6, &prepare);
                let made = if count < MOST_SOCKETS { make() } else { Err(Errno::EMFILE) };
                match made.and_then(listen::spare).and_then(|socket| pool.add(socket, run, poll)) {
                    Ok(()) => {}
                    Err(_) => pool.share(run),
                }
            }
            return Ok(index);
        }
        if self.caught.len() >= MOST_ADDRESSES {
            let unused = self.caught.iter().position(|caught| caught.pool.refusing).ok_or(Answer::GoOn)?;
            self.caught.remove(unused).pool.close(poll);
        }
        // What guard cannot do for other reasons the app may.
        const ITS_OWN: [Errno; 3] = [Errno::EADDRINUSE, Errno::EADDRNOTAVAIL, Errno::EACCES];
        // A port of which others share the address is in use all the same.
        let bind_it = || listen::bind_as(key.address, key.only_v6, &prepare);
        let socket = match bind_it() {
            // An address of an earlier run's, or one that the app has tried before, may overlap with this one.
            Err(Errno::EADDRINUSE) if self.close_unused(key.address.port(), poll) => bind_it(),
            result => result,
        };
        let socket = socket.and_then(listen::spare);
        let socket =
            socket.map_err(|error| if ITS_OWN.contains(&error) { Answer::Failed(error) } else { Answer::GoOn })?;
        spread::share_address(socket.as_fd(), true);
        let mut pool = Pool::new(None, true);
        pool.add(socket, run, poll).map_err(|_| Answer::GoOn)?;
        self.caught.push(Caught { key, pool, owner: bind.socket.owner, is_told: false });
        Ok(self.caught.len() - 1)
    }

    /// Closes what no process has open of a port; `false` if there is nothing of the kind.
    fn close_unused(&mut self, port: u16, poll: &Poll) -> bool {
        let before = self.caught.len();
        let is_of_port = |caught: &Caught| caught.key.address.port() == port;
        if !self.caught.iter().any(is_of_port) {
            return false;
        }
        let closed = self.closed();
        let is_unused = |caught: &mut Caught| is_of_port(caught) && caught.pool.is_unused(&closed);
        self.caught.extract_if(.., is_unused).for_each(|caught| caught.pool.close(poll));
        self.caught.len() < before
    }

    /// The pool of an address, without what clients have bound and connected.
    fn pool_of(&mut self, key: Key, poll: &Poll) -> Option<usize> {
        let index = self.caught.iter().position(|caught| caught.key == key)?;
        let pool = &mut self.caught[index].pool;
        pool.let_clients_go(poll);
        let is_empty = pool.len() == 0;
        if is_empty {
            self.caught.remove(index);
        }
        (!is_empty).then_some(index)
    }

    pub(super) fn bind(&mut self, run: RunId, question: &Question, bind: &Bind, poll: &Poll) -> Answer {
        let index = match self.pool_for(run, question, bind, poll) {
            Ok(index) => index,
            Err(answer) => return answer,
        };
        let pool = &self.caught[index].pool;
        let answer = pool.of(run).map_or(Answer::GoOn, |socket| {
            // All duplicates share this, and a run that listens already has it as it wants it.
            if !bind.waits || !pool.is_shared(run) {
                listen::set_waiting(socket, bind.waits);
            }
            self.replace(run, question, bind, socket)
        });
        if answer != Answer::Done {
            self.caught[index].pool.abandon(run, poll);
            self.forget_empty();
        }
        answer
    }

    /// Puts a duplicate of a socket in the place of the app's. Fails where who asked is gone, or the kernel is older than 5.9.
    fn replace(&self, run: RunId, question: &Question, bind: &Bind, socket: BorrowedFd) -> Answer {
        let replaced = self.door(run).map(|door| door.replace(question, socket, bind.close_on_exec));
        if replaced == Some(Ok(())) { Answer::Done } else { Answer::GoOn }
    }

    /// Answers a listen(2). The kernel would make the queue shorter than it can be.
    pub(super) fn listen(&mut self, run: RunId, lives: bool, socket: Socket, poll: &Poll) -> Answer {
        let Some(caught) = self.caught.iter_mut().find(|caught| caught.pool.has(socket.inode)) else {
            return Answer::GoOn;
        };
        let was_refusing = caught.pool.refusing;
        if let Err(error) = caught.pool.listen(socket.inode, poll) {
            return Answer::Failed(error);
        }
        if lives {
            caught.pool.serve(run);
        }
        if self.look_at.is_none() {
            caught.pool.watch_clients(true, poll);
        }
        if !std::mem::replace(&mut caught.is_told, true) {
            log::info!(address:% = caught.key.address, run = run.number; "held");
        } else if was_refusing {
            log::info!(address:% = caught.key.address, run = run.number; "held-again");
        }
        Answer::Done
    }
}
