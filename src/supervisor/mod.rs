//! The pure core: what to do next, and when.
//!
//! It makes no system call, reads no clock and logs nothing, so tests drive it with simulated time and explore it
//! exhaustively.
//!
//! guard itself is in one [`Mode`], each run in one [`RunState`]; docs/design.md has both as tables. Where two things meet:
//!
//! - A stop request wins over everything. No run starts after it, and no run gets its stop signal twice.
//! - An operator's restart wins over what a run does by itself: it ends a backoff, and where a run ends already, even as a
//!   failure, the next one follows at once and does not count as a restart. A reload does the same.
//! - Of two operators the first wins: a restart is refused while a reload has an old run that serves beside the new one, and
//!   a reload during a restart waits for the restart's new run. A reload during a reload is followed by one more.
//! - An end wins over a plan: a run that has ended is never signalled again.
//! - A deadline that ends in SIGKILL never moves later.
//!
//! A spawn is always the last action of a call, and its answer is the next event, so nothing can come between.

mod action;
mod cause;
mod diagnose;
mod event;
mod exit_code;
mod health;
mod hook;
mod idle;
mod in_place;
mod limits;
mod linger;
mod next_run;
mod policy;
mod readiness;
mod run_id;
mod scale;
mod settings;
mod shutdown;
mod signals;
mod state;
mod status;
mod stop;
mod sweep;
mod timers;
mod timestamp;

pub use action::{Action, InPlace, KillReason, Notice, Outcome, TimeLimit};
pub use cause::Asker;
pub use event::{Event, UnsentData};
pub use exit_code::{CANNOT_EXECUTE, Ending, Failure, KILLED, NOT_FOUND, OWN_ERROR, SpawnError};
pub use policy::NEVER;
pub use run_id::RunId;
pub use settings::Settings;
pub use shutdown::ShutdownCause;
pub use status::Fitness;
pub use timestamp::{Timestamp, earlier, is_due};

use crate::config::Readiness;
use crate::signal::Signal;
use health::Checks;
use hook::Hook;
use idle::Count;
use in_place::Reload;
use policy::Jitter;
use shutdown::Unmarked;
use state::{Instance, Mode, Run, RunState, Slot};
use std::time::Duration;

/// How long leftovers have between SIGTERM and SIGKILL, where no stop deadline is nearer.
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(2);

/// How long guard waits for what it has sent SIGKILL: a process in uninterruptible sleep may stay for ever.
const LAST_DEADLINE: Duration = Duration::from_millis(500);

/// The same for the leftovers of a run that has ended: there may be more of them than guard can look at in a short time.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(3);

/// The state machine. Equal states react alike to equal events.
///
/// Its owner calls [`Supervisor::handle`] with [`Event::Start`] first, then with each event as it happens, does the actions
/// in order, and gives the answers back as events. Whenever [`Supervisor::next_deadline`] has passed, the owner sends
/// [`Event::Timeout`]. [`Action::Exit`] is the last action.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Supervisor {
    settings: Settings,
    mode: Mode,
    /// In the order of their numbers.
    instances: Vec<Instance>,
    hook: Option<Hook>,
    /// Of connections, while a run waits until none is left.
    count: Option<Count>,
    /// A drain that waits for connections has begun, and guard has found what the app listens on.
    ports_found: bool,
    reload: Option<Reload>,
    /// A reload was asked for while one runs: another follows.
    reload_again: Option<Asker>,
    /// The number of instances that was last asked for.
    wanted: u32,
    /// The number follows the CPU quota.
    auto: bool,
    /// Somebody waits until the number of instances is the wanted one.
    scaling: bool,
    /// The number of the newest run of each instance that was forgotten, by the instance's number. A later instance with that
    /// number goes on from there.
    past_runs: Vec<u32>,
    /// Signals from before the first run, which gets them.
    early: Vec<Signal>,
    /// A SIGINT has come.
    interrupted: bool,
    /// The restart limit was reached.
    gave_up: bool,
    /// A run was spawned: from then on a spawn that fails does not end guard.
    has_spawned: bool,
    /// What the first instance that finished with a failure contributes to guard's exit code.
    failed: Option<u8>,
    /// Sockets outlive runs.
    holds: bool,
    /// guard has let go of the sockets that outlive runs.
    released: bool,
    /// The drain file is there.
    drain_file: bool,
    unmarked: Unmarked,
    jitter: Jitter,
    actions: Vec<Action>,
}

