//! The one epoll loop: it turns what happens into events for the core, and the core's actions into system calls.
//!
//! It decides nothing, and once the first run has been spawned nothing here ends guard early: errors are logged and
//! become events.

mod act;
mod changes;
mod checks;
mod children;
mod clock;
mod cpus;
mod diagnose;
mod doors;
mod environment;
mod exits;
mod failed_starts;
mod held;
mod holding;
mod hooks;
mod idle;
mod journal;
mod kill;
mod leftovers;
mod linger;
mod measure;
mod messages;
mod notices;
mod opening;
mod operator;
mod outer;
mod pace;
mod pages;
mod privileges;
mod readiness;
mod reap;
mod silence;
mod sweep;
mod terminal;

use crate::config::{Config, Hold, Instances};
use crate::doors::http::Http;
use crate::doors::notify;
use crate::report::metrics::Counters;
use crate::supervisor::{Action, Event, Settings, Supervisor, Timestamp};
use crate::sys::cgroup::OomCounter;
use crate::sys::connections::Connection;
use crate::sys::limits::ChildLimit;
use crate::sys::poll::Poll;
use crate::sys::signals::Signals;
use crate::sys::spawn::Program;
use crate::sys::terminal::{Terminal, has_job_control};
use crate::sys::{process, reserve, residency, scheduler};
use anyhow::Context;
use changes::Changes;
use children::Children;
use clock::Clock;
use doors::{DoorId, Resting};
use environment::Environment;
use held::Held;
use holding::Holding;
use journal::Journal;
use measure::Measuring;
use operator::Operator;
use outer::Outer;
use pace::Pace;
use readiness::Looks;
use reap::Reaping;
use std::collections::VecDeque;
use std::ffi::CString;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;
use sweep::Sweep;
use terminal::Typed;

/// Runs the app until there is nothing left to do, and returns guard's exit code. Errors only before the first spawn.
pub fn run(config: &Config) -> anyhow::Result<u8> {
    reserve::grow_stack();
    // Before guard opens anything itself.
    let held = Held::take(config);
    let held = held.open(config)?;
    let poll = Poll::new().context("cannot wait for anything")?;
    let signals = Signals::new(&poll).context("cannot take signals")?;
    scheduler::prefer_short_slices();
    let init = process::id() == 1;
    if !init {
        process::become_subreaper().context("cannot become a subreaper")?;
    }
    let mut runtime = Runtime::new(config, poll, signals, init, held);
    runtime.journal.start();
    runtime.log_held();
    runtime.open_http()?;
    runtime.check_quota();
    runtime.launch.limits = privileges::prepare_limits(config)?;
    privileges::drop(config)?;
    runtime.outer = Outer::of(config.notify_socket.as_deref());
    hooks::set_drain_file(config.drain_file.as_deref(), false);
    Ok(runtime.live())
}

/// A poll that ends this much too late means that guard, and the app with it, was kept from running.
const OVERSLEPT: Duration = Duration::from_secs(1);

/// How long guard waits before it tries again what the kernel has refused.
const RETRY: Duration = Duration::from_secs(1);

/// What guard runs with. Each file of this room adds the methods for its part.
struct Runtime<'a> {
    config: &'a Config,
    /// guard is PID 1 of its namespace.
    init: bool,
    clock: Clock,
    supervisor: Supervisor,
    /// Empty between two events, and kept so that no signal waits for an allocation.
    actions: Vec<Action>,
    /// The core's next deadline, which only an event can change.
    deadline: Option<Timestamp>,
    poll: Poll,
    signals: Signals,
    children: Children,
    reaping: Reaping,
    launch: Launch,
    held: Held,
    holding: Holding,
    looks: Looks,
    measuring: Measuring,
    terminal: Option<Terminal>,
    typed: Typed,
    journal: Journal<'a>,
    operator: Operator,
    resting: Resting,
    outer: Option<Outer>,
    http: Option<Http>,
    counters: Counters,
    changes: Option<Changes>,
    ending: Ending,
}

