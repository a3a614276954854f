//! The deadlines: when the next one is, and what happens when it has passed. Each has a function of its own, in the file of
//! the state that it belongs to.

use super::exit_code::Failure;
use super::health::Checks;
use super::run_id::RunId;
use super::state::{Mode, Run, RunState, Slot};
use super::timestamp::{Timestamp, earlier, is_due};
use super::{Action, KillReason, Supervisor};

impl Supervisor {
    /// When [`Event::Timeout`](super::Event::Timeout) is due; `None` while only an event can change anything.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let own = match self.mode {
            Mode::Draining(shutdown) | Mode::Sweeping(shutdown) => shutdown.kill_at,
            Mode::Killing { give_up_at, .. } => return Some(give_up_at),
            Mode::Lingering(linger) => return Some(linger.count_at),
            Mode::Done => return None,
            Mode::Serving => None,
        };
        let own = earlier(own, self.unmarked.kill_at());
        let own = earlier(own, self.count.and_then(|count| count.at));
        let hook = self.hook.and_then(|hook| hook.kill_at);
        let spawns = self.instances.iter().filter_map(|instance| match instance.slot {
            Slot::Waiting { spawn_at } => spawn_at,
            Slot::Live(_) | Slot::Finished => None,
        });
        let drains = self.runs().filter_map(|run| run.drain_until().filter(|_| self.hook.is_none()));
        let runs = self.runs().filter_map(Run::deadline).chain(drains);
        earlier(earlier(own, hook), spawns.chain(runs).min())
    }

    /// Takes each deadline that has passed. A spurious timeout changes nothing.
    pub(super) fn timers_elapsed(&mut self, now: Timestamp) {
        match self.mode {
            Mode::Draining(shutdown) | Mode::Sweeping(shutdown) if is_due(shutdown.kill_at, now) => {
                return self.kill_everything(now, KillReason::StopTimeout);
            }
            Mode::Serving | Mode::Draining(_) | Mode::Sweeping(_) => {}
            Mode::Killing { give_up_at, .. } if give_up_at <= now => return self.everything_reaped(now),
            Mode::Lingering(linger) if linger.count_at <= now => return self.actions.push(Action::CountUnsent),
            Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => return,
        }
        if is_due(self.hook.and_then(|hook| hook.kill_at), now) {
            self.hook_timeout_elapsed();
        }
        if is_due(self.unmarked.kill_at(), now) {
            self.unmarked_timeout_elapsed();
        }
        if is_due(self.count.and_then(|count| count.at), now) {
            self.count_timer_elapsed();
        }
        let due: Vec<RunId> = self.runs().filter(|run| is_due(run.deadline(), now)).map(|run| run.id).collect();
        for id in due {
            self.run_timer_elapsed(now, id);
        }
    }

    /// A deadline of a run has passed, other than its drain delay: [`Supervisor::stop_drained_runs`].
    fn run_timer_elapsed(&mut self, now: Timestamp, id: RunId) {
        let Some(run) = self.run_mut(id) else { return };
        match run.state {
            RunState::Starting { ready_by } if is_due(ready_by, now) => self.run_failed(now, id, Failure::NotReady),
            RunState::Ready { ping_by } if is_due(ping_by, now) => self.run_failed(now, id, Failure::Watchdog),
            RunState::Starting { .. } | RunState::Ready { .. } if is_due(run.replace_at, now) => {
                self.lifetime_elapsed(now, id);
            }
            RunState::Starting { .. } | RunState::Ready { .. } => self.check_timer_elapsed(now, id),
            RunState::Diagnosing { .. } => self.diagnosis_timer_elapsed(now, id),
            RunState::Stopping { kill_at, .. } if !is_due(kill_at, now) && is_due(run.diagnosis_at(), now) => {
                self.diagnosis_timer_elapsed(now, id);
            }
            RunState::Stopping { kill_at, fallback: Some(_) } if !is_due(kill_at, now) => self.shutdown_ignored(id),
            RunState::Draining { .. } | RunState::Stopping { .. } => self.stop_timeout_elapsed(now, id),
            RunState::Aborting { .. } => self.abort_timeout_elapsed(now, id),
            RunState::Killing { .. } => self.kill_timeout_elapsed(id),
            RunState::Sweeping { ending, .. } => self.sweep_timeout_elapsed(now, id, ending),
            RunState::Clearing { ending, left, .. } => self.clear_timeout_elapsed(now, id, ending, left),
            RunState::Spawning => {}
        }
    }
}

impl Run {
    /// When the state of this run has had its time, or a part of it. A drain delay is no such deadline, since the stop signal
    /// waits for the hook too: [`Run::drain_until`].
    fn deadline(&self) -> Option<Timestamp> {
        match self.state {
            RunState::Spawning => None,
            RunState::Starting { ready_by: at } | RunState::Ready { ping_by: at } => {
                earlier(earlier(at, self.replace_at), self.checks.as_ref().and_then(Checks::deadline))
            }
            RunState::Draining { kill_at, .. } => kill_at,
            RunState::Stopping { kill_at, fallback } => {
                earlier(earlier(fallback.map(|(at, _)| at), kill_at), self.diagnosis_at())
            }
            RunState::Diagnosing { until, .. } => Some(until),
            RunState::Aborting { kill_at } => Some(kill_at),
            RunState::Sweeping { kill_at, .. } => kill_at,
            RunState::Killing { give_up_at } => give_up_at,
            RunState::Clearing { give_up_at, .. } => Some(give_up_at),
        }
    }

    /// When its drain delay, or the time for its connections, is over.
    fn drain_until(&self) -> Option<Timestamp> {
        match self.state {
            RunState::Draining { until, .. } => Some(until),
            RunState::Spawning | RunState::Starting { .. } | RunState::Ready { .. } => None,
            RunState::Stopping { .. } | RunState::Diagnosing { .. } | RunState::Aborting { .. } => None,
            RunState::Killing { .. } | RunState::Sweeping { .. } | RunState::Clearing { .. } => None,
        }
    }
}
