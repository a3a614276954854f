//! Whose leftover a process is, and who is left.
//!
//! A leftover belongs to a run if it is in that run's process group or its environment carries the run's mark. One whose
//! environment cannot be read belongs to the run if no other run lives. One without a mark, such as an orphan of a
//! `docker exec` session, belongs to none.

use super::children::{Children, Owner};
use crate::supervisor::RunId;
use crate::sys::Pid;
use crate::sys::procfs::{self, Process};
use std::io;

/// What a process's environment says of where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Of(RunId),
    Missing,
    /// It may not be read, or was overwritten, as programs do that set their title.
    Unreadable,
}

/// The living leftovers of a run; `None` where there is no /proc to ask.
pub(super) fn of(id: RunId, children: &Children) -> Option<Vec<Process>> {
    let mut leftovers = procfs::descendants()?;
    leftovers.retain(|process| belongs(process, id, children));
    Some(leftovers)
}

/// All of a living run, its main process included; `None` where there is no /proc to ask.
pub(super) fn tree(id: RunId, children: &Children) -> Option<Vec<Process>> {
    let mut processes = procfs::descendants()?;
    let main = children.main(id);
    processes.retain(|process| main == Some(process.pid) || belongs(process, id, children));
    Some(processes)
}

fn belongs(process: &Process, id: RunId, children: &Children) -> bool {
    if children.owner(process.pid) != Owner::Nobody || children.is_auxiliary(process.group) {
        return false;
    }
    let lives = |other: RunId| children.runs().any(|run| run.id == other);
    let alone = !children.runs().any(|run| run.id != id);
    if let Some(run) = children.runs().find(|run| [run.pid, run.group].contains(&process.group)) {
        return run.id == id;
    }
    match mark(procfs::environment(process.pid)) {
        Mark::Of(run) if lives(run) => run == id,
        // The mark of an inner guard's run, whose guard is gone.
        Mark::Of(_) | Mark::Unreadable => alone,
        Mark::Missing => false,
    }
}

fn mark(environment: io::Result<Vec<u8>>) -> Mark {
    let environment = match environment {
        Ok(environment) => environment,
        // It has ended meanwhile, and its parent has reaped it.
        Err(error) if [Some(libc::ENOENT), Some(libc::ESRCH)].contains(&error.raw_os_error()) => return Mark::Missing,
        Err(_) => return Mark::Unreadable,
    };
    let value = |name: &[u8]| {
        let entry = environment.split(|&byte| byte == 0).find_map(|entry| entry.strip_prefix(name))?;
        std::str::from_utf8(entry).ok()
    };
    let number = value(b"GUARD_RUN=").and_then(|text| text.parse().ok());
    let instance = value(b"GUARD_INSTANCE=").and_then(|text| text.parse().ok());
    match (number, instance) {
        (Some(number), Some(instance)) => Mark::Of(RunId { instance, number }),
        _ if !environment.is_empty() && !environment.contains(&b'=') => Mark::Unreadable,
        _ => Mark::Missing,
    }
}

/// Who was there when SIGTERM went to a run's group as the stop signal.
#[derive(Default)]
pub(super) struct Told {
    got: Vec<Pid>,
    missed: Vec<Pid>,
}

impl Told {
    /// All of the run, of whom the group's members got it.
    pub(super) fn new(tree: &[Process], group: Pid) -> Told {
        let (got, missed): (Vec<_>, Vec<_>) = tree.iter().partition(|process| process.group == group);
        let [got, missed] = [got, missed].map(|some| some.iter().map(|process| process.pid).collect());
        Told { got, missed }
    }

    /// Parts those who got it, and what they have started since to clean up with, from the others. Parents come first.
    pub(super) fn split<'a>(&self, processes: &'a [Process]) -> (Vec<&'a Process>, Vec<&'a Process>) {
        let mut spared = self.got.clone();
        processes.iter().partition(|process| {
            let started_since = spared.contains(&process.parent) && !self.missed.contains(&process.pid);
            if started_since {
                spared.push(process.pid);
            }
            started_since || spared.contains(&process.pid)
        })
    }
}

/// `name[pid]` of the first few, for the log.
pub(super) fn names(processes: &[&Process]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> =
        processes.iter().take(SHOWN).map(|process| format!("{}[{}]", process.name, process.pid)).collect();
    let more = if processes.len() > SHOWN { " …" } else { "" };
    shown.join(" ") + more
}

/// Every living descendant, what is left when guard stops waiting; `None` where there is no /proc to ask.
pub(super) fn all() -> Option<Vec<Process>> {
    procfs::descendants()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: Pid, parent: Pid, group: Pid) -> Process {
        Process { pid, group, name: "app".to_owned(), parent, stopped: false, pages: 0, ticks: 0 }
    }

    #[test]
    fn whoever_was_told_and_what_he_has_started_since_are_spared() {
        let then = [process(10, 1, 10), process(11, 10, 10), process(12, 11, 12), process(13, 1, 13)];
        let told = Told::new(&then, 10);
        // The main process has ended; 20 and 21 are new below 11, 22 below somebody who has not got it.
        let now = [(11, 1, 10), (12, 11, 12), (13, 1, 13), (20, 11, 20), (21, 20, 20), (22, 13, 13)];
        let now = now.map(|(pid, parent, group)| process(pid, parent, group));
        let (spared, others) = told.split(&now);
        let pids = |processes: Vec<&Process>| processes.iter().map(|process| process.pid).collect::<Vec<_>>();
        assert_eq!((pids(spared), pids(others)), (vec![11, 20, 21], vec![12, 13, 22]));
        let (spared, others) = Told::default().split(&now);
        assert_eq!((spared.len(), others.len()), (0, 6), "nobody was told");
    }

    #[test]
    fn a_mark_needs_both_variables() {
        let run = RunId { instance: 0, number: 3 };
        assert_eq!(mark(Ok(b"PATH=/bin\0GUARD_RUN=3\0GUARD_INSTANCE=0\0".to_vec())), Mark::Of(run));
        assert_eq!(mark(Ok(b"PATH=/bin\0GUARD_RUN=3\0".to_vec())), Mark::Missing);
        assert_eq!(mark(Ok(b"XGUARD_RUN=3\0GUARD_INSTANCE=0\0".to_vec())), Mark::Missing);
    }

    #[test]
    fn an_overwritten_environment_cannot_be_read() {
        assert_eq!(mark(Ok(b"worker process\0\0\0\0".to_vec())), Mark::Unreadable);
        assert_eq!(mark(Ok(Vec::new())), Mark::Missing);
        for (code, expected) in
            [(libc::EACCES, Mark::Unreadable), (libc::ENOENT, Mark::Missing), (libc::ESRCH, Mark::Missing)]
        {
            assert_eq!(mark(Err(io::Error::from_raw_os_error(code))), expected);
        }
    }
}
