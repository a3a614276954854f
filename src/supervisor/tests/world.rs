//! A simulated world around the supervisor. It owns the time, plays the processes, and checks after each step what must
//! hold always; docs/design.md lists the same invariants by number. It takes its facts from events and actions, never from
//! notices, which are for people.

use super::super::action::KillReason;
use super::super::cause::Cause;
use super::super::diagnose::Diagnosis;
use super::super::policy::Jitter;
use super::super::shutdown::Unmarked;
use super::super::state::{Instance, Mode, Run, RunState, Slot};
use super::super::{
    Action, Ending, Event, InPlace, LAST_DEADLINE, RunId, Settings, SpawnError, Supervisor, Timestamp, UnsentData,
};
use crate::config::Scale;
use crate::config::{Instances, Meaning, Readiness, ReadySettings, RestartSettings, Scope, StopSettings};
use crate::signal::Signal;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// The grid on which things happen, so that the states that differ only in time are finitely many.
pub(super) const UNIT: Duration = Duration::from_millis(500);

/// Something that the world can do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Start,
    /// The answer to a spawn: it worked, or it failed with this code.
    Spawn(Result<(), SpawnError>),
    /// A main process ends and leaves this behind.
    Exit(RunId, Ending, Leftovers),
    /// The leftovers of a run end.
    Clear(RunId),
    HookEnds,
    /// The daemon that belongs to no run ends.
    UnmarkedEnds,
    Signal(Signal),
    /// The terminal sends a signal to guard and the runs.
    Press(Signal),
    /// Somebody at the terminal tells a main process to exit with 1, and it does.
    Leave(RunId),
    /// A terminal stops a main process.
    Suspend(RunId),
    /// An operator asks over the control socket.
    AskStop,
    AskRestart,
    AskReload,
    AskScale(Scale),
    /// The container gets another CPU quota.
    Resize,
    /// The app says something.
    Says(RunId, Words),
    /// A health check ends, and has passed or not.
    CheckEnds(RunId, bool),
    /// The command that asks a run what it has to say ends.
    DiagnosisEnds(RunId),
    /// Node's channel is closed or full.
    Undelivered(RunId),
    /// guard and the app stand still for two units.
    Freeze,
    /// The memory of a run has reached its limit.
    Grows(RunId),
    /// Everything that SIGKILL went to is reaped.
    Reaped,
    /// So many connections still have something to send, of so many bytes in all.
    Count(usize),
    /// So many connections are left to what the app listens on.
    Clients(usize),
    /// So many connections wait for a run.
    Queue(RunId, usize),
    /// Time goes on by one unit, or to the next deadline if that is sooner.
    Advance,
}

/// What an app can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    Ready,
    Stopping,
    Alive,
    Trouble,
    /// It wants to be heard from every two units, or never.
    Period(bool),
    /// It needs two more units.
    More,
}

/// What outlives a main process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Leftovers {
    None,
    /// It ends when it likes, or by SIGKILL.
    Mortal,
    /// Not even SIGKILL ends it.
    Stuck,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) supervisor: Supervisor,
    pub(super) now: Timestamp,
    /// What is due at once is done within the step that made it so.
    pub(super) prompt: bool,
    started: bool,
    /// A spawn that waits for its answer.
    spawning: Option<RunId>,
    /// Answers that come after the spawn's.
    answers: VecDeque<Event>,
    pub(super) mains: Vec<RunId>,
    leftovers: BTreeMap<RunId, Leftovers>,
    hook: bool,
    /// Health checks that run, and whether they were killed.
    checks: BTreeMap<RunId, bool>,
    /// Runs that were asked what they have to say.
    asked: Vec<RunId>,
    /// Runs whose command for that runs.
    commands: Vec<RunId>,
    drain_file: bool,
    /// The sockets that outlive a run were let go.
    released: bool,
    /// Runs that need no stop signal any more: they have got it, or have said that they stop.
    told: Vec<RunId>,
    /// Runs that were told over Node's channel to stop, and may get one signal besides.
    shut_down: Vec<RunId>,
    /// Runs that were told anything over Node's channel.
    announced: Vec<RunId>,
    /// Somebody waits for the outcome of a restart.
    awaiting_restart: bool,
    /// So many outcomes of reloads are waited for: of the one under way, and of the one after it.
    awaiting_reloads: usize,
    /// Somebody waits for the outcome of a scale.
    awaiting_scale: bool,
    /// The container's CPU quota.
    pub(super) cpus: u32,
    /// When restarts that nobody asked for were decided, and in which instance.
    restarts: Vec<(u32, Timestamp)>,
    /// When guard's end began.
    end: Option<Timestamp>,
    killed: bool,
    /// Connections that may be left in the end.
    pub(super) connections: usize,
    /// Connections that may be left in a drain.
    pub(super) clients: usize,
    /// guard wants to know how many are.
    asks_for_clients: bool,
    /// Connections may wait for a run that new ones are led away from.
    pub(super) queues: bool,
    /// The runs whose queue guard wants to know.
    asks_for_queue: Vec<RunId>,
    /// A daemon that belongs to no run lives.
    pub(super) unmarked: bool,
    /// Another is the child of a leftover, so guard sees it when the leftovers have ended.
    pub(super) adopted: bool,
    /// Those that guard has seen have got SIGTERM.
    unmarked_terminated: bool,
    /// guard has asked them so often.
    unmarked_asks: u32,
    /// A QUIT may come.
    pub(super) quits: bool,
    /// Until when the end of a run counts as its stop, since it has got a QUIT.
    quit_until: BTreeMap<RunId, Timestamp>,
    /// An instance whose run a QUIT has stopped, while nobody has asked for another.
    stopped: Vec<u32>,
    /// guard wants to know how many are.
    counting: bool,
    pub(super) exit: Option<u8>,
}

/// More instances are not asked for, those that leave included: the states would be too many.
const MOST_INSTANCES: usize = 3;

pub(super) const STOP: Signal = Signal::TERM;

/// USR1 restarts, USR2 reloads.
pub(super) fn signal(name: &str) -> Signal {
    name.parse().expect("a signal")
}

/// The `number`th run of the only instance.
pub(super) fn run(number: u32) -> RunId {
    RunId { instance: 0, number }
}

