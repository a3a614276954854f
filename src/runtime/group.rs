//! The sockets of a pool that listen, which are one group of the kernel's, and the program that leads new connections to some of
//! them (`sys/spread.rs`).

use super::doors::DoorId;
use super::member::Member;
use super::pool::Pool;
use crate::supervisor::{Fitness, RunId, Timestamp};
use crate::sys::poll::Poll;
use crate::sys::{Errno, listen, spread};
use std::os::fd::AsFd;

/// How many checks in a row have to find a queue no shorter: a process may hide what it has open, but not what it accepts.
const CHECKS: u8 = 3;

impl Pool {
    pub(super) fn group(&self) -> &[Member] {
        &self.members[..self.listening]
    }

    pub(super) fn has_listener_of(&self, run: RunId) -> bool {
        self.group().iter().any(|member| member.runs.contains(&run))
    }

    /// Whether a run has the socket with this inode, which listens as the kernel sees it.
    pub(super) fn is_listening(&self, run: RunId, inode: u64) -> bool {
        let mut own = self.group().iter().filter(|member| member.inode == inode && member.runs.contains(&run));
        own.any(|member| listen::is_listening(member.socket.as_fd()))
    }

    /// Has one of the others listen, as the last of the group. Nothing is led to it before [`Pool::lead`].
    pub(super) fn join(&mut self, index: usize, poll: &Poll) -> Result<(), Errno> {
        // One that was shut down would be made a group of its own.
        self.forget_shut(0);
        if let [only] = self.group()
            && spread::lead_to(only.socket.as_fd(), &[0]).is_ok()
        {
            self.led_to = vec![0];
        }
        let member = &mut self.members[index];
        if self.spreads {
            spread::share_address(member.socket.as_fd(), true);
        }
        listen::listen(member.socket.as_fd())?;
        member.has_listened = true;
        // Each client would wake guard.
        poll.remove(member.socket.as_fd());
        self.members.swap(index, self.listening);
        self.listening += 1;
        // Where there are several it matters who leaves.
        let watched = match self.listening {
            1 => 1,
            2 => 0,
            count => count - 1,
        };
        for member in &self.members[watched..self.listening] {
            poll.watch_listener(member.socket.as_fd(), DoorId::Bound.token(), false);
        }
        Ok(())
    }

    /// Whether guard is to hear of the next client.
    pub(super) fn watch_clients(&self, clients: bool, poll: &Poll) {
        for member in self.group() {
            poll.watch_listener(member.socket.as_fd(), DoorId::Bound.token(), clients);
        }
    }

    /// Looks at the queues of the runs that are to serve. `true` where one has clients, and has not got shorter for some checks: it
    /// seems that nobody accepts.
    pub(super) fn has_stuck_queue(&mut self, serves: &impl Fn(RunId) -> bool) -> bool {
        for member in &mut self.members[..self.listening] {
            let (before, now) = (member.seen_waiting, member.waiting());
            let is_stuck = member.is_of(serves) && now > 0 && now >= before;
            member.seen_waiting = now;
            member.stuck = if is_stuck { member.stuck + 1 } else { 0 };
        }
        self.group().iter().any(|member| member.stuck >= CHECKS)
    }

    /// Where nobody accepts, and the run has closed its socket, this is free until then.
    pub(super) fn free(&mut self, closed: &[u64], until: Timestamp) {
        let group = &mut self.members[..self.listening];
        for member in group.iter_mut().filter(|member| member.stuck >= CHECKS) {
            member.stuck = 0;
            if closed.contains(&member.inode) {
                member.free(until);
            }
        }
    }

    /// Moves a member out of the group. The last member of the group takes its number, as in the kernel. With `in_doubt` guard does
    /// not know whether it is this number, and marks that member.
    pub(super) fn leave_group(&mut self, index: usize, in_doubt: bool) {
        self.led_to.clear();
        self.listening -= 1;
        let last = self.listening;
        let is_mixed = in_doubt || self.members[index].is_mixed || self.members[last].is_mixed;
        self.members.swap(index, last);
        self.members[index].is_mixed = is_mixed;
        self.members[last].is_mixed = false;
    }

    /// The poll has reported a hang-up: removes the sockets that runs have shut down.
    pub(super) fn note_shut(&mut self) {
        self.forget_shut(1);
    }

