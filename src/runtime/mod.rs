//! The one poll loop: it turns what happens into events for the core, and the core's actions into system calls.
//!
//! It decides nothing, and once the first run has been spawned nothing here ends guard early: errors are logged and
//! become events.

mod act;
mod checks;
mod children;
mod clock;
mod environment;
mod hear;
mod hooks;
mod journal;
mod leftovers;
mod linger;
mod notices;
mod operator;
mod outer;
mod reap;
mod shell;
mod stream;
mod wait;

use crate::config::{Config, RestartPolicy};
use crate::doors::control::Control;
use crate::signal::Signal;
use crate::supervisor::{Action, Event, Settings, Supervisor, Timestamp};
use crate::sys::cgroup::OomCounter;
use crate::sys::connections::Connection;
use crate::sys::poll::Poll;
use crate::sys::process;
use crate::sys::signal_set::SignalSet;
use crate::sys::signals::Signals;
use crate::sys::spawn::Program;
use crate::sys::terminal::{Terminal, has_job_control};
use anyhow::Context;
use children::Children;
use clock::Clock;
use environment::Environment;
use hear::Which;
use journal::Journal;
use operator::Waiting;
use outer::Outer;
use std::collections::VecDeque;
use std::ffi::CString;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;
use stream::Stream;

/// Runs the app until there is nothing left to do, and returns guard's exit code. Errors only before the first spawn.
pub fn run(config: &Config) -> anyhow::Result<u8> {
    let poll = Poll::new().context("cannot wait for anything")?;
    let signals = Signals::new(&poll).context("cannot take signals")?;
    let init = process::id() == 1;
    if !init {
        process::become_subreaper().context("cannot become a subreaper")?;
    }
    let mut runtime = Runtime::new(config, poll, signals, init);
    runtime.journal.start();
    runtime.outer = Outer::of(config.notify_socket.as_deref());
    hooks::set_drain_file(config.drain_file.as_deref(), false);
    Ok(runtime.live())
}

/// A poll that ends this much too late means that guard, and the app with it, was kept from running.
const OVERSLEPT: Duration = Duration::from_secs(1);

/// So many orphans are taken before it is another's turn.
const MOST_ORPHANS: u32 = 64;

struct Runtime<'a> {
    config: &'a Config,
    clock: Clock,
    supervisor: Supervisor,
    /// Empty between two events; kept, since to allocate it anew would delay each signal.
    actions: Vec<Action>,
    /// How orphans come.
    stream: Stream,
    /// The core's next one, which only an event can change.
    deadline: Option<Timestamp>,
    poll: Poll,
    signals: Signals,
    /// guard may wait for signals alone, since descriptors announce themselves.
    by_signals: bool,
    /// Those that are merely passed on.
    plain: SignalSet,
    children: Children,
    journal: Journal<'a>,
    control: Option<Control>,
    /// Who waits for the outcome of a stop or a restart.
    waiting: Vec<Waiting>,
    /// Datagrams of those who may not speak to guard.
    refused: u64,
    outer: Option<Outer>,
    program: Program,
    directory: Option<CString>,
    environment: Environment,
    terminal: Option<Terminal>,
    /// Found at the first spawn; `Some(None)` where there is none.
    oom_kills: Option<Option<OomCounter>>,
    /// guard is PID 1 of its namespace.
    init: bool,
    /// The connections that guard waits for in the end, once it has looked.
    unsent: Option<Vec<Connection>>,
    /// The last reap found no child at all, so there is no descendant either.
    childless: bool,
    /// SIGKILL went to everything.
    killing: bool,
    exit: Option<u8>,
}

