//! The core's actions as system calls.

use super::children::{Owner, RunProcess};
use super::environment::Environment;
use super::hear::Which;
use super::leftovers::Told;
use super::{Runtime, hooks, leftovers};
use crate::config::Scope;
use crate::doors::node_ipc::{NodeIpc, Word};
use crate::doors::notify::Notify;
use crate::signal::Signal;
use crate::supervisor::{Action, Ending, Event, RunId};
use crate::sys::cgroup::OomCounter;
use crate::sys::procfs::Process;
use crate::sys::spawn::Start;
use crate::sys::terminal::Terminal;
use crate::sys::{Errno, Pid, signals};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What is left of a run.
enum Leftovers {
    Known(Vec<Process>),
    /// Without /proc, the run's group is all that can be seen and reached.
    Group(Pid),
}

impl Runtime<'_> {
    /// Does one thing, and returns the answer where the core expects one.
    pub(super) fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Spawn { run, restarts, last } => return Some(self.spawn(run, restarts, last)),
            Action::Signal(id, signal) => self.signal(id, signal),
            Action::Stop(id, signal) => {
                self.note_told(id, signal);
                self.signal(id, signal);
            }
            Action::Freeze(id) => self.signal_group(id, Signal::STOP),
            Action::Thaw(id) => {
                self.look_at_terminal();
                self.signal_group(id, Signal::CONT);
            }
            Action::Suspend => signals::suspend(),
            Action::Sweep(id, signal) => return Some(self.sweep(id, signal)),
            Action::SetDrainFile(exists) => hooks::set_drain_file(self.config.drain_file.as_deref(), exists),
            Action::StartHook { signal, left } => return self.start_hook(signal, left),
            Action::SignalHook(signal) => {
                if let Some(pid) = self.children.hook {
                    self.journal.hook_told = true;
                    let _ = signals::send_to_group(pid, signal);
                }
            }
            Action::KillEverything(reason) => {
                self.killing = true;
                self.journal.note_kill(reason);
                self.bid_farewell();
                self.kill_everything();
                return self.childless.then_some(Event::NothingLeft);
            }
            Action::Forget(id) => self.children.forget(id),
            Action::Conclude { request, outcome } => self.conclude(request, outcome),
            Action::Report(notice) => self.journal.notice(notice),
            Action::SayDrain(id) => {
                self.say(id, Word::Drain);
            }
            Action::SayShutdown(id) => {
                if !self.say(id, Word::Shutdown) {
                    return Some(Event::ShutdownUndelivered(id));
                }
                log::info!(instance = self.journal.instance(id), run = id.number, msg = "told over Node's channel"; "shutdown");
            }
            Action::StartCheck(id) => return self.start_check(id),
            Action::KillCheck(id) => self.kill_check(id),
            Action::CountUnsent => return Some(Event::UnsentCounted(self.look())),
            Action::Exit { code } => {
                if let Some(terminal) = &self.terminal {
                    terminal.restore();
                }
                self.journal.end(code);
                self.exit = Some(code);
            }
        }
        None
    }

    fn spawn(&mut self, run: RunId, restarts: u32, last: Option<Ending>) -> Event {
        let mut environment = self.environment.for_run(run);
        environment.set_history(restarts, last);
        let notify = self.open_notify(run, &mut environment);
        let (channel, of_the_app) = self.open_channel(run, &mut environment).unzip();
        if let Some(terminal) = &self.terminal {
            terminal.restore();
        }
        let kept: Vec<BorrowedFd> = of_the_app.iter().map(OwnedFd::as_fd).collect();
        let entries = environment.entries();
        let start = Start {
            foreground: self.terminal.as_ref().is_some_and(Terminal::is_held),
            die_with_guard: !self.init,
            own_pid: if self.config.watchdog.is_some() { &["WATCHDOG_PID"] } else { &[] },
            kept: &kept,
            ..Start::new(&entries, self.directory.as_deref())
        };
        match self.program.spawn(&start) {
            Ok(pid) => {
                let started = self.clock.now();
                // Only now, since it need not delay the app.
                let oom_kills = self.oom_kills.get_or_insert_with(OomCounter::of_this_cgroup).as_ref();
                let oom_kills = oom_kills.and_then(OomCounter::read);
                self.children.add(RunProcess { notify, channel, oom_kills, ..RunProcess::new(run, pid, started) });
                self.childless = false;
                self.journal.spawned(run, pid);
                Event::Spawned(run)
            }
            Err(failure) => {
                let found = self.program.found(self.config.directory.as_deref());
                Event::SpawnFailed(run, self.journal.spawn_failed(run, failure, found.as_deref()))
            }
        }
    }

    /// The run's notify socket. Without one it runs all the same, and is not heard.
    fn open_notify(&self, run: RunId, environment: &mut Environment) -> Option<Notify> {
        let opened = Notify::open(run).and_then(|notify| Ok((notify.name()?, notify)));
        match opened {
            Ok((name, notify)) => {
                let notify = self.attend(Which::Notify(run), notify)?;
                environment.set("NOTIFY_SOCKET", name);
                if let Some(period) = self.config.watchdog {
                    environment.set("WATCHDOG_USEC", period.as_micros().to_string());
                }
                Some(notify)
            }
            Err(error) => {
                log::warn!(instance = self.journal.instance(run), run = run.number, error:%; "notify-socket");
                None
            }
        }
    }

    /// Node's channel, where it is wanted: guard's end and the app's.
    fn open_channel(&self, run: RunId, environment: &mut Environment) -> Option<(NodeIpc, OwnedFd)> {
        if !self.config.node_ipc {
            return None;
        }
        match NodeIpc::open(run) {
            Ok((channel, of_the_app)) => {
                let channel = self.attend(Which::Channel(run), channel)?;
                environment.set("NODE_CHANNEL_FD", of_the_app.as_raw_fd().to_string());
                Some((channel, of_the_app))
            }
            Err(error) => {
                log::warn!(instance = self.journal.instance(run), run = run.number, error:%; "node-channel");
                None
            }
        }
    }

    /// Says something over Node's channel; `false` if nobody will hear it.
    fn say(&mut self, id: RunId, word: Word) -> bool {
        let channel = self.children.get_mut(id).and_then(|run| run.channel.as_mut());
        channel.is_some_and(|channel| channel.send(word))
    }

    /// Puts the newest run into the foreground, or guard itself while none lives.
    pub(super) fn pass_foreground(&self) {
        if let Some(terminal) = &self.terminal {
            match self.children.newest_main() {
                Some(main) => {
                    terminal.give(main);
                }
                None => terminal.take(),
            }
        }
    }

    /// guard was continued: the foreground may have changed hands.
    pub(super) fn look_at_terminal(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            terminal.look();
        }
        self.pass_foreground();
    }

    fn signal(&mut self, id: RunId, signal: Signal) {
        let Some(pid) = self.children.main(id) else { return };
        if let Some(run) = self.children.get_mut(id) {
            run.killed |= signal == Signal::KILL;
        }
        let mut result = match self.config.signal_scope {
            Scope::Process => signals::send(pid, signal),
            Scope::Group => signals::send_to_group(pid, signal),
        };
        if result == Err(Errno::ESRCH) {
            // The main process may have left its group.
            result = signals::send(pid, signal);
        }
        self.journal.signalled(id, signal, result);
    }

    /// Notes who gets SIGTERM with the main process's group, and is not to get it again as a leftover.
    fn note_told(&mut self, id: RunId, signal: Signal) {
        if self.config.signal_scope == Scope::Process || signal != Signal::TERM {
            return;
        }
        // Not the run's, which is another one after MAINPID.
        let Some(group) = self.children.main(id) else { return };
        let tree = leftovers::tree(id, &self.children).unwrap_or_default();
        if let Some(run) = self.children.get_mut(id) {
            run.told = Told::new(&tree, group);
        }
    }

    fn signal_group(&self, id: RunId, signal: Signal) {
        if let Some(pid) = self.children.main(id) {
            let _ = signals::send_to_group(pid, signal);
        }
    }

    /// Signals the leftovers of a run. The answer counts them as they were before: their ends are events of their own.
    fn sweep(&mut self, id: RunId, signal: Signal) -> Event {
        if let Some(run) = self.children.get_mut(id) {
            run.sweeping = Some(signal);
        }
        let leftovers = self.leftovers(id);
        match &leftovers {
            Leftovers::Known(processes) => {
                // Apps quit hard on a second signal.
                let told = self.children.get(id).map(|run| &run.told).filter(|_| signal == Signal::TERM);
                let (told, others) = told.unwrap_or(&Told::default()).split(processes);
                self.journal.leftovers_told(id, &told);
                self.journal.sweep(id, signal, &others);
                for process in others {
                    self.journal.signalled(id, signal, signals::send(process.pid, signal));
                    // It would never see SIGTERM.
                    if process.stopped {
                        let _ = signals::send(process.pid, Signal::CONT);
                    }
                }
            }
            Leftovers::Group(group) => {
                self.journal.signalled(id, signal, signals::send_to_group(*group, signal));
                let _ = signals::send_to_group(*group, Signal::CONT);
            }
        }
        self.answer(id, &leftovers)
    }

    /// Looks again for leftovers of a run that is being swept.
    pub(super) fn count_leftovers(&mut self, id: RunId) -> Event {
        let leftovers = self.leftovers(id);
        let killing = self.children.get(id).is_some_and(|run| run.sweeping == Some(Signal::KILL));
        if let (true, Leftovers::Known(processes)) = (killing, &leftovers) {
            // Some may have been born after the first blow.
            for process in processes {
                let _ = signals::send(process.pid, Signal::KILL);
            }
        }
        self.answer(id, &leftovers)
    }

    fn leftovers(&self, id: RunId) -> Leftovers {
        if self.childless {
            return Leftovers::Known(Vec::new());
        }
        let group = self.children.get(id).map(|run| run.group).filter(|&group| signals::group_lives(group));
        let look = || leftovers::of(id, &self.children);
        // While one looks, a process may fork and end, and both be missed: what is not seen twice is not there.
        match (look().filter(|found| !found.is_empty()).or_else(look), group) {
            (None, Some(group)) => Leftovers::Group(group),
            (processes, _) => Leftovers::Known(processes.unwrap_or_default()),
        }
    }

    fn answer(&mut self, id: RunId, leftovers: &Leftovers) -> Event {
        let count = match leftovers {
            Leftovers::Known(processes) => processes.len(),
            Leftovers::Group(_) => 1,
        };
        if let Some(run) = self.children.get_mut(id) {
            run.left = match leftovers {
                Leftovers::Known(processes) => Some(processes.iter().map(|process| process.pid).collect()),
                Leftovers::Group(_) => None,
            };
        }
        Event::Leftovers(id, count)
    }

    pub(super) fn kill_everything(&self) {
        if self.init {
            return signals::kill_all();
        }
        match leftovers::all() {
            Some(processes) => {
                for process in processes {
                    let _ = signals::send(process.pid, Signal::KILL);
                }
            }
            None => {
                let runs = self.children.runs().flat_map(|run| [run.group, run.pid]);
                let checks = self.children.checks.iter().map(|check| check.pid);
                for group in runs.chain(checks).chain(self.children.hook) {
                    let _ = signals::send_to_group(group, Signal::KILL);
                }
            }
        }
    }

    fn start_hook(&mut self, signal: Option<Signal>, left: Option<Duration>) -> Option<Event> {
        let environment = self.environment.for_hook(signal, left);
        match hooks::start_pre_stop(self.config, &environment, self.directory.as_deref()) {
            Ok(pid) => {
                self.journal.hook_told = false;
                self.children.hook = Some(pid);
                self.childless = false;
                debug_assert_eq!(self.children.owner(pid), Owner::Hook);
                None
            }
            Err((failure, found)) => {
                self.journal.hook_failed(failure, found.as_deref());
                Some(Event::HookEnded)
            }
        }
    }
}