/// Settings on the grid: a drain delay, a hook, two restarts in a short window.
pub(super) fn settings() -> Settings {
    Settings {
        restart: RestartSettings {
            max: Some(2),
            window: UNIT * 3,
            backoff_initial: UNIT,
            backoff_max: UNIT,
            stable_after: UNIT,
            ..RestartSettings::default()
        },
        stop: StopSettings {
            signal: None,
            timeout: Some(UNIT * 4),
            restart_timeout: UNIT * 4,
            drain_delay: UNIT,
            drain_idle: Duration::ZERO,
        },
        ready: ReadySettings { when: Readiness::Exec, timeout: UNIT },
        watchdog: None,
        lifetime: None,
        health: None,
        diagnose: None,
        node_ipc: false,
        signal_map: vec![(signal("USR1"), Meaning::Restart), (signal("USR2"), Meaning::Reload)],
        scope: Scope::Process,
        holds: false,
        pre_stop: true,
        instances: 1,
        auto: false,
        init: true,
        terminal: false,
        job_control: false,
        seed: 1,
    }
}

impl World {
    pub(super) fn new(settings: Settings) -> World {
        World {
            supervisor: Supervisor::new(settings),
            now: Timestamp(Duration::ZERO),
            prompt: true,
            started: false,
            spawning: None,
            answers: VecDeque::new(),
            mains: Vec::new(),
            leftovers: BTreeMap::new(),
            hook: false,
            checks: BTreeMap::new(),
            asked: Vec::new(),
            commands: Vec::new(),
            drain_file: false,
            released: false,
            told: Vec::new(),
            shut_down: Vec::new(),
            announced: Vec::new(),
            awaiting_restart: false,
            awaiting_reloads: 0,
            awaiting_scale: false,
            cpus: 1,
            restarts: Vec::new(),
            end: None,
            killed: false,
            connections: 0,
            clients: 0,
            asks_for_clients: false,
            queues: false,
            asks_for_queue: Vec::new(),
            unmarked: false,
            adopted: false,
            unmarked_terminated: false,
            unmarked_asks: 0,
            quits: false,
            quit_until: BTreeMap::new(),
            stopped: Vec::new(),
            counting: false,
            exit: None,
        }
    }

    /// A world in which the first run of each instance serves.
    pub(super) fn serving(settings: Settings) -> World {
        let mut world = World::new(settings);
        world.step(Step::Start);
        while world.spawning.is_some() {
            world.step(Step::Spawn(Ok(())));
        }
        world
    }

    /// Everything that can happen next.
    pub(super) fn choices(&self) -> Vec<Step> {
        if self.exit.is_some() {
            return Vec::new();
        }
        if self.spawning.is_some() {
            let failure = |transient| Step::Spawn(Err(SpawnError { code: 127, transient, name: "ENOENT" }));
            return vec![Step::Spawn(Ok(())), failure(false), failure(true)];
        }
        if self.counting {
            return (0..=self.connections).map(Step::Count).collect();
        }
        if self.asks_for_clients {
            return (0..=self.clients).map(Step::Clients).collect();
        }
        if let Some(&run) = self.asks_for_queue.first() {
            return vec![Step::Queue(run, 0), Step::Queue(run, 1)];
        }
        // Where the app is listened to there is enough to walk; signals have walks of their own.
        let talks = self.supervisor.settings.ready.when != Readiness::Exec;
        let mut steps = vec![Step::Signal(STOP)];
        if !talks {
            steps.extend(["INT", "HUP", "TSTP"].map(|name| Step::Signal(signal(name))));
        }
        let is_room = self.supervisor.instances.len() < MOST_INSTANCES;
        let may_come = |meaning: &Meaning| *meaning != Meaning::ScaleUp || is_room;
        let mapped = self.supervisor.settings.signal_map.iter().filter(|(_, meaning)| may_come(meaning));
        steps.extend(mapped.map(|(signal, _)| Step::Signal(*signal)));
        steps.extend(self.quits.then_some(Step::Signal(Signal::QUIT)));
        if self.supervisor.settings.terminal {
            steps.extend(["INT", "QUIT", "TSTP"].map(|name| Step::Press(signal(name))));
        }
        if !self.started {
            // A second early signal would be kept like the first, without end.
            if !self.supervisor.early.is_empty() {
                steps.clear();
            }
            steps.push(Step::Start);
            return steps;
        }
        steps.push(Step::Advance);
        if self.supervisor.settings.auto {
            steps.extend(is_room.then_some(Step::Resize));
            steps.extend(is_room.then_some(Step::AskScale(Scale::To(Instances::Auto))));
        }
        for &run in &self.mains {
            let mut endings = vec![Ending::Exited(0), Ending::Exited(1)];
            let mut leftovers = vec![Leftovers::None, Leftovers::Mortal];
            if self.supervisor.settings.terminal {
                steps.push(Step::Leave(run));
            }
            if !talks {
                steps.push(Step::Suspend(run));
                endings.push(Ending::Signaled(Signal::INT));
                leftovers.push(Leftovers::Stuck);
            }
            for ending in endings {
                steps.extend(leftovers.iter().map(|leftovers| Step::Exit(run, ending, *leftovers)));
            }
        }
        let mortal = self.leftovers.iter().filter(|(_, leftovers)| **leftovers == Leftovers::Mortal);
        steps.extend(mortal.map(|(run, _)| Step::Clear(*run)));
        if self.hook {
            steps.push(Step::HookEnds);
        }
        if self.unmarked && self.unmarked_terminated {
            steps.push(Step::UnmarkedEnds);
        }
        self.talk(&mut steps);
        if self.killed {
            steps.push(Step::Reaped);
        }
        steps
    }

