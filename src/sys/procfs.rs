//! What /proc shows of guard's descendants (`proc(5)`).
//!
//! Processes come and go while guard reads, and an app may have ten thousand of them, so every walk is bounded in time and
//! in number and says whether it was complete. It reads only what takes no lock of the process concerned: `stat` and
//! `children`. `environ` and `cmdline` are read from a process's own memory and may take for ever; see
//! [`super::environments`].

mod stat;

pub use stat::{Process, State, Usage, has_ended, is_dying, name, process, usage};

use super::clock::Deadline;
use super::{Errno, Pid, process};
use stat::{parse_stat, read_stat, split_stat};
use std::collections::{HashMap, HashSet};
use std::fs::{File, ReadDir, read_dir, read_link};
use std::io::{self, Read};
use std::path::Path;

/// How many processes a walk sees at most, which keeps it below a megabyte.
const MOST_PROCESSES: usize = 16_384;

/// What a walk has seen.
#[derive(Debug)]
pub struct Descendants {
    /// Each pid once, parents before their children. Zombies are among them.
    pub processes: Vec<Process>,
    /// The walk reached every process within its time and its number, and could read each.
    pub complete: bool,
}

/// Whether there is a /proc of guard's own PID namespace. That of another one has other pids, so guard would signal the wrong
/// processes.
pub fn is_own() -> bool {
    read_link("/proc/self").is_ok_and(|own| own == Path::new(&process::id().to_string()))
}

/// The descendants of guard, as far as they can be seen by the deadline; `None` without a /proc of guard's own PID
/// namespace.
pub fn descendants(deadline: Deadline) -> Option<Descendants> {
    if !is_own() {
        return None;
    }
    let mut walk = Walk { deadline, seen: HashSet::new(), processes: Vec::new(), complete: true };
    // As PID 1 guard has nearly all processes below it, and to ask each for its parent is half of the work. Elsewhere there
    // may be thousands of others.
    if process::id() != 1 && shows_children() {
        walk.add_descendants(process::id(), 1);
    } else if let Some(proc) = walk.present(read_dir("/proc")) {
        walk.ask_for_parents(proc);
    }
    Some(Descendants { processes: walk.processes, complete: walk.complete })
}

/// The descendants of a child of guard's, in the same way, and not that child itself.
pub fn descendants_of(child: Pid, deadline: Deadline) -> Option<Descendants> {
    if !shows_children() {
        let mut seen = descendants(deadline)?;
        let mut below = HashSet::from([child]);
        seen.processes.retain(|process| below.contains(&process.parent) && below.insert(process.pid));
        return Some(seen);
    }
    let mut walk = Walk { deadline, seen: HashSet::new(), processes: Vec::new(), complete: true };
    if !is_own() {
        return None;
    }
    walk.add_descendants(child, process(child)?.threads);
    Some(Descendants { processes: walk.processes, complete: walk.complete })
}

/// The kernel may have been built without the lists of children (CONFIG_PROC_CHILDREN).
fn shows_children() -> bool {
    Path::new("/proc/thread-self/children").exists()
}

/// guard's own children, zombies included, where the kernel lists them; while some end it may miss others. guard has one
/// thread.
pub fn children() -> Option<Vec<Pid>> {
    let mut pids = Vec::new();
    read_pids("/proc/thread-self/children", &mut pids).ok()?;
    Some(pids)
}

/// A walk under way.
struct Walk {
    deadline: Deadline,
    /// Every pid that was named, so that none comes twice and a cycle ends.
    seen: HashSet<Pid>,
    processes: Vec<Process>,
    complete: bool,
}

impl Walk {
    /// Whether the bounds allow for more; notes if they do not.
    fn may_go_on(&mut self) -> bool {
        self.complete &= self.seen.len() < MOST_PROCESSES && !self.deadline.left().is_zero();
        self.complete
    }

    /// What a file of a process says; `None` if the process has ended. After any other error, such as too few descriptors,
    /// the walk is not complete.
    fn present<T>(&mut self, result: io::Result<T>) -> Option<T> {
        let has_ended = |error: &io::Error| [Some(libc::ENOENT), Some(libc::ESRCH)].contains(&error.raw_os_error());
        self.complete &= result.as_ref().err().is_none_or(has_ended);
        result.ok()
    }

    fn process(&mut self, pid: Pid) -> Option<Process> {
        let mut line = [0; 1024];
        let count = self.present(read_stat(pid, &mut line))?;
        parse_stat(pid, split_stat(&line[..count])?.1)
    }

