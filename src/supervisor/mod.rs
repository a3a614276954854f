//! The pure core: what to do next, and when.
//!
//! It makes no system call, reads no clock and logs nothing, so it can be driven with simulated time and explored
//! exhaustively. [`Supervisor::handle`] takes one event and returns what is to be done about it;
//! [`Supervisor::next_deadline`] says when it wants to be called though nothing has happened.
//!
//! guard itself is in one [`Mode`], each run in one [`RunState`]; docs/design.md has both tables. Who wins where two
//! things meet: a stop request over everything; an operator's restart over the backoff; what happened over what was
//! planned, since a run that has ended is never signalled again. A deadline never moves later. A spawn is always the
//! last action of a call, and its answer is the next event, so nothing can come between.

mod action;
mod end_of_run;
mod event;
mod exit_code;
mod health;
mod linger;
mod readiness;
mod reload;
mod restart;
mod signals;
mod state;
mod status;
mod stop;

pub use action::{Action, Notice};
pub use event::{Event, SpawnError};
pub use exit_code::{CANNOT_EXECUTE, Ending, Failure, NOT_FOUND, OWN_ERROR};
pub use linger::Unsent;
pub use state::{RunId, Timestamp};

use crate::config::{HealthSettings, Readiness, ReadySettings, RestartSettings, Scope, SignalMap, StopSettings};
use crate::signal::Signal;
use health::Checks;
use restart::{History, Jitter};
use state::{End, Instance, Mode, Run, RunState, Slot, earlier};
use std::time::Duration;

/// How long leftovers have between SIGTERM and SIGKILL, where no stop deadline is nearer.
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long guard waits for what it has sent SIGKILL: a process in uninterruptible sleep may stay for ever.
const LAST_DEADLINE: Duration = Duration::from_millis(500);

/// What the supervisor needs to know before it begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    pub restart: RestartSettings,
    pub stop: StopSettings,
    pub ready: ReadySettings,
    pub watchdog: Option<Duration>,
    pub health: Option<HealthSettings>,
    /// The app may listen on Node's channel.
    pub node_ipc: bool,
    pub signal_map: SignalMap,
    pub scope: Scope,
    /// There is a pre-stop hook.
    pub pre_stop: bool,
    /// Copies of the app, at least 1.
    pub instances: usize,
    /// guard is PID 1 of its namespace.
    pub init: bool,
    /// stdin is a terminal.
    pub terminal: bool,
    /// The app is a shell that somebody at the terminal types into: it exits as told, with its last command's code.
    pub shell: bool,
    /// stdin is a terminal, and somebody above may continue guard after it was stopped.
    pub job_control: bool,
    /// Where the jitter begins.
    pub seed: u64,
}

/// The state machine. Equal states react alike to equal events.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Supervisor {
    settings: Settings,
    mode: Mode,
    instances: Vec<Instance>,
    hook: Option<Hook>,
    /// The instance from which a reload goes on.
    reload: Option<usize>,
    /// Signals from before the first run, for which they are kept.
    early: Vec<Signal>,
    /// A SIGINT has come.
    interrupted: bool,
    /// The restart limit was reached.
    gave_up: bool,
    /// What the drain file says.
    draining: bool,
    jitter: Jitter,
    actions: Vec<Action>,
}

/// A pre-stop hook that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Hook {
    kill_at: Option<Timestamp>,
    /// No run waits for it any more, and it was told so.
    told: bool,
    /// Another one is wanted when it has ended.
    again: bool,
}

impl Supervisor {
    /// A supervisor that has not begun: a stop request before [`Event::Start`] means that nothing is ever spawned.
    pub fn new(settings: Settings) -> Supervisor {
        let instance = Instance {
            slot: Slot::Waiting { until: None },
            retiring: None,
            runs: 0,
            history: History::default(),
            last: None,
            awaited: false,
        };
        Supervisor {
            mode: Mode::Serving,
            instances: vec![instance; settings.instances],
            hook: None,
            reload: None,
            early: Vec::new(),
            interrupted: false,
            gave_up: false,
            draining: false,
            jitter: Jitter::new(settings.seed),
            actions: Vec::new(),
            settings,
        }
    }

    /// Takes one event and puts what is to be done about it into `actions`, which is empty, in this order.
    pub fn handle(&mut self, now: Timestamp, event: Event, actions: &mut Vec<Action>) {
        std::mem::swap(&mut self.actions, actions);
        // What has come together with the end of a run is heard before another one follows.
        let may_spawn = matches!(event, Event::Start | Event::Timeout | Event::Spawned(_) | Event::SpawnFailed(..));
        self.take(now, event);
        self.settle(now);
        if may_spawn {
            self.spawn_next(now);
        }
        std::mem::swap(&mut self.actions, actions);
    }

    fn take(&mut self, now: Timestamp, event: Event) {
        match event {
            Event::Start => self.start(now),
            Event::Spawned(id) => self.spawned(now, id),
            Event::SpawnFailed(id, error) => self.spawn_failed(now, id, error),
            Event::Exited(id, ending) => self.exited(now, id, ending),
            Event::Leftovers(id, count) => self.leftovers(now, id, count),
            Event::Suspended(id) => self.suspended(id),
            Event::HookEnded => self.hook_ended(now),
            Event::Signal(signal) => self.signal(now, signal),
            Event::StopRequested => self.stop_requested(now, None),
            Event::RestartRequested => self.restart_requested(now),
            Event::SaidReady(id) => self.said_ready(now, id),
            Event::SaidStopping(id) => self.said_stopping(now, id),
            Event::WatchdogPing(id) => self.watchdog_ping(now, id),
            Event::WatchdogTriggered(id) => self.fail(now, id, Failure::Watchdog),
            Event::WatchdogPeriod(id, period) => self.watchdog_period(now, id, period),
            Event::TimeoutExtended(id, time) => self.timeout_extended(now, id, time),
            Event::Unheard(id) => self.send_after_all(id, |run, signal| Notice::Unheard { run, signal }),
            Event::Checked(id, passed) => self.checked(now, id, passed),
            Event::Overslept(delay) => self.overslept(delay),
            Event::NothingLeft => self.nothing_left(now),
            Event::Unsent(unsent) => self.unsent(now, unsent),
            Event::Timeout => self.timeout(now),
        }
    }