    /// What the app, its health checks and its operator may do, where the settings listen to them.
    fn talk(&self, steps: &mut Vec<Step>) {
        let settings = &self.supervisor.settings;
        let mut words = Vec::new();
        if settings.ready.when != Readiness::Exec {
            steps.extend([Step::AskStop, Step::AskRestart]);
            if settings.signal_map.iter().any(|(_, meaning)| *meaning == Meaning::Reload) {
                steps.push(Step::AskReload);
            }
            // A stop deadline that is slept through is simply late.
            if self.end.is_none() {
                steps.push(Step::Freeze);
            }
        }
        if settings.ready.when == Readiness::Notify {
            words.extend([Words::Ready, Words::Stopping, Words::More]);
        }
        if settings.watchdog.is_some() {
            words.extend([Words::Alive, Words::Trouble, Words::Period(true), Words::Period(false)]);
        }
        if settings.lifetime.is_some() {
            steps.extend(self.mains.iter().map(|run| Step::Grows(*run)));
        }
        for &run in &self.mains {
            steps.extend(words.iter().map(|words| Step::Says(run, *words)));
            if self.announced.contains(&run) {
                steps.push(Step::Undelivered(run));
            }
        }
        steps.extend(self.commands.iter().map(|run| Step::DiagnosisEnds(*run)));
        for (&run, &killed) in &self.checks {
            steps.push(Step::CheckEnds(run, false));
            if !killed {
                steps.push(Step::CheckEnds(run, true));
            }
        }
    }

    /// Lets time go on until something is done.
    pub(super) fn wait(&mut self) -> Vec<Action> {
        for _ in 0..1_000 {
            let actions = self.step(Step::Advance);
            if !actions.is_empty() {
                return actions;
            }
        }
        panic!("nothing happens any more: {self:?}");
    }

    /// Lets time go on until this is done.
    pub(super) fn wait_for(&mut self, wanted: &Action) -> Vec<Action> {
        for _ in 0..100 {
            let actions = self.wait();
            if actions.contains(wanted) {
                return actions;
            }
        }
        panic!("{wanted:?} never comes: {self:?}");
    }

    /// Does a step and checks the invariants.
    pub(super) fn step(&mut self, step: Step) -> Vec<Action> {
        let before = self.supervisor.clone();
        let event = match step {
            Step::Start => {
                self.started = true;
                Event::Start
            }
            Step::Spawn(outcome) => {
                let run = self.spawning.take().expect("a spawn was asked for");
                match outcome {
                    Ok(()) => {
                        self.mains.push(run);
                        Event::Spawned(run)
                    }
                    Err(error) => Event::SpawnFailed(run, error),
                }
            }
            Step::Exit(run, ending, leftovers) => {
                self.mains.retain(|main| *main != run);
                let in_time = self.quit_until.remove(&run).is_some_and(|until| self.now < until);
                let asked = self.awaiting_restart || self.awaiting_reloads > 0;
                // What guard has begun to end, since it hangs or for another reason, is no stop by QUIT.
                let is_ended = self.supervisor.runs().any(|one| one.id == run && one.cause > Some(Cause::Itself));
                if in_time && !asked && !is_ended && !self.told.contains(&run) {
                    self.stopped.push(run.instance);
                }
                if leftovers != Leftovers::None {
                    self.leftovers.insert(run, leftovers);
                }
                Event::Exited(run, ending)
            }
            Step::Clear(run) => {
                self.leftovers.remove(&run);
                Event::Leftovers(run, 0)
            }
            Step::HookEnds => {
                self.hook = false;
                Event::HookEnded
            }
            Step::UnmarkedEnds => {
                self.unmarked = false;
                Event::UnmarkedCounted(0)
            }
            Step::Signal(signal) => Event::Signal(signal),
            Step::Press(signal) => Event::Pressed(signal),
            Step::Leave(run) => {
                self.mains.retain(|main| *main != run);
                self.quit_until.remove(&run);
                Event::Left(run, Ending::Exited(1))
            }
            Step::Suspend(run) => Event::Suspended(run),
            Step::AskStop => Event::StopRequested,
            Step::AskRestart => Event::RestartRequested,
            Step::AskReload => Event::ReloadRequested,
            Step::AskScale(scale) => Event::ScaleRequested(scale),
            Step::Resize => {
                self.cpus = 3 - self.cpus;
                return Vec::new();
            }
            Step::Says(run, Words::Ready) => Event::SaidReady(run),
            Step::Says(run, Words::Stopping) => Event::SaidStopping(run),
            Step::Says(run, Words::Alive) => Event::WatchdogPing(run),
            Step::Says(run, Words::Trouble) => Event::WatchdogTriggered(run),
            Step::Says(run, Words::Period(on)) => Event::WatchdogPeriod(run, UNIT * 2 * u32::from(on)),
            Step::Says(run, Words::More) => Event::TimeoutExtended(run, UNIT * 2),
            Step::CheckEnds(run, passed) => {
                self.checks.remove(&run);
                Event::Checked(run, passed)
            }
            Step::DiagnosisEnds(run) => {
                self.commands.retain(|other| *other != run);
                Event::Diagnosed(run)
            }
            Step::Undelivered(run) => {
                self.announced.retain(|announced| *announced != run);
                Event::ShutdownUndelivered(run)
            }
            Step::Freeze => {
                self.now = self.now.after(UNIT * 2);
                Event::Overslept(UNIT * 2)
            }
            Step::Grows(run) => Event::MemoryExceeded(run),
            Step::Reaped => {
                self.mains.clear();
                self.leftovers.clear();
                Event::NothingLeft
            }
            Step::Count(connections) => {
                assert!(std::mem::take(&mut self.counting), "a count was asked for");
                self.connections = connections;
                Event::UnsentCounted(unsent(connections))
            }
            Step::Clients(clients) => {
                assert!(std::mem::take(&mut self.asks_for_clients), "a count was asked for");
                Event::ConnectionsCounted(clients)
            }
            Step::Queue(run, waiting) => {
                assert_eq!(self.asks_for_queue.remove(0), run, "a count was asked for");
                Event::QueueCounted(run, waiting)
            }
            Step::Advance => {
                let soon = self.now.after(UNIT);
                let deadline = self.supervisor.next_deadline();
                self.now = deadline.map_or(soon, |deadline| deadline.min(soon).max(self.now));
                Event::Timeout
            }
        };
        let due = self.is_due();
        let signals = matches!(event, Event::Signal(STOP | Signal::INT) | Event::Pressed(Signal::INT | Signal::QUIT));
        let is_mapped = self.supervisor.settings.signal_map.iter().any(|(from, _)| *from == Signal::QUIT);
        let has_run = |instance: &Instance| instance.runs > 0;
        let in_backoff = before.runs().next().is_none() && before.instances.iter().all(has_run);
        let quits = event == Event::Signal(Signal::QUIT) && !is_mapped && in_backoff;
        let stop = signals || quits || event == Event::StopRequested;
        let mut actions = self.give(event);
        if self.prompt && self.spawning.is_none() && self.is_due() {
            actions.extend(self.give(Event::Timeout));
        }
        if matches!(step, Step::Advance) && !due {
            assert!(
                actions.is_empty() && self.supervisor == before,
                "7: a spurious timeout changes nothing: {actions:?}"
            );
        }
        if stop {
            self.end.get_or_insert(self.now);
        }
        self.check(&before);
        actions
    }

