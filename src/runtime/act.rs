//! The core's actions as system calls.

use super::children::RunProcess;
use super::doors::DoorId;
use super::environment::Environment;
use super::journal::of_run;
use super::pages::restart_reason;
use super::{Runtime, hooks};
use crate::config::{Readiness, Scope};
use crate::doors::node_ipc::{AppMessage, NodeIpc};
use crate::doors::notify::Notify;
use crate::report::surroundings::problem;
use crate::signal::Signal;
use crate::supervisor::{Action, Ending, Event, Failure, KillReason, Notice, RunId};
use crate::sys::errno::is_shortage;
use crate::sys::file::errno_of;
use crate::sys::spawn::{SpawnFailure, Start};
use crate::sys::{Errno, Pid, early, limits, process, signals};
use log::Level;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

impl Runtime<'_> {
    /// Does one thing, and returns the answer where the core expects one.
    pub(super) fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Spawn { run, restarts, last } => return Some(self.spawn(run, restarts, last)),
            Action::Signal(id, signal) => {
                if let Some(run) = self.children.get_mut(id) {
                    run.passed_on = Some(signal);
                }
                self.signal(id, signal);
            }
            Action::Kill(id) => {
                if let Some(run) = self.children.get_mut(id) {
                    run.killed = true;
                }
                self.signal(id, Signal::KILL);
            }
            Action::Stop(id, signal) => {
                self.signal(id, signal);
                self.note_receivers(id, signal);
            }
            Action::StopUnreached(id, signal) => self.stop_unreached(id, signal),
            Action::Freeze(id) => self.signal_group(id, Signal::STOP),
            Action::Thaw(id) => self.thaw(id),
            Action::Suspend => self.suspend(),
            Action::Sweep(id, signal) => return Some(self.sweep(id, signal)),
            Action::SweepUnmarked => return Some(self.sweep_unmarked()),
            Action::SetDrainFile(exists) => hooks::set_drain_file(self.config.drain_file.as_deref(), exists),
            Action::StartHook { signal, left } => return self.start_hook(signal, left),
            Action::SignalHook(signal) => {
                if let Some(pid) = self.children.hook {
                    self.journal.hook_signalled = true;
                    self.signal_tree(pid, signal);
                }
            }
            Action::KillEverything(reason) => return self.begin_last_kill(reason),
            Action::Forget(id) => self.forget(id),
            Action::CountRestart { ending, asked, .. } => self.counters.count_restart(restart_reason(ending, asked)),
            Action::Release => {
                self.held.release(Some(&self.poll));
                self.holding.release(&self.poll);
            }
            Action::Conclude { request, outcome } => self.conclude(request, outcome),
            Action::ConcludeScale(outcome) => self.conclude_scale(outcome),
            Action::CountCpus => return Some(Event::CpusCounted(self.count_cpus())),
            Action::Report(notice) => self.report(notice),
            Action::SayDrain(id) => {
                self.send_to_node(id, AppMessage::Drain);
            }
            Action::SayShutdown(id) => {
                if !self.send_to_node(id, AppMessage::Shutdown) {
                    return Some(Event::ShutdownUndelivered(id));
                }
                of_run!(self.journal, Level::Info, id, msg = "told over Node's channel"; "shutdown");
            }
            Action::StartCheck(id) => return self.start_check(id),
            Action::KillCheck(id) => self.kill_check(id),
            Action::Diagnose(id) => return self.diagnose(id),
            Action::EndDiagnosis(id) => self.end_diagnosis(id),
            Action::CountUnsent => return Some(Event::UnsentCounted(self.find_unsent())),
            Action::FindPorts => self.find_ports(),
            Action::CountConnections => return Some(Event::ConnectionsCounted(self.count_connections())),
            Action::CountQueue(id) => return Some(Event::QueueCounted(id, self.waiting_for(id))),
            Action::Exit { code } => {
                self.take_terminal_back();
                self.restore_terminal();
                early::restore_flags();
                self.journal.end(code);
                self.ending.exit = Some(code);
            }
        }
        None
    }

    fn begin_last_kill(&mut self, reason: KillReason) -> Option<Event> {
        self.ending.killing = true;
        self.journal.note_kill(reason);
        self.answer_waiting();
        self.kill_everything();
        let at_the_deadline = reason == KillReason::StopTimeout;
        self.children.runs_mut().for_each(|run| run.killed |= at_the_deadline);
        self.reaping.childless.then_some(Event::NothingLeft)
    }

    fn report(&mut self, notice: Notice) {
        // guard reads names after the kill, and only for the log.
        if let Notice::KillEverything { .. } = notice
            && log::log_enabled!(Level::Error)
        {
            self.journal.killed = self.killed();
        }
        if let Notice::Failing { run, failure: Failure::NotReady } = notice
            && self.config.ready.when == Readiness::Notify
        {
            self.journal.silence = self.why_silent(run);
        }
        self.journal.notice(notice);
    }

    fn spawn(&mut self, run: RunId, restarts: u32, last: Option<Ending>) -> Event {
        self.has_worked = true;
        if self.supervisor.instance_count() > 1 {
            // A thousand instances take more than the usual 1,024.
            limits::raise_descriptors();
        }
        let mut environment = self.launch.environment.for_run(run, self.supervisor.instance_count());
        environment.set_history(restarts, last);
        if let Err(error) = environment.read_files(self.config) {
            return Event::SpawnFailed(run, self.journal.unread_variable(run, &error));
        }
        let opened = self.open_notify(run, &mut environment).and_then(|notify| {
            let channel = self.open_channel(run, &mut environment)?;
            Ok((notify, channel, self.open_hold()?))
        });
        let (notify, channel, filter) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let failure = self.journal.spawn_failed(run, SpawnFailure::Clone(error), None);
                return Event::SpawnFailed(run, failure);
            }
        };
        let (channel, of_the_app) = channel.unzip();
        self.offer_terminal();
        early::restore_flags();
        self.note_listeners(run);
        self.held.run_starts(run, &self.poll);
        self.held.announce(&mut environment);
        let passed = self.held.passed(run);
        let own_pid = [("WATCHDOG_PID", self.config.watchdog.is_some()), ("LISTEN_PID", !passed.is_empty())];
        let own_pid: Vec<&str> = own_pid.into_iter().filter_map(|(name, wanted)| wanted.then_some(name)).collect();
        let kept: Vec<BorrowedFd> = of_the_app.iter().map(OwnedFd::as_fd).collect();
        let entries = environment.entries();
        let start = Start {
            in_guards_group: self.terminal.is_some(),
            die_with_guard: !self.init,
            own_pid: &own_pid,
            kept: &kept,
            limits: &self.launch.limits,
            passed: &passed,
            filter: filter.as_ref(),
            ..Start::new(&entries, self.launch.directory.as_deref())
        };
        match self.launch.program.spawn(&start) {
            Ok(pid) => {
                self.held.run_started(run, self.clock.now());
                let started = self.clock.now();
                self.expect_oom_kills();
                self.children.add(RunProcess { notify, channel, ..RunProcess::new(run, pid, started) });
                self.reaping.childless = false;
                self.journal.spawned(run, pid);
                if let Some(channel) = filter {
                    self.begin_hold(run, channel);
                }
                self.expect_listener(run);
                self.measure_soon();
                Event::Spawned(run)
            }
            Err(failure) => {
                self.held.run_failed(run, self.clock.now());
                let problem = problem(&self.launch.program, self.config.directory.as_deref());
                Event::SpawnFailed(run, self.journal.spawn_failed(run, failure, problem))
            }
        }
    }

    /// Something could not be opened for a run. The error of a shortage may be over at the next try; after any other the run goes
    /// without.
    fn unless_short(&self, run: RunId, error: &io::Error, event: &str) -> Result<(), Errno> {
        let errno = errno_of(error);
        if is_shortage(errno) {
            return Err(errno);
        }
        of_run!(self.journal, Level::Warn, run, error:%; event);
        Ok(())
    }

    /// The run's notify socket, where it is wanted.
    fn open_notify(&self, run: RunId, environment: &mut Environment) -> Result<Option<Notify>, Errno> {
        if !self.config.notify {
            return Ok(None);
        }
        let opened =
            Notify::open(run).and_then(|notify| Ok((notify.name()?, self.register(DoorId::Notify(run), notify)?)));
        let (name, notify) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.unless_short(run, &error, "notify-socket").map(|()| None),
        };
        environment.set("NOTIFY_SOCKET", name);
        if let Some(period) = self.config.watchdog {
            environment.set("WATCHDOG_USEC", u64::try_from(period.as_micros()).unwrap_or(u64::MAX).to_string());
        }
        Ok(Some(notify))
    }

    /// Node's channel, where it is wanted: guard's end and the app's.
    fn open_channel(&self, run: RunId, environment: &mut Environment) -> Result<Option<(NodeIpc, OwnedFd)>, Errno> {
        if !self.config.node_ipc {
            return Ok(None);
        }
        // Sockets that the app is handed have the lowest numbers.
        let opened = NodeIpc::open(run).and_then(|(channel, of_the_app)| {
            let of_the_app = self.held.make_room(of_the_app)?;
            Ok((self.register(DoorId::Channel(run), channel)?, of_the_app))
        });
        let (channel, of_the_app) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.unless_short(run, &error, "node-channel").map(|()| None),
        };
        environment.set("NODE_CHANNEL_FD", of_the_app.as_raw_fd().to_string());
        Ok(Some((channel, of_the_app)))
    }

    /// Sends a message over Node's channel; `false` if the app will not get it.
    fn send_to_node(&mut self, id: RunId, message: AppMessage) -> bool {
        let channel = self.children.get_mut(id).and_then(|run| run.channel.as_mut());
        channel.is_some_and(|channel| channel.send(message))
    }

    /// Sends a signal to the main process of a run, or with GUARD_SIGNAL_SCOPE=group to its whole group.
    pub(super) fn signal(&mut self, id: RunId, signal: Signal) {
        let Some(pid) = self.children.main(id) else { return };
        self.counters.signals_forwarded += 1;
        let result = match self.config.signal_scope {
            Scope::Process => signals::send(pid, signal),
            Scope::Group => send_to_group_and_main(pid, signal),
        };
        if self.config.signal_scope == Scope::Group {
            self.signal_members(id, signal);
        }
        self.journal.signalled(id, signal, result);
    }

    pub(super) fn signal_group(&self, id: RunId, signal: Signal) {
        if let Some(pid) = self.children.main(id) {
            let _ = send_to_group_and_main(pid, signal);
        }
    }
}

/// Sends a signal to the group of a main process, and to the main process itself where it has joined another.
fn send_to_group_and_main(main: Pid, signal: Signal) -> Result<(), Errno> {
    let is_member = process::group_of(main) == Some(main);
    let result = signals::send_to_group(main, signal);
    if is_member { result } else { signals::send(main, signal) }
}
