//! Requests of operators over the control socket, and their outcomes.

use super::doors::DoorId;
use super::{RETRY, Runtime};
use crate::doors::control::{Client, Control};
use crate::doors::wire::{Reply, Request};
use crate::report::{
    self,
    status::{self, GuardStatus, InstanceStatus, OldRun},
};
use crate::supervisor::{Event, InPlace, Outcome, RunId, Timestamp};
use crate::sys::procfs::Usage;
use crate::sys::{Pid, process, socket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Clients that may wait for an outcome at a time.
const MOST_WAITING: usize = 64;

/// How long guard stays after a stop, so that its clients read the outcome.
const TIME_TO_READ: Duration = Duration::from_millis(100);

/// More than a restart needs besides its timeouts: the sweep of leftovers, and what SIGKILL takes.
const SLACK: Duration = Duration::from_secs(5);

/// The door for operators, and the clients that wait for an outcome.
#[derive(Default)]
pub(super) struct Operator {
    pub(super) control: Option<Control>,
    /// When guard tries again to open it.
    pub(super) open_control_at: Option<Timestamp>,
    waiting: Vec<Waiting>,
    /// Clients that have just got their answer, each readable when it has ended; `None` where the kernel cannot watch it.
    answered: Vec<(Timestamp, Option<OwnedFd>)>,
    /// Datagrams that guard refused, since their senders may not send them.
    pub(super) refused: u64,
    /// A stranger's was among them, and the log says so.
    pub(super) has_refused: bool,
}

/// A client that waits for an outcome.
pub(super) struct Waiting {
    request: Request,
    client: Client,
    /// Readable when the client has ended; `None` where the kernel cannot watch it.
    process: Option<OwnedFd>,
    /// The client waits for the reload that follows the one under way.
    is_queued: bool,
    /// The number of instances when it asked, and the number that it asked for.
    scales: Option<(u32, u32)>,
}

impl Operator {
    /// Those who wait for an outcome.
    pub(super) fn clients(&self) -> impl Iterator<Item = Pid> {
        self.waiting.iter().map(|waiting| waiting.client.pid)
    }

    /// When the first of those that were answered has had its time to read the answer.
    pub(super) fn answer_read_by(&self) -> Option<Timestamp> {
        self.answered.first().map(|(at, _)| at.after(TIME_TO_READ))
    }

    /// guard waits no longer for clients that have had their time to read the answer, or have ended.
    pub(super) fn forget_answered(&mut self, now: Timestamp) {
        self.answered.retain(|(at, process)| {
            let reads = process.as_ref().is_none_or(|process| !socket::is_readable(process.as_fd()));
            now.since(*at) < TIME_TO_READ && reads
        });
    }
}

impl Waiting {
    /// Whether what it asked for has come where there are so many instances: others may have asked for more since then, or
    /// for fewer.
    fn is_content(&self, instances: u32) -> bool {
        self.scales.is_none_or(|(from, to)| if to >= from { instances >= to } else { instances <= to })
    }
}

impl Runtime<'_> {
    /// Opens the door that is not a run's. Without it guard cannot be asked, and runs all the same; it tries again later.
    pub(super) fn open_control(&mut self) {
        let again = self.operator.open_control_at.take().is_some();
        match Control::open() {
            Ok(control) => self.operator.control = self.register(DoorId::Control, control).ok(),
            Err(error) if !again => log::warn!(error:%; "control-socket"),
            Err(_) => {}
        }
        if self.operator.control.is_none() {
            self.operator.open_control_at = Some(self.clock.now().after(RETRY));
        }
    }

    pub(super) fn serve(&mut self, request: Request, client: Client) {
        let reply = match request {
            Request::Ping => Reply::Yes(format!("{} {}", process::id(), self.app())),
            Request::Ready => self.readiness().into(),
            Request::Health => self.health().into(),
            Request::Status => return self.tell_status(&client, status::table),
            Request::Settings => Reply::Text(report::settings::table(self.config, self.supervisor.asked())),
            Request::StatusJson => return self.tell_status(&client, status::json),
            Request::Stop | Request::Restart | Request::Reload | Request::Scale(_) => {
                return self.begin_request(request, client);
            }
        };
        self.reply(&client, &reply);
    }

    /// Of a thousand instances not everything fits into the answer.
    fn tell_status(&mut self, client: &Client, show: fn(&GuardStatus) -> String) {
        let mut status = self.status();
        let Some(control) = &self.operator.control else { return };
        if control.answer(client, &Reply::Text(show(&status))) {
            return;
        }
        status.shorten();
        if !control.answer(client, &Reply::Text(show(&status))) {
            control.answer(client, &Reply::No("the status is longer than net.core.wmem_max allows".to_owned()));
        }
    }

    /// Begins what takes its time; the outcome follows.
    fn begin_request(&mut self, request: Request, client: Client) {
        self.operator
            .waiting
            .retain(|waiting| !waiting.process.as_ref().is_some_and(|process| socket::is_readable(process.as_fd())));
        if self.operator.waiting.len() >= MOST_WAITING {
            return self.reply(&client, &Reply::No("too many are waiting already".to_owned()));
        }
        if self.ending.killing && request == Request::Stop {
            // The outcome is known, and nothing will come that concludes the stop.
            return self.reply(&client, &Reply::Yes(format!("stopped: {}", self.journal.reason())));
        }
        let stop = &self.config.stop;
        // The runs of one instance after the other in a reload, at once in a restart.
        let replace = stop.restart_timeout.saturating_add(self.config.ready.timeout).saturating_add(SLACK);
        let instances = u32::try_from(self.supervisor.instance_count()).unwrap_or(u32::MAX);
        let is_queued = request == Request::Reload && self.supervisor.is_reloading();
        let mut scales = None;
        let (within, what, event) = match request {
            Request::Stop => {
                if !self.supervisor.is_ending() {
                    self.journal.cause.get_or_insert_with(|| "asked to stop".to_owned());
                }
                (stop.timeout.map(|timeout| timeout.saturating_add(SLACK)), "stop", Event::StopRequested)
            }
            Request::Restart => (Some(replace), "restart", Event::RestartRequested),
            Request::Reload => {
                let reloads = instances.saturating_mul(if is_queued { 2 } else { 1 });
                (Some(replace.saturating_mul(reloads)), "reload", Event::ReloadRequested)
            }
            Request::Scale(scale) => {
                match self.supervisor.scale_target(scale) {
                    Ok((from, to)) => scales = Some(from).zip(to),
                    Err(why) => return self.reply(&client, &Reply::No(format!("not scaled: {why}"))),
                }
                (Some(replace), "scale", Event::ScaleRequested(scale))
            }
            Request::Ping
            | Request::Ready
            | Request::Health
            | Request::Status
            | Request::StatusJson
            | Request::Settings => return,
        };
        self.reply(&client, &Reply::Wait(within));
        let process = process::watch_process(client.pid).ok();
        log::info!(request = what, pid = client.pid; "asked");
        self.operator.waiting.push(Waiting { request, client, process, is_queued, scales });
        self.journal.is_asked = true;
        self.dispatch(event);
        self.journal.is_asked = false;
    }

    /// Tells the clients that wait for this what became of it. The next reload is then the one that others wait for.
    pub(super) fn conclude(&mut self, request: InPlace, outcome: Outcome) {
        let (request, done) = match request {
            InPlace::Restart => (Request::Restart, "restarted"),
            InPlace::Reload => (Request::Reload, "reloaded"),
        };
        let reply = match outcome {
            Ok(_) if self.journal.instances > 1 => Reply::Yes(format!("{done}: the new runs are ready")),
            Ok(run) => Reply::Yes(format!("{done}: run {} is ready", run.number)),
            Err(why) => Reply::No(format!("not {done}: {why}")),
        };
        let is_answered = |waiting: &Waiting| waiting.request == request && !waiting.is_queued;
        let (answered, mut rest): (Vec<_>, Vec<_>) = self.operator.waiting.drain(..).partition(is_answered);
        rest.iter_mut().filter(|waiting| waiting.request == request).for_each(|waiting| waiting.is_queued = false);
        self.operator.waiting = rest;
        answered.into_iter().for_each(|waiting| self.answer(waiting, &reply));
    }

    /// Tells the clients that wait for another number of instances what became of it.
    pub(super) fn conclude_scale(&mut self, outcome: Result<u32, &'static str>) {
        let is_answered = |waiting: &Waiting| matches!(waiting.request, Request::Scale(_));
        let (answered, rest): (Vec<_>, Vec<_>) = self.operator.waiting.drain(..).partition(is_answered);
        self.operator.waiting = rest;
        for waiting in answered {
            let reply = match outcome {
                Ok(instances) => {
                    let noun = if instances == 1 { "instance" } else { "instances" };
                    match waiting.is_content(instances) {
                        true => Reply::Yes(format!("scaled: {instances} {noun}")),
                        false => Reply::No(format!("not scaled: others have asked for {instances} meanwhile")),
                    }
                }
                Err(why) => Reply::No(format!("not scaled: {why}")),
            };
            self.answer(waiting, &reply);
        }
    }

    fn answer(&mut self, waiting: Waiting, reply: &Reply) {
        self.reply(&waiting.client, reply);
        // What it has asked for may lead to guard's end in a moment.
        self.operator.answered.push((self.clock.now(), waiting.process));
    }

    /// Everything is about to be killed, the clients that have waited among them: they get their answer, and a moment to read it,
    /// which the runs do not get.
    pub(super) fn answer_waiting(&mut self) {
        let outcome = Reply::Yes(format!("stopped: {}", self.journal.reason()));
        for waiting in std::mem::take(&mut self.operator.waiting) {
            self.answer(waiting, &outcome);
        }
        self.operator.forget_answered(self.clock.now());
        if self.operator.answered.is_empty() {
            return;
        }
        self.kill_known();
        let until = self.clock.now().after(TIME_TO_READ);
        loop {
            let now = self.clock.now();
            self.operator.forget_answered(now);
            let mut seen = self.operator.answered.iter().filter_map(|(_, process)| process.as_ref());
            let (first, left) = (seen.next().map(AsFd::as_fd), until.since(now));
            let is_over = self.operator.answered.is_empty() || left.is_zero();
            if is_over || socket::wait_readable(first.as_slice(), left).is_err() {
                return;
            }
        }
    }

    fn reply(&self, client: &Client, reply: &Reply) {
        if let Some(control) = &self.operator.control {
            control.answer(client, reply);
        }
    }

    /// The command, of which a datagram may not hold all.
    fn app(&self) -> String {
        report::shorten(self.config.command_line())
    }

    pub(super) fn status(&mut self) -> GuardStatus {
        let usage = self.usage();
        let now = self.clock.now();
        let instances = self.supervisor.instances().map(|instance| {
            let process = instance.run.and_then(|id| self.children.get(id));
            let used_by =
                |run| usage.iter().find(|(id, _)| Some(*id) == run).map_or_else(Usage::default, |(_, used)| *used);
            let used = used_by(instance.run);
            InstanceStatus {
                number: instance.number,
                run: instance.run.map(|id| id.number),
                runs: instance.runs,
                pid: process.filter(|process| !process.reaped).map(|process| process.pid),
                state: instance.state,
                ending: instance.ending,
                old: instance.old.map(|old| {
                    let used = used_by(Some(RunId { instance: instance.number, number: old.number }));
                    let (memory, cpu) = (used.memory, used.cpu);
                    OldRun { number: old.number, state: old.state, ending: old.ending, memory, cpu }
                }),
                uptime: process.filter(|process| !process.reaped).map(|process| now.since(process.started)),
                next_in: instance.until.map(|until| until.since(now)),
                restarts: instance.restarts,
                last_exit: instance.last.map(|last| last.to_string()),
                last_run: self.journal.last_run(instance.number).to_owned(),
                memory: used.memory,
                cpu: used.cpu,
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
            refused: self.operator.refused,
            held: self.held.sockets().into_iter().chain(self.holding.sockets()).collect(),
            desired: self.supervisor.desired(),
            instances: instances.collect(),
        }
    }
}