    fn is_due(&self) -> bool {
        self.supervisor.next_deadline().is_some_and(|deadline| deadline <= self.now)
    }

    /// What the supervisor says to an event, and no more.
    pub(super) fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.supervisor.handle(self.now, event, &mut actions);
        actions
    }

    fn give(&mut self, event: Event) -> Vec<Action> {
        let ends_a_run = matches!(event, Event::Exited(..) | Event::Left(..) | Event::Leftovers(..));
        let early = self.supervisor.early.clone();
        let before = self.supervisor.clone();
        let actions = self.handle(event);
        // A limit's reload is one that nobody has asked for, and that has an outcome all the same.
        let begun = |supervisor: &Supervisor| supervisor.reload.is_some_and(|reload| reload.asker.is_limit());
        if begun(&self.supervisor) && !begun(&before) {
            self.awaiting_reloads += 1;
        }
        self.note_restarts(&before);
        self.check_others(&before, event, &actions);
        self.check_counts(&before, event, &actions);
        if self.supervisor.is_ending() {
            self.end.get_or_insert(self.now);
        }
        // A signal from before the first run is kept for it.
        if self.supervisor.early.len() <= early.len() {
            self.note_event(event, &before);
        }
        let is_mapped = |signal: &Signal| self.supervisor.settings.signal_map.iter().any(|(from, _)| from == signal);
        if self.supervisor.early.len() < early.len() && early.iter().any(is_mapped) {
            // One that has asked for a run was delivered.
            self.stopped.clear();
        }
        let mut answers = VecDeque::new();
        for (index, action) in actions.iter().enumerate() {
            assert!(self.exit.is_none(), "nothing follows the exit: {action:?}");
            match *action {
                Action::Spawn { run, .. } => {
                    assert!(self.end.is_none() && !self.killed, "1: no spawn after a stop request");
                    assert!(!self.released, "11: no run starts without its sockets");
                    assert!(!ends_a_run, "1: nor before it is known that there is none");
                    assert!(!self.stopped.contains(&run.instance), "10: no spawn after a QUIT has stopped a run");
                    assert_eq!(index + 1, actions.len(), "a spawn is the last action: {actions:?}");
                    assert_eq!(self.spawning.replace(run), None);
                    let instance = self.supervisor.instances.iter().find(|instance| instance.number == run.instance);
                    assert!(instance.is_some_and(|instance| !instance.leaving), "13: no spawn in what was scaled down");
                    let is_known = self.mains.contains(&run) || self.leftovers.contains_key(&run);
                    assert!(!is_known, "no two runs are called the same");
                    let same = |other: &&RunId| other.instance == run.instance;
                    assert!(self.mains.iter().filter(same).count() <= 1, "at most one run beside a new one");
                }
                Action::Signal(run, signal) => {
                    assert!(self.mains.contains(&run), "2: no signal to a reaped pid: {action:?}");
                    let is_mapped = |(from, _): &(Signal, Meaning)| *from == Signal::QUIT;
                    if signal == Signal::QUIT && !self.supervisor.settings.signal_map.iter().any(is_mapped) {
                        let until = self.now.after(self.supervisor.settings.stop.restart_timeout);
                        self.quit_until.insert(run, until);
                    }
                }
                Action::Kill(run) => {
                    assert!(self.mains.contains(&run), "2: no signal to a reaped pid: {action:?}");
                }
                Action::Freeze(run) | Action::Thaw(run) => {
                    assert!(self.mains.contains(&run), "2: no signal to a reaped pid: {action:?}");
                }
                Action::StopUnreached(run, _) => {
                    assert!(self.mains.contains(&run), "2: no signal to a reaped pid: {action:?}");
                    assert!(matches!(event, Event::Pressed(_)), "the terminal has sent it");
                    self.stop(run);
                }
                Action::Stop(run, _) => {
                    // A run that was told over Node's channel may have been told before guard's end began.
                    let due = self.supervisor.is_ending() && !self.shut_down.contains(&run);
                    assert!(self.released || !due, "11: they are let go before the stop signal");
                    assert!(self.mains.contains(&run), "2: no signal to a reaped pid: {action:?}");
                    if self.supervisor.settings.node_ipc {
                        let count = self.shut_down.len();
                        self.shut_down.retain(|other| *other != run);
                        assert_eq!(self.shut_down.len() + 1, count, "the signal comes once, after the message");
                    } else {
                        self.stop(run);
                    }
                }
                Action::Forget(run) => {
                    assert!(!self.mains.contains(&run), "what lives is not forgotten");
                    self.leftovers.remove(&run);
                }
                Action::Conclude { request: InPlace::Restart, .. } => self.awaiting_restart = false,
                Action::ConcludeScale(_) => {
                    let asked = self.awaiting_scale || !early.is_empty();
                    assert!(asked, "an outcome is of something that was asked for");
                    self.awaiting_scale = false;
                }
                Action::CountCpus => answers.push_back(Event::CpusCounted(self.cpus)),
                Action::Conclude { request: InPlace::Reload, .. } => {
                    let asked = self.awaiting_reloads > 0 || !early.is_empty();
                    assert!(asked, "an outcome is of something that was asked for");
                    self.awaiting_reloads = self.awaiting_reloads.saturating_sub(1);
                }
                Action::Sweep(run, signal) => {
                    if signal == Signal::KILL && self.leftovers.get(&run) == Some(&Leftovers::Mortal) {
                        self.leftovers.remove(&run);
                    }
                    answers.push_back(Event::Leftovers(run, usize::from(self.leftovers.contains_key(&run))));
                }
                Action::Release => {
                    assert!(self.supervisor.is_ending(), "11: sockets are held until guard's end");
                    assert!(!std::mem::replace(&mut self.released, true), "11: they are let go once");
                }
                Action::SweepUnmarked => {
                    assert!(self.mains.is_empty(), "a daemon is asked after the main processes");
                    self.unmarked_asks += 1;
                    assert!(self.unmarked_asks <= 2, "guard asks once beside the leftovers, and once after them");
                    if self.leftovers.is_empty() {
                        self.unmarked |= std::mem::take(&mut self.adopted);
                    }
                    self.unmarked_terminated = true;
                    answers.push_back(Event::UnmarkedCounted(usize::from(self.unmarked)));
                }
                Action::SetDrainFile(drains) => {
                    assert_ne!(std::mem::replace(&mut self.drain_file, drains), drains, "the drain file is in step");
                }
                Action::StartHook { .. } => {
                    assert!(!self.killed, "no hook starts after the last SIGKILL");
                    assert!(!std::mem::replace(&mut self.hook, true), "one hook at a time");
                }
                Action::SignalHook(_) => assert!(self.hook, "2: no signal to a hook that has ended"),
                Action::SayDrain(run) | Action::SayShutdown(run) => {
                    assert!(self.mains.contains(&run), "nobody is told who has ended: {action:?}");
                    self.announced.push(run);
                    if let Action::SayShutdown(run) = *action {
                        let due = self.supervisor.is_ending();
                        assert!(self.released || !due, "11: they are let go before a run is told to stop");
                        self.stop(run);
                        self.shut_down.push(run);
                    }
                }
                Action::StartCheck(run) => {
                    assert!(self.end.is_none() && self.mains.contains(&run), "8: no health check during a drain");
                    assert_eq!(self.checks.insert(run, false), None, "8: health checks never overlap");
                }
                Action::KillCheck(run) => {
                    let killed = self.checks.insert(run, true);
                    assert!(killed.is_some(), "2: no signal to a check that has ended");
                }
                Action::Diagnose(run) => {
                    assert!(self.mains.contains(&run), "2: no signal to a reaped pid: {action:?}");
                    assert!(!self.asked.contains(&run), "15: no run is asked twice");
                    self.asked.push(run);
                    self.commands.push(run);
                }
                Action::EndDiagnosis(run) => {
                    let count = self.commands.len();
                    self.commands.retain(|other| *other != run);
                    assert!(self.commands.len() < count, "2: no signal to a command that has ended");
                    answers.push_back(Event::Diagnosed(run));
                }
                Action::KillEverything(reason) => {
                    let asked = reason != KillReason::AllEnded || !self.adopted || !self.leftovers.is_empty();
                    assert!(asked, "a daemon that a leftover has left to guard is asked too");
                    self.killed = true;
                }
                Action::Report(_) | Action::CountRestart { .. } => {}
                Action::CountUnsent if self.connections == 0 => answers.push_back(Event::UnsentCounted(unsent(0))),
                Action::CountUnsent => self.counting = true,
                Action::FindPorts => {
                    assert!(!self.mains.is_empty(), "16: guard looks for ports in a drain alone");
                }
                Action::CountConnections if self.clients == 0 => {
                    answers.push_back(Event::ConnectionsCounted(0));
                }
                Action::CountConnections => {
                    assert!(!self.mains.is_empty(), "16: guard counts in a drain alone");
                    self.asks_for_clients = true;
                }
                Action::CountQueue(run) if self.queues => self.asks_for_queue.push(run),
                Action::CountQueue(run) => answers.push_back(Event::QueueCounted(run, 0)),
                Action::Exit { code } => {
                    assert!(self.killed, "the last blow comes before the exit");
                    assert!(!self.drain_file, "the drain file is gone at the exit");
                    assert!(self.released, "11: they are let go before the exit");
                    self.exit = Some(code);
                }
                Action::Suspend => {}
            }
        }
        // What signals from before the first run have asked for, now that they were delivered.
        if self.supervisor.early.len() < early.len() {
            self.awaiting_restart |= self.awaits_restart();
            self.awaiting_scale |= self.supervisor.scaling;
            self.awaiting_reloads = self.awaiting_reloads.max(self.awaits_reloads());
        }
        answers.append(&mut self.answers);
        self.answers = answers;
        let mut all = actions;
        while self.spawning.is_none()
            && let Some(answer) = self.answers.pop_front()
        {
            all.extend(self.give(answer));
        }
        all
    }

    /// What an event means to the world.
    fn note_event(&mut self, event: Event, before: &Supervisor) {
        let replaces = before.mode == Mode::Serving && before.instances.iter().any(Instance::serves_while_replaced);
        let meaning = match event {
            Event::Signal(signal) | Event::Pressed(signal) => {
                let mapped = |(from, meaning): &(Signal, Meaning)| (*from == signal).then_some(*meaning);
                self.supervisor.settings.signal_map.iter().find_map(mapped)
            }
            Event::MemoryExceeded(_) => None,
            Event::FileChanged(Meaning::Reload) if !before.can_replace_unasked() => Some(Meaning::Restart),
            // A reload follows the one that it meets.
            Event::FileChanged(Meaning::Restart) if replaces && before.can_replace_unasked() => Some(Meaning::Reload),
            Event::FileChanged(meaning) => Some(meaning),
            Event::RestartRequested => Some(Meaning::Restart),
            Event::ReloadRequested => Some(Meaning::Reload),
            Event::ScaleRequested(scale) => {
                self.note_scale(scale, before);
                None
            }
            Event::CpusCounted(_) => None,
            Event::SaidStopping(run) => {
                if !self.told.contains(&run) {
                    self.told.push(run);
                }
                self.shut_down.retain(|other| *other != run);
                None
            }
            Event::Start | Event::Timeout | Event::Overslept(_) | Event::Spawned(_) | Event::SpawnFailed(..) => None,
            Event::UnmarkedCounted(_)
            | Event::Exited(..)
            | Event::Left(..)
            | Event::Leftovers(..)
            | Event::Suspended(_)
            | Event::HookEnded => None,
            Event::StopRequested | Event::SaidReady(_) | Event::TimeoutExtended(..) => None,
            Event::Listens(_) | Event::Holds => None,
            Event::WatchdogPing(_) | Event::WatchdogTriggered(_) | Event::WatchdogPeriod(..) => None,
            Event::ShutdownUndelivered(_) | Event::Checked(..) | Event::NothingLeft | Event::UnsentCounted(_) => None,
            Event::Diagnosed(_) | Event::ConnectionsCounted(_) | Event::QueueCounted(..) => None,
        };
        if let Some(Meaning::Restart | Meaning::Reload) = meaning {
            self.stopped.clear();
        }
        match meaning {
            Some(Meaning::Restart) => self.awaiting_restart = true,
            // One that is queued has the outcome of all that are asked for meanwhile.
            Some(Meaning::Reload) if before.reload_again.is_some() => {}
            Some(Meaning::Reload) => self.awaiting_reloads += 1,
            Some(Meaning::ScaleUp) => self.note_scale(Scale::More(1), before),
            Some(Meaning::ScaleDown) => self.note_scale(Scale::Fewer(1), before),
            Some(Meaning::Stop | Meaning::Ignore | Meaning::Forward(_)) | None => {}
        }
    }

    /// Somebody asks for another number of instances, and hears of it unless there cannot be so many.
    fn note_scale(&mut self, scale: Scale, before: &Supervisor) {
        let refused = before.mode == Mode::Serving && before.scale_target(scale).is_err();
        self.awaiting_scale |= !refused;
        self.stopped.clear();
    }

    /// Restarts that nobody asked for. An instance that has gone, or is new, has none.
    fn note_restarts(&mut self, before: &Supervisor) {
        let of = |supervisor: &Supervisor, number: u32| {
            let instance = supervisor.instances.iter().find(|instance| instance.number == number)?;
            Some((instance.history.restarts, instance.awaited && instance.current().is_none()))
        };
        let numbers: Vec<u32> = self.supervisor.instances.iter().map(|instance| instance.number).collect();
        self.restarts.retain(|(number, _)| numbers.contains(number));
        for number in numbers {
            match (of(before, number), of(&self.supervisor, number)) {
                (Some((before, _)), Some((after, _))) if after > before => self.restarts.push((number, self.now)),
                (Some((_, false)), Some((0, true))) => self.restarts.retain(|(restarted, _)| *restarted != number),
                _ => {}
            }
        }
    }

    /// Each run that another has followed, or will, is counted once, when it is over.
    fn check_counts(&self, before: &Supervisor, event: Event, actions: &[Action]) {
        let counted = actions
            .iter()
            .filter_map(|action| if let Action::CountRestart { run, .. } = action { Some(*run) } else { None });
        let failed = if let Event::SpawnFailed(run, _) = event { Some(run) } else { None };
        let forgotten =
            actions.iter().filter_map(|action| if let Action::Forget(run) = action { Some(*run) } else { None });
        let of = |supervisor: &Supervisor, number: u32| {
            supervisor.instances.iter().find(|instance| instance.number == number).cloned()
        };
        let is_followed = |run: &RunId| {
            let had_a_successor = |instance: Instance| instance.retires(*run) && instance.runs > run.number;
            let goes_on = |instance: Instance| {
                // A failed reload has given it up, and its old run goes on.
                let is_given_up = instance.runs().any(|old| old.id.number < run.number && old.serves());
                !is_given_up && instance.slot != Slot::Finished
            };
            // An old run that nobody wants any more is over together with its successor.
            let is_unwanted = |old: &Run| matches!(old.cause, Some(Cause::Scale | Cause::Stop));
            let is_unwanted =
                |instance: Instance| instance.retires(*run) && instance.retiring.is_some_and(|old| is_unwanted(&old));
            !of(before, run.instance).is_some_and(is_unwanted)
                && (of(before, run.instance).is_some_and(had_a_successor)
                    || of(&self.supervisor, run.instance).is_some_and(goes_on))
        };
        // Where guard's end begins with the end of a new run, its old run may go with guard at once.
        let is_undecided = |run: &RunId| {
            let begins_to_end = before.mode == Mode::Serving && self.supervisor.mode != Mode::Serving;
            begins_to_end && of(before, run.instance).is_some_and(|instance| instance.retires(*run))
        };
        let counted = counted.filter(|run| !is_undecided(run));
        let followed = failed.into_iter().chain(forgotten).filter(|run| is_followed(run) && !is_undecided(run));
        // Signals from before the first run may ask for fewer instances in the same moment.
        if self.supervisor.early.len() == before.early.len() {
            assert!(counted.eq(followed), "18: each run that another follows is counted once: {event:?}, {actions:?}");
        }
    }

    /// No instance's end touches another's processes, and a reload takes no run that is ready before there is one in its
    /// place.
    fn check_others(&self, before: &Supervisor, event: Event, actions: &[Action]) {
        let ended = if let Event::Exited(run, _) | Event::Leftovers(run, _) = event {
            Some(run.instance).filter(|_| !self.supervisor.is_ending())
        } else {
            None
        };
        let was_due = |run: RunId| before.runs().any(|known| known.id == run && known.is_draining());
        for action in actions {
            if let (Some(instance), Action::Signal(run, _) | Action::Stop(run, _) | Action::Sweep(run, _)) =
                (ended, action)
            {
                assert!(run.instance == instance || was_due(*run), "14: no instance's end touches another: {action:?}");
            }
        }
        for action in actions {
            let (Action::Stop(run, _) | Action::SayShutdown(run)) = action else { continue };
            let is_other = |other: &&Run| other.id != *run && other.is_ready() && other.cause.is_none();
            let is_led_to = before.runs().any(|known| known.id == *run && known.is_ready())
                && self.supervisor.runs().any(|other| is_other(&other));
            let is_asked = self.supervisor.runs().any(|known| {
                known.id == *run && matches!(known.cause, Some(Cause::Reload(_) | Cause::Restart(_) | Cause::Scale))
            });
            let holds = self.supervisor.holds && !self.supervisor.is_ending();
            assert!(
                !(holds && is_led_to && is_asked),
                "17: new connections are led to the others before the stop signal"
            );
        }
        for instance in &self.supervisor.instances {
            let Some(old) = instance.retiring.as_ref().filter(|old| matches!(old.cause, Some(Cause::Reload(_)))) else {
                continue;
            };
            let was_ready = before.runs().any(|known| known.id == old.id && known.is_ready());
            let replaced = instance.current().is_some_and(Run::is_ready);
            assert!(!was_ready || old.is_ready() || replaced, "12: never fewer ready runs than before a reload");
        }
    }

    /// The supervisor has a restart under way.
    fn awaits_restart(&self) -> bool {
        self.supervisor.is_restarting()
    }

    /// So many reloads are under way, or follow.
    fn awaits_reloads(&self) -> usize {
        usize::from(self.supervisor.reload.is_some()) + usize::from(self.supervisor.reload_again.is_some())
    }

    fn stop(&mut self, run: RunId) {
        assert!(!self.told.contains(&run), "no run is asked to stop twice");
        self.told.push(run);
    }

    fn check(&self, before: &Supervisor) {
        let settings = &self.supervisor.settings;
        let deadline = self.supervisor.next_deadline();
        if let (Some(end), Some(timeout), None) = (self.end, settings.stop.timeout, self.exit) {
            let latest = end.after(timeout).after(LAST_DEADLINE);
            assert!(
                self.now <= latest,
                "3: from a stop request to the end within the stop timeout and the last deadline"
            );
            assert!(deadline.is_some_and(|deadline| deadline <= latest), "3: the end is in sight");
        }
        assert_eq!(self.awaiting_restart, self.awaits_restart(), "9: everybody hears what became of a restart");
        assert_eq!(self.awaiting_reloads, self.awaits_reloads(), "9: everybody hears what became of a reload");
        assert_eq!(self.awaiting_scale, self.supervisor.scaling, "9: everybody hears what became of a scale");
        let awaited = self.awaiting_restart || self.awaiting_reloads > 0 || self.awaiting_scale;
        assert!(self.exit.is_none() || !awaited, "9: everybody hears before guard exits");
        for (old, new) in kill_times(before).into_iter().filter_map(|(whose, old)| {
            let new = kill_times(&self.supervisor).get(&whose).copied()?;
            Some((old, new))
        }) {
            let moved_later = old.is_some_and(|old| new.is_none_or(|new| new > old));
            assert!(!moved_later, "4: a deadline never moves later: {old:?} to {new:?}");
        }
        for instance in self.numbers() {
            let max = settings.restart.max.unwrap_or(u32::MAX);
            let in_window = |at: &&Timestamp| self.now.since(**at) < settings.restart.window;
            let own = self.restarts.iter().filter(|(number, _)| *number == instance).map(|(_, at)| at);
            let count = own.filter(in_window).count();
            let allowed = usize::try_from(max).unwrap_or(usize::MAX);
            assert!(count <= allowed, "5: never more restarts in a window than allowed (instance {instance})");
        }
        // Without a stop timeout the orchestrator is the one to end what does not end by itself.
        let left_alone = self.end.is_some() && settings.stop.timeout.is_none() && !self.leftovers.is_empty();
        let wakes = left_alone
            || self.unmarked && self.unmarked_terminated
            || !self.checks.is_empty()
            || !self.mains.is_empty()
            || self.spawning.is_some()
            || self.hook
            || self.leftovers.values().any(|leftovers| *leftovers == Leftovers::Mortal);
        if self.started && self.exit.is_none() && !wakes {
            assert!(deadline.is_some(), "6: whenever nothing else can wake us there is a next deadline");
        }
    }

    /// Numbers that instances have, or whose runs are not over.
    fn numbers(&self) -> BTreeSet<u32> {
        let runs = self.mains.iter().chain(self.leftovers.keys()).chain(self.checks.keys());
        let instances = self.supervisor.instances.iter().map(|instance| instance.number);
        runs.map(|run| run.instance).chain(instances).collect()
    }

    /// The same world with times counted from now, and runs numbered anew: what differs only in these reacts alike.
    pub(super) fn normalised(mut self) -> World {
        const NOW: Timestamp = Timestamp(Duration::from_secs(3_600));
        let now = self.now;
        let settings = self.supervisor.settings.clone();
        let oldest = settings.restart.window.max(settings.restart.stable_after) + UNIT;
        let shift = |at: Timestamp| {
            let later = at.since(now);
            let earlier = now.since(at).min(oldest);
            let at = if later > Duration::ZERO { NOW.after(later) } else { Timestamp(NOW.0 - earlier) };
            // The jitter leaves the grid.
            let units = at.0.as_millis().div_ceil(UNIT.as_millis());
            Timestamp(UNIT * u32::try_from(units).expect("in range"))
        };
        self.now = NOW;
        self.end = self.end.map(shift);
        self.restarts.retain(|(_, at)| now.since(*at) < settings.restart.window);
        self.restarts.iter_mut().for_each(|(_, at)| *at = shift(*at));
        self.supervisor.shift(&shift);
        self.quit_until.retain(|_, until| now < *until);
        self.quit_until.values_mut().for_each(|until| *until = shift(*until));
        self.supervisor.forget_late_quits(NOW);
        self.stopped.sort_unstable();
        self.stopped.dedup();
        let mut numbers = BTreeMap::new();
        for instance in self.numbers() {
            let known = |run: &RunId| run.instance == instance;
            let mut known: Vec<u32> = self
                .mains
                .iter()
                .chain(self.leftovers.keys())
                .chain(&self.spawning)
                .chain(self.checks.keys())
                .copied()
                .chain(self.supervisor.runs().map(|run| run.id))
                .filter(known)
                .map(|run| run.number)
                .collect();
            known.sort_unstable();
            known.dedup();
            // The first run is told from the others.
            let first = if known.first() == Some(&1) { 1 } else { 2 };
            for (number, new) in known.into_iter().zip(first..) {
                numbers.insert(RunId { instance, number }, RunId { instance, number: new });
            }
        }
        let renumber = |run: RunId| numbers.get(&run).copied();
        self.mains = self.mains.into_iter().filter_map(renumber).collect();
        self.mains.sort_unstable();
        for runs in [
            &mut self.asks_for_queue,
            &mut self.asked,
            &mut self.commands,
            &mut self.told,
            &mut self.shut_down,
            &mut self.announced,
        ] {
            *runs = runs.iter().copied().filter_map(renumber).collect();
            runs.sort_unstable();
            runs.dedup();
        }
        self.checks = self.checks.into_iter().filter_map(|(run, killed)| Some((renumber(run)?, killed))).collect();
        self.quit_until = self.quit_until.into_iter().filter_map(|(run, at)| Some((renumber(run)?, at))).collect();
        self.spawning = self.spawning.and_then(renumber);
        for answer in &mut self.answers {
            if let Event::Leftovers(run, _) = answer {
                *run = renumber(*run).unwrap_or(*run);
            }
        }
        self.leftovers = self.leftovers.into_iter().filter_map(|(run, left)| Some((renumber(run)?, left))).collect();
        self.supervisor.renumber(&renumber);
        self
    }
}

