//! Leftovers: the run to which a process belongs.
//!
//! A leftover belongs to a run if it is in that run's process group or its environment carries the run's mark: GUARD_RUN
//! and GUARD_INSTANCE, and this guard's GUARD_ID, which a guard inside of a run replaces by its own. One whose
//! environment cannot be read belongs to the run if no other run lives that began before it. One without a mark, such as an orphan of a
//! `docker exec` session, belongs to none. At a terminal all runs share guard's group; for a process without a mark in that group
//! holds the same as for one that cannot be read.

use super::Runtime;
use super::children::{Children, Owner};
use super::marks::Mark;
use crate::supervisor::RunId;
use crate::sys::Pid;
use crate::sys::clock::Deadline;
use crate::sys::process;
use crate::sys::procfs::{self, Descendants, Process, State, Usage};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// How long guard walks /proc, and how long it waits for the copy that reads environments.
pub(super) const LONGEST_WALK: Duration = Duration::from_millis(100);

/// How long all walks and reads of one turn take: signals and deadlines are not heard meanwhile. What is left out is looked at in
/// a later turn.
const LONGEST_OF_TURN: Duration = Duration::from_millis(200);

/// How long guard walks /proc for names that only the log wants.
const LONGEST_WALK_FOR_NAMES: Duration = Duration::from_millis(20);

/// The leftovers of a run that one walk of /proc has found.
pub(super) struct Leftovers {
    pub(super) living: Vec<Process>,
    /// Zombies that SIGKILL has ended.
    pub(super) killed: Vec<Process>,
    /// A zombie of the run is there.
    pub(super) zombies: bool,
    /// All descendants that live.
    pub(super) descendants: Vec<Process>,
    /// The walk has seen all that were there.
    pub(super) complete: bool,
}

