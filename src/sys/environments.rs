//! The environments and the memory of other processes, which a copy of guard reads.
//!
//! /proc/PID/environ is read from that process's memory: the reader waits for its lock, which a process that forks holds
//! for seconds, and it is as long as its owner says. So guard itself never reads one. A copy does, bounded in bytes, and
//! is killed if it takes too long.

use super::clock::Deadline;
use super::rights::keep_only;
use super::{Errno, Pid, fork, procfs, signals, socket};
use crate::signal::Signal;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};

/// A longer environment counts as unreadable.
const LONGEST: usize = 128 * 1024;

/// The copy reads no more bytes than this in all.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// What the copy concludes from an environment.
pub type Finding = [u32; 3];

/// One finding as the copy writes it: the pid, and the three numbers.
const RECORD: usize = 16;

/// What a copy has found out.
#[derive(Debug)]
pub struct Findings {
    /// The copy, which is a child that has to be reaped.
    pub copy: Pid,
    /// Without those that the copy did not come to in time.
    pub of: Vec<(Pid, Finding)>,
}

/// A copy of guard reads the file of this name below /proc of each process, and concludes from it. An `environ` has the
/// environment that the process was started with, as it stands in its memory now. It is an error where guard
/// has no access (`ptrace(2)`, access mode checks), where it is too long, and where the process has ended (ENOENT or ESRCH).
/// Fails where no copy can be made.
pub fn read(
    pids: &[Pid],
    name: &str,
    deadline: Deadline,
    conclude: &dyn Fn(io::Result<&[u8]>) -> Finding,
) -> io::Result<Findings> {
    let (reader, writer) = socket::pipe()?;
    let copy = fork::spawn_copy(|| {
        // A socket that guard closes meanwhile is to be closed.
        keep_only([writer.as_raw_fd(); 2]);
        let mut writer = File::from(writer);
        let mut buffer = Vec::new();
        if buffer.try_reserve_exact(LONGEST + 1).is_err() {
            return;
        }
        buffer.resize(LONGEST + 1, 0);
        let mut left = MOST_BYTES;
        for &pid in pids {
            let room = &mut buffer[..LONGEST.min(left) + 1];
            let (finding, count) = match read_whole(pid, name, room) {
                Ok(count) => (conclude(Ok(&room[..count])), count),
                Err(error) => {
                    let count = if error.raw_os_error() == Some(libc::ESRCH) { 0 } else { LONGEST };
                    (conclude(Err(error)), count)
                }
            };
            left = left.saturating_sub(count);
            if writer.write_all(&record(pid, finding)).is_err() {
                return;
            }
        }
    })?;
    let (of, finished) = listen(File::from(reader), deadline);
    if !finished {
        let _ = signals::send(copy, Signal::KILL);
    }
    Ok(Findings { copy, of })
}

/// Reads a file that is shorter than the buffer.
fn read_whole(pid: Pid, name: &str, buffer: &mut [u8]) -> io::Result<usize> {
    let mut file = File::open(format!("/proc/{pid}/{name}"))?;
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            // Without memory there is nothing to read, which is no empty environment.
            0 if filled == 0 && procfs::has_ended(pid) => return Err(Errno::ESRCH.into()),
            0 => return Ok(filled),
            count => filled += count,
        }
    }
    Err(io::ErrorKind::FileTooLarge.into())
}

fn record(pid: Pid, [a, b, c]: Finding) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    let fields = [pid.to_ne_bytes(), a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes()];
    record.chunks_exact_mut(4).zip(fields).for_each(|(place, field)| place.copy_from_slice(&field));
    record
}

fn parse_record(record: &[u8]) -> Option<(Pid, Finding)> {
    let [pid, a, b, c] = [0, 4, 8, 12].map(|start| record.get(start..start + 4)?.try_into().ok());
    Some((Pid::from_ne_bytes(pid?), [u32::from_ne_bytes(a?), u32::from_ne_bytes(b?), u32::from_ne_bytes(c?)]))
}

/// Takes what the copy says until it has finished or the time is over.
fn listen(mut reader: File, deadline: Deadline) -> (Vec<(Pid, Finding)>, bool) {
    let (mut findings, mut buffer, mut filled) = (Vec::new(), [0; 256 * RECORD], 0);
    let finished = loop {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break true,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = deadline.left();
                if left.is_zero() || socket::wait_readable(&[reader.as_fd()], left).is_err() {
                    break false;
                }
            }
            Err(_) => break false,
        }
        let whole = filled - filled % RECORD;
        findings.extend(buffer[..whole].chunks_exact(RECORD).filter_map(parse_record));
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    };
    (findings, finished)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_its_numbers() {
        assert_eq!(parse_record(&record(4711, [1, 2, u32::MAX])), Some((4711, [1, 2, u32::MAX])));
        assert_eq!(parse_record(&[0; RECORD - 1]), None);
    }
}
