//! A simulated world around the supervisor. It owns the time, plays the processes, and checks after each step what must
//! hold always; docs/design.md lists the same invariants by number.

use super::super::state::{End, Instance, Mode, Run, RunState, Slot};
use super::super::{
    Action, Ending, Event, Failure, LAST_DEADLINE, Notice, RunId, Settings, SpawnError, Supervisor, Timestamp, Unsent,
};
use crate::config::{Meaning, Readiness, ReadySettings, RestartSettings, Scope, StopSettings};
use crate::signal::Signal;
use std::collections::{BTreeMap, VecDeque};
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
    Signal(Signal),
    /// A terminal stops a main process.
    Suspend(RunId),
    /// An operator asks over the control socket.
    AskStop,
    AskRestart,
    /// The app says something.
    Says(RunId, Words),
    /// A health check ends, and has passed or not.
    CheckEnds(RunId, bool),
    /// Nobody reads what guard says on Node's channel.
    Unheard(RunId),
    /// guard and the app stand still for two units.
    Freeze,
    /// Everything that SIGKILL went to is reaped.
    Reaped,
    /// So many connections still have something to send, of so many bytes in all.
    Look(usize),
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
    drain_file: bool,
    /// Runs that got their stop signal.
    told: Vec<RunId>,
    /// Runs that were told over Node's channel.
    announced: Vec<RunId>,
    /// Somebody waits for the outcome of a restart.
    awaiting: bool,
    /// When restarts that nobody asked for were decided.
    restarts: Vec<Timestamp>,
    /// When guard's end began.
    end: Option<Timestamp>,
    killed: bool,
    /// Connections that may be left in the end.
    pub(super) connections: usize,
    /// guard wants to know how many are.
    looking: bool,
    pub(super) exit: Option<u8>,
}

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
        stop: StopSettings { signal: None, timeout: Some(UNIT * 4), restart_timeout: UNIT * 4, drain_delay: UNIT },
        ready: ReadySettings { when: Readiness::Exec, timeout: UNIT },
        watchdog: None,
        health: None,
        node_ipc: false,
        signal_map: vec![(signal("USR1"), Meaning::Restart), (signal("USR2"), Meaning::Reload)],
        scope: Scope::Process,
        pre_stop: true,
        instances: 1,
        init: true,
        terminal: false,
        shell: false,
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
            drain_file: false,
            told: Vec::new(),
            announced: Vec::new(),
            awaiting: false,
            restarts: Vec::new(),
            end: None,
            killed: false,
            connections: 0,
            looking: false,
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
            let failure = |transient| Step::Spawn(Err(SpawnError { code: 127, transient }));
            return vec![Step::Spawn(Ok(())), failure(false), failure(true)];
        }
        if self.looking {
            return (0..=self.connections).map(Step::Look).collect();
        }
        // Where the app is listened to there is enough to walk; signals have walks of their own.
        let talks = self.supervisor.settings.ready.when != Readiness::Exec;
        let mut steps = vec![Step::Signal(STOP)];
        if !talks {
            steps.extend(["INT", "HUP", "TSTP"].map(|name| Step::Signal(signal(name))));
        }
        steps.extend(self.supervisor.settings.signal_map.iter().map(|(signal, _)| Step::Signal(*signal)));
        if !self.started {
            // A second early signal would be kept like the first, without end.
            if !self.supervisor.early.is_empty() {
                steps.clear();
            }
            steps.push(Step::Start);
            return steps;
        }
        steps.push(Step::Advance);
        for &run in &self.mains {
            let mut endings = vec![Ending::Exited(0), Ending::Exited(1)];
            let mut leftovers = vec![Leftovers::None, Leftovers::Mortal];
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
        for &run in &self.mains {
            steps.extend(words.iter().map(|words| Step::Says(run, *words)));
            if self.announced.contains(&run) {
                steps.push(Step::Unheard(run));
            }
        }
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
            Step::Signal(signal) => Event::Signal(signal),
            Step::Suspend(run) => Event::Suspended(run),
            Step::AskStop => Event::StopRequested,
            Step::AskRestart => Event::RestartRequested,
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
            Step::Unheard(run) => {
                self.announced.retain(|announced| *announced != run);
                Event::Unheard(run)
            }
            Step::Freeze => {
                self.now = self.now.after(UNIT * 2);
                Event::Overslept(UNIT * 2)
            }
            Step::Reaped => {
                self.mains.clear();
                self.leftovers.clear();
                Event::NothingLeft
            }
            Step::Look(connections) => {
                assert!(std::mem::take(&mut self.looking), "a look was asked for");
                self.connections = connections;
                Event::Unsent(unsent(connections))
            }
            Step::Advance => {
                let soon = self.now.after(UNIT);
                let deadline = self.supervisor.next_deadline();
                self.now = deadline.map_or(soon, |deadline| deadline.min(soon).max(self.now));
                Event::Timeout
            }
        };
        let due = self.is_due();
        let stop = matches!(event, Event::Signal(STOP | Signal::INT) | Event::StopRequested);
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
        let ends_a_run = matches!(event, Event::Exited(..) | Event::Leftovers(..));
        let actions = self.handle(event);
        let mut answers = VecDeque::new();
        for (index, action) in actions.iter().enumerate() {
            assert!(self.exit.is_none(), "nothing follows the exit: {action:?}");
            match *action {
                Action::Spawn { run, .. } => {
                    assert!(self.end.is_none() && !self.killed, "1: no spawn after a stop request");
                    assert!(!ends_a_run, "1: nor before it is known that there is none");
                    assert_eq!(index + 1, actions.len(), "a spawn is the last action: {actions:?}");
                    assert_eq!(self.spawning.replace(run), None);
                    let same = |other: &&RunId| other.instance == run.instance;
                    assert!(self.mains.iter().filter(same).count() <= 1, "at most one run beside a new one");
                }
                Action::Signal(run, _) | Action::Stop(run, _) | Action::Freeze(run) | Action::Thaw(run) => {
                    assert!(self.mains.contains(&run), "2: no signal to a reaped pid: {action:?}");
                }
                Action::Sweep(run, signal) => {
                    if signal == Signal::KILL && self.leftovers.get(&run) == Some(&Leftovers::Mortal) {
                        self.leftovers.remove(&run);
                    }
                    answers.push_back(Event::Leftovers(run, usize::from(self.leftovers.contains_key(&run))));
                }
                Action::Draining(drains) => {
                    assert_ne!(std::mem::replace(&mut self.drain_file, drains), drains, "the drain file is in step");
                }
                Action::StartHook { .. } => assert!(!std::mem::replace(&mut self.hook, true), "one hook at a time"),
                Action::SignalHook(_) => assert!(self.hook, "2: no signal to a hook that has ended"),
                Action::SayDrain(run) | Action::SayShutdown(run) => {
                    assert!(self.mains.contains(&run), "nobody is told who has ended: {action:?}");
                    self.announced.push(run);
                    if let Action::SayShutdown(run) = *action {
                        self.tell_to_stop(run);
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
                Action::KillEverything => self.killed = true,
                Action::Report(notice) => self.note(notice),
                Action::Look if self.connections == 0 => answers.push_back(Event::Unsent(unsent(0))),
                Action::Look => self.looking = true,
                Action::Exit { code } => {
                    assert!(self.killed, "the last blow comes before the exit");
                    assert!(!self.drain_file, "the drain file is gone at the exit");
                    self.exit = Some(code);
                }
                Action::Suspend => {}
            }
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

    fn tell_to_stop(&mut self, run: RunId) {
        assert!(!self.told.contains(&run), "no run is told to stop twice");
        self.told.push(run);
    }

    fn note(&mut self, notice: Notice) {
        match notice {
            Notice::RestartRequested { .. } => self.awaiting = true,
            Notice::Restarted { .. } | Notice::RestartFailed { .. } => self.awaiting = false,
            Notice::StopSignal { run, .. } => self.tell_to_stop(run),
            // Whoever asks again after that has failed means it.
            Notice::Unkillable { run } => {
                self.told.retain(|told| *told != run);
                self.announced.retain(|announced| *announced != run);
            }
            Notice::Restarting { .. } => self.restarts.push(self.now),
            Notice::Draining { .. } | Notice::StoppedAtTerminal { .. } => {
                self.end.get_or_insert(self.now);
            }
            Notice::Abandoned { run, .. } => {
                self.leftovers.remove(&run);
            }
            Notice::Unheard { run, .. } | Notice::Unheeded { run, .. } => {
                assert!(self.told.contains(&run), "the signal comes after the message");
            }
            Notice::Stopping { run } => {
                assert!(!self.told.contains(&run), "whoever was told need not say that it stops");
                self.told.push(run);
            }
            Notice::Ready { .. }
            | Notice::Failing { .. }
            | Notice::CheckFailed { .. }
            | Notice::Recovered { .. }
            | Notice::NotForwarded { .. }
            | Notice::Ignored { .. }
            | Notice::Reloading { .. }
            | Notice::ReloadFailed { .. }
            | Notice::Background { .. }
            | Notice::KillRun { .. }
            | Notice::KillLeftovers { .. }
            | Notice::KillHook
            | Notice::KillEverything { .. }
            | Notice::Over { .. }
            | Notice::Lingering { .. }
            | Notice::Unsent { .. }
            | Notice::GiveUp { .. }
            | Notice::NotRestarted { .. } => {}
        }
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
        let awaited = self.supervisor.instances.iter().any(|instance| instance.awaited);
        assert!(!self.awaiting || awaited, "9: whoever asks for a restart hears what became of it");
        assert!(self.exit.is_none() || !self.awaiting, "9: whoever asks for a restart hears what became of it");
        for (old, new) in kill_times(before).into_iter().filter_map(|(whose, old)| {
            let new = kill_times(&self.supervisor).get(&whose).copied()?;
            Some((old, new))
        }) {
            let moved_later = old.is_some_and(|old| new.is_none_or(|new| new > old));
            assert!(!moved_later, "4: a deadline never moves later: {old:?} to {new:?}");
        }
        for instance in 0..settings.instances {
            let max = settings.restart.max.unwrap_or(u32::MAX);
            let in_window = |at: &&Timestamp| self.now.since(**at) < settings.restart.window;
            let count = self.restarts.iter().filter(in_window).count();
            let allowed = usize::try_from(max).unwrap_or(usize::MAX).saturating_mul(settings.instances);
            assert!(count <= allowed, "5: never more restarts in a window than allowed (instance {instance})");
        }
        // Without a stop timeout the orchestrator is the one to end what does not end by itself.
        let left_alone = self.end.is_some() && settings.stop.timeout.is_none() && !self.leftovers.is_empty();
        let wakes = left_alone
            || !self.checks.is_empty()
            || !self.mains.is_empty()
            || self.spawning.is_some()
            || self.hook
            || self.leftovers.values().any(|leftovers| *leftovers == Leftovers::Mortal);
        if self.started && self.exit.is_none() && !wakes {
            assert!(deadline.is_some(), "6: whenever nothing else can wake us there is a next deadline");
        }
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
        self.restarts.retain(|at| now.since(*at) < settings.restart.window);
        self.restarts.iter_mut().for_each(|at| *at = shift(*at));
        self.supervisor.shift(&shift);
        let mut numbers = BTreeMap::new();
        for instance in 0..settings.instances {
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
        self.told = self.told.into_iter().filter_map(renumber).collect();
        self.told.sort_unstable();
        self.announced = self.announced.into_iter().filter_map(renumber).collect();
        self.announced.sort_unstable();
        self.announced.dedup();
        self.checks = self.checks.into_iter().filter_map(|(run, killed)| Some((renumber(run)?, killed))).collect();
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
pub(super) fn unsent(connections: usize) -> Unsent {
    Unsent { connections, bytes: u64::try_from(connections).expect("a few") }
}

/// When SIGKILL is due, for guard as a whole and for each run that is being stopped or swept.
fn kill_times(supervisor: &Supervisor) -> BTreeMap<Option<RunId>, Option<Timestamp>> {
    let own = match supervisor.mode {
        Mode::Draining(End { kill_at, .. }) | Mode::Sweeping(End { kill_at, .. }) => Some((None, kill_at)),
        Mode::Lingering(linger) => Some((None, Some(linger.until))),
        Mode::Serving | Mode::Killing { .. } | Mode::Done => None,
    };
    let runs = supervisor.runs().filter_map(|run| match run.state {
        // The time for a core file is its own, and its leftovers have theirs.
        RunState::Stopping { .. } if run.failure == Some(Failure::Watchdog) => None,
        RunState::Draining { kill_at, .. } | RunState::Stopping { kill_at, .. } => Some((Some(run.id), kill_at)),
        RunState::Sweeping { kill_at, .. } => Some((Some(run.id), kill_at)),
        RunState::Spawning | RunState::Starting { .. } | RunState::Ready { .. } => None,
        RunState::Killing { .. } | RunState::Clearing { .. } => None,
    });
    own.into_iter().chain(runs).collect()
}

impl Supervisor {
    fn shift(&mut self, shift: &impl Fn(Timestamp) -> Timestamp) {
        let each = |at: &mut Option<Timestamp>| *at = at.map(shift);
        match &mut self.mode {
            Mode::Draining(end) | Mode::Sweeping(end) => {
                each(&mut end.kill_at);
                end.linger_until = shift(end.linger_until);
                // Only a hook is told which signal came.
                end.signal = end.signal.filter(|_| self.hook.is_some_and(|hook| hook.again));
            }
            Mode::Killing { give_up_at, linger_until, .. } => {
                (*give_up_at, *linger_until) = (shift(*give_up_at), shift(*linger_until));
            }
            Mode::Lingering(linger) => {
                for at in [&mut linger.until, &mut linger.give_up_at, &mut linger.look_at] {
                    *at = shift(*at);
                }
            }
            Mode::Serving | Mode::Done => {}
        }
        if let Some(hook) = &mut self.hook {
            each(&mut hook.kill_at);
        }
        for instance in &mut self.instances {
            if let Slot::Waiting { until } = &mut instance.slot {
                each(until);
            }
            instance.history.shift(shift);
            for run in instance.runs_mut() {
                each(&mut run.ready_since);
                if let Some(checks) = &mut run.checks {
                    checks.shift(shift);
                }
                match &mut run.state {
                    RunState::Draining { until, kill_at, .. } => {
                        *until = shift(*until);
                        each(kill_at);
                    }
                    RunState::Stopping { kill_at, signal } => {
                        each(kill_at);
                        if let Some((at, _)) = signal {
                            *at = shift(*at);
                        }
                    }
                    RunState::Starting { ready_by: at } | RunState::Ready { watchdog: at } => each(at),
                    RunState::Sweeping { kill_at, .. } => each(kill_at),
                    RunState::Killing { give_up_at } | RunState::Clearing { give_up_at, .. } => {
                        *give_up_at = shift(*give_up_at);
                    }
                    RunState::Spawning => {}
                }
            }
        }
        self.jitter = super::super::restart::Jitter::new(self.settings.seed);
    }

    fn renumber(&mut self, renumber: &impl Fn(RunId) -> Option<RunId>) {
        let each = |run: &mut Run| run.id = renumber(run.id).unwrap_or(run.id);
        for instance in &mut self.instances {
            instance.runs_mut().for_each(each);
            // The next number only has to be a new one.
            let newest = Instance::runs(instance).map(|run| run.id.number).max();
            instance.runs = newest.unwrap_or(instance.runs.min(1));
        }
    }
}
