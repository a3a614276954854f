//! What this container's cgroups show: how often the kernel's out-of-memory killer has struck, how many CPUs and how much memory it
//! may use.

use super::file::read_text;
use super::poll::{Poll, Token};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The text of /proc/self/cgroup (`cgroups(7)`): a cgroup's path has 4096 bytes at most, and there are a dozen hierarchies.
fn memberships() -> String {
    read_text("/proc/self/cgroup").unwrap_or_default()
}

/// The paths of guard's cgroup, in v2 and in the v1 hierarchy of this controller; empty where there is none.
fn paths<'a>(memberships: &'a str, controller: &str) -> (&'a str, &'a str) {
    let (mut v2, mut v1) = ("", "");
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        match (fields.next(), fields.next()) {
            (Some(""), Some(path)) => v2 = path,
            (Some(controllers), Some(path)) if controllers.split(',').any(|name| name == controller) => v1 = path,
            _ => {}
        }
    }
    (v2, v1)
}

/// How many CPUs this container may use, rounded up; `None` without a quota (cpu.max of cgroup v2, cpu.cfs_quota_us of v1).
/// A quota of a cgroup above counts too, as far as it can be seen.
pub fn cpus() -> Option<u32> {
    let memberships = memberships();
    let (v2, v1) = paths(&memberships, "cpu");
    let quotas = with_parents("/sys/fs/cgroup", v2).filter_map(|directory| {
        let text = read_text(&(directory + "/cpu.max")).ok()?;
        let (quota, period) = text.trim().split_once(' ')?;
        whole_cpus(quota, period)
    });
    let quotas_v1 = with_parents("/sys/fs/cgroup/cpu", v1).filter_map(|directory| {
        let quota = read_text(&format!("{directory}/cpu.cfs_quota_us")).ok()?;
        let period = read_text(&(directory + "/cpu.cfs_period_us")).ok()?;
        whole_cpus(quota.trim(), period.trim())
    });
    quotas.min().into_iter().chain(quotas_v1.min()).min()
}

/// The memory that this container may use, in bytes; `None` without a limit (memory.max of cgroup v2, memory.limit_in_bytes
/// of v1). A limit of a cgroup above counts too, as far as it can be seen.
pub fn memory_limit() -> Option<u64> {
    // Where v1 has no limit it names the greatest number of bytes in whole pages.
    const NONE: u64 = 1 << 60;
    let memberships = memberships();
    let (v2, v1) = paths(&memberships, "memory");
    let files = [("/sys/fs/cgroup", v2, "memory.max"), ("/sys/fs/cgroup/memory", v1, "memory.limit_in_bytes")];
    let mut least = None;
    for (root, path, file) in files {
        for directory in with_parents(root, path) {
            let text = read_text(&format!("{directory}/{file}")).unwrap_or_default();
            let limit = text.trim().parse().ok().filter(|limit| *limit < NONE);
            least = [least, limit].into_iter().flatten().min();
        }
    }
    least
}

/// A directory below the root, and all above it up to the root. In a cgroup namespace the root is the container's own cgroup,
/// whatever the path says.
fn with_parents(root: &str, path: &str) -> impl Iterator<Item = String> {
    let parents = Path::new(path.trim_matches('/')).ancestors();
    parents.map(move |path| Path::new(root).join(path).display().to_string())
}

/// `max` and -1 are no quota.
fn whole_cpus(quota: &str, period: &str) -> Option<u32> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    u32::try_from(quota.checked_add(period)?.checked_sub(1)?.checked_div(period)?).ok()
}

/// The kernel's count of the processes that its out-of-memory killer has killed.
pub struct OomCounter {
    /// With the count, kept open.
    file: File,
    /// The count when it was last read.
    seen: u64,
    notices: Notices,
}

/// By what the kernel notifies guard.
enum Notices {
    /// The file itself (v2).
    File,
    /// v1, where guard may ask for it.
    Event(EventFd),
    Nothing,
}

