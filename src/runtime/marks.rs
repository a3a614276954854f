//! Marks: what the environment of a process says of the run to which it belongs. `leftovers.rs` has what follows from that.

use super::Runtime;
use super::leftovers::{LONGEST_WALK, is_undecided};
use crate::supervisor::RunId;
use crate::sys::Pid;
use crate::sys::environments::{self, Finding};
use crate::sys::procfs::Process;
use std::collections::HashMap;
use std::io;

/// What the environment of a process says of its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Of(RunId),
    /// A run of another guard, one inside of a run.
    Foreign,
    Missing,
    /// It has ended meanwhile, and its memory is freed.
    Ended,
    /// Unreadable, too long, or overwritten, as by programs that set their title.
    Unreadable,
}

impl Runtime<'_> {
    /// The marks of processes whose group names no owner. A copy of guard reads them; a mark that the copy does not report
    /// is unreadable.
    pub(super) fn read_marks(&mut self, processes: &[Process]) -> HashMap<Pid, Mark> {
        let undecided = processes.iter().filter(|process| process.lives() && is_undecided(process, &self.children));
        let undecided: Vec<Pid> = undecided.map(|process| process.pid).collect();
        let end = self.end_of_walk(LONGEST_WALK);
        if undecided.is_empty() || end.left().is_zero() {
            return HashMap::new();
        }
        let id = self.launch.environment.id();
        let conclude = |environment: io::Result<&[u8]>| encode(mark(environment, id));
        match environments::read(&undecided, "environ", end, &conclude) {
            Ok(findings) => {
                self.note_copy(findings.copy);
                findings.of.into_iter().map(|(pid, finding)| (pid, decode(finding))).collect()
            }
            Err(error) => {
                log::debug!(error:%; "no-copy");
                HashMap::new()
            }
        }
    }
}

fn mark(environment: io::Result<&[u8]>, id: &str) -> Mark {
    let environment = match environment {
        Ok(environment) => environment,
        Err(error) if [Some(libc::ENOENT), Some(libc::ESRCH)].contains(&error.raw_os_error()) => return Mark::Ended,
        Err(_) => return Mark::Unreadable,
    };
    let value = |name: &[u8]| {
        let entry = environment.split(|&byte| byte == 0).find_map(|entry| entry.strip_prefix(name))?;
        std::str::from_utf8(entry).ok()
    };
    let number = value(b"GUARD_RUN=").and_then(|text| text.parse().ok());
    let instance = value(b"GUARD_INSTANCE=").and_then(|text| text.parse().ok());
    match (number, instance) {
        (Some(number), Some(instance)) if value(b"GUARD_ID=") == Some(id) => Mark::Of(RunId { instance, number }),
        (Some(_), Some(_)) => Mark::Foreign,
        _ if !environment.is_empty() && !environment.contains(&b'=') => Mark::Unreadable,
        _ => Mark::Missing,
    }
}

/// A mark as the copy writes it down.
fn encode(mark: Mark) -> Finding {
    match mark {
        Mark::Of(run) => [1, run.instance, run.number],
        Mark::Missing => [0, 0, 0],
        Mark::Unreadable => [2, 0, 0],
        Mark::Foreign => [3, 0, 0],
        Mark::Ended => [4, 0, 0],
    }
}

fn decode([kind, instance, number]: Finding) -> Mark {
    match kind {
        0 => Mark::Missing,
        1 => Mark::Of(RunId { instance, number }),
        3 => Mark::Foreign,
        4 => Mark::Ended,
        _ => Mark::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_needs_all_variables() {
        let run = RunId { instance: 0, number: 3 };
        for (environment, expected) in [
            ("PATH=/bin\0GUARD_ID=7\0GUARD_RUN=3\0GUARD_INSTANCE=0\0", Mark::Of(run)),
            ("PATH=/bin\0GUARD_ID=8\0GUARD_RUN=3\0GUARD_INSTANCE=0\0", Mark::Foreign),
            ("PATH=/bin\0GUARD_RUN=3\0GUARD_INSTANCE=0\0", Mark::Foreign),
            ("PATH=/bin\0GUARD_ID=7\0GUARD_RUN=3\0", Mark::Missing),
            ("XGUARD_RUN=3\0GUARD_ID=7\0GUARD_INSTANCE=0\0", Mark::Missing),
        ] {
            assert_eq!(mark(Ok(environment.as_bytes()), "7"), expected, "{environment:?}");
        }
    }

    #[test]
    fn an_overwritten_environment_cannot_be_read() {
        assert_eq!(mark(Ok(b"worker process\0\0\0\0"), "7"), Mark::Unreadable);
        assert_eq!(mark(Ok(b""), "7"), Mark::Missing);
        for (code, expected) in
            [(libc::EACCES, Mark::Unreadable), (libc::ENOENT, Mark::Ended), (libc::ESRCH, Mark::Ended)]
        {
            assert_eq!(mark(Err(io::Error::from_raw_os_error(code)), "7"), expected);
        }
        assert_eq!(mark(Err(io::ErrorKind::FileTooLarge.into()), "7"), Mark::Unreadable);
    }

    #[test]
    fn a_mark_comes_through_the_pipe_as_it_was() {
        for mark in [
            Mark::Of(RunId { instance: 1_000, number: 7 }),
            Mark::Missing,
            Mark::Unreadable,
            Mark::Foreign,
            Mark::Ended,
        ] {
            assert_eq!(decode(encode(mark)), mark);
        }
    }
}
