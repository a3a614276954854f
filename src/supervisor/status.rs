//! The state as operators, probes and the runtime see it. Nothing here changes it.

use super::Supervisor;
use super::cause::{Asker, Cause};
use super::exit_code::Ending;
use super::run_id::RunId;
use super::state::{Instance, Mode, Run, RunState, Slot};
use super::timestamp::Timestamp;
use crate::config::{Instances, Readiness};

/// The state of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceStatus {
    /// As in [`RunId`].
    pub number: u32,
    /// The current run, between two runs none.
    pub run: Option<RunId>,
    /// Runs so far.
    pub runs: u32,
    /// One word, as `guard status` shows it.
    pub state: &'static str,
    /// Why the current run is being ended, or ends by itself; `None` where nobody knows of an end.
    pub ending: Option<&'static str>,
    /// The run that the current one of a reload replaces.
    pub old: Option<OldRun>,
    /// When the next run starts, in a backoff.
    pub until: Option<Timestamp>,
    /// Restarts so far that nobody asked for.
    pub restarts: u32,
    /// How the last run ended.
    pub last: Option<Ending>,
}

/// A run that another one replaces, as long as there is something left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldRun {
    /// As in [`RunId`].
    pub number: u32,
    /// One word, as that of an instance.
    pub state: &'static str,
    /// Why it is being ended; `None` while it serves.
    pub ending: Option<&'static str>,
}

/// How well a run can take new connections, the best first. Where sockets are held they go to the best that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fitness {
    Ready,
    /// It serves until its drain is over.
    Draining,
    Starting,
    /// It stops, has failed or has ended. The next run of its instance takes its socket.
    Ending,
    /// The same, and no run takes its socket: another has its place in a reload, or its instance leaves.
    Leaving,
}

impl Supervisor {
    /// How well a run can take new connections.
    pub fn fitness(&self, id: RunId) -> Fitness {
        // Every socket's run is asked after, again and again.
        let index = self.instances.binary_search_by_key(&id.instance, |instance| instance.number);
        let Some(instance) = index.ok().map(|index| &self.instances[index]) else { return Fitness::Leaving };
        let Some(run) = instance.runs().find(|run| run.id == id) else { return Fitness::Ending };
        let leaves = instance.leaving || instance.retires(id);
        let ending = if leaves { Fitness::Leaving } else { Fitness::Ending };
        match run.state {
            RunState::Ready { .. } => Fitness::Ready,
            RunState::Draining { .. } => Fitness::Draining,
            RunState::Spawning | RunState::Starting { .. } => Fitness::Starting,
            RunState::Stopping { .. } | RunState::Diagnosing { .. } | RunState::Aborting { .. } => ending,
            RunState::Killing { .. } | RunState::Sweeping { .. } | RunState::Clearing { .. } => ending,
        }
    }