impl Supervisor {
    /// A supervisor that has not begun: a stop request before [`Event::Start`] means that nothing is ever spawned.
    pub fn new(settings: Settings) -> Supervisor {
        Supervisor {
            mode: Mode::Serving,
            instances: (0..settings.instances).map(Instance::new).collect(),
            hook: None,
            count: None,
            ports_found: false,
            reload: None,
            reload_again: None,
            wanted: settings.instances,
            auto: settings.auto,
            scaling: false,
            past_runs: Vec::new(),
            early: Vec::new(),
            interrupted: false,
            gave_up: false,
            has_spawned: false,
            failed: None,
            holds: settings.holds,
            released: false,
            drain_file: false,
            unmarked: if settings.init { Unmarked::Unasked } else { Unmarked::Over },
            jitter: Jitter::new(settings.seed),
            actions: Vec::new(),
            settings,
        }
    }

    /// Takes one event, and puts the actions that it asks for into `actions`, which is empty, in the order in which to do them.
    pub fn handle(&mut self, now: Timestamp, event: Event, actions: &mut Vec<Action>) {
        std::mem::swap(&mut self.actions, actions);
        // Events that come together with the end of a run come before the next run starts.
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
            Event::Exited(id, ending) => self.main_exited(now, id, ending),
            Event::Left(id, ending) => self.main_left(now, id, ending),
            Event::Leftovers(id, count) => self.leftovers_counted(now, id, count),
            Event::Suspended(id) => self.main_suspended(id),
            Event::HookEnded => self.hook_ended(now),
            Event::Signal(signal) => self.signal_received(now, signal),
            Event::Pressed(signal) => self.signal_pressed(now, signal),
            Event::FileChanged(meaning) => self.file_changed(now, meaning),
            Event::StopRequested => self.stop_requested(now, ShutdownCause::Request),
            Event::RestartRequested => self.restart(now, Asker::Operator, None),
            Event::ReloadRequested => self.reload_requested(now, Asker::Operator),
            Event::ScaleRequested(scale) => self.scale_requested(now, scale),
            Event::CpusCounted(cpus) => self.cpus_counted(now, cpus),
            Event::SaidReady(id) => self.said_ready(now, id),
            Event::Listens(id) => self.listens(now, id),
            Event::Holds => self.holds = true,
            Event::SaidStopping(id) => self.said_stopping(now, id),
            Event::WatchdogPing(id) => self.watchdog_pinged(now, id),
            Event::WatchdogTriggered(id) => self.run_failed(now, id, Failure::Watchdog),
            Event::WatchdogPeriod(id, period) => self.watchdog_period_changed(now, id, period),
            Event::TimeoutExtended(id, time) => self.timeout_extended(now, id, time),
            Event::ShutdownUndelivered(id) => self.shutdown_undelivered(id),
            Event::Checked(id, passed) => self.check_ended(now, id, passed),
            Event::Diagnosed(id) => self.diagnosed(now, id),
            Event::Overslept(delay) => self.overslept(delay),
            Event::UnmarkedCounted(count) => self.unmarked_counted(count),
            Event::NothingLeft => self.everything_reaped(now),
            Event::UnsentCounted(unsent) => self.unsent_counted(now, unsent),
            Event::MemoryExceeded(id) => self.memory_exceeded(now, id),
            Event::ConnectionsCounted(left) => self.connections_counted(now, left),
            Event::QueueCounted(id, waiting) => self.queue_counted(now, id, waiting),
            Event::Timeout => self.timers_elapsed(now),
        }
    }

    fn start(&mut self, now: Timestamp) {
        match self.mode {
            Mode::Serving => {
                for instance in &mut self.instances {
                    instance.slot = Slot::Waiting { spawn_at: Some(now) };
                }
            }
            // A stop request came before.
            Mode::Draining(_) | Mode::Sweeping(_) | Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => {}
        }
    }

    fn spawned(&mut self, now: Timestamp, id: RunId) {
        let (ready, health) = (self.settings.ready, self.settings.health);
        self.has_spawned = true;
        let replace_at = self.end_of_life(now);
        let Some(run) = self.run_mut(id) else { return };
        run.replace_at = replace_at;
        let at_once = ready.when == Readiness::Exec;
        run.state = RunState::Starting { ready_by: (!at_once).then(|| now.after(ready.timeout)) };
        run.checks = health.map(|health| Checks::begin(now, health));
        if at_once {
            self.run_ready(now, id);
        }
    }

    /// What follows from the state alone, whatever event led to it.
    fn settle(&mut self, now: Timestamp) {
        match self.mode {
            Mode::Serving | Mode::Draining(_) | Mode::Sweeping(_) => {}
            Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => return,
        }
        self.deliver_early_signals(now);
        self.begin_queued_reload(now);
        self.find_ports();
        self.announce_drains();
        self.stop_drained_runs(now);
        self.update_count();
        self.end_checks();
        self.update_diagnoses(now);
        self.release_hook();
        self.release_sockets_unless_served();
        self.advance_scale();
        self.advance_shutdown(now);
        self.update_drain_file();
    }

    /// Starts the first run that is due. The others' turn comes with the answer.
    fn spawn_next(&mut self, now: Timestamp) {
        let reload = self.reload;
        for instance in &mut self.instances {
            match &instance.slot {
                Slot::Waiting { spawn_at } if is_due(*spawn_at, now) => {
                    instance.runs += 1;
                    let id = RunId { instance: instance.number, number: instance.runs };
                    instance.slot = Slot::Live(Run::new(id, self.settings.watchdog));
                    // The run that a reload replaces has not ended yet.
                    let reload = reload.filter(|reload| reload.instance == id.instance && instance.retiring.is_some());
                    let replaced = reload.map(|reload| Ending::Replaced(reload.asker, 0));
                    let (restarts, last) = (instance.history.restarts, replaced.or(instance.last));
                    self.actions.push(Action::Spawn { run: id, restarts, last });
                    return;
                }
                Slot::Waiting { .. } | Slot::Live(_) | Slot::Finished => {}
            }
        }
    }

    fn report(&mut self, notice: Notice) {
        self.actions.push(Action::Report(notice));
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.instances.iter().flat_map(Instance::runs)
    }

    fn runs_mut(&mut self) -> impl Iterator<Item = &mut Run> {
        self.instances.iter_mut().flat_map(Instance::runs_mut)
    }

    /// Whether an instance of this kind that nobody wants to leave has a run that is ready.
    fn any_ready(&self, is_meant: impl Fn(&Instance) -> bool) -> bool {
        self.instances
            .iter()
            .any(|instance| !instance.leaving && is_meant(instance) && instance.runs().any(Run::is_ready))
    }

    /// The runs whose main process lives.
    fn living(&self) -> impl Iterator<Item = RunId> {
        self.instances.iter().flat_map(Instance::living).map(|run| run.id)
    }

    fn instance_mut(&mut self, number: u32) -> Option<&mut Instance> {
        self.instances.iter_mut().find(|instance| instance.number == number)
    }

    fn run_mut(&mut self, id: RunId) -> Option<&mut Run> {
        self.instance_mut(id.instance)?.runs_mut().find(|run| run.id == id)
    }
}

#[cfg(test)]
mod tests;