impl Runtime<'_> {
    /// The leftovers of a run; `None` where there is no /proc.
    pub(super) fn find_leftovers(&mut self, id: RunId) -> Option<Leftovers> {
        let Descendants { processes, complete } = self.descendants(LONGEST_WALK)?;
        let marks = self.read_marks(&processes);
        let mut found =
            Leftovers { living: Vec::new(), killed: Vec::new(), zombies: false, descendants: Vec::new(), complete };
        for &process in &processes {
            let is_left = belongs(&process, id, &self.children, &marks, &processes);
            let kind = match process.state {
                State::Alive | State::Stopped => &mut found.living,
                State::Ended | State::Killed => {
                    found.zombies |= is_left;
                    &mut found.killed
                }
            };
            kind.extend(Some(process).filter(|process| is_left && process.state != State::Ended));
            found.descendants.extend(Some(process).filter(Process::lives));
        }
        Some(found)
    }

    /// The children of PID 1 that belong to no run, since their environment has no mark; and whether the walk has seen all that
    /// were there: the children of one that ends meanwhile are guard's in a moment. An exec session is no child of guard's, and what
    /// is left of one may wait for guard's answer, as `guard stop &` does.
    pub(super) fn find_unmarked(&mut self) -> (Vec<Process>, bool) {
        if self.reaping.childless {
            return (Vec::new(), true);
        }
        let Some(Descendants { mut processes, complete }) = self.descendants(LONGEST_WALK) else {
            return (Vec::new(), true);
        };
        let spared: Vec<Pid> = self.operator.clients().flat_map(|client| ancestry(client, &processes)).collect();
        let is_candidate = |process: &Process| process.parent == process::id() && process.lives();
        processes.retain(|process| is_candidate(process) && !spared.contains(&process.pid));
        let marks = self.read_marks(&processes);
        processes.retain(|process| marks.get(&process.pid) == Some(&Mark::Missing));
        (processes, complete && marks.values().all(|mark| *mark != Mark::Ended))
    }

    /// Walks /proc for guard's descendants.
    pub(super) fn descendants(&self, longest: Duration) -> Option<Descendants> {
        procfs::descendants(self.end_of_walk(longest))
    }

    /// When a walk ends: before the next SIGKILL that is due, and with the time that the walks of one turn have.
    pub(super) fn end_of_walk(&self, longest: Duration) -> Deadline {
        let of_turn = self.reaping.walks_until.get().unwrap_or_else(|| Deadline::after(LONGEST_OF_TURN));
        self.reaping.walks_until.set(Some(of_turn));
        self.before_next_kill(longest).sooner(of_turn)
    }

    /// After this time at most, and before the next SIGKILL that is due.
    pub(super) fn before_next_kill(&self, longest: Duration) -> Deadline {
        let stops = self.supervisor.is_ending() || self.children.runs().any(|run| self.supervisor.is_stopping(run.id));
        let due = self.supervisor.next_deadline().filter(|_| stops);
        Deadline::after(due.map_or(longest, |due| due.since(self.clock.now()).min(longest)))
    }

    /// As [`Runtime::end_of_walk`], where leftovers of a run that has ended may be about to be killed too.
    pub(super) fn end_of_brief_walk(&self) -> Deadline {
        let sweeps = self.children.runs().any(|run| run.reaped);
        let due = self.supervisor.next_deadline().filter(|_| sweeps);
        let longest = due.map_or(LONGEST_WALK, |due| due.since(self.clock.now()).min(LONGEST_WALK));
        self.end_of_walk(longest)
    }

    /// How many processes have been killed, or are about to be, and the names of the first few, as far as a short walk finds
    /// them.
    pub(super) fn killed(&self) -> (usize, String) {
        let mut processes = self.descendants(LONGEST_WALK_FOR_NAMES).map_or_else(Vec::new, |seen| seen.processes);
        processes.retain(|process| process.state != State::Ended && self.children.owner(process.pid) != Owner::Copy);
        (processes.len(), names(&processes))
    }

    /// What the processes of each living run use, its main process included, and which they are.
    pub(super) fn measure(&mut self) -> Vec<(RunId, Usage, Vec<Pid>)> {
        let mut usage: Vec<_> = self.children.runs().map(|run| (run.id, Usage::default(), Vec::new())).collect();
        let end = self.end_of_walk(LONGEST_WALK);
        let seen = if self.reaping.childless { None } else { procfs::descendants(end) };
        let Some(Descendants { processes, .. }) = seen else { return usage };
        let descent = by_descent(&processes, &self.children);
        let orphans: Vec<Process> =
            processes.iter().filter(|process| !descent.contains_key(&process.pid)).copied().collect();
        let marks = self.read_marks(&orphans);
        for process in processes.iter().filter(|process| process.lives() && !end.left().is_zero()) {
            let of_run = |id: RunId| match descent.get(&process.pid) {
                Some(mark) => *mark == Mark::Of(id),
                None => belongs(process, id, &self.children, &marks, &processes),
            };
            if let Some((_, sum, pids)) = usage.iter_mut().find(|(id, ..)| of_run(*id)) {
                pids.push(process.pid);
                let used = procfs::usage(process.pid).unwrap_or_default();
                (sum.memory, sum.cpu) = (sum.memory + used.memory, sum.cpu + used.cpu);
            }
        }
        usage
    }

    /// Whether a process, which may be a zombie, belongs to a run and is not its main process. One that cannot be read does only where
    /// no other run is there, whatever its age.
    pub(super) fn belongs_to(&mut self, pid: Pid, id: RunId) -> bool {
        let Some(process) = procfs::process(pid) else { return false };
        let marks = self.read_marks(&[process]);
        belongs(&process, id, &self.children, &marks, &[])
    }
}

/// A process and those above it, as far as guard's children.
fn ancestry(pid: Pid, processes: &[Process]) -> Vec<Pid> {
    let mut pids = Vec::new();
    let mut next = processes.iter().find(|process| process.pid == pid);
    while let Some(process) = next.filter(|process| !pids.contains(&process.pid)) {
        pids.push(process.pid);
        next = processes.iter().find(|other| other.pid == process.parent);
    }
    pids
}

/// The marks of main processes that live and of all below them, which are of their runs whatever their groups and environments are.
/// Parents come before their children.
fn by_descent(processes: &[Process], children: &Children) -> HashMap<Pid, Mark> {
    let mut marks = HashMap::new();
    for Process { pid, parent, .. } in processes {
        let run = children.runs().find(|run| run.pid == *pid && !run.reaped).map(|run| Mark::Of(run.id));
        if let Some(mark) = run.or_else(|| marks.get(parent).copied()) {
            marks.insert(*pid, mark);
        }
    }
    marks
}

