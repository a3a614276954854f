//! The sockets of a pool that listen, which are one group of the kernel's, and the program that leads new connections to some of
//! them (`sys/spread.rs`).

use super::doors::DoorId;
use super::pool::{Member, Pool};
use crate::supervisor::{Fitness, RunId};
use crate::sys::poll::Poll;
use crate::sys::{Errno, listen, spread};
use std::os::fd::AsFd;

impl Pool {
    pub(super) fn group(&self) -> &[Member] {
        &self.members[..self.listening]
    }

    /// Prepares for one more socket, to which nothing is led at first. Fails where the kernel takes no program.
    pub(super) fn prepare_group(&mut self) -> Result<(), Errno> {
        // One that was shut down would be made a group of its own.
        self.forget_shut(0);
        if let [only] = self.group() {
            spread::lead_to(only.socket.as_fd(), &[0])?;
            self.led_to = vec![0];
        }
        Ok(())
    }

    /// Has one of the others listen, as the last of the group. Nothing is led to it before [`Pool::lead`].
    pub(super) fn join(&mut self, index: usize, poll: &Poll) -> Result<(), Errno> {
        // Without a program the kernel spreads connections over all.
        let _ = self.prepare_group();
        let member = &mut self.members[index];
        if self.spreads {
            spread::share_address(member.socket.as_fd(), true);
        }
        listen::listen(member.socket.as_fd())?;
        member.is_held = true;
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
            poll.add_for_hangup(member.socket.as_fd(), DoorId::Bound.token());
        }
        Ok(())
    }

    /// It is the first of the others now.
    pub(super) fn leave_group(&mut self, index: usize) {
        self.led_to.clear();
        self.listening -= 1;
        self.members.swap(index, self.listening);
    }

    /// Sockets that a run has shut down have left the group, perhaps.
    pub(super) fn note_shut(&mut self) {
        self.forget_shut(1);
    }

    /// The same, where the group has more than so many.
    pub(super) fn forget_shut(&mut self, least: usize) {
        while self.spreads
            && self.listening > least
            && let Some(index) = self.group().iter().position(|member| listen::queue(member.socket.as_fd()).is_none())
        {
            self.leave_group(index);
        }
    }

    /// Leads new connections to the runs that can take them best. Where no run can, they wait in the free socket that the next run
    /// takes, whichever instance's it is.
    pub(super) fn lead(&mut self, fitness: &impl Fn(RunId) -> Fitness) {
        if self.listening < 2 {
            return;
        }
        let of = |member: &Member| member.runs.iter().map(|run| fitness(*run)).min().unwrap_or(Fitness::Ending);
        let numbered = || (0_u32..).zip(self.group());
        let best = self.group().iter().map(of).min().unwrap_or(Fitness::Ending);
        let free = numbered().filter(|(_, member)| best == Fitness::Ending && member.runs.is_empty());
        let next = free.max_by_key(|(_, member)| member.waiting()).map(|(number, _)| vec![number]);
        let all_of_best =
            || numbered().filter(|(_, member)| of(member) == best).map(|(number, _)| number).collect::<Vec<u32>>();
        let chosen = next.unwrap_or_else(all_of_best);
        if chosen != self.led_to && spread::lead_to(self.group()[0].socket.as_fd(), &chosen).is_ok() {
            self.led_to = chosen;
        }
    }
}
