//! The line that /proc has of a process (`proc_pid_stat(5)`). To read it takes no lock of the process concerned.

use super::Pid;
use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

/// A process as its line in /proc/PID/stat had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: Pid,
    pub parent: Pid,
    pub group: Pid,
    pub session: Pid,
    pub state: State,
    pub(super) threads: u32,
    /// When it began, in clock ticks since boot.
    pub began: u64,
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
        Process { pid, parent, group, session, state: State::Alive, threads: 1, began: 0 }
    }

    /// Whether it still does something.
    pub fn lives(&self) -> bool {
        match self.state {
            State::Alive | State::Stopped => true,
            State::Ended | State::Killed => false,
        }
    }
}

/// What a process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its resident set, in bytes.
    pub memory: u64,
    /// What it and its reaped children have used of the CPU.
    pub cpu: Duration,
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

/// Whether a process has begun to end, or will as soon as it runs: SIGKILL is pending. A zombie counts.
pub fn is_dying(pid: Pid) -> bool {
    let mut line = [0; 1024];
    let Ok(count) = read_stat(pid, &mut line) else { return true };
    split_stat(&line[..count]).is_some_and(|(_, fields)| parse_dying(fields))
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
pub(super) fn read_stat(pid: Pid, line: &mut [u8; 1024]) -> io::Result<usize> {
    File::open(format!("/proc/{pid}/stat"))?.read(line)
}

/// The name, and the fields after it.
pub(super) fn split_stat(line: &[u8]) -> Option<(&[u8], &str)> {
    // The name may itself have parentheses and spaces, so it ends at the last one.
    let start = line.iter().position(|&byte| byte == b'(')?;
    let end = line.iter().rposition(|&byte| byte == b')')?;
    Some((line.get(start + 1..end)?, std::str::from_utf8(&line[end + 1..]).ok()?))
}

pub(super) fn parse_stat(pid: Pid, fields: &str) -> Option<Process> {
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse().ok();
    let (parent, group, session) = (number()?, number()?, number()?);
    // The numbers are those of proc_pid_stat(5), less three: the pid, the name, and this count from 0.
    let threads = fields.nth(17 - 4)?.parse().ok()?;
    let began = fields.nth(19 - 18)?.parse().ok()?;
    let state = match state {
        // Other threads may live on.
        "Z" | "X" | "x" if threads <= 1 => match fields.nth(49 - 20).and_then(|status| status.parse::<i32>().ok()) {
            // The exit code in the line is shown only to processes that may trace it.
            Some(status) if libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL => State::Killed,
            Some(_) | None => State::Ended,
        },
        "T" | "t" => State::Stopped,
        _ => State::Alive,
    };
    Some(Process { pid, parent, group, session, state, threads, began })
}

/// The flags of the process, and its pending signals.
fn parse_dying(fields: &str) -> bool {
    /// PF_EXITING of the kernel's sched.h.
    const EXITING: u64 = 4;
    const SIGKILL: u64 = 1 << (libc::SIGKILL - 1);
    let mut fields = fields.split_ascii_whitespace();
    let mut has = |skipped, bit| {
        fields.nth(skipped).and_then(|field| field.parse().ok()).is_some_and(|bits: u64| bits & bit != 0)
    };
    has(9 - 3, EXITING) || has(31 - 10, SIGKILL)
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
    use crate::sys::process;

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
    #[expect(clippy::disallowed_methods, reason = "a child of the test's own")]
    fn who_exits_or_has_a_pending_sigkill_is_dying() {
        // The flags are the 9th field, the pending signals the 31st.
        let dying = |flags: u64, pending: u64| {
            let fields: Vec<String> = (3..=52)
                .map(|field| match field {
                    9 => flags.to_string(),
                    31 => pending.to_string(),
                    _ => u64::MAX.to_string(),
                })
                .collect();
            parse_dying(&fields.join(" "))
        };
        assert!(!dying(!4, !256));
        assert!(dying(4, 0));
        assert!(dying(0, 256));
        assert!(!is_dying(process::id()));
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut child = std::process::Command::new("true").stdout(writer).spawn().expect("a child");
        // The pipe ends when the kernel closes the descriptors of a process that exits. Nobody has reaped it.
        assert_eq!(reader.read(&mut [0]).expect("an end"), 0);
        assert!(is_dying(child.id().cast_signed()));
        child.wait().expect("ours");
    }

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = line("a) Z (b c", 'S', 3, 0);
        let expected = Process { pid: 7, parent: 1, group: 5, session: 4, state: State::Alive, threads: 3, began: 100 };
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
}
