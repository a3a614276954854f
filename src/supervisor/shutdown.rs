//! guard's own end: from the stop request, over the drain and the sweep, to the last SIGKILL.
//!
//! Each run ends as stop.rs has it, within one deadline for all. linger.rs has what follows the last SIGKILL.

use super::action::KillReason;
use super::cause::Cause;
use super::exit_code::{KILLED, contribution, of_signal};
use super::linger::Linger;
use super::run_id::RunId;
use super::state::{Instance, Mode, Run, RunState, Shutdown, Slot};
use super::stop::Drain;
use super::timestamp::Timestamp;
use super::{Action, LAST_DEADLINE, LEFTOVER_TIMEOUT, Notice, Supervisor};
use crate::signal::Signal;

/// Children of PID 1 that belong to no run: daemons that have cleared their environment. They have their time at guard's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Unmarked {
    Unasked,
    /// They have got SIGTERM.
    Asked {
        kill_at: Option<Timestamp>,
        /// No leftover lives whose end would hand its own children to guard.
        all: bool,
    },
    /// There is none, or none is waited for any more.
    Over,
}

impl Unmarked {
    pub(super) fn kill_at(self) -> Option<Timestamp> {
        match self {
            Unmarked::Asked { kill_at, .. } => kill_at,
            Unmarked::Unasked | Unmarked::Over => None,
        }
    }
}

/// Why guard ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShutdownCause {
    /// A signal that means a stop, which guard alone has got.
    Signal(Signal),
    /// A signal that the terminal has sent to guard and its runs at once: the runs have begun to stop already.
    Pressed(Signal),
    /// An operator's command, or a changed file.
    Request,
    /// A person at the terminal has ended the app.
    AppLeft,
    /// An instance is finished and takes guard along, which exits with this code.
    Finished { code: u8 },
}

impl ShutdownCause {
    fn signal(self) -> Option<Signal> {
        match self {
            ShutdownCause::Signal(signal) | ShutdownCause::Pressed(signal) => Some(signal),
            ShutdownCause::Request | ShutdownCause::AppLeft | ShutdownCause::Finished { .. } => None,
        }
    }

    fn code(self) -> Option<u8> {
        match self {
            ShutdownCause::Finished { code } => Some(code),
            ShutdownCause::Signal(_) | ShutdownCause::Pressed(_) => None,
            ShutdownCause::Request | ShutdownCause::AppLeft => None,
        }
    }

    /// Whether it is a stop request, as opposed to an app that has ended by itself.
    fn is_request(self) -> bool {
        match self {
            ShutdownCause::Signal(_) | ShutdownCause::Pressed(_) | ShutdownCause::Request => true,
            ShutdownCause::AppLeft | ShutdownCause::Finished { .. } => false,
        }
    }
}

impl Supervisor {
    /// Somebody asks guard to end. Only a person at a terminal hastens an end that has begun.
    pub(super) fn stop_requested(&mut self, now: Timestamp, cause: ShutdownCause) {
        let interrupts = cause.signal() == Some(Signal::INT);
        let again = self.interrupted;
        self.interrupted |= interrupts || matches!(cause, ShutdownCause::Pressed(_));
        match self.mode {
            Mode::Serving => self.begin_shutdown(now, cause),
            // Kubelets repeat themselves, and apps quit hard on a second signal; a person at a terminal means it.
            Mode::Draining(_) | Mode::Sweeping(_) => {
                if interrupts && again && self.settings.terminal {
                    self.kill_everything(now, KillReason::Interrupted);
                }
            }
            // The app has ended, and a person who still presses Ctrl-C wants the terminal back.
            Mode::Lingering(_) if interrupts && self.settings.terminal => self.exit(),
            Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => {}
        }
    }

