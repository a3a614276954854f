//! The one epoll loop: it turns what happens into events for the core, and the core's actions into system calls.
//!
//! The core decides what becomes of a run. Once the first run has been spawned nothing here ends guard early: errors are logged and
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
mod group;
mod held;
mod holding;
mod hooks;
mod idle;
mod journal;
mod kill;
mod leftovers;
mod linger;
mod marks;
mod measure;
mod member;
mod messages;
mod notices;
mod oom;
mod opening;
mod operator;
mod outer;
mod pace;
mod pages;
mod pool;
mod privileges;
mod questions;
mod readiness;
mod reap;
mod silence;
mod sockets;
mod sweep;
mod terminal;
mod turn;

pub use privileges::doubts;

use crate::config::{Config, Instances};
use crate::doors::http::Http;
use crate::doors::notify;
use crate::report::metrics::Counters;
use crate::supervisor::{Action, Event, Settings, Supervisor, Timestamp};
use crate::sys::connections::Connection;
use crate::sys::limits::ChildLimit;
use crate::sys::poll::Poll;
use crate::sys::signals::Signals;
use crate::sys::spawn::Program;
use crate::sys::terminal::{Terminal, has_job_control};
use crate::sys::{process, reserve, scheduler};
use anyhow::anyhow;
use changes::Changes;
use children::Children;
use clock::Clock;
use doors::Resting;
use environment::Environment;
use held::Held;
use holding::Holding;
use journal::Journal;
use measure::Measuring;
use oom::OomKills;
use operator::Operator;
use outer::Outer;
use pace::Pace;
use readiness::ListenerSearch;
use reap::Reaping;
use std::ffi::CString;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;
use sweep::Sweep;
use terminal::Typed;

/// Runs the app until there is nothing left to do, and returns guard's exit code. Errors only before the first spawn.
pub fn run(config: &Config) -> anyhow::Result<u8> {
    reserve::grow_stack();
    reserve::make_room_for_destructors();
    // Before guard opens anything itself.
    let held = Held::take(config);
    let held = held.open(config)?;
    let cannot = |what: &'static str| move |error: io::Error| anyhow!("cannot {what}: {error}");
    let poll = Poll::new().map_err(cannot("wait for anything"))?;
    let signals = Signals::new(&poll).map_err(cannot("take signals"))?;
    scheduler::prefer_short_slices();
    let init = process::id() == 1;
    if !init {
        process::become_subreaper().map_err(cannot("become a subreaper"))?;
    }
    let mut runtime = Runtime::new(config, poll, signals, init, held);
    runtime.journal.start();
    runtime.log_held();
    runtime.open_http()?;
    runtime.check_quota();
    runtime.launch.limits = privileges::prepare_limits(config)?;
    if let Some(user) = &config.user {
        runtime.held.give_to(user.uid);
    }
    privileges::drop(config)?;
    runtime.outer = Outer::of(config.notify_socket.as_deref());
    hooks::set_drain_file(config.drain_file.as_deref(), false);
    Ok(runtime.live())
}

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
    oom_kills: OomKills,
    launch: Launch,
    held: Held,
    holding: Holding,
    listener_search: ListenerSearch,
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
    /// The container's CPU quota when guard last counted. Where there was none the log says so.
    cpu_quota: Option<Option<u32>>,
    /// The ports whose connections a drain waits for.
    drain_ports: Vec<u16>,
    ending: Ending,
    /// guard has done more than to reap or to pass a signal on since it last gave the pages of its code back.
    has_worked: bool,
}

/// What each child starts with.
struct Launch {
    program: Program,
    directory: Option<CString>,
    environment: Environment,
    limits: Vec<ChildLimit>,
}

/// The last part of guard's life.
#[derive(Default)]
struct Ending {
    /// Daemons that belong to no run have got SIGTERM and are waited for.
    unmarked: Option<Sweep>,
    /// SIGKILL went to everything.
    killing: bool,
    /// When SIGKILL goes again.
    kill_pace: Pace,
    /// The connections that guard waits for; `None` before the first count.
    unsent: Option<Vec<Connection>>,
    exit: Option<u8>,
}

impl<'a> Runtime<'a> {
    fn new(config: &'a Config, poll: Poll, signals: Signals, init: bool, held: Held) -> Runtime<'a> {
        let terminal = Terminal::at_stdin();
        let settings = Settings {
            holds: held.any_passed(),
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
            oom_kills: OomKills::default(),
            launch: Launch {
                program: Program::new(&config.command, config.variable_of_the_app("PATH")),
                directory: directory.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok()),
                environment: Environment::new(config, held.any_passed(), random()),
                limits: Vec::new(),
            },
            held,
            holding: Holding::new(config.hold.clone(), config.hold_timeout),
            listener_search: ListenerSearch::default(),
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
            cpu_quota: None,
            drain_ports: Vec::new(),
            ending: Ending::default(),
            has_worked: true,
        }
    }

    fn live(&mut self) -> u8 {
        // Children may be there from before guard was executed.
        self.reap();
        // Before there is an app, which may ask at once.
        self.open_control();
        self.watch_files();
        // A stop request that came before the first spawn means that there is none.
        self.signals.receive(&self.poll.wait(Some(Duration::ZERO)));
        self.handle_signals();
        self.dispatch(Event::Start);
        if self.config.notify {
            // Only now, since it need not delay the app.
            notify::remove_stale();
        }
        loop {
            if let Some(code) = self.ending.exit {
                return code;
            }
            self.turn();
        }
    }
}

/// A number by chance, another one each time, from std's randomly keyed hasher.
fn random() -> u64 {
    RandomState::new().hash_one(process::id())
}
