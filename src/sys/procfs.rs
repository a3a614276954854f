//! What /proc tells of guard's descendants (`proc(5)`). Nothing here is trusted to be complete: processes come and go.

use super::{Pid, process};
use std::collections::HashMap;
use std::fs::{File, read, read_dir, read_link, read_to_string};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

/// A living process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: Pid,
    /// Its process group.
    pub group: Pid,
    /// The name that it goes by, 15 bytes at most (`PR_SET_NAME`, `prctl(2)`).
    pub name: String,
    pub parent: Pid,
    /// Stopped, by a signal or a tracer.
    pub stopped: bool,
    /// Its resident set, in pages.
    pub pages: u64,
    /// What it and its reaped children have used of the CPU, in ticks of 10 ms.
    pub ticks: u64,
}

impl Process {
    /// Its resident set, in bytes.
    pub fn memory(&self) -> u64 {
        // SAFETY: sysconf(3) takes any number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        self.pages * u64::try_from(page).unwrap_or(4096)
    }

    /// What it and its reaped children have used of the CPU. The ticks that user space sees are 100 a second (`time(7)`).
    pub fn cpu(&self) -> Duration {
        Duration::from_millis(self.ticks * 10)
    }
}

/// All living descendants of guard; `None` without a /proc of guard's own PID namespace.
pub fn descendants() -> Option<Vec<Process>> {
    // Another namespace's /proc counts pids differently: whoever is signalled by its word is the wrong one.
    let own = read_link("/proc/self").ok()?;
    if own != Path::new(&process::id().to_string()) {
        return None;
    }
    let pids = descendants_by_children().or_else(descendants_by_parents)?;
    Some(pids.into_iter().filter_map(|pid| stat(pid).filter(Stat::lives)).map(|stat| stat.process).collect())
}

/// Follows /proc/PID/task/TID/children; `None` where the kernel was built without it (CONFIG_PROC_CHILDREN).
fn descendants_by_children() -> Option<Vec<Pid>> {
    if !Path::new("/proc/thread-self/children").exists() {
        return None;
    }
    let mut found = children(process::id());
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children(pid));
        next += 1;
    }
    Some(found)
}

/// The children of every thread of a process; a thread that has just ended has none.
fn children(pid: Pid) -> Vec<Pid> {
    let mut pids = Vec::new();
    for task in read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = read_to_string(task.path().join("children")).unwrap_or_default();
        pids.extend(text.split_ascii_whitespace().filter_map(|word| word.parse::<Pid>().ok()));
    }
    pids
}

/// Asks every process who its parent is.
fn descendants_by_parents() -> Option<Vec<Pid>> {
    let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for entry in read_dir("/proc").ok()?.flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(stat) = pid.and_then(stat) {
            children.entry(stat.process.parent).or_default().push(stat.process.pid);
        }
    }
    let mut found = children.remove(&process::id()).unwrap_or_default();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    Some(found)
}

struct Stat {
    process: Process,
    state: char,
    threads: u32,
}

impl Stat {
    /// Whether it still does something: a zombie does not, unless only its first thread has ended.
    fn lives(&self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x') || self.threads > 1
    }
}

/// Reads /proc/PID/stat.
fn stat(pid: Pid) -> Option<Stat> {
    // One line, far shorter than this; std would ask for it in many small pieces.
    let mut line = [0; 1024];
    let count = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut line).ok()?;
    parse_stat(pid, &String::from_utf8_lossy(&line[..count]))
}

fn parse_stat(pid: Pid, text: &str) -> Option<Stat> {
    // The name may itself have parentheses and spaces, so it ends at the last one.
    let (head, tail) = text.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let group = fields.get(2)?.parse().ok()?;
    let state = fields.first()?.chars().next()?;
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    let (pages, ticks) = (number(21), (11..=14).map(number).sum());
    let stopped = matches!(state, 'T' | 't');
    Some(Stat {
        process: Process { pid, group, name: name.to_owned(), parent, stopped, pages, ticks },
        state,
        threads: fields.get(17)?.parse().ok()?,
    })
}

/// The environment that a process was started with, as it stands in its memory now. Fails where guard may not look
/// (`ptrace(2)`, access mode checks).
pub fn environment(pid: Pid) -> io::Result<Vec<u8>> {
    read(format!("/proc/{pid}/environ"))
}

/// The process with this pid.
pub fn process(pid: Pid) -> Option<Process> {
    stat(pid).map(|stat| stat.process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = "7 (a) Z (b c) S 1 5 5 0 -1 4194560 1 0 0 0 10 20 3 4 20 0 3 0 100 4096 25";
        let stat = parse_stat(7, line).expect("parsed");
        let (name, stopped) = ("a) Z (b c".to_owned(), false);
        assert_eq!(stat.process, Process { pid: 7, group: 5, name, parent: 1, stopped, pages: 25, ticks: 37 });
        assert_eq!((stat.state, stat.threads), ('S', 3));
    }

    #[test]
    fn a_zombie_lives_only_while_other_threads_do() {
        for (state, threads, lives) in [('S', 1, true), ('Z', 1, false), ('Z', 2, true)] {
            let line = format!("7 (x) {state} 1 5 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 100");
            assert_eq!(parse_stat(7, &line).expect("parsed").lives(), lives, "{line}");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the child of a test")]
    fn both_ways_find_a_child() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().expect("cat");
        let pid = Pid::try_from(child.id()).expect("a pid");
        assert!(descendants_by_parents().expect("/proc").contains(&pid));
        match descendants_by_children() {
            Some(pids) => assert!(pids.contains(&pid)),
            None => assert!(!Path::new("/proc/thread-self/children").exists()),
        }
        drop(child.stdin.take());
        child.wait().expect("ended");
    }
}
