//! The one poll loop: it turns what happens into events for the core, and the core's actions into system calls.
//!
//! It decides nothing, and once the first run has been spawned nothing here ends guard early: errors are logged and
//! become events.

mod act;
mod children;
mod clock;
mod environment;
mod hooks;
mod journal;
mod leftovers;

use crate::config::Config;
use crate::config::signal::Signal;
use crate::supervisor::{Ending, Event, RunId, Settings, Supervisor, Timestamp};
use crate::sys::Pid;
use crate::sys::cgroup::OomCounter;
use crate::sys::process::{self, Status, Usage, Wait};
use crate::sys::signals::Signals;
use crate::sys::spawn::Program;
use crate::sys::terminal::{Terminal, has_job_control};
use anyhow::Context;
use children::{Children, Owner};
use clock::Clock;
use environment::Environment;
use journal::Journal;
use nix::poll::PollTimeout;
use std::collections::VecDeque;
use std::ffi::CString;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;

/// Runs the app until there is nothing left to do, and returns guard's exit code. Errors only before the first spawn.
pub fn run(config: &Config) -> anyhow::Result<u8> {
    let signals = Signals::new().context("cannot take signals")?;
    let init = process::id() == 1;
    if !init {
        process::become_subreaper().context("cannot become a subreaper")?;
    }
    let mut runtime = Runtime::new(config, signals, init);
    runtime.journal.start();
    hooks::set_drain_file(config.drain_file.as_deref(), false);
    Ok(runtime.live())
}

struct Runtime<'a> {
    config: &'a Config,
    clock: Clock,
    supervisor: Supervisor,
    signals: Signals,
    children: Children,
    journal: Journal<'a>,
    program: Program,
    directory: Option<CString>,
    environment: Environment,
    terminal: Option<Terminal>,
    /// Found at the first spawn; `Some(None)` where there is none.
    oom_kills: Option<Option<OomCounter>>,
    /// guard is PID 1 of its namespace.
    init: bool,
    /// The last reap found no child at all, so there is no descendant either.
    childless: bool,
    /// SIGKILL went to everything.
    killing: bool,
    exit: Option<u8>,
}

impl<'a> Runtime<'a> {
    fn new(config: &'a Config, signals: Signals, init: bool) -> Runtime<'a> {
        let terminal = Terminal::at_stdin();
        Runtime {
            config,
            clock: Clock::start(),
            supervisor: Supervisor::new(Settings {
                restart: config.restart.clone(),
                stop: config.stop.clone(),
                signal_map: config.signal_map.clone(),
                scope: config.signal_scope,
                pre_stop: !config.pre_stop.is_empty(),
                instances: 1,
                init,
                terminal: terminal.is_some(),
                job_control: !init && terminal.is_some() && has_job_control(),
                seed: seed(),
            }),
            signals,
            children: Children::default(),
            journal: Journal::new(config),
            program: Program::new(&config.command, config.variable_of_the_app("PATH")),
            directory: config.chdir.as_ref().and_then(|path| CString::new(path.as_os_str().as_bytes()).ok()),
            environment: Environment::new(config),
            terminal,
            oom_kills: None,
            init,
            childless: false,
            killing: false,
            exit: None,
        }
    }

    fn live(&mut self) -> u8 {
        // A stop request that came before the first spawn means that there is none. Children may be there from before
        // guard was executed.
        let signals = self.signals.wait(PollTimeout::ZERO);
        self.reap();
        for signal in signals {
            self.dispatch(Event::Signal(signal));
        }
        self.dispatch(Event::Start);
        loop {
            if let Some(code) = self.exit {
                return code;
            }
            // Signals are taken before the reap, lest the wake-up for a later death is lost, and believed after it.
            let timeout = timeout(self.supervisor.next_deadline(), self.clock.now());
            let signals = self.signals.wait(timeout);
            self.reap();
            for signal in signals {
                self.receive(signal);
            }
            let now = self.clock.now();
            if self.supervisor.next_deadline().is_some_and(|deadline| deadline <= now) {
                self.dispatch(Event::Timeout);
            }
        }
    }

    /// Gives an event to the core, does what it says, and gives it the answers.
    fn dispatch(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.supervisor.handle(self.clock.now(), event) {
                match self.perform(action) {
                    // The answer to a spawn comes before anything else.
                    Some(answer @ (Event::Spawned(_) | Event::SpawnFailed(..))) => events.push_front(answer),
                    answer => events.extend(answer),
                }
            }
        }
    }

