//! What an operator asks over the control socket, and what becomes of it.

use super::Runtime;
use crate::doors::control::Client;
use crate::doors::wire::{Reply, Request};
use crate::report::{
    self,
    status::{self, GuardStatus, InstanceStatus},
};
use crate::supervisor::{Event, Notice};
use crate::sys::{process, socket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Clients that may wait for an outcome at a time.
const MOST_WAITING: usize = 64;

/// How long guard stays after a stop for its clients to hear of it.
const FAREWELL: Duration = Duration::from_millis(100);

/// More than a restart needs besides its timeouts: the sweep of leftovers, and what SIGKILL takes.
const SLACK: Duration = Duration::from_secs(5);

/// Somebody who waits for an outcome.
pub(super) struct Waiting {
    request: Request,
    client: Client,
    /// Readable when the client has ended; `None` where the kernel cannot tell.
    process: Option<OwnedFd>,
}

impl Runtime<'_> {
    pub(super) fn serve(&mut self, request: Request, client: Client) {
        let reply = match request {
            Request::Ping => Reply::Yes(format!("{} {}", process::id(), self.app())),
            Request::Ready => match self.supervisor.readiness() {
                Ok(()) => Reply::Yes("ready".to_owned()),
                Err(why) => Reply::No(format!("not ready: {why}")),
            },
            Request::Health if self.supervisor.gave_up() => Reply::No("guard has given up".to_owned()),
            Request::Health => Reply::Yes("alive".to_owned()),
            Request::Status => Reply::Text(status::table(&self.status())),
            Request::StatusJson => Reply::Text(status::json(&self.status())),
            Request::Stop | Request::Restart => return self.begin(request, client),
        };
        self.reply(&client, &reply);
    }

    /// Begins what takes its time; the outcome follows.
    fn begin(&mut self, request: Request, client: Client) {
        self.waiting.retain(|waiting| !waiting.process.as_ref().is_some_and(has_ended));
        if self.waiting.len() >= MOST_WAITING {
            return self.reply(&client, &Reply::No("too many are waiting already".to_owned()));
        }
        if self.killing && request == Request::Stop {
            // Nothing is left to wait for, and nobody would tell.
            return self.reply(&client, &Reply::Yes(format!("stopped: {}", self.journal.reason())));
        }
        let stop = &self.config.stop;
        let (within, what, event) = if request == Request::Stop {
            self.journal.cause.get_or_insert_with(|| "asked to stop".to_owned());
            (stop.timeout, "stop", Event::StopRequested)
        } else {
            let ready = self.config.ready.timeout;
            (Some(stop.restart_timeout.saturating_add(ready)), "restart", Event::RestartRequested)
        };
        let within = within.map(|time| time.saturating_add(SLACK));
        self.reply(&client, &Reply::Wait(within, String::new()));
        let process = process::watch_process(client.pid).ok();
        log::info!(request = what, pid = client.pid; "asked");
        self.waiting.push(Waiting { request, client, process });
        self.dispatch(event);
    }

    /// Tells those who wait for a restart what became of it.
    pub(super) fn tell_of_restart(&mut self, notice: Notice) {
        let reply = if let Notice::Restarted { run } = notice {
            Reply::Yes(format!("restarted: run {} is ready", run.number))
        } else if let Notice::RestartFailed { why } = notice {
            Reply::No(format!("not restarted: {why}"))
        } else {
            return;
        };
        let (told, rest) = self.waiting.drain(..).partition(|waiting| waiting.request == Request::Restart);
        self.waiting = rest;
        let told: Vec<Waiting> = told;
        told.iter().for_each(|waiting| self.reply(&waiting.client, &reply));
    }

    /// Everything is about to be killed, those who wait for the stop among them: they are told, and get a moment.
    pub(super) fn bid_farewell(&mut self) {
        let outcome = Reply::Yes(format!("stopped: {}", self.journal.reason()));
        for waiting in &self.waiting {
            self.reply(&waiting.client, &outcome);
        }
        let until = self.clock.now().after(FAREWELL);
        let mut processes: Vec<OwnedFd> = self.waiting.drain(..).filter_map(|waiting| waiting.process).collect();
        loop {
            let left = until.since(self.clock.now());
            processes.retain(|process| !has_ended(process));
            let Some(process) = processes.first() else { return };
            if left.is_zero() || socket::wait_readable(&[process.as_fd()], left).is_err() {
                return;
            }
        }
    }

    fn reply(&self, client: &Client, reply: &Reply) {
        if let Some(control) = &self.control {
            control.answer(client, reply);
        }
    }

    /// The command, of which a datagram may not hold all.
    fn app(&self) -> String {
        report::shorten(self.config.command_line())
    }

    fn status(&self) -> GuardStatus {
        let now = self.clock.now();
        let instances = self.supervisor.instances().enumerate().map(|(index, instance)| {
            let process = instance.run.and_then(|id| self.children.get(id));
            let tree = instance.run.and_then(|id| super::leftovers::tree(id, &self.children)).unwrap_or_default();
            InstanceStatus {
                index,
                run: instance.run.map(|id| id.number),
                pid: process.filter(|process| !process.reaped).map(|process| process.pid),
                state: instance.state,
                uptime: process.filter(|process| !process.reaped).map(|process| now.since(process.started)),
                next_in: instance.until.map(|until| until.since(now)),
                restarts: instance.restarts,
                last_exit: instance.last.map(|last| last.to_string()),
                memory: tree.iter().map(|process| process.memory()).sum(),
                cpu: tree.iter().map(|process| process.cpu()).sum(),
                reloading: process.is_some_and(|process| process.reloading),
                says: process.map(|process| process.status.clone()).unwrap_or_default(),
            }
        });
        GuardStatus {
            version: env!("CARGO_PKG_VERSION"),
            pid: process::id(),
            uptime: now.0,
            app: self.app(),
            readiness: self.supervisor.readiness(),
            stopping: self.supervisor.is_ending(),
            refused: self.refused,
            instances: instances.collect(),
        }
    }
}

/// What a descriptor of [`process::watch_process`] tells.
fn has_ended(process: &OwnedFd) -> bool {
    socket::wait_readable(&[process.as_fd()], Duration::ZERO).unwrap_or(true)
}
