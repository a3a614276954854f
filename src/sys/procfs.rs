//! What /proc shows of guard's descendants (`proc(5)`).
//!
//! Processes come and go while guard reads, and an app may have ten thousand of them, so every walk is bounded in time and
//! in number and says whether it was complete. It reads only what takes no lock of the process concerned: `stat` and
//! `children`. `environ` and `cmdline` are read from a process's own memory and may take for ever; see
//! [`super::environments`].

use super::clock::Deadline;
use super::{Errno, Pid, process};
use std::collections::{HashMap, HashSet};
use std::fs::{File, ReadDir, read_dir, read_link};
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

/// So many processes a walk sees at most, which keeps it below a megabyte.
const MOST_PROCESSES: usize = 16_384;

/// A process as its line in /proc/PID/stat had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: Pid,
    pub parent: Pid,
    pub group: Pid,
    pub session: Pid,
    pub state: State,
    threads: u32,
}

/// What a process is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Alive,
    /// Stopped, by a signal or a tracer.
    Stopped,
    /// A zombie: nobody has reaped it yet.
    Ended,
    /// A zombie that died of SIGKILL.
    Killed,
}

impl Process {
    /// One that lives, for tests.
    #[cfg(test)]
    pub fn alive(pid: Pid, parent: Pid, group: Pid, session: Pid) -> Process {
        Process { pid, parent, group, session, state: State::Alive, threads: 1 }
    }

    /// Whether it still does something.
    pub fn lives(&self) -> bool {
        match self.state {
            State::Alive | State::Stopped => true,
            State::Ended | State::Killed => false,
        }
    }

    /// Whether a thread of it lives. Its main thread may have ended.
    pub fn has_threads(&self) -> bool {
        self.lives() || self.threads > 1
    }
}

/// What a walk has seen.
#[derive(Debug)]
pub struct Descendants {
    /// Each pid once, parents before their children. Zombies are among them.
    pub processes: Vec<Process>,
    /// The walk reached every process within its time and its number, and could read each.
    pub complete: bool,
}

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its resident set, in bytes.
    pub memory: u64,
    /// What it and its reaped children have used of the CPU.
    pub cpu: Duration,
}