/// What each child starts with.
struct Launch {
    program: Program,
    directory: Option<CString>,
    environment: Environment,
    limits: Vec<ChildLimit>,
    /// The container had no CPU quota when guard last counted, and the log says so.
    has_no_quota: bool,
    /// Found at the first spawn; `Some(None)` where there is none.
    oom_kills: Option<Option<OomCounter>>,
}

/// The last part of guard's life.
#[derive(Default)]
struct Ending {
    /// Daemons that belong to no run have got SIGTERM and are waited for.
    unmarked: Option<Sweep>,
    /// SIGKILL went to everything.
    killing: bool,
    /// When it goes again.
    last_blow: Pace,
    /// The ports whose connections a drain waits for.
    ports: Vec<u16>,
    /// The connections that guard waits for, once it has looked.
    unsent: Option<Vec<Connection>>,
    exit: Option<u8>,
}

impl<'a> Runtime<'a> {
    fn new(config: &'a Config, poll: Poll, signals: Signals, init: bool, held: Held) -> Runtime<'a> {
        let terminal = Terminal::at_stdin();
        let settings = Settings {
            holds: held.any_passed() || config.hold != Hold::Off,
            instances: cpus::instances(config),
            auto: config.instances == Instances::Auto,
            init,
            terminal: terminal.is_some(),
            job_control: !init && terminal.is_some() && has_job_control(),
            seed: random(),
            ..Settings::of(config)
        };
        let directory = config.directory.as_ref();
        Runtime {
            config,
            init,
            clock: Clock::start(),
            actions: Vec::new(),
            deadline: None,
            poll,
            signals,
            children: Children::new(terminal.as_ref().map(Terminal::group)),
            reaping: Reaping::default(),
            launch: Launch {
                program: Program::new(&config.command, config.variable_of_the_app("PATH")),
                directory: directory.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok()),
                environment: Environment::new(config, held.any_passed(), random()),
                limits: Vec::new(),
                has_no_quota: false,
                oom_kills: None,
            },
            held,
            holding: Holding::new(config.hold.clone(), config.hold_timeout),
            looks: Looks::default(),
            measuring: Measuring::default(),
            terminal,
            typed: Typed::default(),
            journal: Journal::new(config, settings.instances),
            supervisor: Supervisor::new(settings),
            operator: Operator::default(),
            resting: Resting::default(),
            outer: None,
            http: None,
            counters: Counters::default(),
            changes: None,
            ending: Ending::default(),
        }
    }

    fn live(&mut self) -> u8 {
        // A stop request that came before the first spawn means that there is none. Children may be there from before
        // guard was executed.
        self.signals.receive(&self.poll.wait(Some(Duration::ZERO)));
        self.reap();
        self.handle_signals();
        // Before there is an app, which may ask at once.
        self.open_control();
        self.watch_files();
        self.dispatch(Event::Start);
        if self.config.notify {
            // Only now, since it need not delay the app.
            notify::remove_stale();
        }
        residency::forget_start();
        loop {
            if let Some(code) = self.ending.exit {
                return code;
            }
            self.turn();
        }
    }

