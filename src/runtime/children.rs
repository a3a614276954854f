//! guard's children: each pid is registered with its owner before the next reap.

use super::leftovers::Receivers;
use super::sweep::Sweep;
use crate::doors::Door;
use crate::doors::health::Health;
use crate::doors::node_ipc::NodeIpc;
use crate::doors::notify::Notify;
use crate::signal::Signal;
use crate::supervisor::{RunId, Timestamp};
use crate::sys::Pid;
use crate::sys::process::{Status, Usage};
use std::time::Duration;

/// What a reaped pid was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Run(RunId),
    /// A health check of this run.
    Check(RunId),
    /// The command of this run's diagnosis.
    Diagnosis(RunId),
    Hook,
    /// A copy of guard.
    Copy,
    /// An orphan that was handed to guard.
    Nobody,
}

/// The process of a run, from its spawn until its last leftover has ended.
pub(super) struct RunProcess {
    pub(super) id: RunId,
    /// The main process.
    pub(super) pid: Pid,
    /// The process group that the run was started with. Where it shares guard's, the group that its main process may have
    /// made since.
    pub(super) group: Pid,
    pub(super) started: Timestamp,
    /// When guard last measured the memory of its processes, and how much that was, in bytes (GUARD_MAX_MEMORY).
    pub(super) measured: (Timestamp, u64),
    /// The last measurement was above GUARD_MAX_MEMORY, and the log says so.
    pub(super) limit_logged: bool,
    /// The most CPU time that its processes have had together at a look.
    pub(super) most_cpu: Duration,
    /// The main process has been reaped: its pid means nothing any more, its group still may.
    pub(super) reaped: bool,
    /// The main process got SIGKILL from guard, since its time was over.
    pub(super) killed: bool,
    /// The last signal that guard has passed on to it.
    pub(super) passed_on: Option<Signal>,
    /// The processes that got SIGTERM as the stop signal, with the main process's group.
    pub(super) receivers: Receivers,
    /// Its leftovers have got a signal, and guard waits for their end.
    pub(super) sweep: Option<Sweep>,
    pub(super) notify: Option<Notify>,
    pub(super) channel: Option<NodeIpc>,
    /// Its last STATUS (`sd_notify(3)`).
    pub(super) status: String,
    pub(super) reloading: bool,
    /// A datagram to its socket was too long, and the log says so.
    pub(super) was_too_long: bool,
    /// guard refused a datagram to its socket, and the log says so.
    pub(super) has_refused: bool,
    /// The user of its main process, once guard had to know.
    pub(super) user: Option<u32>,
    /// The process that the main process has named its successor (MAINPID, `sd_notify(3)`).
    pub(super) successor: Option<Successor>,
}

/// A daemon that a main process has started to take its place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Successor {
    Alive(Pid),
    /// It was reaped before the main process ended.
    Ended(Status, Usage),
}

/// A health check that runs. One that got SIGKILL may outlive its run by a moment.
pub(super) struct Check {
    pub(super) run: RunId,
    pub(super) pid: Pid,
    pub(super) output: Option<Health>,
    /// What it has said so far.
    pub(super) said: String,
    /// It took too long.
    pub(super) killed: bool,
}

impl RunProcess {
    /// A run whose main process has just been started.
    pub(super) fn new(id: RunId, pid: Pid, started: Timestamp) -> RunProcess {
        RunProcess {
            id,
            pid,
            group: pid,
            started,
            measured: (started, 0),
            limit_logged: false,
            most_cpu: Duration::ZERO,
            reaped: false,
            killed: false,
            passed_on: None,
            receivers: Receivers::default(),
            sweep: None,
            notify: None,
            channel: None,
            status: String::new(),
            reloading: false,
            was_too_long: false,
            has_refused: false,
            user: None,
            successor: None,
        }
    }
}

impl Check {
    /// Reads what it says. A closed pipe is let go, or it would wake guard again and again.
    pub(super) fn read_output(&mut self) {
        if let Some(output) = &mut self.output {
            let closed = output.receive().closed;
            self.said = output.text();
            self.output = self.output.take().filter(|_| !closed);
        }
    }
}

