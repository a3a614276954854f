//! GUARD_MAX_MEMORY: guard measures what the processes of each run use, more often the nearer that is to the limit.
//!
//! The resident sets are cheap to read and count what processes share once for each, so they are too large for a tree of
//! forked workers. Only where they are above the limit guard reads the true figure, the proportional sets (Pss,
//! `proc_pid_smaps(5)`), which costs the kernel a walk through the page tables.

use super::Runtime;
use super::journal::of_run;
use crate::config::MaxMemory;
use crate::report;
use crate::supervisor::{Event, RunId, Timestamp};
use crate::sys::procfs::Usage;
use crate::sys::{Pid, cgroup, environments, procfs};
use log::Level;
use std::io;
use std::time::Duration;

/// From the start of a run to its first measurement.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Where a run grows so fast that it would be at the limit soon.
const SHORTEST_PAUSE: u64 = 100;

/// Where a run is near the limit and does not grow.
const PAUSE_AT_THE_LIMIT: u64 = 500;

/// How fast a run may begin to grow, in KiB a second, so that guard still looks before it is at the limit.
const SUDDEN_GROWTH: u64 = 64 << 10;

const LONGEST_PAUSE: u64 = 10_000;

/// How long guard waits for the proportional sets. Where a CPU quota is used up the reader waits for the next tenths of a second
/// (`cpu.max` of `cgroups(7)`).
const LONGEST_READING: Duration = Duration::from_millis(300);

/// A pause is at least this many times as long as the measurement before it.
const SHARE: u32 = 20;

/// When guard measures the memory of the runs.
#[derive(Default)]
pub(super) struct Measuring {
    pub(super) due: Option<Timestamp>,
    /// What the last look found for somebody who asked, and until when that is told to others.
    recent: Option<(Timestamp, Vec<(RunId, Usage)>)>,
    /// The container's limit when guard last read it. Where there was none the log says so.
    container: Option<Option<u64>>,
}

impl Runtime<'_> {
    /// A run has started.
    pub(super) fn measure_soon(&mut self) {
        if self.limits_memory() {
            // The log says at once where the container has none.
            self.memory_limit();
            let at = self.clock.now().after(FIRST_PAUSE);
            self.measuring.due = Some(self.measuring.due.map_or(at, |due| due.min(at)));
        }
    }

    fn limits_memory(&self) -> bool {
        self.config.max_memory.is_some() && self.config.restart.may_restart()
    }

    /// What each instance may use, in bytes.
    pub(super) fn memory_limit(&mut self) -> Option<u64> {
        let limit = self.config.max_memory.filter(|_| self.limits_memory())?;
        let percent = match limit {
            MaxMemory::Bytes(bytes) => return Some(bytes),
            MaxMemory::Percent(percent) => percent,
        };
        if let Ok(container) = cgroup::memory_limit() {
            if container.is_none() && self.measuring.container != Some(None) {
                let msg =
                    "the container has no memory limit, of which there could be a percentage: the app has none either";
                log::warn!(max_memory:% = format!("{percent}%"), msg; "no-memory-limit");
            }
            self.measuring.container = Some(container);
        }
        let instances = u64::try_from(self.supervisor.instance_count()).unwrap_or(1).max(1);
        self.measuring.container.flatten().map(|bytes| ((bytes >> 10) * u64::from(percent) / 100 / instances) << 10)
    }

    /// What each living run uses, for somebody who asks. A stranger may ask without a pause, so a look that took long is told for a
    /// while.
    pub(super) fn usage(&mut self) -> Vec<(RunId, Usage)> {
        let began = self.clock.now();
        match &self.measuring.recent {
            Some((until, usage)) if began < *until => usage.clone(),
            Some(_) | None => {
                let mut usage: Vec<_> = self.measure().into_iter().map(|(id, usage, _)| (id, usage)).collect();
                for (id, usage) in &mut usage {
                    // What a process used that ended, and whom the app did not reap, does not vanish.
                    if let Some(run) = self.children.get_mut(*id) {
                        run.most_cpu = run.most_cpu.max(usage.cpu);
                        usage.cpu = run.most_cpu;
                    }
                }
                let now = self.clock.now();
                self.measuring.recent = Some((now.after(now.since(began) * SHARE), usage.clone()));
                usage
            }
        }
    }

    /// Measures each run that serves.
    pub(super) fn check_memory(&mut self) {
        let serving: Vec<RunId> = self.supervisor.serving().collect();
        let began = self.clock.now();
        let limit = self.memory_limit().filter(|_| !serving.is_empty());
        let Some(limit) = limit else {
            // A reload may put a run back that was not serving for a while, and a container may get a limit while it runs.
            let lives = self.limits_memory() && self.children.runs().next().is_some();
            self.measuring.due = lives.then(|| began.after(Duration::from_millis(LONGEST_PAUSE)));
            return;
        };
        let mut pause = LONGEST_PAUSE;
        let mut exceeded = Vec::new();
        for (id, usage, pids) in self.measure() {
            if !serving.contains(&id) {
                continue;
            }
            let memory = if usage.memory > limit { self.proportional(&pids) } else { usage.memory };
            of_run!(self.journal, Level::Debug, id, memory = report::size(memory), limit = report::size(limit); "memory");
            let now = self.clock.now();
            let Some(run) = self.children.get_mut(id) else { continue };
            let (at, before) = std::mem::replace(&mut run.measured, (now, memory));
            let is_known = std::mem::replace(&mut run.limit_logged, memory > limit);
            if memory > limit {
                exceeded.push((id, memory, is_known));
            }
            pause = pause.min(pause_after(now.since(at), before, memory, limit));
        }
        let now = self.clock.now();
        let pause = Duration::from_millis(pause).max(now.since(began) * SHARE);
        self.measuring.due = Some(now.after(pause));
        for (run, memory, is_known) in exceeded {
            // It may stay for as long as another instance's reload takes.
            let level = if is_known { Level::Debug } else { Level::Warn };
            let (memory, limit) = (report::size(memory), report::size(limit));
            of_run!(self.journal, level, run, memory, limit, msg = "more than GUARD_MAX_MEMORY"; "memory-limit");
            self.dispatch(Event::MemoryExceeded(run));
        }
    }

    /// What these processes use together, in bytes; see [`memory_of_all`].
    fn proportional(&mut self, pids: &[Pid]) -> u64 {
        let conclude = |text: io::Result<&[u8]>| [text.ok().and_then(proportional_set).unwrap_or(HIDDEN), 0, 0];
        let read = environments::read(pids, "smaps_rollup", self.before_next_kill(LONGEST_READING), &conclude);
        let found = read.map_or_else(
            |_| Vec::new(),
            |findings| {
                self.note_copy(findings.copy);
                findings.of
            },
        );
        memory_of_all(pids.iter().map(|pid| {
            let proportional = found.iter().find(|(known, _)| known == pid).map(|(_, [kibibytes, ..])| *kibibytes);
            (proportional, procfs::usage(*pid).unwrap_or_default().memory)
        }))
    }
}