    /// guard's end begins: every run is drained within one stop timeout, and none follows.
    pub(super) fn begin_shutdown(&mut self, now: Timestamp, cause: ShutdownCause) {
        let stop = &self.settings.stop;
        // Without a stop timeout the orchestrator ends what it has asked to stop. It has not asked for any other end.
        let timeout = stop.timeout.or((!cause.is_request()).then_some(stop.restart_timeout));
        let delay = stop.drain_delay;
        let kill_at = timeout.map(|timeout| now.after(timeout));
        let linger_until = kill_at.unwrap_or(now.after(self.settings.stop.restart_timeout));
        let (signal, code) = (cause.signal(), cause.code());
        self.mode = Mode::Draining(Shutdown { kill_at, linger_until, signal, code });
        self.abandon_in_place();
        self.finish_waiting_instances(signal);
        let reached = self.drain_all(now, cause, kill_at);
        if cause.is_request() || self.living().next().is_some() {
            self.report(Notice::Draining { cause, delay });
        }
        self.find_ports();
        for (id, announced) in reached {
            self.actions.extend((self.settings.node_ipc && !announced).then_some(Action::SayDrain(id)));
            self.actions.extend(signal.map(|signal| Action::StopUnreached(id, signal)));
        }
        self.update_drain_file();
        // What the hook deregisters is the container, so a stop request starts it though no run waits for it.
        if cause.is_request() && self.runs().next().is_some() {
            self.start_hook(now, timeout);
        } else {
            self.start_hook_for_drain(now, timeout);
        }
    }

    /// No run starts any more. An instance that waits for one is finished, with the code of its last run.
    fn finish_waiting_instances(&mut self, signal: Option<Signal>) {
        let mut codes = Vec::new();
        for instance in &mut self.instances {
            // The new run of a reload was not yet started: the old one is the last.
            if let Slot::Waiting { .. } = instance.slot
                && let Some(run) = instance.retiring.take_if(|run| run.serves())
            {
                instance.slot = Slot::Live(run);
            }
            if let Slot::Waiting { .. } = instance.slot {
                codes.push(match instance.last {
                    Some(ending) => contribution(ending, &self.settings.restart),
                    None if self.has_spawned => 0,
                    // No run has ever started, so guard's own end is the app's.
                    None => signal.map_or(1, of_signal),
                });
                instance.slot = Slot::Finished;
            }
        }
        codes.into_iter().for_each(|code| self.note_failure(code));
    }

    /// Drains every run. Returns those that stop already, since the terminal has sent them the signal too, and whether they
    /// have been told of a drain over Node's channel before.
    fn drain_all(&mut self, now: Timestamp, cause: ShutdownCause, kill_at: Option<Timestamp>) -> Vec<(RunId, bool)> {
        let stop = &self.settings.stop;
        let signal = stop.signal.or(cause.signal()).unwrap_or(Signal::TERM);
        let drain = Drain { signal, delay: stop.drain_delay, idle: stop.drain_idle, kill_at };
        let pressed = matches!(cause, ShutdownCause::Pressed(_));
        let mut reached = Vec::new();
        for run in self.runs_mut() {
            run.end_for(Cause::Stop);
            if pressed && run.stop_without_signal(kill_at) {
                reached.push((run.id, run.announced));
            } else {
                run.drain(now, drain);
            }
        }
        reached
    }

    /// Lets go of the sockets that outlive a run.
    pub(super) fn release_sockets(&mut self) {
        if !std::mem::replace(&mut self.released, true) {
            self.actions.push(Action::Release);
        }
    }

    /// Lets go of them in guard's end, unless a run still serves until its drain is over.
    pub(super) fn release_sockets_unless_served(&mut self) {
        let ends = self.mode != Mode::Serving;
        if ends && !self.runs().any(|run| run.serves() || run.is_draining()) {
            self.release_sockets();
        }
    }

    /// Moves guard's own end along: from Draining to Sweeping to the last SIGKILL.
    pub(super) fn advance_shutdown(&mut self, now: Timestamp) {
        if let Mode::Draining(shutdown) = self.mode
            && self.living().next().is_none()
        {
            self.mode = Mode::Sweeping(shutdown);
        }
        let all_over = self.instances.iter().all(Instance::is_over) && self.hook.is_none();
        self.ask_unmarked(now, all_over);
        if all_over && self.unmarked == Unmarked::Over {
            let code = self.exit_code();
            let linger_until = self.linger_until(now, code);
            self.begin_killing(now, KillReason::AllEnded, code, linger_until);
        }
    }