/// The owner of a process, as far as its group says.
enum GroupOwner {
    Run(RunId),
    /// guard's own main processes, hook, health checks and copies are no leftovers.
    Guard,
}

fn group_owner(process: &Process, children: &Children) -> Option<GroupOwner> {
    if children.owner(process.pid) != Owner::Nobody || children.is_auxiliary(process.group) {
        return Some(GroupOwner::Guard);
    }
    let run = children.runs().find(|run| [run.pid, run.group].contains(&process.group))?;
    Some(GroupOwner::Run(run.id))
}

/// Whether its group names no owner.
pub(super) fn is_undecided(process: &Process, children: &Children) -> bool {
    group_owner(process, children).is_none()
}

/// Whether a process began before each of the other runs, and so is of none of them. Of a main process that was reaped, or has taken
/// the place of another (MAINPID), or is not among `processes`, nobody knows when its run began.
fn is_of_no_other(process: &Process, id: RunId, children: &Children, processes: &[Process]) -> bool {
    children.runs().filter(|run| run.id != id).all(|run| {
        let is_first_main = !run.reaped && run.pid == run.group;
        is_first_main && processes.iter().any(|main| main.pid == run.pid && process.began < main.began)
    })
}

fn belongs(
    process: &Process,
    id: RunId,
    children: &Children,
    marks: &HashMap<Pid, Mark>,
    processes: &[Process],
) -> bool {
    match group_owner(process, children) {
        Some(GroupOwner::Guard) => return false,
        Some(GroupOwner::Run(run)) => return run == id,
        None => {}
    }
    let lives = |other: RunId| children.runs().any(|run| run.id == other);
    let is_of_no_other = || is_of_no_other(process, id, children, processes);
    match marks.get(&process.pid).copied().unwrap_or(Mark::Unreadable) {
        // Its memory is freed, and with it the mark.
        _ if !process.lives() => false,
        Mark::Of(run) if lives(run) => run == id,
        // Among several runs that were there before, nobody knows of which of them it is.
        Mark::Of(_) | Mark::Foreign | Mark::Unreadable => is_of_no_other(),
        Mark::Ended => false,
        // Nobody but runs shares guard's group.
        Mark::Missing => children.shared_group == Some(process.group) && is_of_no_other(),
    }
}

/// The groups that may be killed as groups: they have members among `condemned`, and no other process is in them.
///
/// The walk shows that no other descendant of guard's is in a group. That no stranger is in it follows from its session, which
/// only a process itself can begin, or from the group's leader.
pub(super) fn whole_groups(
    condemned: &[Process],
    descendants: &[Process],
    (own_group, own_session): (Pid, Pid),
    exists: impl Fn(Pid) -> bool,
) -> Vec<Pid> {
    let pids: HashSet<Pid> = descendants.iter().map(|process| process.pid).collect();
    let doomed: HashSet<Pid> = condemned.iter().map(|process| process.pid).collect();
    let spared = descendants.iter().filter(|process| !doomed.contains(&process.pid)).map(|process| process.group);
    // 0 and 1 mean other things to kill(2); a group from outside of this PID namespace is 0.
    let mut refused: HashSet<Pid> = spared.chain([0, 1, own_group]).collect();
    let mut groups = Vec::new();
    for process in condemned {
        let begun_below_guard = |leader| pids.contains(&leader) || !exists(leader);
        let of_own_session = process.session > 0 && process.session != own_session;
        let contained = of_own_session && begun_below_guard(process.session) || pids.contains(&process.group);
        if contained && refused.insert(process.group) {
            groups.push(process.group);
        }
    }
    groups
}

/// The processes that were there when SIGTERM went to a run's group as the stop signal.
#[derive(Default)]
pub(super) struct Receivers {
    group: Pid,
    got: HashSet<Pid>,
    missed: HashSet<Pid>,
    /// Not all could be seen: the rest of the group has got it too.
    partly: bool,
}