/// The descendants of guard, as far as they can be seen by the deadline; `None` without a /proc of guard's own PID
/// namespace.
pub fn descendants(deadline: Deadline) -> Option<Descendants> {
    // Another namespace's /proc counts pids differently: a signal by its word would reach the wrong process.
    if read_link("/proc/self").ok()? != Path::new(&process::id().to_string()) {
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
    // As above: the pids are to be guard's.
    if read_link("/proc/self").ok()? != Path::new(&process::id().to_string()) {
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
            for task in tasks.into_iter().flatten().flatten() {
                if !self.may_go_on() {
                    return;
                }
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
        for entry in proc.flatten() {
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
    while pids.len() < MOST_PROCESSES
        && let Ok(count @ 1..) = file.read(&mut buffer)
    {
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

/// The process with this pid, a zombie included.
pub fn process(pid: Pid) -> Option<Process> {
    let mut line = [0; 1024];
    let count = read_stat(pid, &mut line).ok()?;
    parse_stat(pid, split_stat(&line[..count])?.1)
}

/// Whether a process has ended or is about to: it has given up its memory, and has no other thread.
pub fn has_ended(pid: Pid) -> bool {
    let mut line = [0; 1024];
    let Ok(count) = read_stat(pid, &mut line) else { return true };
    split_stat(&line[..count]).is_some_and(|(_, fields)| parse_ended(fields))
}

/// Whether there is a process with this pid, a zombie included (`kill(2)`, signal 0).
pub fn exists(pid: Pid) -> bool {
    // SAFETY: kill(2) takes any numbers, and signal 0 does nothing.
    Errno::result(unsafe { libc::kill(pid, 0) }) != Err(Errno::ESRCH)
}

/// The name that a process goes by, 15 bytes at most (`PR_SET_NAME`, `prctl(2)`).
pub fn name(pid: Pid) -> Option<String> {
    let mut line = [0; 1024];
    let count = read_stat(pid, &mut line).ok()?;
    Some(String::from_utf8_lossy(split_stat(&line[..count])?.0).into_owned())
}

/// What a process uses now.
pub fn usage(pid: Pid) -> Option<Usage> {
    let mut line = [0; 1024];
    let count = read_stat(pid, &mut line).ok()?;
    Some(parse_usage(split_stat(&line[..count])?.1))
}

/// Reads /proc/PID/stat, and returns its length.
fn read_stat(pid: Pid, line: &mut [u8; 1024]) -> io::Result<usize> {
    File::open(format!("/proc/{pid}/stat"))?.read(line)
}

/// The name, and the fields after it.
fn split_stat(line: &[u8]) -> Option<(&[u8], &str)> {
    // The name may itself have parentheses and spaces, so it ends at the last one.
    let start = line.iter().position(|&byte| byte == b'(')?;
    let end = line.iter().rposition(|&byte| byte == b')')?;
    Some((line.get(start + 1..end)?, std::str::from_utf8(&line[end + 1..]).ok()?))
}

fn parse_stat(pid: Pid, fields: &str) -> Option<Process> {
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse().ok();
    let (parent, group, session) = (number()?, number()?, number()?);
    // The numbers are those of proc_pid_stat(5), less three: the pid, the name, and this count from 0.
    let threads = fields.nth(17 - 4)?.parse().ok()?;
    let state = match state {
        // Other threads may live on.
        "Z" | "X" | "x" if threads <= 1 => match fields.nth(49 - 18).and_then(|status| status.parse::<i32>().ok()) {
            // The exit code in the line is shown only to processes that may trace it.
            Some(status) if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL => State::Killed,
            Some(_) | None => State::Ended,
        },
        "T" | "t" => State::Stopped,
        _ => State::Alive,
    };
    Some(Process { pid, parent, group, session, state, threads })
}

/// The number of threads and the size of the memory, which is 0 where the memory is freed.
fn parse_ended(fields: &str) -> bool {
    let mut fields = fields.split_ascii_whitespace();
    let threads = fields.nth(17).and_then(|field| field.parse::<u32>().ok());
    let size = fields.nth(20 - 18);
    threads.is_some_and(|threads| threads <= 1) && size == Some("0")
}

fn parse_usage(fields: &str) -> Usage {
    let fields = fields.split_ascii_whitespace();
    let number = |index| fields.clone().nth(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    // SAFETY: sysconf(3) takes any number.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    // The ticks that user space sees are 100 a second (time(7)).
    let ticks: u64 = (11..=14).map(number).sum();
    Usage { memory: number(21).saturating_mul(page), cpu: Duration::from_millis(ticks.saturating_mul(10)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of a process 7, up to the number of its threads and with its exit status.
    fn line(name: &str, state: char, threads: u32, status: i32) -> String {
        let rest = ["0"; 27].join(" ");
        format!("7 ({name}) {state} 1 5 4 0 -1 4194560 1 0 0 0 10 20 3 4 20 0 {threads} 0 100 4096 25 {rest} {status}")
    }

    fn parsed(line: &str) -> Process {
        let (_, fields) = split_stat(line.as_bytes()).expect("split");
        parse_stat(7, fields).expect("parsed")
    }

    #[test]
    fn who_has_no_memory_and_no_other_thread_has_ended() {
        let ended = |line: &str| parse_ended(split_stat(line.as_bytes()).expect("split").1);
        let without_memory = |threads| line("name", 'R', threads, 0).replace(" 4096 25 ", " 0 0 ");
        assert!(ended(&without_memory(1)));
        assert!(!ended(&without_memory(2)), "the first thread of a process may end before the others");
        assert!(!ended(&line("name", 'R', 1, 0)));
        assert!(!has_ended(process::id()));
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = line("a) Z (b c", 'S', 3, 0);
        let expected = Process { pid: 7, parent: 1, group: 5, session: 4, state: State::Alive, threads: 3 };
        assert_eq!(parsed(&line), expected);
        let (name, fields) = split_stat(line.as_bytes()).expect("split");
        let usage = parse_usage(fields);
        assert_eq!((name, usage.cpu), (&b"a) Z (b c"[..], Duration::from_millis(370)));
        assert_eq!(usage.memory % 25, 0);
        assert!(usage.memory >= 25 * 4096);
    }

    #[test]
    fn a_zombie_lives_only_while_other_threads_do() {
        for (state, threads, status, expected) in [
            ('S', 1, 0, State::Alive),
            ('T', 1, 0, State::Stopped),
            ('Z', 1, 0, State::Ended),
            ('Z', 1, 15, State::Ended),
            ('Z', 1, 9, State::Killed),
            ('Z', 1, 9 << 8, State::Ended),
            ('Z', 2, 0, State::Alive),
        ] {
            let line = line("x", state, threads, status);
            assert_eq!(parsed(&line).state, expected, "{line}");
        }
    }

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