    /// When [`Event::Timeout`] is due; `None` while only an event can change anything.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let own = match self.mode {
            Mode::Draining(end) | Mode::Sweeping(end) => end.kill_at,
            Mode::Killing { give_up_at, .. } => return Some(give_up_at),
            Mode::Lingering(linger) => return Some(linger.look_at),
            Mode::Done => return None,
            Mode::Serving => None,
        };
        let hook = self.hook.and_then(|hook| hook.kill_at);
        let waiting = self.instances.iter().filter_map(|instance| match instance.slot {
            Slot::Waiting { until } => until,
            Slot::Live(_) | Slot::Finished { .. } => None,
        });
        let runs = self.instances.iter().flat_map(Instance::runs);
        let deadlines = runs.filter_map(|run| run.deadline(self.hook.is_some()));
        earlier(earlier(own, hook), waiting.chain(deadlines).min())
    }

    fn start(&mut self, now: Timestamp) {
        if self.mode == Mode::Serving {
            for instance in &mut self.instances {
                instance.slot = Slot::Waiting { until: Some(now) };
            }
        }
    }

    fn spawned(&mut self, now: Timestamp, id: RunId) {
        let (ready, health) = (self.settings.ready, self.settings.health);
        let Some(run) = self.run_mut(id) else { return };
        let at_once = ready.when == Readiness::Exec;
        run.state = RunState::Starting { ready_by: (!at_once).then(|| now.after(ready.timeout)) };
        run.checks = health.map(|health| Checks::begin(now, health));
        if at_once {
            self.ready(now, id);
        }
    }

    fn spawn_failed(&mut self, now: Timestamp, id: RunId, error: SpawnError) {
        if self.restore(id) {
            return;
        }
        let ending = Ending::NotSpawned(error);
        if id.number == 1 && !error.transient {
            self.finish(now, id, ending, error.code);
        } else {
            self.follow(now, id, ending);
        }
    }

    fn timeout(&mut self, now: Timestamp) {
        match self.mode {
            Mode::Draining(End { kill_at: Some(at), .. }) | Mode::Sweeping(End { kill_at: Some(at), .. })
                if at <= now =>
            {
                return self.kill_everything(now, false);
            }
            Mode::Killing { give_up_at, .. } if give_up_at <= now => return self.nothing_left(now),
            Mode::Lingering(linger) if linger.look_at <= now => return self.actions.push(Action::Look),
            Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => return,
            Mode::Serving | Mode::Draining(_) | Mode::Sweeping(_) => {}
        }
        if let Some(hook) = self.hook.as_mut().filter(|hook| hook.kill_at.is_some_and(|at| at <= now)) {
            hook.kill_at = None;
            self.report(Notice::KillHook);
            self.actions.push(Action::SignalHook(Signal::KILL));
        }
        let due: Vec<RunId> =
            self.runs().filter(|run| run.deadline(true).is_some_and(|at| at <= now)).map(|run| run.id).collect();
        for id in due {
            self.run_timeout(now, id);
        }
    }

    /// What follows from the state alone, whatever event led to it.
    fn settle(&mut self, now: Timestamp) {
        if matches!(self.mode, Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done) {
            return;
        }
        self.deliver_early(now);
        self.announce();
        self.tell(now);
        self.end_checks();
        self.release_hook();
        self.proceed(now);
        self.mark_drain();
    }

    /// Starts the first run that is due. The others' turn comes with the answer.
    fn spawn_next(&mut self, now: Timestamp) {
        for (index, instance) in self.instances.iter_mut().enumerate() {
            let due = |until: Option<Timestamp>| until.is_some_and(|until| until <= now);
            match &instance.slot {
                Slot::Waiting { until } if due(*until) => {
                    instance.runs += 1;
                    let id = RunId { instance: index, number: instance.runs };
                    instance.slot = Slot::Live(Run::new(id, self.settings.watchdog));
                    let (restarts, last) = (instance.history.restarts, instance.last);
                    self.actions.push(Action::Spawn { run: id, restarts, last });
                    return;
                }
                Slot::Live(run) if run.state == RunState::Spawning => return,
                Slot::Waiting { .. } | Slot::Live(_) | Slot::Finished { .. } => {}
            }
        }
    }

    fn report(&mut self, notice: Notice) {
        self.actions.push(Action::Report(notice));
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.instances.iter().flat_map(Instance::runs)
    }

    fn run_mut(&mut self, id: RunId) -> Option<&mut Run> {
        self.instances.get_mut(id.instance)?.runs_mut().find(|run| run.id == id)
    }

    /// The runs whose main process lives.
    fn living(&self) -> impl Iterator<Item = RunId> {
        self.instances.iter().flat_map(Instance::living).map(|run| run.id)
    }
}

#[cfg(test)]
mod tests;