impl OomCounter {
    /// The counter of guard's own cgroup, or of the next one above that has one, v2 or v1 (`cgroups(7)`); `None` where there is
    /// none to read.
    pub fn of_this_cgroup() -> Option<OomCounter> {
        let memberships = memberships();
        let (v2, v1) = paths(&memberships, "memory");
        let of_v2 = with_parents("/sys/fs/cgroup", v2).find_map(|directory| {
            let (file, seen) = open(directory + "/memory.events")?;
            Some(OomCounter { file, seen, notices: Notices::File })
        });
        of_v2.or_else(|| {
            with_parents("/sys/fs/cgroup/memory", v1).find_map(|directory| {
                let (file, seen) = open(format!("{directory}/memory.oom_control"))?;
                let notices = notices(&directory, &file).map_or(Notices::Nothing, Notices::Event);
                Some(OomCounter { file, seen, notices })
            })
        })
    }

    /// How many processes were killed since this was last asked. The kernel counts before it kills.
    pub fn more(&mut self) -> u64 {
        let count = read(&self.file).unwrap_or(self.seen);
        count.saturating_sub(std::mem::replace(&mut self.seen, count))
    }

    /// Has the kernel notify once by this token: when the killer is about to strike (v1), or when the count has changed or
    /// another one of its file (v2); `false` where it cannot.
    pub fn await_notice(&self, poll: &Poll, token: Token) -> bool {
        let added = match &self.notices {
            Notices::File => poll.add_once_for_news(self.file.as_fd(), token),
            Notices::Event(event) => {
                // Until it is read it has something to read.
                let _ = event.read();
                poll.add_once_for_reading(event.as_fd(), token)
            }
            Notices::Nothing => return false,
        };
        added.is_ok()
    }
}

/// A file with a count, and the count.
fn open(path: String) -> Option<(File, u64)> {
    let file = File::open(path).ok()?;
    let seen = read(&file)?;
    Some((file, seen))
}

/// Has the kernel notify of memory.oom_control. That takes a hierarchy that guard may write to, which few containers have
/// (cgroup-v1/memory.rst of the kernel's documentation).
fn notices(directory: &str, oom_control: &File) -> Option<EventFd> {
    let control = File::options().write(true).open(format!("{directory}/cgroup.event_control")).ok()?;
    let notices = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).ok()?;
    (&control).write_all(format!("{} {}", notices.as_raw_fd(), oom_control.as_raw_fd()).as_bytes()).ok()?;
    Some(notices)
}

/// Processes killed so far.
fn read(file: &File) -> Option<u64> {
    let mut buffer = [0; 1024];
    let count = file.read_at(&mut buffer, 0).ok()?;
    let text = std::str::from_utf8(&buffer[..count]).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_rounded_up() {
        for (quota, period, expected) in [
            ("max", "100000", None),
            ("-1", "100000", None),
            ("1000", "100000", Some(1)),
            ("100000", "100000", Some(1)),
            ("100001", "100000", Some(2)),
            ("350000", "100000", Some(4)),
            ("100000", "0", None),
        ] {
            assert_eq!(whole_cpus(quota, period), expected, "{quota} {period}");
        }
    }

    #[test]
    fn a_cgroup_is_looked_for_from_its_path_up_to_the_root() {
        let directories: Vec<String> = with_parents("/sys/fs/cgroup", "/a/b").collect();
        assert_eq!(directories, ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup/"]);
        assert_eq!(with_parents("/r", "/").collect::<Vec<_>>(), ["/r/"]);
    }

    #[test]
    fn memberships_are_told_by_controller() {
        let text = "12:cpu,cpuacct:/one\n5:cpuset:/two\n4:memory:/three\n0::/four\n";
        assert_eq!(paths(text, "cpu"), ("/four", "/one"));
        assert_eq!(paths(text, "memory"), ("/four", "/three"));
        assert_eq!(paths("", "cpu"), ("", ""));
    }
}
