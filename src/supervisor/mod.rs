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
mod event;
mod exit_code;
mod reload;
mod restart;
mod state;
mod stop;

pub use action::{Action, Notice};
pub use event::{Event, SpawnError};
pub use exit_code::{CANNOT_EXECUTE, Ending, NOT_FOUND, OWN_ERROR};
pub use state::{RunId, Timestamp};

use crate::config::signal::Signal;
use crate::config::{Meaning, RestartSettings, Scope, SignalMap, StopSettings};
use restart::{History, Jitter, Verdict, worth};
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
        };
        Supervisor {
            mode: Mode::Serving,
            instances: vec![instance; settings.instances],
            hook: None,
            reload: None,
            early: Vec::new(),
            interrupted: false,
            draining: false,
            jitter: Jitter::new(settings.seed),
            actions: Vec::new(),
            settings,
        }
    }

    /// Takes one event and returns what is to be done about it, in this order.
    pub fn handle(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        match event {
            Event::Start => self.start(now),
            Event::Spawned(id) => self.spawned(now, id),
            Event::SpawnFailed(id, error) => self.spawn_failed(now, id, error),
            Event::Exited(id, ending) => self.exited(now, id, ending),
            Event::Leftovers(id, count) => self.leftovers(now, id, count),
            Event::Suspended(id) => self.suspended(id),
            Event::HookEnded => self.hook_ended(),
            Event::Signal(signal) => self.signal(now, signal),
            Event::NothingLeft => self.nothing_left(),
            Event::Timeout => self.timeout(now),
        }
        self.settle(now);
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Timeout`] is due; `None` while only an event can change anything.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let own = match self.mode {
            Mode::Draining(end) | Mode::Sweeping(end) => end.kill_at,
            Mode::Killing { give_up_at, .. } => return Some(give_up_at),
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
        let Some(run) = self.run_mut(id) else { return };
        run.state = RunState::Ready;
        run.ready_since = Some(now);
        self.retire(now, id);
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

    fn exited(&mut self, now: Timestamp, id: RunId, ending: Ending) {
        let mode = self.mode;
        let (terminal, stable_after) = (self.settings.terminal, self.settings.restart.stable_after);
        let Some(instance) = self.instances.get_mut(id.instance) else { return };
        let Some(run) = instance.runs_mut().find(|run| run.id == id) else { return };
        let kill_at = match run.state {
            RunState::Draining { kill_at, .. } | RunState::Stopping { kill_at } => kill_at,
            RunState::Killing { .. } => Some(now),
            RunState::Starting | RunState::Ready => None,
            RunState::Sweeping { .. } | RunState::Clearing { .. } => return,
        };
        let kill_at = match mode {
            Mode::Serving => earlier(kill_at, Some(now.after(LEFTOVER_TIMEOUT))),
            Mode::Draining(end) | Mode::Sweeping(end) => earlier(kill_at, end.kill_at),
            Mode::Killing { .. } | Mode::Done => kill_at,
        };
        let stopped = mode == Mode::Serving && terminal && !run.asked && ending.by_terminal();
        let stable = run.ready_since.is_some_and(|since| now.since(since) >= stable_after);
        run.state = RunState::Sweeping { ending, kill_at: kill_at.filter(|_| !stopped), told: false };
        if stable {
            instance.history.stable();
        }
        if stopped {
            self.report(Notice::StoppedAtTerminal { run: id, ending });
            self.end(now, None, None);
        }
        if !matches!(mode, Mode::Killing { .. }) {
            self.actions.push(Action::Sweep(id, Signal::TERM));
        }
    }

    fn leftovers(&mut self, now: Timestamp, id: RunId, count: usize) {
        let serving = self.mode == Mode::Serving;
        let Some(run) = self.run_mut(id) else { return };
        let asked = run.asked;
        match &mut run.state {
            RunState::Sweeping { ending, .. } | RunState::Clearing { ending, .. } if count == 0 => {
                let ending = *ending;
                self.gone(now, id, ending);
            }
            RunState::Sweeping { ending, told, .. } => {
                let background = *ending == Ending::Exited(0) && serving && !asked;
                if !std::mem::replace(told, true) && background {
                    self.report(Notice::Background { run: id });
                }
            }
            RunState::Clearing { left, .. } => *left = count,
            RunState::Starting | RunState::Ready | RunState::Draining { .. } => {}
            RunState::Stopping { .. } | RunState::Killing { .. } => {}
        }
    }

    /// The run has ended and nothing of it is left: decides what follows.
    fn gone(&mut self, now: Timestamp, id: RunId, ending: Ending) {
        let Some(instance) = self.instances.get_mut(id.instance) else { return };
        if instance.retiring.as_ref().is_some_and(|run| run.id == id) {
            instance.retiring = None;
            self.reload_on(now);
            return;
        }
        let asked = match &instance.slot {
            Slot::Live(run) => run.asked,
            Slot::Waiting { .. } | Slot::Finished { .. } => false,
        };
        if asked && self.mode == Mode::Serving {
            instance.last = Some(ending);
            instance.slot = Slot::Waiting { until: Some(now) };
        } else {
            self.follow(now, id, ending);
        }
    }

    /// What follows a run that nobody asked to end, or the last one of all.
    fn follow(&mut self, now: Timestamp, id: RunId, ending: Ending) {
        let Supervisor { instances, settings, jitter, mode, .. } = self;
        let Some(instance) = instances.get_mut(id.instance) else { return };
        instance.last = Some(ending);
        if *mode != Mode::Serving {
            instance.slot = Slot::Finished { code: worth(ending, &settings.restart) };
            return;
        }
        match instance.history.decide(now, ending, &settings.restart, jitter) {
            Verdict::Restart { count, delay } => {
                instance.slot = Slot::Waiting { until: Some(now.after(delay)) };
                let limit = settings.restart.max;
                self.report(Notice::Restarting { run: id, ending, count, limit, delay });
            }
            Verdict::GiveUp { limit } => {
                let window = settings.restart.window;
                self.report(Notice::GiveUp { run: id, ending, limit, window });
                let code = worth(ending, &self.settings.restart).max(1);
                self.finish(now, id, ending, code);
            }
            Verdict::Finish { code, why } => {
                instance.slot = Slot::Finished { code };
                self.report(Notice::NotRestarted { run: id, ending, why });
            }
            Verdict::Abort { code, why } => {
                self.report(Notice::NotRestarted { run: id, ending, why });
                self.finish(now, id, ending, code);
            }
        }
    }

    /// An instance is done for good and takes guard along: the other instances are drained first.
    fn finish(&mut self, now: Timestamp, id: RunId, ending: Ending, code: u8) {
        if let Some(instance) = self.instances.get_mut(id.instance) {
            instance.last = Some(ending);
            instance.slot = Slot::Finished { code };
        }
        self.end(now, None, Some(code));
    }

    fn suspended(&mut self, id: RunId) {
        // Without a shell above nobody could ever continue it.
        if self.settings.job_control {
            self.actions.push(Action::Suspend);
        }
        self.actions.push(Action::Thaw(id));
    }

    fn signal(&mut self, now: Timestamp, signal: Signal) {
        let mapped = self.settings.signal_map.iter().find(|(from, _)| *from == signal);
        let meaning = mapped.map(|(_, meaning)| *meaning);
        let suspends = [Signal::TSTP, Signal::TTIN, Signal::TTOU].contains(&signal);
        match meaning {
            Some(Meaning::Ignore) => {}
            Some(Meaning::Stop) => self.stop_requested(now, signal),
            None if self.is_stop_request(signal) => self.stop_requested(now, signal),
            Some(_) | None if !self.begun() => self.early.push(signal),
            Some(Meaning::Restart) => self.restart_requested(now),
            Some(Meaning::Reload) => self.reload_requested(now),
            Some(Meaning::Forward(other)) => {
                self.forward(other);
                if suspends && !self.settings.init {
                    self.actions.push(Action::Suspend);
                }
            }
            None if suspends => self.suspend(signal),
            None => self.forward(signal),
        }
    }

    /// Every instance has had a run.
    fn begun(&self) -> bool {
        self.instances.iter().all(|instance| match &instance.slot {
            Slot::Waiting { .. } => instance.runs > 0,
            Slot::Live(run) => run.state != RunState::Starting || run.id.number > 1,
            Slot::Finished { .. } => true,
        })
    }

    /// Gives the signals from before the first run to it, now that it lives.
    fn deliver_early(&mut self, now: Timestamp) {
        if self.begun() && self.living().next().is_some() {
            for signal in std::mem::take(&mut self.early) {
                self.signal(now, signal);
            }
        }
    }

    fn is_stop_request(&self, signal: Signal) -> bool {
        [Some(Signal::TERM), Some(Signal::INT), self.settings.stop.signal].contains(&Some(signal))
    }

    fn forward(&mut self, signal: Signal) {
        let living: Vec<RunId> = self.living().collect();
        if living.is_empty() {
            self.report(Notice::NotForwarded { signal });
        }
        self.actions.extend(living.into_iter().map(|id| Action::Signal(id, signal)));
    }

    /// A terminal's stop signal came to guard. As PID 1 nobody could continue it, so it is ignored.
    fn suspend(&mut self, signal: Signal) {
        if self.settings.init {
            return;
        }
        let scope = self.settings.scope;
        let living: Vec<RunId> = self.living().collect();
        self.actions.extend(living.into_iter().map(|id| match scope {
            Scope::Process => Action::Signal(id, signal),
            Scope::Group => Action::Freeze(id),
        }));
        self.actions.push(Action::Suspend);
    }

    fn timeout(&mut self, now: Timestamp) {
        match self.mode {
            Mode::Draining(End { kill_at: Some(at), .. }) | Mode::Sweeping(End { kill_at: Some(at), .. })
                if at <= now =>
            {
                return self.kill_everything(now, false);
            }
            Mode::Killing { give_up_at, .. } if give_up_at <= now => return self.nothing_left(),
            Mode::Killing { .. } | Mode::Done => return,
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

    /// A deadline of a run other than its drain delay has passed.
    fn run_timeout(&mut self, now: Timestamp, id: RunId) {
        let Some(run) = self.run_mut(id) else { return };
        match run.state {
            RunState::Draining { .. } | RunState::Stopping { .. } => {
                run.state = RunState::Killing { give_up_at: now.after(LAST_DEADLINE) };
                self.report(Notice::KillRun { run: id });
                self.actions.push(Action::Signal(id, Signal::KILL));
            }
            RunState::Sweeping { ending, .. } => {
                run.state = RunState::Clearing { ending, give_up_at: now.after(LAST_DEADLINE), left: 0 };
                self.report(Notice::KillLeftovers { run: id });
                self.actions.push(Action::Sweep(id, Signal::KILL));
            }
            RunState::Clearing { ending, left, .. } => {
                self.report(Notice::Abandoned { run: id, count: left });
                self.gone(now, id, ending);
            }
            RunState::Killing { .. } => {
                // A main process that lives cannot be replaced: it stays, and the restart has failed.
                run.state = RunState::Ready;
                run.asked = false;
                self.report(Notice::Unkillable { run: id });
            }
            RunState::Starting | RunState::Ready => {}
        }
    }

    /// What follows from the state alone, whatever event led to it.
    fn settle(&mut self, now: Timestamp) {
        if matches!(self.mode, Mode::Killing { .. } | Mode::Done) {
            return;
        }
        self.deliver_early(now);
        self.tell(now);
        self.release_hook();
        self.proceed(now);
        self.mark_drain();
        self.spawn_next(now);
    }

    /// Starts the first run that is due. The others' turn comes with the answer.
    fn spawn_next(&mut self, now: Timestamp) {
        for (index, instance) in self.instances.iter_mut().enumerate() {
            let due = |until: Option<Timestamp>| until.is_some_and(|until| until <= now);
            match &instance.slot {
                Slot::Waiting { until } if due(*until) => {
                    instance.runs += 1;
                    let id = RunId { instance: index, number: instance.runs };
                    instance.slot = Slot::Live(Run { id, state: RunState::Starting, ready_since: None, asked: false });
                    let (restarts, last) = (instance.history.restarts, instance.last);
                    self.actions.push(Action::Spawn { run: id, restarts, last });
                    return;
                }
                Slot::Live(run) if run.state == RunState::Starting => return,
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
        self.runs().filter(|run| run.main_lives()).map(|run| run.id)
    }
}

#[cfg(test)]
mod tests;
