//! Health checks as children: how one is started, ended, and what it said.

use super::children::Check;
use super::doors::DoorId;
use super::{Runtime, hooks};
use crate::config::target::{Server, Target};
use crate::config::{HealthCheck, duration};
use crate::doors::health::Health;
use crate::signal::Signal;
use crate::supervisor::{Event, RunId};
use crate::sys::Pid;
use crate::sys::process::Status;
use crate::sys::spawn::{Output, Program};
use std::os::fd::AsFd;

impl Runtime<'_> {
    /// Starts a check of a run in a group of its own; a check that cannot be started has failed.
    pub(super) fn start_check(&mut self, id: RunId) -> Option<Event> {
        let config = self.config;
        let program = match config.health_check.as_ref()? {
            HealthCheck::Probe(Target { server: Server::Network(_, port), .. })
                if self.holding.is_others_port(id, *port) =>
            {
                // The old run of a reload would answer, or another instance's.
                let said = format!("the app does not listen on port {port}");
                self.journal.check_failed(id, Status::Exited(1), false, said);
                return Some(Event::Checked(id, false));
            }
            HealthCheck::Probe(target) => {
                let timeout = duration::show(config.health.timeout);
                let target = target.to_string();
                let mut words = vec!["probe", &target, "--timeout", &timeout];
                words.extend(config.health_host.iter().flat_map(|host| ["--host", host]));
                Program::of_guard(&words)
            }
            HealthCheck::Exec(words) => hooks::program(config, words),
        };
        // Without a pipe it runs all the same, and what it says is lost.
        let (output, writer) = Health::open().ok().unzip();
        let output = output.and_then(|output| self.register(DoorId::Check(id), output).ok());
        let environment = self.launch.environment.for_run(id, self.supervisor.instance_count());
        let said = writer.as_ref().map_or(Output::Nowhere, |writer| Output::To(writer.as_fd()));
        match self.start_beside(&program, &environment, said) {
            Ok(pid) => {
                self.children.checks.push(Check { run: id, pid, output, said: String::new(), killed: false });
                None
            }
            Err(problem) => {
                self.journal.check_not_started(id, &problem);
                Some(Event::Checked(id, false))
            }
        }
    }

    pub(super) fn kill_check(&mut self, id: RunId) {
        if let Some(check) = self.children.check_mut(id) {
            check.killed = true;
            let pid = check.pid;
            self.signal_tree(pid, Signal::KILL);
        }
    }

    /// A check was reaped.
    pub(super) fn check_ended(&mut self, id: RunId, pid: Pid, status: Status) -> Option<Event> {
        let mut check = self.children.take_check(pid)?;
        // Its last words may still be in the pipe.
        check.read_output();
        let passed = status == Status::Exited(0) && !check.killed;
        if status == Status::Signaled(Signal::KILL) && !check.killed {
            // It may have been the victim of the out-of-memory killer itself.
            self.take_oom_kill();
        }
        if passed {
            self.journal.check_passed(id);
        } else {
            self.journal.check_failed(id, status, check.killed, check.said);
        }
        Some(Event::Checked(id, passed))
    }
}