/// guard's children that have not been reaped, and the runs until they are forgotten.
///
/// guard adds each pid before the next reap, and forgets a run when the core says so.
#[derive(Default)]
pub(super) struct Children {
    runs: Vec<RunProcess>,
    pub(super) hook: Option<Pid>,
    /// Commands of GUARD_DIAGNOSE that have not been reaped.
    pub(super) diagnoses: Vec<(RunId, Pid)>,
    /// Health checks that have not been reaped.
    pub(super) checks: Vec<Check>,
    /// Copies of guard that have not been reaped.
    pub(super) copies: Vec<Pid>,
    /// guard's own process group, where the runs share it.
    pub(super) shared_group: Option<Pid>,
}

impl Children {
    /// None yet. `shared_group` is guard's own process group, where the runs share it.
    pub(super) fn new(shared_group: Option<Pid>) -> Children {
        Children { shared_group, ..Children::default() }
    }

    pub(super) fn add(&mut self, run: RunProcess) {
        self.runs.push(run);
    }

    /// Forgets a run of which nothing is left, and gives back what was known of it.
    pub(super) fn forget(&mut self, id: RunId) -> Option<RunProcess> {
        let index = self.runs.iter().position(|run| run.id == id)?;
        Some(self.runs.remove(index))
    }

    /// The health check of a run.
    pub(super) fn check_mut(&mut self, id: RunId) -> Option<&mut Check> {
        self.checks.iter_mut().find(|check| check.run == id)
    }

    /// Takes a health check that was reaped.
    pub(super) fn take_check(&mut self, pid: Pid) -> Option<Check> {
        let index = self.checks.iter().position(|check| check.pid == pid)?;
        Some(self.checks.remove(index))
    }

    pub(super) fn get(&self, id: RunId) -> Option<&RunProcess> {
        self.runs.iter().find(|run| run.id == id)
    }

    pub(super) fn get_mut(&mut self, id: RunId) -> Option<&mut RunProcess> {
        self.runs.iter_mut().find(|run| run.id == id)
    }

    /// The pid of a main process that lives.
    pub(super) fn main(&self, id: RunId) -> Option<Pid> {
        self.get(id).filter(|run| !run.reaped).map(|run| run.pid)
    }

    /// Whether a main process lives.
    pub(super) fn any_main(&self) -> bool {
        self.runs.iter().any(|run| !run.reaped)
    }

    /// All processes that guard has started itself and not yet reaped.
    pub(super) fn started(&self) -> impl Iterator<Item = Pid> {
        let mains = self.runs.iter().filter(|run| !run.reaped).map(|run| run.pid);
        mains.chain(self.auxiliaries())
    }

    /// The groups of hooks, health checks and commands of GUARD_DIAGNOSE, which are no part of a run.
    pub(super) fn auxiliaries(&self) -> impl Iterator<Item = Pid> {
        let checks = self.checks.iter().map(|check| check.pid);
        checks.chain(self.diagnoses.iter().map(|(_, pid)| *pid)).chain(self.hook)
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = &RunProcess> {
        self.runs.iter()
    }

    pub(super) fn runs_mut(&mut self) -> impl Iterator<Item = &mut RunProcess> {
        self.runs.iter_mut()
    }

    /// The owner of a living child.
    pub(super) fn owner(&self, pid: Pid) -> Owner {
        let run = self.runs.iter().find(|run| run.pid == pid && !run.reaped);
        if let Some((id, _)) = self.diagnoses.iter().find(|(_, known)| *known == pid) {
            return Owner::Diagnosis(*id);
        }
        match (run, self.checks.iter().find(|check| check.pid == pid)) {
            (Some(run), _) => Owner::Run(run.id),
            (None, Some(check)) => Owner::Check(check.run),
            (None, None) if self.hook == Some(pid) => Owner::Hook,
            (None, None) if self.copies.contains(&pid) => Owner::Copy,
            (None, None) => Owner::Nobody,
        }
    }

    /// Whether this is the group of a hook, a health check or a command of GUARD_DIAGNOSE.
    pub(super) fn is_auxiliary(&self, group: Pid) -> bool {
        self.auxiliaries().any(|known| known == group)
    }

    /// An orphan was reaped: it may be the successor of a main process.
    pub(super) fn note_ended_successor(&mut self, pid: Pid, status: Status, usage: Usage) {
        for run in &mut self.runs {
            if matches!(run.successor, Some(Successor::Alive(successor)) if successor == pid) {
                run.successor = Some(Successor::Ended(status, usage));
            }
        }
    }
}
