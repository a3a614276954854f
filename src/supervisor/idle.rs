//! What the stop signal waits for besides time.
//!
//! GUARD_DRAIN_IDLE: until no connection is left, at most this long after the drain delay. All runs that wait share one count, since
//! a connection is known by its port alone.
//!
//! A run from which new connections are led away, since others are ready, first accepts those that wait for it already.

use super::cause::Cause;
use super::run_id::RunId;
use super::state::{Instance, Run, RunState};
use super::stop::Drain;
use super::timestamp::{Timestamp, earlier};
use super::{Action, Notice, Supervisor};
use crate::signal::Signal;
use std::time::Duration;

/// The pause after the first count. Each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How long a run that new connections are led away from accepts them at least: clients whose handshake has begun are about to come.
const LED_AT_LEAST: Duration = Duration::from_millis(200);

/// And at most, where more than a quarter of the stop timeout is left for its stop.
const LED_AT_MOST: Duration = Duration::from_secs(1);

/// Between two counts of its queue.
const LED_PAUSE: Duration = Duration::from_millis(100);

/// The count of connections, while a run waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Count {
    /// When guard counts again; `None` until the last count is answered.
    pub(super) at: Option<Timestamp>,
    pause: Duration,
    /// At the last count.
    left: usize,
}

/// How a drain waits for connections to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Idle {
    /// After the drain delay, for this time at most.
    After(Duration),
    /// The delay is over, and the time of the state is the end of this wait.
    Now,
    /// New connections are led to other runs. The time of the state is when guard counts those that this run has not accepted
    /// yet; without any it has waited long enough, and after this many counts in any case.
    Led(u8),
}

impl Run {
    /// The drain delay is over: what the stop signal needs, or `None` while the run waits for its connections.
    pub(super) fn delay_over(&mut self, now: Timestamp) -> Option<(RunId, Signal, Option<Timestamp>)> {
        let RunState::Draining { signal, until, idle, kill_at } = &mut self.state else { return None };
        if *until <= now
            && let Idle::After(time) = *idle
        {
            *idle = Idle::Now;
            *until = earlier(Some(until.after(time)), *kill_at)?;
        }
        (*until <= now).then_some((self.id, *signal, *kill_at))
    }

    /// Begins the end of a run. `leads` says that others are ready, and take its new connections.
    pub(super) fn begin_end(&mut self, now: Timestamp, drain: Drain, leads: bool) {
        if leads {
            self.lead_away(now, drain);
        } else {
            self.drain(now, drain);
        }
    }

    /// Begins the end of a run while others are ready: new connections are led to them, and those that wait for this run are
    /// accepted before its stop signal.
    fn lead_away(&mut self, now: Timestamp, drain: Drain) {
        let longest = drain.kill_at.map_or(LED_AT_MOST, |at| LED_AT_MOST.min(at.since(now) / 4));
        let least = LED_AT_LEAST.min(longest);
        let begins = self.serves();
        self.drain(now, Drain { delay: least, idle: Duration::ZERO, ..drain });
        if let RunState::Draining { idle, .. } = &mut self.state
            && begins
        {
            // Both are shorter than a second.
            let counts = (longest - least).subsec_millis() / LED_PAUSE.subsec_millis();
            *idle = Idle::Led(u8::try_from(counts).unwrap_or(u8::MAX));
        }
    }

    /// A reload leads new connections away from it, and it knows nothing of its end.
    pub(super) fn is_only_led_away(&self) -> bool {
        let knows = self.announced || self.ready_since.is_none() || !matches!(self.cause, Some(Cause::Reload(_)));
        matches!(self.state, RunState::Draining { idle: Idle::Led(_), .. }) && !knows
    }

    /// It is time to count what waits for it.
    fn queue_is_due(&mut self, now: Timestamp) -> bool {
        let RunState::Draining { until, idle: Idle::Led(counts @ 1..), .. } = &mut self.state else { return false };
        let is_due = *until <= now;
        if is_due {
            (*counts, *until) = (*counts - 1, now.after(LED_PAUSE));
        }
        is_due
    }

    /// It waits for its connections, or will after the drain delay.
    fn will_wait_for_connections(&self) -> bool {
        let waits = |idle| match idle {
            Idle::After(time) => !time.is_zero(),
            Idle::Now => true,
            Idle::Led(_) => false,
        };
        matches!(self.state, RunState::Draining { idle, .. } if waits(idle))
    }

    fn waits_for_connections(&self) -> bool {
        matches!(self.state, RunState::Draining { idle: Idle::Now, .. })
    }
}

impl Supervisor {
    /// Counts what waits for the runs that new connections are led away from.
    pub(super) fn count_queues(&mut self, now: Timestamp) {
        let Supervisor { instances, actions, .. } = self;
        let runs = instances.iter_mut().flat_map(Instance::runs_mut);
        actions.extend(runs.filter_map(|run| run.queue_is_due(now).then_some(Action::CountQueue(run.id))));
    }

    /// The runtime has counted the connections that wait to be accepted by a run.
    pub(super) fn queue_counted(&mut self, now: Timestamp, id: RunId, waiting: usize) {
        if let Some(RunState::Draining { until, idle: Idle::Led(counts), .. }) =
            self.run_mut(id).map(|run| &mut run.state)
            && waiting == 0
        {
            (*counts, *until) = (0, now.min(*until));
        }
    }

    /// The first drain that will wait for connections begins. Its app may close what it listens on as soon as it knows.
    pub(super) fn find_ports(&mut self) {
        if !self.ports_found && self.runs().any(Run::will_wait_for_connections) {
            self.ports_found = true;
            self.actions.push(Action::FindPorts);
        }
    }

    /// Begins to count when the first run waits, and ends it with the last one.
    pub(super) fn update_count(&mut self) {
        let waits = self.runs().any(Run::waits_for_connections);
        match (self.count, waits) {
            (None, true) => {
                self.count = Some(Count { at: None, pause: FIRST_PAUSE, left: 0 });
                self.actions.push(Action::CountConnections);
            }
            (Some(_), false) => self.count = None,
            (Some(_), true) | (None, false) => {}
        }
        let waits = self.runs().any(Run::will_wait_for_connections);
        self.ports_found &= waits;
    }

    pub(super) fn count_timer_elapsed(&mut self) {
        if let Some(count) = &mut self.count {
            count.at = None;
            self.actions.push(Action::CountConnections);
        }
    }

    /// The runtime has counted the connections that are left. Without any the runs have waited long enough.
    pub(super) fn connections_counted(&mut self, now: Timestamp, left: usize) {
        let Some(count) = self.count.as_mut().filter(|count| count.at.is_none()) else { return };
        *count = Count { at: Some(now.after(count.pause)), pause: (count.pause * 2).min(LONGEST_PAUSE), left };
        if left > 0 {
            return;
        }
        for run in self.runs_mut() {
            if let RunState::Draining { until, idle: Idle::Now, .. } = &mut run.state {
                *until = now.min(*until);
            }
        }
    }

    /// The stop signal goes to runs though connections are left.
    pub(super) fn report_connections(&mut self) {
        if let Some(Count { left: connections @ 1.., .. }) = self.count {
            self.report(Notice::StillConnected { connections });
        }
    }
}
