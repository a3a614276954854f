//! GUARD_HOLD: what an app that knows nothing of guard listens on is held (`seccomp_unotify(2)`).
//!
//! At a bind(2) guard puts a duplicate of a socket of its own in the place of the app's: one of the address's pool, which has one
//! for each run (`pool.rs`). A pool begins with the first bind of its address. It is gone with its last socket: when the run ends that
//! has bound it and never listened, when its place is needed while it refuses clients or no process has it open, and when a process is
//! to bind its address as ever.
//!
//! guard's end lets go of all (`Action::Release`); from then on the kernel does what apps ask for.

mod binding;

use super::pool::Pool;
use crate::config::Hold as Ports;
use crate::doors::hold::{Bind, Hold};
use crate::report::status::HeldStatus;
use crate::supervisor::{RunId, Timestamp};
use crate::sys::caller::Socket;
use crate::sys::clock::Deadline;
use crate::sys::errno::reason;
use crate::sys::poll::Poll;
use crate::sys::seccomp::{Answer, Call, Question};
use crate::sys::{Errno, listeners, process};
use std::net::SocketAddr;
use std::time::Duration;

/// Addresses for which guard makes sockets. What is bound beyond that is the app's own.
const MOST_ADDRESSES: usize = 1024;

/// Sockets that guard makes. Beyond that runs share those that there are.
const MOST_SOCKETS: usize = 4096;

/// How long after the arrival of a client guard checks whether clients wait in vain.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often guard searches for addresses that no process has open, where it has as many as it can.
const ROOM_RETRY: Duration = Duration::from_secs(1);

/// How long guard searches for processes that have a socket open. A container with a tenth of a CPU may stand still for 90 ms meanwhile
/// (`cpu.max` of `cgroups(7)`).
const LONGEST_SEARCH: Duration = Duration::from_millis(100);

/// What a socket is held by. A later run that binds the same gets the same socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    /// Its family is the socket's: an app of IPv4 would misread the peers of a socket of IPv6.
    address: SocketAddr,
    only_v6: bool,
}

impl Key {
    fn of(bind: &Bind) -> Key {
        Key { address: bind.address, only_v6: bind.only_v6 }
    }
}