impl Receivers {
    /// Of all these the group's members have got it.
    pub(super) fn new(seen: &Descendants, group: Pid) -> Receivers {
        let (got, missed): (Vec<&Process>, Vec<&Process>) =
            seen.processes.iter().partition(|process| process.group == group);
        let [got, missed] = [got, missed].map(|some| some.iter().map(|process| process.pid).collect());
        Receivers { group, got, missed, partly: !seen.complete }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.got.is_empty() && !self.partly
    }

    /// Parts the receivers, and what they have started since to clean up with, from the others. `processes` has parents before
    /// their children.
    pub(super) fn split(&self, processes: &[Process]) -> (Vec<Process>, Vec<Process>) {
        let mut spared = self.got.clone();
        processes.iter().copied().partition(|process| {
            let started_since = spared.contains(&process.parent) && !self.missed.contains(&process.pid);
            let unseen = self.partly && process.group == self.group;
            if started_since || unseen {
                spared.insert(process.pid);
            }
            spared.contains(&process.pid)
        })
    }
}

/// `name[pid]` of the first few, for the log.
pub(super) fn names(processes: &[Process]) -> String {
    const SHOWN: usize = 5;
    let shown = processes.iter().take(SHOWN).map(|process| {
        let name = procfs::name(process.pid).unwrap_or_else(|| "?".to_owned());
        format!("{name}[{}]", process.pid)
    });
    let more = if processes.len() > SHOWN { " …" } else { "" };
    shown.collect::<Vec<_>>().join(" ") + more
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(processes: &[(Pid, Pid, Pid)], complete: bool) -> Descendants {
        let processes = processes.iter().map(|&(pid, parent, group)| Process::alive(pid, parent, group, group));
        Descendants { processes: processes.collect(), complete }
    }

    fn pids(processes: &[Process]) -> Vec<Pid> {
        processes.iter().map(|process| process.pid).collect()
    }

    #[test]
    fn those_who_were_told_and_what_they_have_started_since_are_spared() {
        let then = [(10, 1, 10), (11, 10, 10), (12, 11, 12), (13, 1, 13)];
        // The main process has ended; 20 and 21 are new below 11, 22 below a process that has not got it.
        let now = [(11, 1, 10), (12, 11, 12), (13, 1, 13), (20, 11, 20), (21, 20, 20), (22, 13, 13), (23, 1, 10)];
        let now = seen(&now, true).processes;
        for (complete, spared, others) in
            [(true, vec![11, 20, 21], vec![12, 13, 22, 23]), (false, vec![11, 20, 21, 23], vec![12, 13, 22])]
        {
            let split = Receivers::new(&seen(&then, complete), 10).split(&now);
            assert_eq!((pids(&split.0), pids(&split.1)), (spared, others));
        }
        let (spared, others) = Receivers::default().split(&now);
        assert_eq!((spared.len(), others.len()), (0, 7), "nobody was told");
    }

    #[test]
    fn a_group_is_killed_as_a_group_only_where_nobody_else_can_be_in_it() {
        let guard = (2, 1);
        let process = Process::alive;
        let groups = |condemned: &[Process], others: &[Process], exists: bool| {
            whole_groups(condemned, &[condemned, others].concat(), guard, |_| exists)
        };
        let daemon = process(20, 2, 19, 18);
        assert_eq!(groups(&[daemon], &[], false), [19], "the session's leader has ended");
        assert_eq!(groups(&[daemon], &[], true), [0; 0], "the session is another's");
        assert_eq!(groups(&[daemon, process(18, 2, 18, 18)], &[], true), [19, 18], "or of one of them");
        assert_eq!(groups(&[daemon], &[process(21, 2, 19, 18)], false), [0; 0], "another run's is in it");
        assert_eq!(groups(&[process(20, 2, 20, 1)], &[], true), [20], "its leader has made it");
        assert_eq!(groups(&[process(20, 2, 19, 1)], &[], false), [0; 0], "guard's session, and no leader");
        for group in [0, 1, guard.0] {
            assert_eq!(groups(&[process(20, 2, group, 18)], &[], false), [0; 0]);
        }
    }
}