    /// Takes every dead child, and tells the core of those it knows.
    fn reap(&mut self) {
        let mut events = Vec::new();
        let mut any = false;
        self.childless = loop {
            match process::wait() {
                Wait::Ended(pid, status, usage) => {
                    any = true;
                    events.extend(self.ended(pid, status, usage));
                }
                Wait::Stopped(pid, signal) => events.extend(self.stopped(pid, signal)),
                Wait::Nothing => break false,
                Wait::NoChildren => break true,
            }
        };
        if self.childless {
            events.extend(self.lost());
        }
        let sweeping: Vec<_> = self.children.runs().filter(|run| run.sweeping.is_some()).map(|run| run.id).collect();
        for event in events {
            self.dispatch(event);
        }
        if any && !self.killing {
            for id in sweeping {
                let event = self.count_leftovers(id);
                self.dispatch(event);
            }
        }
        if self.killing && self.childless {
            self.dispatch(Event::NothingLeft);
        } else if self.killing && any {
            self.kill_everything();
        }
    }

    fn ended(&mut self, pid: Pid, status: Status, usage: Usage) -> Option<Event> {
        match self.children.owner(pid) {
            Owner::Run(id) => {
                let run = self.children.get_mut(id)?;
                run.reaped = true;
                let oom_kills = || self.oom_kills.as_ref()?.as_ref()?.read();
                let struck = || oom_kills().zip(run.oom_kills).is_some_and(|(now, before)| now > before);
                let ending = match status {
                    Status::Exited(code) => Ending::Exited(code),
                    Status::Signaled(Signal::KILL) if !run.killed && struck() => Ending::OutOfMemory,
                    Status::Signaled(signal) => Ending::Signaled(signal),
                };
                let uptime = self.clock.now().since(run.started);
                self.journal.exit(id, pid, ending, uptime, &usage);
                self.pass_foreground();
                Some(Event::Exited(id, ending))
            }
            Owner::Hook => {
                self.children.hook = None;
                self.journal.hook_ended(status);
                Some(Event::HookEnded)
            }
            Owner::Nobody => {
                log::debug!(pid; "reaped");
                None
            }
        }
    }

    fn stopped(&self, pid: Pid, signal: Signal) -> Option<Event> {
        match self.children.owner(pid) {
            // SIGSTOP is somebody's will; the others come from a terminal.
            Owner::Run(id) if signal == Signal::TSTP => Some(Event::Suspended(id)),
            Owner::Run(id) if signal != Signal::STOP => self.starved(id, pid, signal),
            Owner::Run(_) | Owner::Hook | Owner::Nobody => None,
        }
    }

    /// A run wants the terminal from the background (TTIN, TTOU). To continue one that cannot have it would only stop
    /// it again, and so on.
    fn starved(&self, id: RunId, pid: Pid, signal: Signal) -> Option<Event> {
        let has_it = self.children.newest_main() == Some(pid)
            && self.terminal.as_ref().is_some_and(|terminal| !terminal.is_held() || terminal.give(pid));
        if !has_it {
            log::warn!(run = id.number, signal:%, msg = "stopped: another has the terminal"; "stopped");
        }
        has_it.then_some(Event::Suspended(id))
    }

    /// Runs that must have ended though nobody saw it: there is no child left (ECHILD, `wait(2)`).
    fn lost(&mut self) -> Vec<Event> {
        let lost: Vec<_> = self.children.runs().filter(|run| !run.reaped).map(|run| run.id).collect();
        for &id in &lost {
            if let Some(run) = self.children.get_mut(id) {
                run.reaped = true;
            }
            log::error!(run = id.number; "lost");
        }
        lost.into_iter().map(|id| Event::Exited(id, Ending::Exited(1))).collect()
    }

    fn receive(&mut self, signal: Signal) {
        // A shell may have put guard into the foreground again: the app belongs there.
        if signal == Signal::CONT {
            self.look_at_terminal();
        }
        self.dispatch(Event::Signal(signal));
    }
}

/// Chance for the jitter, from std's randomly keyed hasher.
fn seed() -> u64 {
    RandomState::new().hash_one(process::id())
}

/// Rounded up, since down would spin, and no more than poll takes, 24 days (`poll(2)`).
fn timeout(deadline: Option<Timestamp>, now: Timestamp) -> PollTimeout {
    let Some(deadline) = deadline else { return PollTimeout::NONE };
    let milliseconds = deadline.since(now).as_nanos().div_ceil(1_000_000);
    let milliseconds = i32::try_from(milliseconds).unwrap_or(i32::MAX);
    PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_timeout_is_rounded_up_and_bounded() {
        let at = |micros| Timestamp(Duration::from_micros(micros));
        assert_eq!(timeout(None, at(0)), PollTimeout::NONE);
        assert_eq!(timeout(Some(at(1)), at(0)).as_millis(), Some(1));
        assert_eq!(timeout(Some(at(1_001)), at(0)).as_millis(), Some(2));
        assert_eq!(timeout(Some(at(1)), at(5_000)).as_millis(), Some(0));
        assert_eq!(timeout(Some(Timestamp(Duration::MAX)), at(0)), PollTimeout::MAX);
    }
}