    /// Asks the daemons that belong to no run to end, once no main process needs them any more, and again when the leftovers
    /// have ended, whose children they may have been. They have the time of leftovers.
    fn ask_unmarked(&mut self, now: Timestamp, all_over: bool) {
        let kill_at = match self.mode {
            Mode::Sweeping(shutdown) => shutdown.kill_at,
            Mode::Serving if all_over => Some(now.after(LEFTOVER_TIMEOUT)),
            Mode::Serving | Mode::Draining(_) | Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => return,
        };
        let asks = match self.unmarked {
            Unmarked::Unasked => true,
            Unmarked::Asked { all, .. } => all_over && !all,
            Unmarked::Over => false,
        };
        if asks {
            self.unmarked = Unmarked::Asked { kill_at, all: all_over };
            self.actions.push(Action::SweepUnmarked);
        }
    }

    pub(super) fn unmarked_counted(&mut self, count: usize) {
        if let Unmarked::Asked { all: true, .. } = self.unmarked
            && count == 0
        {
            self.unmarked = Unmarked::Over;
        }
    }

    /// The last SIGKILL is for them too.
    pub(super) fn unmarked_timeout_elapsed(&mut self) {
        self.unmarked = Unmarked::Over;
        self.report(Notice::KillUnmarked);
    }

    /// The stop timeout has passed, or a person at the terminal has had enough.
    pub(super) fn kill_everything(&mut self, now: Timestamp, reason: KillReason) {
        let settled = match self.mode {
            Mode::Draining(shutdown) | Mode::Sweeping(shutdown) => shutdown.code,
            Mode::Serving | Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => None,
        };
        let code = match settled {
            None if self.living().next().is_some() => KILLED,
            Some(_) | None => self.exit_code(),
        };
        // The time is over for connections too.
        self.begin_killing(now, reason, code, now);
        self.report(Notice::KillEverything { reason });
    }

    fn begin_killing(&mut self, now: Timestamp, reason: KillReason, code: u8, linger_until: Timestamp) {
        self.mode = Mode::Killing { code, give_up_at: now.after(LAST_DEADLINE), linger_until };
        self.hook = None;
        self.release_sockets();
        self.actions.push(Action::KillEverything(reason));
    }

    /// Everything is reaped, or will not be in time.
    pub(super) fn everything_reaped(&mut self, now: Timestamp) {
        match self.mode {
            Mode::Killing { code, linger_until, .. } => self.begin_linger(now, code, linger_until),
            Mode::Serving | Mode::Draining(_) | Mode::Sweeping(_) | Mode::Lingering(_) | Mode::Done => {}
        }
    }

    /// What guard exits with as things are: the code that was settled, or the first failure's.
    fn exit_code(&self) -> u8 {
        let settled = match self.mode {
            Mode::Draining(shutdown) | Mode::Sweeping(shutdown) => shutdown.code,
            Mode::Killing { code, .. } | Mode::Lingering(Linger { code, .. }) => Some(code),
            Mode::Serving | Mode::Done => None,
        };
        let of_run = |run: &Run| match run.state {
            RunState::Sweeping { ending, .. } | RunState::Clearing { ending, .. } => {
                contribution(ending, &self.settings.restart)
            }
            RunState::Spawning | RunState::Starting { .. } | RunState::Ready { .. } => 0,
            RunState::Draining { .. } | RunState::Stopping { .. } | RunState::Diagnosing { .. } => 0,
            RunState::Aborting { .. } | RunState::Killing { .. } => 0,
        };
        // Nobody asks what becomes of an instance that was to leave.
        let staying = self.instances.iter().filter(|instance| !instance.leaving);
        let codes = staying.filter_map(Instance::current).map(of_run);
        settled.or(self.failed).unwrap_or_else(|| codes.into_iter().find(|&code| code != 0).unwrap_or(0))
    }

    /// Keeps the drain file in step: it is there while guard ends, and while a run is being restarted in place. Where a limit
    /// restarts one of several instances the container goes on.
    pub(super) fn update_drain_file(&mut self) {
        let is_alone = self.instances.iter().filter(|instance| instance.works()).count() <= 1;
        let announces = |instance: &Instance| {
            let cause = instance.current().and_then(|run| run.cause);
            matches!(cause, Some(Cause::Restart(asker)) if is_alone || !asker.is_limit())
        };
        let wanted = match self.mode {
            Mode::Serving => self.instances.iter().any(announces),
            Mode::Draining(_) | Mode::Sweeping(_) => true,
            Mode::Killing { .. } | Mode::Lingering(_) => self.drain_file,
            Mode::Done => false,
        };
        if std::mem::replace(&mut self.drain_file, wanted) != wanted {
            self.actions.push(Action::SetDrainFile(wanted));
        }
    }
}