/// So many connections, each with one byte to send.
pub(super) fn unsent(connections: usize) -> UnsentData {
    UnsentData { connections, bytes: u64::try_from(connections).expect("a few") }
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Guard,
    Hook,
    Run(RunId),
}

/// When SIGKILL is due, for guard as a whole, for the hook, and for each run that is being stopped or swept.
fn kill_times(supervisor: &Supervisor) -> BTreeMap<Whose, Option<Timestamp>> {
    let own = match supervisor.mode {
        Mode::Draining(shutdown) | Mode::Sweeping(shutdown) => Some((Whose::Guard, shutdown.kill_at)),
        Mode::Lingering(linger) => Some((Whose::Guard, Some(linger.until))),
        Mode::Serving | Mode::Killing { .. } | Mode::Done => None,
    };
    // A hook that is on its way out may be followed by another one, and one that was killed has no deadline any more.
    let hook = supervisor.hook.filter(|hook| !hook.released && hook.kill_at.is_some());
    let hook = hook.map(|hook| (Whose::Hook, hook.kill_at));
    let runs = supervisor.runs().filter_map(|run| match run.state {
        RunState::Draining { kill_at, .. } | RunState::Stopping { kill_at, .. } => Some((Whose::Run(run.id), kill_at)),
        RunState::Diagnosing { kill_at, .. } => Some((Whose::Run(run.id), kill_at)),
        RunState::Sweeping { kill_at, .. } => Some((Whose::Run(run.id), kill_at)),
        // The time for a core file is its own, and its leftovers have theirs.
        RunState::Aborting { .. } => None,
        RunState::Spawning | RunState::Starting { .. } | RunState::Ready { .. } => None,
        RunState::Killing { .. } | RunState::Clearing { .. } => None,
    });
    own.into_iter().chain(hook).chain(runs).collect()
}