    /// Why the app cannot take work; `Ok` if it can: an instance has a run that is ready, and guard does not end.
    pub fn readiness(&self) -> Result<(), &'static str> {
        match self.mode {
            Mode::Serving => {}
            Mode::Draining(_) | Mode::Sweeping(_) | Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => {
                return Err("guard is stopping");
            }
        }
        if self.runs().any(Run::is_ready) {
            return Ok(());
        }
        let is_finished = |instance: &&Instance| matches!(instance.slot, Slot::Finished);
        let next = self.instances.iter().find(|instance| !is_finished(instance)).or(self.instances.first());
        Err(next.map_or("the app has ended", |instance| instance.reason(self.settings.ready.when)))
    }

    /// How many instances there are.
    pub fn instance_count(&self) -> usize {
        self.instances.len()
    }

    /// How many instances there are to be; 0 while the CPUs are being counted.
    pub fn desired(&self) -> u32 {
        self.wanted
    }

    /// How many instances were asked for last.
    pub fn asked(&self) -> Instances {
        if self.auto { Instances::Auto } else { Instances::Number(self.wanted) }
    }

    /// A reload is under way, so that another one would be queued.
    pub fn is_reloading(&self) -> bool {
        self.reload.is_some()
    }

    /// guard's end has begun.
    pub fn is_ending(&self) -> bool {
        self.mode != Mode::Serving
    }

    /// The runs that are not ready yet.
    pub fn starting(&self) -> impl Iterator<Item = RunId> {
        self.runs().filter(|run| matches!(run.state, RunState::Starting { .. })).map(|run| run.id)
    }

    /// The run was asked to stop, or stops by itself.
    pub fn is_stopping(&self, id: RunId) -> bool {
        self.runs().filter(|run| run.id == id).any(|run| match run.state {
            RunState::Stopping { .. } | RunState::Diagnosing { .. } => true,
            RunState::Aborting { .. } | RunState::Killing { .. } => true,
            RunState::Spawning | RunState::Starting { .. } | RunState::Ready { .. } => false,
            RunState::Draining { .. } | RunState::Sweeping { .. } | RunState::Clearing { .. } => false,
        })
    }

    /// Why the run is ended, as GUARD_LAST_EXIT would say it; `None` where nobody but the app itself ends it, or guard ends.
    pub fn why_ended(&self, id: RunId) -> Option<&'static str> {
        let run = self.runs().find(|run| run.id == id)?;
        // It is asked first what takes so much memory, and may end of that.
        let is_too_large = run.is_too_large && self.mode == Mode::Serving;
        match run.cause.or(is_too_large.then_some(Cause::Restart(Asker::Memory)))? {
            Cause::Failed(failure) => Some(failure.word()),
            Cause::Reload(asker) | Cause::Restart(asker) => Some(asker.word()),
            Cause::Itself | Cause::Quit | Cause::Scale | Cause::Stop => None,
        }
    }

    /// Whether another run takes its place, or its instance leaves, since somebody or a limit has asked for that.
    pub fn is_replaced(&self, id: RunId) -> bool {
        let run = self.runs().find(|run| run.id == id);
        run.is_some_and(|run| matches!(run.cause, Some(Cause::Reload(_) | Cause::Restart(_) | Cause::Scale)))
    }

    /// The current runs that nobody has asked to end: their memory has a limit.
    pub fn serving(&self) -> impl Iterator<Item = RunId> {
        self.instances.iter().filter_map(Instance::current).filter(|run| run.serves()).map(|run| run.id)
    }

    /// The restart limit was reached.
    pub fn gave_up(&self) -> bool {
        self.gave_up
    }

    /// Each instance in turn.
    pub fn instances(&self) -> impl Iterator<Item = InstanceStatus> {
        self.instances.iter().map(|instance| {
            let until = match instance.slot {
                Slot::Waiting { spawn_at } => spawn_at,
                Slot::Live(_) | Slot::Finished => None,
            };
            let (restarts, last) = (instance.history.restarts, instance.last);
            let run = instance.current().map(|run| run.id);
            let old = instance.retiring.as_ref().map(|run| OldRun {
                number: run.id.number,
                state: run.word(),
                ending: run.cause.map(Cause::word),
            });
            InstanceStatus {
                number: instance.number,
                run,
                runs: instance.runs,
                state: instance.word(),
                ending: instance.current().and_then(|run| run.cause).map(Cause::word),
                old,
                until,
                restarts,
                last,
            }
        })
    }
}

impl Instance {
    fn word(&self) -> &'static str {
        match &self.slot {
            Slot::Waiting { .. } => "backoff",
            Slot::Finished => "finished",
            Slot::Live(run) => run.word(),
        }
    }

    /// Why it cannot take work.
    fn reason(&self, ready: Readiness) -> &'static str {
        match &self.slot {
            Slot::Waiting { .. } => "the app is between two runs",
            Slot::Finished => "the app has ended",
            Slot::Live(run) => match run.state {
                RunState::Spawning | RunState::Starting { .. } => match ready {
                    Readiness::Exec => "the app is being started",
                    Readiness::Notify => "the app has not said yet that it is ready",
                    Readiness::Listen => "the app does not listen yet",
                    Readiness::Health => "no health check has passed yet",
                },
                RunState::Ready { .. } => "ready",
                RunState::Draining { .. } | RunState::Stopping { .. } | RunState::Diagnosing { .. } => {
                    "the app is stopping"
                }
                RunState::Aborting { .. } | RunState::Killing { .. } => "the app is stopping",
                RunState::Sweeping { .. } | RunState::Clearing { .. } => "the app is between two runs",
            },
        }
    }
}

impl Run {
    fn word(&self) -> &'static str {
        match self.state {
            RunState::Spawning | RunState::Starting { .. } => "starting",
            RunState::Ready { .. } => "ready",
            RunState::Draining { .. } => "draining",
            RunState::Stopping { .. } | RunState::Diagnosing { .. } => "stopping",
            RunState::Aborting { .. } | RunState::Killing { .. } => "stopping",
            RunState::Sweeping { .. } | RunState::Clearing { .. } => "sweeping",
        }
    }
}