impl<'a> Runtime<'a> {
    fn new(config: &'a Config, poll: Poll, signals: Signals, init: bool) -> Runtime<'a> {
        let terminal = Terminal::at_stdin();
        Runtime {
            config,
            clock: Clock::start(),
            supervisor: Supervisor::new(Settings {
                restart: config.restart.clone(),
                stop: config.stop.clone(),
                ready: config.ready,
                watchdog: config.watchdog,
                health: config.health_check.is_some().then_some(config.health),
                node_ipc: config.node_ipc,
                signal_map: config.signal_map.clone(),
                scope: config.signal_scope,
                pre_stop: !config.pre_stop.is_empty(),
                instances: 1,
                init,
                terminal: terminal.is_some(),
                shell: terminal.is_some()
                    && config.restart.policy != RestartPolicy::Always
                    && shell::is_interactive(&config.command),
                job_control: !init && terminal.is_some() && has_job_control(),
                seed: seed(),
            }),
            actions: Vec::new(),
            stream: Stream::new(),
            deadline: None,
            poll,
            signals,
            by_signals: false,
            plain: SignalSet::EMPTY,
            children: Children::default(),
            journal: Journal::new(config),
            control: None,
            waiting: Vec::new(),
            refused: 0,
            outer: None,
            program: Program::new(&config.command, config.variable_of_the_app("PATH")),
            directory: config.chdir.as_ref().and_then(|path| CString::new(path.as_os_str().as_bytes()).ok()),
            environment: Environment::new(config),
            terminal,
            oom_kills: None,
            init,
            unsent: None,
            childless: false,
            killing: false,
            exit: None,
        }
    }

    fn live(&mut self) -> u8 {
        // A stop request that came before the first spawn means that there is none. Children may be there from before
        // guard was executed.
        self.wait(Some(Timestamp::default()));
        self.reap();
        while let Some(signal) = self.signals.pop() {
            self.dispatch(Event::Signal(signal));
        }
        // Before there is an app, which may ask at once.
        self.open_control();
        self.dispatch(Event::Start);
        self.try_signals();
        loop {
            if let Some(code) = self.exit {
                return code;
            }
            self.turn();
        }
    }

    /// Waits for something to happen, and tells the core of it.
    fn turn(&mut self) {
        // The time is only looked at where something is due.
        let due = self.deadline.map(|deadline| (deadline, self.clock.now()));
        let doors = self.wait(self.deadline);
        let woken = due.map(|_| self.clock.now());
        if let Some(delay) = due.zip(woken).and_then(|((deadline, before), now)| overslept(deadline, before, now)) {
            self.dispatch(Event::Overslept(delay));
        }
        // What a run has said comes before its death, and its death before what a signal asks of it: signals were taken
        // before the reap, lest the wake-up for a later death is lost, and are believed after it. A signal that came alone is
        // not kept waiting.
        let is_notify = |which: &Which| matches!(which, Which::Notify(_));
        doors.iter().filter(|which| is_notify(which)).for_each(|which| self.hear(*which));
        let reap_first = self.signals.child_news() || !doors.is_empty();
        if reap_first {
            self.reap();
        }
        while self.exit.is_none()
            && let Some(signal) = self.signals.pop()
        {
            self.receive(signal);
        }
        if !reap_first {
            self.reap();
        }
        doors.iter().filter(|which| !is_notify(which)).for_each(|which| self.hear(*which));
        // Only what was due before the doors were read: guard may have stood still since then, and what is said meanwhile
        // comes first.
        if self.deadline.zip(woken).is_some_and(|(deadline, woken)| deadline <= woken) {
            self.dispatch(Event::Timeout);
        }
    }

    /// The door that is not a run's. Without it guard cannot be asked, and runs all the same.
    fn open_control(&mut self) {
        match Control::open() {
            Ok(control) => self.control = self.attend(Which::Control, control),
            Err(error) => log::warn!(error:%; "control-socket"),
        }
    }

    /// Gives an event to the core, does what it says, and gives it the answers.
    fn dispatch(&mut self, event: Event) {
        self.end_stream();
        let (mut next, mut answers) = (Some(event), VecDeque::new());
        let mut actions = std::mem::take(&mut self.actions);
        while let Some(event) = next {
            self.supervisor.handle(self.clock.now(), event, &mut actions);
            for action in actions.drain(..) {
                match self.perform(action) {
                    // The answer to a spawn comes before anything else.
                    Some(answer @ (Event::Spawned(_) | Event::SpawnFailed(..))) => answers.push_front(answer),
                    answer => answers.extend(answer),
                }
            }
            next = answers.pop_front();
        }
        self.actions = actions;
        self.deadline = self.supervisor.next_deadline();
        if let Some(outer) = &mut self.outer {
            outer.look(self.supervisor.readiness().is_ok(), self.supervisor.is_ending(), &self.poll);
        }
    }

    fn receive(&mut self, signal: Signal) {
        // A shell may have put guard into the foreground again: the app belongs there.
        if signal == Signal::CONT {
            self.look_at_terminal();
        }
        self.dispatch(Event::Signal(signal));
    }
}

/// How much a poll stood still, if it did. Nobody knows how much of the time before the deadline the app had, so none of it
/// counts: a deadline that moves by the lateness alone would be over now, before the app can say a word.
fn overslept(deadline: Timestamp, before: Timestamp, now: Timestamp) -> Option<Duration> {
    (now.since(deadline) > OVERSLEPT).then(|| now.since(before))
}

/// Chance for the jitter, from std's randomly keyed hasher.
fn seed() -> u64 {
    RandomState::new().hash_one(process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_standing_still_each_deadline_is_as_far_as_before() {
        let at = |seconds| Timestamp(Duration::from_secs(seconds));
        let delay = overslept(at(15), at(10), at(3_600)).expect("far too late");
        assert_eq!(at(15).after(delay), at(3_605));
        assert_eq!(overslept(at(15), at(10), at(16)), None, "a busy machine");
    }
}