/// In place of a proportional set that guard may not read.
const HIDDEN: u32 = u32::MAX;

/// What processes use together, in bytes, by the proportional set of each, in KiB, and its resident set. Where guard may not
/// read one the resident set counts. Where guard had no time for some, they use as much as the largest of them at least:
/// what is only slow to read is no reason to end a run.
fn memory_of_all(processes: impl Iterator<Item = (Option<u32>, u64)>) -> u64 {
    let (mut sum, mut largest_unread) = (0, 0);
    for (proportional, resident) in processes {
        match proportional {
            Some(HIDDEN) => sum += resident,
            Some(kibibytes) => sum += u64::from(kibibytes) * 1024,
            None => largest_unread = resident.max(largest_unread),
        }
    }
    sum.max(largest_unread)
}

/// The proportional set in the text of /proc/PID/smaps_rollup, in KiB.
fn proportional_set(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse().ok())
}

/// The pause before the next measurement, in milliseconds: half of the time to the limit if the run goes on growing as it did
/// since the last one, less the nearer the limit is, and no longer than a run at rest needs that begins to grow.
fn pause_after(time: Duration, before: u64, memory: u64, limit: u64) -> u64 {
    let kibibytes = |bytes: u64| bytes >> 10;
    let left = kibibytes(limit.saturating_sub(memory));
    let sudden = left.saturating_mul(1_000) / SUDDEN_GROWTH;
    let near = (LONGEST_PAUSE.saturating_mul(left) / kibibytes(limit).max(1)).min(sudden).max(PAUSE_AT_THE_LIMIT);
    let growth = kibibytes(memory.saturating_sub(before));
    let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let half = (time.saturating_mul(left) / 2).checked_div(growth).unwrap_or(near);
    half.max(SHORTEST_PAUSE).min(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proportional_set_is_found() {
        let text = b"5581-7ffc ---p 00000000 00:00 0 [rollup]\nRss:  9000 kB\nPss:      4321 kB\nPss_Anon:  1 kB\n";
        assert_eq!(proportional_set(text), Some(4321));
        assert_eq!(proportional_set(b""), None);
    }

    #[test]
    fn what_is_shared_counts_once_as_far_as_guard_can_read() {
        let [a, b, hidden] = [(Some(10), 90 << 10), (Some(20), 80 << 10), (Some(HIDDEN), 70 << 10)];
        let unread = |(_, resident)| (None, resident);
        let kibibytes = |processes: &[(Option<u32>, u64)]| memory_of_all(processes.iter().copied()) >> 10;
        assert_eq!(kibibytes(&[a, b]), 30);
        assert_eq!(kibibytes(&[a, b, hidden]), 100);
        assert_eq!(kibibytes(&[unread(a), unread(b)]), 90, "neither more nor less is sure");
        assert_eq!(kibibytes(&[a, hidden, unread(b)]), 80);
        assert_eq!(kibibytes(&[]), 0);
    }

    #[test]
    fn guard_looks_more_often_the_nearer_the_limit_is() {
        let second = Duration::from_secs(1);
        let mebibytes = |count: u64| count << 20;
        for (before, memory, limit, pause) in [
            (10, 10, 1_000, 9_900),
            (500, 500, 1_000, 5_000),
            (950, 950, 1_000, 500),
            (400, 300, 1_000, 7_000),
            // It would be there in 5 seconds.
            (400, 500, 1_000, 2_500),
            (0, 990, 1_000, 100),
            (1_000, 1_000, 1_000, 500),
            (1_000, 1_001, 1_000, 100),
            // It could be there in 2 seconds.
            (32, 32, 160, 2_000),
        ] {
            let [before, now, limit] = [before, memory, limit].map(mebibytes);
            assert_eq!(pause_after(second, before, now, limit), pause, "{memory} of {limit}");
        }
    }
}
