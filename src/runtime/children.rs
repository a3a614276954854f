//! Who guard's children are: each pid is registered with its owner before the next reap.

use crate::config::signal::Signal;
use crate::supervisor::{RunId, Timestamp};
use crate::sys::Pid;

/// What a reaped pid was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Run(RunId),
    Hook,
    /// An orphan that was handed to guard.
    Nobody,
}

/// The process of a run, from its spawn until its leftovers are gone.
pub(super) struct RunProcess {
    pub(super) id: RunId,
    /// The main process, and its group.
    pub(super) pid: Pid,
    pub(super) started: Timestamp,
    /// OOM kills in the container before it began.
    pub(super) oom_kills: Option<u64>,
    /// The main process has been reaped: its pid means nothing any more, its group still may.
    pub(super) reaped: bool,
    /// The main process got SIGKILL from guard.
    pub(super) killed: bool,
    /// What its leftovers got, which are being waited for.
    pub(super) sweeping: Option<Signal>,
}

#[derive(Default)]
pub(super) struct Children {
    runs: Vec<RunProcess>,
    pub(super) hook: Option<Pid>,
}

impl Children {
    pub(super) fn add(&mut self, run: RunProcess) {
        self.runs.push(run);
    }

    /// Forgets a run of which nothing is left.
    pub(super) fn forget(&mut self, id: RunId) {
        self.runs.retain(|run| run.id != id);
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

    /// The main process that the terminal belongs to: the newest that lives.
    pub(super) fn newest_main(&self) -> Option<Pid> {
        self.runs.iter().rev().find(|run| !run.reaped).map(|run| run.pid)
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = &RunProcess> {
        self.runs.iter()
    }

    /// Whose process this living child is.
    pub(super) fn owner(&self, pid: Pid) -> Owner {
        let run = self.runs.iter().find(|run| run.pid == pid && !run.reaped);
        match run {
            Some(run) => Owner::Run(run.id),
            None if self.hook == Some(pid) => Owner::Hook,
            None => Owner::Nobody,
        }
    }
}