    /// Waits for something to happen, and tells the core of it.
    ///
    /// The order keeps cause before effect: what a run says comes before its death, its death before a signal that would
    /// have gone to it, and all of them before what the time brings.
    fn turn(&mut self) {
        let unread = self.signals.has_more().then(Timestamp::default);
        let retry = [
            unread,
            self.reaping.again_at,
            self.operator.open_control_at,
            self.resting.retry_at,
            self.changes.as_ref().and_then(|changes| changes.look_at),
            self.next_recount(),
            self.held.deadline(),
            self.holding.deadline(),
            self.looks.due,
            self.typed.look_at,
            self.measuring.due,
        ]
        .into_iter()
        .flatten()
        .min();
        // guard reads the clock only where something is due.
        let before = self.deadline.or(retry).map(|_| self.clock.now());
        let timeout = |at: Timestamp| at.since(before.unwrap_or_default());
        let tokens = self.poll.wait(self.deadline.into_iter().chain(retry).min().map(timeout));
        let woken = before.map(|_| self.clock.now());
        self.signals.receive(&tokens);
        self.hear_keys();
        if let (Some(deadline), Some(before), Some(woken)) = (self.deadline, before, woken)
            && let Some(delay) = overslept(deadline, before, woken)
        {
            self.dispatch(Event::Overslept(delay));
        }
        let doors: Vec<DoorId> = tokens.iter().filter_map(DoorId::of).collect();
        let is_notify = |id: &&DoorId| matches!(id, DoorId::Notify(_));
        doors.iter().filter(is_notify).for_each(|id| self.handle_door(*id));
        if !self.signals.take_child_news() && doors.is_empty() {
            // No child had ended before these signals came.
            self.handle_signals();
        }
        self.reap();
        self.handle_signals();
        doors.iter().filter(|id| !is_notify(id)).for_each(|id| self.handle_door(*id));
        let is_due = |at: Option<Timestamp>| at.zip(woken).is_some_and(|(at, woken)| at <= woken);
        if is_due(self.typed.look_at) {
            self.look_who_has_the_terminal();
        }
        if is_due(self.operator.open_control_at) {
            self.open_control();
        }
        if is_due(self.resting.retry_at) {
            self.resting.retry_at = None;
            self.wake_doors(true);
        }
        self.resume_hold();
        if is_due(self.looks.due) {
            self.look_for_sockets();
        }
        if is_due(self.measuring.due) {
            self.look_at_memory();
        }
        if is_due(self.holding.deadline()) {
            self.holding.timer_elapsed(self.clock.now());
        }
        if is_due(self.held.deadline()) {
            self.held.timer_elapsed();
        }
        if is_due(self.changes.as_ref().and_then(|changes| changes.look_at)) {
            self.look_for_changes();
        }
        // Only what was due when the wait ended: guard may have stood still since then, and what was said meanwhile comes
        // first.
        if is_due(self.deadline) {
            self.dispatch(Event::Timeout);
        }
    }

    /// Gives the signals that were received to the core.
    fn handle_signals(&mut self) {
        while self.ending.exit.is_none()
            && let Some((signal, sender)) = self.signals.pop()
        {
            if let Some(event) = self.meaning(signal, sender) {
                self.dispatch(event);
            }
        }
    }

    /// Gives an event to the core, does what it says, and gives it the answers.
    fn dispatch(&mut self, event: Event) {
        let (mut next, mut answers) = (Some(event), VecDeque::new());
        let mut actions = std::mem::take(&mut self.actions);
        while let Some(event) = next {
            self.supervisor.handle(self.clock.now(), event, &mut actions);
            self.note_instances();
            for action in actions.drain(..) {
                match self.perform(action) {
                    // The answer to a spawn comes before anything else.
                    Some(answer @ (Event::Spawned(_) | Event::SpawnFailed(..))) => answers.push_front(answer),
                    answer => answers.extend(answer),
                }
            }
            next = answers.pop_front().or_else(|| self.holding.take_failure());
        }
        self.actions = actions;
        self.deadline = self.supervisor.next_deadline();
        if let Some(outer) = &mut self.outer {
            outer.update(self.supervisor.readiness().is_ok(), self.supervisor.is_ending(), &self.poll);
        }
    }
}

/// How much a poll stood still, if it did. Nobody knows how much of the time before the deadline the app had, so none of it
/// counts: a deadline that moves by the lateness alone would be over now, before the app can say a word.
fn overslept(deadline: Timestamp, before: Timestamp, now: Timestamp) -> Option<Duration> {
    (now.since(deadline) > OVERSLEPT).then(|| now.since(before))
}

/// A number by chance, another one each time, from std's randomly keyed hasher.
fn random() -> u64 {
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
