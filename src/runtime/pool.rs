//! The sockets of one address that guard holds. Each run has one of them to itself, so that the kernel can lead a new connection
//! to a run that can take it.
//!
//! A run takes a free socket, the one with the longest queue first: clients that a crash has left there are served at once. Where
//! none is free guard makes one more, beside the others (SO_REUSEPORT). So a single run has the only one, and a reload has two for a
//! while. A socket is in one state:
//!
//! | state | what it means | left when |
//! | --- | --- | --- |
//! | bound | a run has it, and has not listened | the run listens → served; the run ends → it is closed |
//! | served | it listens, and is a run's that lives | the run ends, or has closed it → free; the run shuts it down → shut |
//! | shut | a run that lives has shut it down | the run ends → free; where the kernel does not let it listen again beside others it is closed |
//! | free | it listens, and no run has it: clients wait, and new ones come only where no run lives | a run takes it → served; a run of the instance that left it listens with another → it is closed; the hold timeout → it is closed, or where no other is left refusing |
//! | refusing | clients are refused | a run listens → served |

use super::doors::DoorId;
use super::member::{Member, Unaccepted};
use crate::supervisor::{Fitness, RunId, Timestamp, earlier, is_due};
use crate::sys::poll::Poll;
use crate::sys::{Errno, listen, spread};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

pub(super) struct Pool {
    /// First those that listen, numbered as the kernel numbers them (`sys/spread.rs`): who leaves is replaced by the last.
    pub(super) members: Vec<Member>,
    /// How many of them listen.
    pub(super) listening: usize,
    /// The numbers of those that new connections are led to; none where the kernel does not know yet.
    pub(super) led_to: Vec<u32>,
    /// Clients are refused.
    pub(super) refusing: bool,
    /// Each run has a socket to itself: the address is one of TCP, and guard has bound it.
    pub(super) spreads: bool,
    /// When guard checks whether runs accept the clients that have waited for them, and the pause after that check.
    accept_check_at: Option<Timestamp>,
    accept_check_pause: Duration,
}

/// The first pause between two such checks; each is twice the one before. So a run whose clients nobody accepts costs few wake-ups.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

impl Pool {
    /// A pool with a socket that listens, or is none of those, or without any.
    pub(super) fn new(socket: Option<OwnedFd>, spreads: bool) -> Pool {
        let members: Vec<Member> =
            socket.into_iter().map(|socket| Member { has_listened: true, ..Member::new(socket, None) }).collect();
        Pool {
            listening: members.len(),
            members,
            led_to: Vec::new(),
            refusing: false,
            spreads,
            accept_check_at: None,
            accept_check_pause: FIRST_PAUSE,
        }
    }

    /// The first of the others that is wanted.
    fn position_of_other(&self, is_wanted: impl Fn(&Member) -> bool) -> Option<usize> {
        (self.listening..self.members.len()).find(|index| is_wanted(&self.members[*index]))
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Any socket, which stands for all.
    pub(super) fn first(&self) -> Option<BorrowedFd<'_>> {
        self.members.first().map(|member| member.socket.as_fd())
    }