    /// Removes the sockets that were shut down, as long as the group has more than `least`.
    pub(super) fn forget_shut(&mut self, least: usize) {
        if !self.spreads || self.listening <= least {
            return;
        }
        let is_shut = |member: &&Member| listen::queue(member.socket.as_fd()).is_none();
        let shut: Vec<u64> = self.group().iter().filter(is_shut).map(|member| member.inode).collect();
        // The kernel does not tell the order in which they left, so guard cannot tell which number each of the last members has.
        let in_doubt = shut.len() > 1;
        for inode in shut {
            if self.listening > least
                && let Some(index) = self.group().iter().position(|member| member.inode == inode)
            {
                self.leave_group(index, in_doubt);
            }
        }
    }

    /// Leads new connections to the runs that can take them best. Where no run can, they wait in the free socket that the next run
    /// takes, whichever instance's it is; where none is free, in one of those that will be.
    pub(super) fn lead(&mut self, fitness: &impl Fn(RunId) -> Fitness) {
        if self.listening < 2 {
            return;
        }
        let group = self.group();
        let of = |member: &Member| member.runs.iter().map(|run| fitness(*run)).min().unwrap_or(Fitness::Ending);
        let best = group.iter().map(of).min().unwrap_or(Fitness::Ending);
        let free = group.iter().filter(|member| best == Fitness::Ending && member.runs.is_empty());
        let next = free.max_by_key(|member| (!member.is_mixed, member.waiting())).map(|member| member.inode);
        let is_wanted = |member: &Member| next.map_or_else(|| of(member) == best, |next| member.inode == next);
        let numbers = |of: &dyn Fn(&Member) -> bool| -> Vec<u32> {
            (0..).zip(group).filter(|(_, member)| of(member)).map(|(number, _)| number).collect()
        };
        // Those whose numbers are mixed up get connections all together, or where there is nobody else.
        let all_mixed = group.iter().all(|member| !member.is_mixed || is_wanted(member));
        let known = numbers(&|member| is_wanted(member) && (all_mixed || !member.is_mixed));
        let chosen = if known.is_empty() { numbers(&|member| member.is_mixed) } else { known };
        if chosen == self.led_to {
            return;
        }
        // The kernel would make a group of its own of a socket that its app has just shut down. An app seldom does so while it serves.
        let mut serving = chosen.iter().map(|number| &group[*number as usize]);
        let through = serving.find(|member| listen::queue(member.socket.as_fd()).is_some());
        if through.is_some_and(|member| spread::lead_to(member.socket.as_fd(), &chosen).is_ok()) {
            self.led_to = chosen;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    /// The instances whose sockets have got connections.
    fn served(pool: &Pool, address: SocketAddr) -> Vec<u32> {
        let waiting = || pool.group().iter().map(Member::waiting).collect::<Vec<u32>>();
        let before = waiting();
        let clients: Vec<TcpStream> = (0..16).map(|_| TcpStream::connect(address).expect("not refused")).collect();
        let counts = before.into_iter().zip(waiting());
        let served = pool.group().iter().zip(counts).filter(|(_, (before, after))| after > before);
        let served = served.flat_map(|(member, _)| member.runs.iter().map(|run| run.instance)).collect();
        drop(clients);
        served
    }

    /// A pool at some address, in which each of these runs has a socket that listens.
    fn with_sockets_of(runs: impl IntoIterator<Item = RunId>) -> (Poll, SocketAddr, Pool) {
        let poll = Poll::new().expect("a poll");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
        let mut pool = Pool::new(None, true);
        for run in runs {
            let socket = listen::bind_beside(address, false, &|_| {}).expect("a socket");
            pool.add(socket, run, &poll).expect("it is polled");
            pool.open_for(run, &poll).expect("it listens");
        }
        (poll, address, pool)
    }

    #[test]
    fn clients_wait_for_a_run_as_long_as_a_container_stood_still() {
        let run = RunId { instance: 0, number: 1 };
        let (poll, _, mut pool) = with_sockets_of([run]);
        let at = |seconds| Timestamp(Duration::from_secs(seconds));
        pool.run_ended(run, at(0), Some(Duration::from_secs(10)), &poll);
        pool.postpone(Duration::from_secs(7));
        assert_eq!(pool.deadline(), Some(at(17)));
        assert!(!pool.timer_elapsed(at(16), &poll), "nobody is refused yet");
    }

    /// A run takes the longest queue, though another instance has left it. The clients in the run's own wait for that instance.
    #[test]
    fn a_queue_that_another_instance_is_to_take_is_not_given_up() {
        let run = |instance, number| RunId { instance, number };
        let (poll, address, mut pool) = with_sockets_of([run(0, 1), run(1, 1)]);
        pool.lead(&|run| if run.instance == 0 { Fitness::Ready } else { Fitness::Ending });
        let _client = TcpStream::connect(address).expect("not refused");
        for run in [run(0, 1), run(1, 1)] {
            pool.run_ended(run, Timestamp::default(), Some(Duration::from_secs(10)), &poll);
        }
        for run in [run(1, 2), run(0, 2)] {
            assert!(pool.take(run));
            pool.serve(run, Timestamp::default());
            assert!(pool.members.iter().all(|member| member.free_until != Some(Timestamp::default())));
        }
        assert!(!pool.take(run(0, 3)), "both are taken");
    }

    /// The run has not started, or its bind has failed.
    #[test]
    fn a_queue_that_a_run_has_taken_and_not_served_waits_for_whom_it_has_waited_for() {
        let run = |instance, number| RunId { instance, number };
        let (poll, _, mut pool) = with_sockets_of([run(0, 1), run(1, 1)]);
        pool.serve(run(0, 1), Timestamp::default());
        let (now, timeout) = (Timestamp::default(), Some(Duration::from_secs(10)));
        pool.run_ended(run(1, 1), now, timeout, &poll);
        for has_started in [false, true] {
            assert!(pool.take(run(0, 2)));
            if has_started {
                pool.abandon(run(0, 2), &poll);
            } else {
                pool.run_not_started(run(0, 2), now, timeout);
            }
            pool.give_up(&|_| Fitness::Ready);
            assert_eq!(pool.deadline(), Some(Timestamp(Duration::from_secs(10))));
        }
    }

    /// The kernel makes it a group of its own, and lets it listen no more while others do.
    #[test]
    fn a_socket_that_got_the_program_when_it_was_shut_down_is_no_next_runs() {
        let run = |instance, number| RunId { instance, number };
        let (poll, address, mut pool) = with_sockets_of([run(0, 1), run(1, 1)]);
        let shut = pool.of(run(0, 1)).expect("it has one");
        listen::shut_down(shut);
        spread::lead_to(shut, &[0]).expect("the kernel takes it");
        pool.run_ended(run(0, 1), Timestamp::default(), Some(Duration::from_secs(10)), &poll);
        if !pool.take(run(0, 2)) {
            let socket = listen::bind_beside(address, false, &|_| {}).expect("a socket");
            pool.add(socket, run(0, 2), &poll).expect("it is polled");
        }
        pool.open_for(run(0, 2), &poll).expect("it listens");
        pool.lead(&|run| if run.instance == 0 { Fitness::Ready } else { Fitness::Ending });
        assert_eq!(served(&pool, address), [0]);
    }

    /// As after a reload. guard knows the order in which it closes them itself.
    #[test]
    fn the_sockets_that_guard_closes_leave_no_doubt() {
        let run = |instance, number| RunId { instance, number };
        let runs = [1, 2].into_iter().flat_map(|number| (0..4).map(move |instance| run(instance, number)));
        let (poll, address, mut pool) = with_sockets_of(runs.clone());
        let (now, timeout) = (Timestamp::default(), Duration::from_secs(1));
        runs.for_each(|run| pool.serve(run, now));
        (0..4).for_each(|instance| pool.run_ended(run(instance, 1), now, Some(timeout), &poll));
        assert!(!pool.timer_elapsed(now.after(timeout), &poll), "nobody is refused");
        assert_eq!(pool.len(), 4);
        for ready in 0..4 {
            pool.lead(&|run| if run.instance == ready { Fitness::Ready } else { Fitness::Ending });
            assert_eq!(served(&pool, address), [ready]);
        }
    }

    #[test]
    fn clients_wait_no_longer_for_runs_that_accept_nobody() {
        let run = |number| RunId { instance: 0, number };
        let (poll, address, mut pool) = with_sockets_of([run(1)]);
        let at = |seconds| Timestamp(Duration::from_secs(seconds));
        pool.serve(run(1), at(0));
        let client = TcpStream::connect(address).expect("not refused");
        let timeout = Some(Duration::from_secs(10));
        pool.run_ended(run(1), at(0), timeout, &poll);
        // The last of them listens beyond the time of those that wait.
        for (number, began, ended) in [(2, 1, 2), (3, 3, 3), (4, 4, 13)] {
            assert!(pool.take(run(number)));
            pool.serve(run(number), at(began));
            assert_eq!(pool.free_until(), None, "it may accept");
            assert!(!pool.timer_elapsed(at(ended), &poll), "nobody is refused while it lives");
            pool.run_ended(run(number), at(ended), timeout, &poll);
            assert_eq!(pool.free_until(), Some(at(10)), "it has not");
        }
        assert!(pool.take(run(5)));
        pool.serve(run(5), at(14));
        // As the run does.
        let accepted = nix::sys::socket::accept(pool.group()[0].socket.as_raw_fd()).expect("a client");
        pool.run_ended(run(5), at(15), timeout, &poll);
        assert_eq!(pool.free_until(), Some(at(25)));
        // Clients come while it starts. It accepts one, and another comes before it ends.
        let before = TcpStream::connect(address).expect("not refused");
        assert!(pool.take(run(6)));
        pool.serve(run(6), at(16));
        assert!(!pool.timer_elapsed(at(16), &poll), "it may accept");
        let others = [(); 2].map(|()| TcpStream::connect(address).expect("not refused"));
        assert!(!pool.timer_elapsed(pool.deadline().expect("a check"), &poll), "it still may");
        let accepted = (accepted, nix::sys::socket::accept(pool.group()[0].socket.as_raw_fd()).expect("a client"));
        assert!(pool.deadline().is_some_and(|check| check < at(17)));
        assert!(!pool.timer_elapsed(at(17), &poll), "it accepts");
        assert_eq!(pool.deadline(), None);
        let others = (before, others, TcpStream::connect(address).expect("not refused"));
        pool.run_ended(run(6), at(18), timeout, &poll);
        assert_eq!(pool.deadline(), Some(at(28)));
        // It serves for as long as clients wait, and ends with as many as it has found.
        let clients = [(); 2].map(|()| TcpStream::connect(address).expect("not refused"));
        assert!(pool.take(run(7)));
        pool.serve(run(7), at(19));
        pool.run_ended(run(7), at(29), timeout, &poll);
        assert_eq!(pool.free_until(), Some(at(39)));
        drop((client, clients, accepted, others));
    }

    /// Runs shut their sockets down in any order, and listen again, between two checks of guard's. guard leads by what it knows.
    #[test]
    fn connections_reach_ready_runs_when_several_sockets_leave_the_group_at_once() {
        const COUNT: u32 = 7;
        let mut random = 1_u32;
        let mut below = |count: usize| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) as usize % count
        };
        let (mut sure, mut in_doubt, mut mixed) = (0, 0, 0);
        for _ in 0..40 {
            let (poll, address, mut pool) = with_sockets_of((0..COUNT).map(|instance| RunId { instance, number: 1 }));
            for _ in 0..6 {
                for _ in 0..below(4).min(pool.listening - 1) {
                    // By its place as guard knows it, of which some may have left already.
                    listen::shut_down(pool.group()[below(pool.listening)].socket.as_fd());
                }
                if pool.group().iter().all(|member| listen::queue(member.socket.as_fd()).is_none()) {
                    break;
                }
                pool.note_shut();
                let ready: Vec<u32> = (0..COUNT).filter(|_| below(2) == 0).collect();
                let is_ready = |member: &Member| ready.contains(&member.runs[0].instance);
                let fitness = |run: RunId| if ready.contains(&run.instance) { Fitness::Ready } else { Fitness::Ending };
                pool.lead(&fitness);
                let group = pool.group();
                mixed += group.iter().filter(|member| member.is_mixed).count();
                let is_known = |member: &Member| is_ready(member) && !member.is_mixed;
                if !group.iter().any(is_ready) {
                    continue;
                }
                let all_mixed = group.iter().filter(|member| member.is_mixed).all(is_ready);
                if group.iter().any(is_known) || all_mixed {
                    let served = served(&pool, address);
                    assert!(served.iter().all(|instance| ready.contains(instance)), "{served:?} of {ready:?}");
                    sure += 1;
                } else {
                    in_doubt += 1;
                }
                if below(2) == 0 {
                    let shut = pool.members[pool.listening..].iter().flat_map(|member| member.runs.clone());
                    for run in shut.collect::<Vec<RunId>>() {
                        pool.open_for(run, &poll).expect("it listens again");
                    }
                }
            }
        }
        assert!(mixed > 0 && sure > 4 * in_doubt, "{mixed} mixed, {sure} sure, {in_doubt} in doubt");
    }
}