/// An address that apps have bound.
struct Caught {
    key: Key,
    pool: Pool,
    /// The user that bound it last.
    owner: u32,
    /// The log says that it is held.
    is_logged: bool,
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
    /// The log says that they wait.
    pub(super) starved_logged: bool,
    /// Runs in a row that have not told guard of their filter.
    pub(super) lost: u32,
    /// The log says that the app binds what GUARD_HOLD does not name.
    refusal_logged: bool,
    /// The log says that guard had no socket for an app.
    failure_logged: bool,
    /// The log says that there are too many addresses.
    crowd_logged: bool,
    /// The log says that an app polls a socket which is not bound.
    polled: bool,
    /// When guard last searched for addresses that no process has open.
    room_sought_at: Option<Timestamp>,
    /// When guard checks whether a run has closed what clients wait at. `None` until the next client comes.
    check_at: Option<Timestamp>,
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
            starved_logged: false,
            lost: 0,
            refusal_logged: false,
            failure_logged: false,
            crowd_logged: false,
            polled: false,
            room_sought_at: None,
            check_at: None,
        }
    }

    /// Whether a run is to have the filter.
    pub(super) fn is_on(&self) -> bool {
        self.ports != Ports::Off && !self.is_released
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.caught.iter().filter_map(|caught| caught.pool.deadline()).chain(self.check_at).min()
    }

    /// Queues whose time is over refuse their clients.
    pub(super) fn timer_elapsed(&mut self, now: Timestamp, serves: &impl Fn(RunId) -> bool, poll: &Poll) {
        if self.check_at.is_some_and(|at| at <= now) {
            self.check_at = None;
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
        self.caught.iter_mut().for_each(|caught| is_stuck |= caught.pool.has_stuck_queue(serves));
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
        if self.check_at.is_none() {
            self.check_at = Some(now.after(PATIENCE));
            self.caught.iter().for_each(|caught| caught.pool.watch_clients(false, poll));
        }
    }

    /// Closes all that no run has: a run is about to bind its addresses as ever.
    pub(super) fn let_go_of_free(&mut self, poll: &Poll) {
        self.let_go_where(|_| true, poll);
    }

    /// Closes what no run has of those that are meant: a process is about to bind as ever, and finds its address free.
    fn let_go_where(&mut self, is_meant: impl Fn(&Caught) -> bool, poll: &Poll) {
        let is_free = |caught: &mut Caught| is_meant(caught) && caught.pool.is_unused(&[]);
        self.caught.extract_if(.., is_free).for_each(|caught| caught.pool.close(poll));
    }

    /// guard cannot look at who asks. One that is gone wants nothing.
    pub(super) fn note_unreadable(&mut self, run: RunId, question: &Question, error: Errno, poll: &Poll) {
        if !self.is_waiting(run, question) {
            return;
        }
        self.note_unheld(error);
        if matches!(question.call, Call::Bind { .. }) {
            // guard does not know the address, but what another user has bound is not wanted.
            let user = process::effective_uid_of(question.caller);
            self.let_go_where(|caught| user.is_none_or(|user| user == caught.owner), poll);
        }
    }

    /// Whether who asks lives, and has not been interrupted by a signal.
    fn is_waiting(&self, run: RunId, question: &Question) -> bool {
        self.door(run).is_some_and(|door| door.is_waiting(question))
    }

    /// guard has no socket for an app, which binds as ever.
    fn note_unheld(&mut self, error: Errno) {
        if !self.is_released && !std::mem::replace(&mut self.failure_logged, true) {
            let msg = "GUARD_HOLD: guard cannot look at the app's sockets, or make its own; it binds as ever";
            log::warn!(error = reason(error), msg; "not-held");
        }
    }

    fn forget_empty(&mut self) {
        self.caught.retain(|caught| caught.pool.len() > 0);
    }

    pub(super) fn pools(&mut self) -> impl Iterator<Item = &mut Pool> {
        self.caught.iter_mut().map(|caught| &mut caught.pool)
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = HeldStatus> {
        self.caught.iter().filter(|caught| caught.pool.has_listened()).map(|caught| HeldStatus {
            address: caught.key.address.to_string(),
            name: None,
            queue: caught.pool.queue(None),
            refusing: caught.pool.refusing,
        })
    }

    /// Whether clients of this port reach other runs, and never this one.
    pub(super) fn is_others_port(&self, run: RunId, port: u16) -> bool {
        let mut held = self.caught.iter().filter(|caught| caught.key.address.port() == port).peekable();
        held.peek().is_some() && !held.any(|caught| caught.pool.has_listener_of(run))
    }

    pub(super) fn door(&self, run: RunId) -> Option<&Hold> {
        self.doors.iter().find(|door| door.run() == run)
    }

    pub(super) fn door_mut(&mut self, run: RunId) -> Option<&mut Hold> {
        self.doors.iter_mut().find(|door| door.run() == run)
    }

    /// Whether it is a socket that guard has listen.
    pub(super) fn listens(&self, inode: u64) -> bool {
        self.caught.iter().any(|caught| caught.pool.listens(inode))
    }

    /// Whether a run asks guard when it listens.
    pub(super) fn hears(&self, run: RunId) -> bool {
        self.door(run).is_some()
    }

    /// Answers a listen(2). The kernel would make the queue shorter than it can be. `lives_at` is now, where the run lives; `instance`
    /// is for the log.
    pub(super) fn listen(
        &mut self,
        run: RunId,
        socket: Socket,
        lives_at: Option<Timestamp>,
        instance: log::kv::Value<'_>,
        poll: &Poll,
    ) -> Answer {
        let Some(caught) = self.caught.iter_mut().find(|caught| caught.pool.has(socket.inode)) else {
            return Answer::GoOn;
        };
        let was_refusing = caught.pool.refusing;
        if let Err(error) = caught.pool.listen(socket.inode, poll) {
            return Answer::Failed(error);
        }
        if let Some(now) = lives_at {
            caught.pool.serve(run, now);
        }
        if self.check_at.is_none() {
            caught.pool.watch_clients(true, poll);
        }
        if !std::mem::replace(&mut caught.is_logged, true) {
            log::info!(address:% = caught.key.address, instance, run = run.number; "held");
        } else if was_refusing {
            log::info!(address:% = caught.key.address, instance, run = run.number; "held-again");
        }
        Answer::Done
    }
}