    /// The socket that a run has.
    pub(super) fn of(&self, run: RunId) -> Option<BorrowedFd<'_>> {
        self.members.iter().find(|member| member.runs.contains(&run)).map(|member| member.socket.as_fd())
    }

    pub(super) fn has(&self, inode: u64) -> bool {
        self.members.iter().any(|member| member.inode == inode)
    }

    /// Whether guard has this socket listen, for the sake of its queue.
    pub(super) fn listens(&self, inode: u64) -> bool {
        self.members[..self.listening].iter().any(|member| member.inode == inode)
    }

    /// A run has listened here.
    pub(super) fn has_listened(&self) -> bool {
        self.members.iter().any(|member| member.has_listened)
    }

    /// Whether others than this run have its socket.
    pub(super) fn is_shared(&self, run: RunId) -> bool {
        self.members.iter().any(|member| member.runs.contains(&run) && member.runs.len() > 1)
    }

    /// Gives a run the socket that it has, or a free one; `false` where there is none.
    pub(super) fn take(&mut self, run: RunId) -> bool {
        if self.of(run).is_some() {
            return true;
        }
        let refusing = self.refusing;
        let free = self.members.iter_mut().filter(|member| member.runs.is_empty());
        // As guard leads connections where no run can take them.
        let Some(member) = free.max_by_key(|member| (!member.is_mixed, member.waiting())) else { return false };
        member.runs.push(run);
        if let Some(other) = member.left_by.filter(|other| *other != run.instance) {
            // The other's next run is the one that takes what this one leaves.
            let is_left = |member: &&mut Member| member.runs.is_empty() && member.left_by == Some(run.instance);
            self.members.iter_mut().find(is_left).into_iter().for_each(|member| member.left_by = Some(other));
        }
        if refusing && self.spreads {
            // Others may be made beside it before it listens again.
            self.of(run).into_iter().for_each(|socket| spread::share_address(socket, true));
        }
        true
    }

    /// Adds a socket that is bound, for this run.
    pub(super) fn add(&mut self, socket: OwnedFd, run: RunId, poll: &Poll) -> Result<(), Errno> {
        // Guard may not hold the connection of a client open that has bound its end.
        poll.add_for_changes(socket.as_fd(), DoorId::Bound.token())?;
        self.members.push(Member::new(socket, Some(run)));
        Ok(())
    }

    /// A run did not get the socket that it was to have.
    pub(super) fn abandon(&mut self, run: RunId, poll: &Poll) {
        for member in self.members.iter_mut().filter(|member| !member.has_listened || member.free_until.is_some()) {
            member.runs.retain(|other| *other != run);
        }
        self.drop_others(|member| member.has_listened || !member.runs.is_empty(), poll);
    }

    /// Gives a run the socket that the fewest others have.
    pub(super) fn share(&mut self, run: RunId) {
        if let Some(member) = self.members.iter_mut().min_by_key(|member| member.runs.len()) {
            member.runs.push(run);
        }
    }

    /// Has the socket with this inode listen, if it is here. guard's listen(2) lets the queue be as long as it can be.
    pub(super) fn listen(&mut self, inode: u64, poll: &Poll) -> Result<(), Errno> {
        self.forget_shut(0);
        match self.members.iter().position(|member| member.inode == inode) {
            Some(index) if index < self.listening => listen::listen(self.members[index].socket.as_fd()),
            Some(index) => self.join(index, poll),
            None => Ok(()),
        }
    }

    /// A run that lives listens, or is handed sockets, of which one may not have been opened again.
    pub(super) fn serve(&mut self, run: RunId, now: Timestamp) {
        for member in self.members.iter_mut().filter(|member| member.runs.contains(&run)) {
            if let Some(until) = member.free_until.take() {
                let most = member.waiting();
                member.unaccepted = (most > 0).then_some(Unaccepted { until, since: now, most });
                if member.unaccepted.is_some() {
                    (self.accept_check_at, self.accept_check_pause) = (Some(Timestamp::default()), FIRST_PAUSE);
                }
            }
        }
        self.refusing &= self.listening == 0;
        self.give_up(&|other| if other == run { Fitness::Ready } else { Fitness::Ending });
    }

    /// Where a run of an instance listens that is to serve, clients that wait in another socket for its next run wait in vain.
    pub(super) fn give_up(&mut self, fitness: &dyn Fn(RunId) -> Fitness) {
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let is_free = member.runs.is_empty() && member.free_until.is_some();
            let serves = |run: &RunId| {
                member.left_by == Some(run.instance) && matches!(fitness(*run), Fitness::Ready | Fitness::Starting)
            };
            let is_served = |other: &Member| other.free_until.is_none() && other.runs.iter().any(serves);
            if is_free && self.group().iter().any(is_served) {
                self.members[index].free_until = Some(Timestamp::default());
            }
        }
    }

    /// The main process of a run has ended, which may have made a queue shorter or shut its socket down. What a run has bound and
    /// never listened on is closed. `timeout` is how long the others wait for a run.
    pub(super) fn run_ended(&mut self, run: RunId, now: Timestamp, timeout: Option<Duration>, poll: &Poll) {
        if self.of(run).is_none() {
            return;
        }
        let at = timeout.map(|timeout| now.after(timeout)).filter(|_| !self.refusing);
        // guard may hear of an end before it hears that the run had shut its socket down.
        self.forget_shut(0);
        if self.spreads {
            for member in self.group().iter().filter(|member| member.runs.contains(&run)) {
                let _ = listen::listen(member.socket.as_fd());
            }
        }
        self.take_from(run, now, at);
        self.drop_others(|member| member.has_listened || !member.runs.is_empty(), poll);
        // What it has shut down.
        while !self.refusing
            && let Some(index) = self.position_of_other(|member| member.has_listened && member.runs.is_empty())
        {
            let member = &mut self.members[index];
            member.free_until = member.free_until.or(at);
            if self.join(index, poll).is_err() {
                if self.listening == 0 {
                    break;
                }
                // guard gave it the program when the app had just shut it down. That makes it a group of its own, which the kernel
                // does not let listen beside others.
                poll.remove(self.members[index].socket.as_fd());
                self.members.swap_remove(index);
            }
        }
    }

    /// Has the socket listen that a run has which is about to start: what is left of a run may have shut it down.
    pub(super) fn open_for(&mut self, run: RunId, poll: &Poll) -> Result<(), Errno> {
        self.forget_shut(0);
        let index = self.position_of_other(|member| member.runs.contains(&run));
        index.map_or(Ok(()), |index| self.join(index, poll))
    }

    /// Puts another socket, which listens, in the place of the only one.
    pub(super) fn replace(&mut self, socket: OwnedFd) {
        if let Some(member) = self.members.first_mut() {
            member.inode = listen::inode(socket.as_fd()).unwrap_or(0);
            (member.socket, self.listening) = (socket, 1);
        }
    }

    /// A run has its socket no more. One that no other has is free until `at`.
    fn take_from(&mut self, run: RunId, now: Timestamp, at: Option<Timestamp>) {
        for member in self.members.iter_mut().filter(|member| member.runs.contains(&run)) {
            member.runs.retain(|other| *other != run);
            if member.runs.is_empty() {
                // Clients wait on as if nobody had listened, where it seems that nobody has accepted. A run that has listened for as
                // long as clients wait has had its clients.
                member.note_accepted();
                let unaccepted = member.unaccepted.take();
                let until = at.map(|at| match unaccepted {
                    Some(Unaccepted { until, since, .. }) if now.since(since) < at.since(now) => until,
                    Some(_) | None => at,
                });
                // Where it has not listened the clients wait for the same run as before.
                if member.free_until.is_none() {
                    (member.free_until, member.left_by) = (until, Some(run.instance));
                }
            }
        }
    }

    /// Whether another run of the same instance listens, as the old one does in a reload.
    pub(super) fn has_predecessor_of(&self, run: RunId) -> bool {
        self.group().iter().any(|member| member.is_of(&is_predecessor_of(run)))
    }

    /// Frees what such a run has closed.
    pub(super) fn leave_closed(&mut self, run: RunId, closed: &[u64], until: Timestamp) {
        let members = self.members[..self.listening].iter_mut().filter(|member| closed.contains(&member.inode));
        members.filter(|member| member.is_of(&is_predecessor_of(run))).for_each(|member| member.free(until));
    }

    /// A run that was to have a socket of these has not started.
    pub(super) fn run_not_started(&mut self, run: RunId, now: Timestamp, timeout: Option<Duration>) {
        let at = timeout.map(|timeout| now.after(timeout));
        self.take_from(run, now, at);
        if self.refusing {
            self.refuse();
        }
    }

    /// A run that lives listens, or has shut its socket down.
    pub(super) fn is_served(&self) -> bool {
        self.members.iter().any(|member| member.has_listened && !member.runs.is_empty() && member.free_until.is_none())
    }

    /// Clients wait for a run that much longer.
    pub(super) fn postpone(&mut self, delay: Duration) {
        self.members
            .iter_mut()
            .filter_map(|member| member.free_until.as_mut())
            .for_each(|until| *until = until.after(delay));
    }

    /// When something is due here.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        earlier(self.accept_check_at, self.free_until())
    }

    /// Where no run listens clients wait in several sockets, until the last of them is due.
    pub(super) fn free_until(&self) -> Option<Timestamp> {
        let times = self.members.iter().filter_map(|member| member.free_until);
        if self.is_served() { times.min() } else { times.max() }
    }

    /// Checks whether runs accept their clients. Free sockets whose time is over are closed. Where no run listens one is kept, and clients are refused from now on: then the
    /// answer is `true`.
    pub(super) fn timer_elapsed(&mut self, now: Timestamp, poll: &Poll) -> bool {
        if is_due(self.accept_check_at, now) {
            self.members.iter_mut().for_each(Member::note_accepted);
            let goes_on = self.members.iter().any(|member| member.unaccepted.is_some());
            self.accept_check_at = goes_on.then(|| now.after(self.accept_check_pause));
            self.accept_check_pause *= 2;
        }
        if !is_due(self.free_until(), now) {
            return false;
        }
        // A run may have shut its socket down, which the kernel knows first.
        self.forget_shut(0);
        let is_served = self.is_served();
        let is_over = |member: &Member| is_due(member.free_until, now);
        let mut is_kept = is_served || self.members.iter().any(|member| !member.runs.is_empty());
        for index in (0..self.listening).rev() {
            let member = &self.members[index];
            let is_free = member.runs.is_empty() && (is_over(member) || !is_served);
            if is_free && std::mem::replace(&mut is_kept, true) {
                poll.remove(member.socket.as_fd());
                // A process that has a duplicate would keep it in the group.
                listen::shut_down(member.socket.as_fd());
                self.leave_group(index, false);
                self.members.swap_remove(self.listening);
            }
        }
        if is_served {
            self.members.iter_mut().filter(|member| is_over(member)).for_each(|member| member.free_until = None);
        } else {
            self.refuse();
        }
        !is_served
    }

    /// Refuses clients, and keeps the address.
    pub(super) fn refuse(&mut self) {
        self.refusing = true;
        self.led_to.clear();
        self.listening = 0;
        for member in self.members.iter_mut().filter(|member| member.has_listened) {
            (member.free_until, member.is_mixed) = (None, false);
            listen::refuse(member.socket.as_fd());
        }
    }

    /// Lets go of the sockets that an app has bound and connected: guard must not keep a connection open that the app closes.
    pub(super) fn let_clients_go(&mut self, poll: &Poll) {
        self.drop_others(|member| member.has_listened || listen::is_unconnected(member.socket.as_fd()), poll);
    }

    /// Closes those of the others that are not kept. Where the app has a duplicate the poll would go on with it.
    fn drop_others(&mut self, is_kept: impl Fn(&Member) -> bool, poll: &Poll) {
        while let Some(index) = self.position_of_other(|member| !is_kept(member)) {
            poll.remove(self.members[index].socket.as_fd());
            self.members.swap_remove(index);
        }
    }

    /// Clients that wait for this run alone, or for all, and how many can.
    pub(super) fn queue(&self, of: Option<RunId>) -> Option<(u32, u32)> {
        let meant = self.group().iter().filter(|member| of.is_none_or(|run| member.runs == [run]));
        let queues = meant.filter_map(|member| listen::queue(member.socket.as_fd()));
        queues.reduce(|all, one| (all.0.saturating_add(one.0), all.1.saturating_add(one.1)))
    }

    /// No run has any of them, but for those that it has closed.
    pub(super) fn is_unused(&self, closed: &[u64]) -> bool {
        self.members.iter().all(|member| member.runs.is_empty() || closed.contains(&member.inode))
    }

    pub(super) fn inodes(&self) -> impl Iterator<Item = u64> {
        self.members.iter().map(|member| member.inode)
    }

    /// Closes all. Where an app has a duplicate the poll would go on with that, so each leaves the poll first.
    pub(super) fn close(self, poll: &Poll) {
        self.members.iter().for_each(|member| poll.remove(member.socket.as_fd()));
    }
}

/// Runs of the same instance, which a run takes the place of.
fn is_predecessor_of(run: RunId) -> impl Fn(RunId) -> bool {
    move |other| other != run && other.instance == run.instance
}