    /// Adds all descendants of a process that has so many threads, from /proc/PID/task/TID/children.
    fn add_descendants(&mut self, root: Pid, threads: u32) {
        self.seen.insert(root);
        let mut next = 0;
        // An orphan may have been handed to guard after guard's children were read, so they are read once more.
        for _ in 0..2 {
            self.add_children(root, threads);
            while let Some(&Process { pid, threads, state, .. }) = self.processes.get(next) {
                if !matches!(state, State::Ended | State::Killed) {
                    self.add_children(pid, threads);
                }
                next += 1;
            }
        }
    }

    /// Adds the children of a process, of each of its threads.
    fn add_children(&mut self, pid: Pid, threads: u32) {
        let mut children = Vec::new();
        if threads == 1 {
            let read = read_pids(format!("/proc/{pid}/task/{pid}/children"), &mut children);
            self.present(read);
        } else {
            let tasks = self.present(read_dir(format!("/proc/{pid}/task")));
            for task in tasks.into_iter().flatten() {
                let Some(task) = self.present(task).filter(|_| self.may_go_on()) else { return };
                let read = read_pids(task.path().join("children"), &mut children);
                self.present(read);
            }
        }
        for child in children {
            if !self.may_go_on() {
                return;
            }
            if self.seen.insert(child) {
                let child = self.process(child);
                self.processes.extend(child);
            }
        }
    }

    /// Asks every process of the namespace for its parent.
    fn ask_for_parents(&mut self, proc: ReadDir) {
        let mut children: HashMap<Pid, Vec<Process>> = HashMap::new();
        for entry in proc {
            let Some(entry) = self.present(entry) else { break };
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if !self.may_go_on() {
                break;
            }
            if self.seen.insert(pid)
                && let Some(process) = self.process(pid)
            {
                children.entry(process.parent).or_default().push(process);
            }
        }
        let guard = process::id();
        let mut parents = vec![guard];
        if guard == 1 {
            // A parent that has ended meanwhile has left its children to guard; 0 is outside of the namespace.
            let read: HashSet<Pid> = children.values().flatten().map(|process| process.pid).collect();
            parents.extend(children.keys().filter(|parent| **parent > 0 && !read.contains(parent)));
        }
        self.processes = parents.iter().filter_map(|parent| children.remove(parent)).flatten().collect();
        let mut next = 0;
        while let Some(process) = self.processes.get(next) {
            let below = children.remove(&process.pid).unwrap_or_default();
            self.processes.extend(below);
            next += 1;
        }
    }
}

/// Adds the numbers in a file, no more than a walk may see. A process that has just ended has no children.
fn read_pids(path: impl AsRef<Path>, pids: &mut Vec<Pid>) -> io::Result<()> {
    let mut file = File::open(path)?;
    let (mut buffer, mut pid) = ([0; 4096], 0_i32);
    // All of it first: the kernel counts positions, which shift while children end.
    while pids.len() < MOST_PROCESSES {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        for byte in &buffer[..count] {
            match byte {
                b'0'..=b'9' => pid = pid.saturating_mul(10).saturating_add((byte - b'0').into()),
                _ if pid > 0 => pids.push(std::mem::take(&mut pid)),
                _ => {}
            }
        }
    }
    pids.extend(Some(pid).filter(|&pid| pid > 0));
    Ok(())
}

/// Whether there is a process with this pid, a zombie included (`kill(2)`, signal 0).
pub fn exists(pid: Pid) -> bool {
    // SAFETY: kill(2) takes any numbers, and signal 0 does nothing.
    Errno::result(unsafe { libc::kill(pid, 0) }) != Err(Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the child of a test")]
    fn both_ways_find_a_child_once() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().expect("cat");
        let pid = Pid::try_from(child.id()).expect("a pid");
        let ask_for_parents = |walk: &mut Walk| walk.ask_for_parents(read_dir("/proc").expect("/proc"));
        let add_descendants = |walk: &mut Walk| walk.add_descendants(process::id(), 1);
        let ways: [&dyn Fn(&mut Walk); 2] = [&add_descendants, &ask_for_parents];
        for way in ways {
            let deadline = Deadline::after(Duration::from_secs(20));
            let mut walk = Walk { deadline, seen: HashSet::new(), processes: Vec::new(), complete: true };
            way(&mut walk);
            // The thread that has started it need not be the first.
            let times = walk.processes.iter().filter(|process| process.pid == pid).count();
            assert!(times == 1 || times == 0 && !is_first_thread(), "{times}");
            assert!(walk.complete);
        }
        drop(child.stdin.take());
        child.wait().expect("ended");
    }

    fn is_first_thread() -> bool {
        // SAFETY: gettid(2) takes nothing.
        process::id() == unsafe { libc::gettid() }
    }

    #[test]
    fn a_walk_whose_time_is_over_says_so() {
        let seen = descendants(Deadline::after(Duration::ZERO)).expect("/proc");
        assert!(!seen.complete || seen.processes.is_empty());
    }
}
