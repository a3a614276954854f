//! The core's actions as system calls.

use super::children::{Owner, RunProcess};
use super::{Runtime, hooks, leftovers};
use crate::config::Scope;
use crate::config::signal::Signal;
use crate::supervisor::{Action, Ending, Event, Notice, RunId};
use crate::sys::cgroup::OomCounter;
use crate::sys::procfs::Process;
use crate::sys::spawn::Start;
use crate::sys::{Errno, Pid, process, signals};

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
            Action::Freeze(id) => self.signal_group(id, Signal::STOP),
            Action::Thaw(id) => {
                self.pass_foreground();
                self.signal_group(id, Signal::CONT);
            }
            Action::Suspend => process::suspend(),
            Action::Sweep(id, signal) => return Some(self.sweep(id, signal)),
            Action::Draining(drains) => hooks::set_drain_file(self.config.drain_file.as_deref(), drains),
            Action::StartHook => return self.start_hook(),
            Action::SignalHook(signal) => {
                if let Some(pid) = self.children.hook {
                    let _ = signals::send_to_group(pid, signal);
                }
            }
            Action::KillEverything => {
                self.killing = true;
                self.kill_everything();
                return self.childless.then_some(Event::NothingLeft);
            }
            Action::Report(notice) => {
                if let Notice::Unkillable { run, .. } = notice {
                    self.children.forget(run);
                }
                self.journal.notice(notice);
            }
            Action::Exit(code) => {
                self.restore_terminal();
                self.journal.end(code);
                self.exit = Some(code);
            }
        }
        None
    }

    fn spawn(&mut self, run: RunId, restarts: u32, last: Option<Ending>) -> Event {
        let environment = self.environment.for_run(run, restarts, last);
        let start = Start {
            environment: &environment,
            directory: self.directory.as_deref(),
            foreground: self.restore_terminal(),
            die_with_guard: !self.init,
        };
        let oom_kills = self.oom_kills.as_ref().and_then(OomCounter::read);
        match self.program.spawn(&start) {
            Ok(pid) => {
                let started = self.clock.now();
                self.children.add(RunProcess { id: run, pid, started, oom_kills, reaped: false, sweeping: false });
                self.childless = false;
                log::debug!(run = run.number, pid; "spawn");
                Event::Spawned(run)
            }
            Err(failure) => {
                let found = self.program.found(self.config.chdir.as_deref());
                Event::SpawnFailed(run, self.journal.spawn_failed(run, failure, found.as_deref()))
            }
        }
    }

    /// Sets the terminal's modes to what they were, if guard holds the terminal; `false` if it does not.
    fn restore_terminal(&self) -> bool {
        let terminal = self.terminal.as_ref().filter(|terminal| terminal.is_ours());
        terminal.inspect(|terminal| terminal.restore()).is_some()
    }

    /// Puts the app into the foreground, if guard holds the terminal.
    pub(super) fn pass_foreground(&self) {
        let main = self.children.runs().find(|run| !run.reaped);
        if let (Some(terminal), Some(main)) = (&self.terminal, main)
            && terminal.is_ours()
        {
            terminal.give(main.pid);
        }
    }

    fn signal(&self, id: RunId, signal: Signal) {
        let Some(pid) = self.children.main(id) else { return };
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

    fn signal_group(&self, id: RunId, signal: Signal) {
        if let Some(pid) = self.children.main(id) {
            let _ = signals::send_to_group(pid, signal);
        }
    }

    /// Signals the leftovers of a run. The answer counts them as they were before: their ends are events of their own.
    fn sweep(&mut self, id: RunId, signal: Signal) -> Event {
        if let Some(run) = self.children.get_mut(id) {
            run.sweeping = true;
        }
        let leftovers = self.leftovers(id);
        // A stopped process would never see SIGTERM.
        let wake = (signal != Signal::KILL).then_some(Signal::CONT);
        match &leftovers {
            Leftovers::Known(processes) => {
                if !processes.is_empty() {
                    self.journal.sweep(id, signal, processes);
                }
                for process in processes {
                    for signal in [signal].into_iter().chain(wake) {
                        self.journal.signalled(id, signal, signals::send(process.pid, signal));
                    }
                }
            }
            Leftovers::Group(group) => {
                for signal in [signal].into_iter().chain(wake) {
                    let _ = signals::send_to_group(*group, signal);
                }
            }
        }
        self.answer(id, &leftovers)
    }

    /// Looks again for leftovers of a run that is being swept.
    pub(super) fn count_leftovers(&mut self, id: RunId) -> Event {
        let leftovers = self.leftovers(id);
        self.answer(id, &leftovers)
    }

    fn leftovers(&self, id: RunId) -> Leftovers {
        if self.childless {
            return Leftovers::Known(Vec::new());
        }
        let group = self.children.get(id).map(|run| run.pid).filter(|&group| signals::group_lives(group));
        match (leftovers::of(id, &self.children), group) {
            (None, Some(group)) => Leftovers::Group(group),
            (processes, _) => Leftovers::Known(processes.unwrap_or_default()),
        }
    }

    /// A run without leftovers is forgotten: nothing of it can come back.
    fn answer(&mut self, id: RunId, leftovers: &Leftovers) -> Event {
        let count = match leftovers {
            Leftovers::Known(processes) => processes.len(),
            Leftovers::Group(_) => 1,
        };
        if count == 0 {
            self.children.forget(id);
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
                for group in self.children.runs().map(|run| run.pid).chain(self.children.hook) {
                    let _ = signals::send_to_group(group, Signal::KILL);
                }
            }
        }
    }

    fn start_hook(&mut self) -> Option<Event> {
        match hooks::start_pre_stop(self.config, &self.environment, self.directory.as_deref()) {
            Ok(pid) => {
                self.children.hook = Some(pid);
                self.childless = false;
                debug_assert_eq!(self.children.owner(pid), Owner::Hook);
                None
            }
            Err(failure) => {
                self.journal.hook_failed(failure);
                Some(Event::HookEnded)
            }
        }
    }
}