impl Supervisor {
    fn shift(&mut self, shift: &impl Fn(Timestamp) -> Timestamp) {
        let each = |at: &mut Option<Timestamp>| *at = at.map(shift);
        match &mut self.mode {
            Mode::Draining(shutdown) | Mode::Sweeping(shutdown) => {
                each(&mut shutdown.kill_at);
                shutdown.linger_until = shift(shutdown.linger_until);
                // Only a hook is told which signal came.
                shutdown.signal = shutdown.signal.filter(|_| self.hook.is_some_and(|hook| hook.again));
            }
            Mode::Killing { give_up_at, linger_until, .. } => {
                (*give_up_at, *linger_until) = (shift(*give_up_at), shift(*linger_until));
            }
            Mode::Lingering(linger) => {
                for at in [&mut linger.until, &mut linger.give_up_at, &mut linger.count_at] {
                    *at = shift(*at);
                }
            }
            Mode::Serving | Mode::Done => {}
        }
        if let Some(count) = &mut self.count {
            each(&mut count.at);
        }
        if let Some(hook) = &mut self.hook {
            each(&mut hook.kill_at);
        }
        if let Unmarked::Asked { kill_at, .. } = &mut self.unmarked {
            each(kill_at);
        }
        for instance in &mut self.instances {
            if let Slot::Waiting { spawn_at } = &mut instance.slot {
                each(spawn_at);
            }
            instance.history.shift(shift);
            for run in instance.runs_mut() {
                each(&mut run.ready_since);
                each(&mut run.quit_until);
                if let Diagnosis::Due(at) = &mut run.diagnosis {
                    *at = shift(*at);
                }
                each(&mut run.replace_at);
                if let Some(checks) = &mut run.checks {
                    checks.shift(shift);
                }
                match &mut run.state {
                    RunState::Draining { until, kill_at, .. } => {
                        *until = shift(*until);
                        each(kill_at);
                    }
                    RunState::Stopping { kill_at, fallback } => {
                        each(kill_at);
                        if let Some((at, _)) = fallback {
                            *at = shift(*at);
                        }
                    }
                    RunState::Diagnosing { until, kill_at, .. } => {
                        *until = shift(*until);
                        each(kill_at);
                    }
                    RunState::Starting { ready_by: at } | RunState::Ready { ping_by: at } => each(at),
                    RunState::Sweeping { kill_at, .. } => each(kill_at),
                    RunState::Killing { give_up_at } => each(give_up_at),
                    RunState::Aborting { kill_at: at } | RunState::Clearing { give_up_at: at, .. } => *at = shift(*at),
                    RunState::Spawning => {}
                }
            }
        }
        self.jitter = Jitter::new(self.settings.seed);
    }

    /// Times that have passed mean nothing any more.
    fn forget_late_quits(&mut self, now: Timestamp) {
        for run in self.runs_mut() {
            run.quit_until = run.quit_until.filter(|until| now < *until);
        }
    }

    fn renumber(&mut self, renumber: &impl Fn(RunId) -> Option<RunId>) {
        let each = |run: &mut Run| run.id = renumber(run.id).unwrap_or(run.id);
        if let Some(reload) = &mut self.reload {
            // It may have ended since then, and is only told.
            let instance = reload.instance;
            reload.replaced_by = reload.replaced_by.map(|_| RunId { instance, number: 1 });
        }
        for instance in &mut self.instances {
            instance.runs_mut().for_each(each);
            // The next number only has to be a new one.
            let newest = Instance::runs(instance).map(|run| run.id.number).max();
            instance.runs = newest.unwrap_or(instance.runs.min(1));
        }
        self.past_runs.iter_mut().for_each(|runs| *runs = (*runs).min(1));
        if let Some(reload) = &mut self.reload {
            reload.newest = reload.newest.map(|_| RunId { instance: 0, number: 1 });
        }
    }
}
