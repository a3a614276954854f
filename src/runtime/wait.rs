//! How guard waits for something to happen.
//!
//! What comes most often is a signal, SIGCHLD among them. So guard waits for signals alone, and a descriptor that has
//! something announces itself by one: that spares each signal a system call. Where descriptors cannot do so, and while one
//! is waited for that does not, guard waits for descriptors, of which one is the signals'.

use super::hear::Which;
use super::{MOST_ORPHANS, Runtime};
use crate::config::Scope;
use crate::signal::Signal;
use crate::supervisor::{RunId, Timestamp};
use crate::sys::signal_set::SignalSet;
use crate::sys::signals::Orphans;
use crate::sys::{Pid, signals};
use log::Level;
use nix::poll::PollTimeout;
use std::time::Duration;

/// A deadline that is over in any case.
const NOW: Timestamp = Timestamp(Duration::ZERO);

impl Runtime<'_> {
    /// Finds out whether guard can wait for signals alone here.
    pub(super) fn try_signals(&mut self) {
        let all = (1..=64).filter_map(Signal::from_number);
        // guard itself has something to do when it was continued, and where a descriptor may have announced itself.
        let own = [Signal::CONT, Signal::IO];
        let plain = all.filter(|signal| !own.contains(signal) && self.supervisor.is_plain(*signal));
        self.plain = plain.fold(SignalSet::EMPTY, SignalSet::with);
        self.by_signals = self.signals.tell_of_descriptors();
        if !self.by_signals {
            log::debug!(error = "descriptors do not announce themselves"; "no-signal-io");
        }
    }

    /// Waits until something happens, no longer than until the deadline. Takes the signals that came, and returns the doors
    /// that have something. Ends a stream of orphans if it was something else.
    pub(super) fn wait(&mut self, deadline: Option<Timestamp>) -> Vec<Which> {
        // Not at all before a look at the children that is due: one may have ended after the last look and before SIGCHLD
        // was taken again. Nor while there are signals that were taken before.
        let deadline = if self.signals.has_child_news() || self.signals.any() { Some(NOW) } else { deadline };
        let look = if self.by_signals && self.poll.is_announced() && !self.stream.flows() {
            self.wait_for_signals(deadline)
        } else {
            let left = deadline.map(|deadline| deadline.since(self.clock.now()));
            self.signals.wait_beside(&self.poll, timeout(self.stream.shorten(left)))
        };
        let doors = if look { self.look_at_doors() } else { Vec::new() };
        if self.signals.any() {
            self.end_stream();
        }
        doors
    }

    /// Those doors that have something. What a signal's handler has written is taken as well.
    fn look_at_doors(&mut self) -> Vec<Which> {
        let mut doors = Vec::new();
        for token in self.poll.look() {
            self.end_stream();
            if !self.signals.take(token) {
                doors.extend(Which::of(token));
            }
        }
        doors
    }

    /// `true` if there may be something besides.
    fn wait_for_signals(&mut self, deadline: Option<Timestamp>) -> bool {
        let quiet = self.poll.is_quiet();
        let deadline = if quiet { deadline } else { Some(NOW) };
        let left = || deadline.map(|deadline| deadline.since(self.clock.now()));
        // Most signals are merely passed on. To whom is settled before one comes, which then need not wait for the core.
        let receiver = self.receiver();
        let pass = |signal| {
            let Some((run, pid)) = receiver.filter(|_| self.plain.contains(signal)) else { return false };
            let passed = signals::send(pid, signal);
            if passed.is_ok() {
                self.journal.signalled(run, signal, passed);
            }
            passed.is_ok()
        };
        // Not before it is read what one may have said, nor where each has a line in the log.
        let quietly = quiet && !self.killing && !log::log_enabled!(Level::Debug);
        let orphans = self.children.only().filter(|_| quietly);
        let orphans = orphans.map(|but| Orphans { but, most: self.stream.missing().min(MOST_ORPHANS) });
        let news = self.signals.wait(left, orphans, pass).unwrap_or_else(|error| {
            log::debug!(error = error.desc(); "no-signal-io");
            self.by_signals = false;
            true
        });
        news || !quiet
    }

    /// The main process that alone would get a signal; `None` also where it may have ended unseen.
    fn receiver(&self) -> Option<(RunId, Pid)> {
        if self.config.signal_scope == Scope::Group || self.signals.has_child_news() {
            return None;
        }
        let run = self.supervisor.receiver()?;
        Some((run, self.children.main(run)?))
    }
}

/// Rounded up, since down would spin, and no more than a poll takes, 24 days (`poll(2)`).
fn timeout(left: Option<Duration>) -> PollTimeout {
    let Some(left) = left else { return PollTimeout::NONE };
    let milliseconds = i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
    PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_is_rounded_up_and_bounded() {
        for (micros, milliseconds) in [(0, 0_u8), (1, 1), (1_000, 1), (1_001, 2)] {
            assert_eq!(timeout(Some(Duration::from_micros(micros))), PollTimeout::from(milliseconds));
        }
        assert_eq!(timeout(Some(Duration::MAX)), PollTimeout::MAX);
        assert_eq!(timeout(None), PollTimeout::NONE);
    }
}
