//! What this container's cgroups show: how often the kernel's out-of-memory killer has struck, how many CPUs and how much memory it
//! may use.

use super::Errno;
use super::errno::is_shortage;
use super::file::read_text;
use super::poll::{Poll, Token};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::fs::File;
use std::io::Write;
use std::iter;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

/// The text of /proc/self/cgroup (`cgroups(7)`): a cgroup's path has 4096 bytes at most, and there are a dozen hierarchies.
fn memberships() -> Result<String, Errno> {
    text_of("/proc/self/cgroup")
}

/// The text of a file; empty where there is none that guard may read. The error is one of a shortage, and may be over soon.
fn text_of(path: &str) -> Result<String, Errno> {
    match read_text(path) {
        Err(error) if is_shortage(error) => Err(error),
        text => Ok(text.unwrap_or_default()),
    }
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
/// A quota of a cgroup above counts too, as far as it can be seen. The error is one of a shortage ([`is_shortage`]).
pub fn cpus() -> Result<Option<u64>, Errno> {
    let v1 = ("/sys/fs/cgroup/cpu", &["cpu.cfs_quota_us", "cpu.cfs_period_us"][..]);
    least("cpu", [("/sys/fs/cgroup", &["cpu.max"]), v1], whole_cpus)
}

/// The memory that this container may use, in bytes; `None` without a limit (memory.max of cgroup v2, memory.limit_in_bytes
/// of v1). A limit of a cgroup above counts too, as far as it can be seen. The error is one of a shortage ([`is_shortage`]).
pub fn memory_limit() -> Result<Option<u64>, Errno> {
    // Where v1 has no limit it names the greatest number of bytes in whole pages.
    const NONE: u64 = 1 << 60;
    let v1 = ("/sys/fs/cgroup/memory", &["memory.limit_in_bytes"][..]);
    let limit = |text: &str| text.trim().parse().ok().filter(|limit| *limit < NONE);
    least("memory", [("/sys/fs/cgroup", &["memory.max"]), v1], limit)
}

/// The files of a controller, and where the cgroups are that have them.
type Files<'a> = (&'a str, &'a [&'a str]);

/// The least limit of guard's cgroup and of those above it, by the files of v2 or those of v1.
fn least(controller: &str, files: [Files; 2], limit: fn(&str) -> Option<u64>) -> Result<Option<u64>, Errno> {
    let memberships = memberships()?;
    let (v2, v1) = paths(&memberships, controller);
    let mut least = u64::MAX;
    for (path, (root, files)) in [v2, v1].into_iter().zip(files) {
        for directory in with_parents(root, path) {
            let mut text = String::new();
            for file in files {
                text += &text_of(&format!("{directory}/{file}"))?;
            }
            least = least.min(limit(&text).unwrap_or(u64::MAX));
        }
    }
    Ok(Some(least).filter(|least| *least < u64::MAX))
}

/// A directory below the root, and all above it up to the root. In a cgroup namespace the root is the container's own cgroup,
/// whatever the path says.
fn with_parents(root: &str, path: &str) -> impl Iterator<Item = String> {
    let parents = iter::successors(Some(path.trim_end_matches('/')), |path| path.rfind('/').map(|end| &path[..end]));
    parents.map(move |path| root.to_owned() + path)
}

/// A quota and its period. `max` and -1 are no quota.
fn whole_cpus(text: &str) -> Option<u64> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let (quota, period): (u64, u64) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    quota.checked_add(period)?.checked_sub(1)?.checked_div(period)
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
        let memberships = memberships().ok()?;
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
        for (quota, expected) in [
            ("max 100000\n", None),
            ("-1\n100000\n", None),
            ("1000\n100000\n", Some(1)),
            ("100000 100000\n", Some(1)),
            ("100001 100000\n", Some(2)),
            ("350000\n100000\n", Some(4)),
            ("100000 0\n", None),
            ("", None),
        ] {
            assert_eq!(whole_cpus(quota), expected, "{quota}");
        }
    }

    #[test]
    fn a_cgroup_is_looked_for_from_its_path_up_to_the_root() {
        let directories: Vec<String> = with_parents("/sys/fs/cgroup", "/a/b").collect();
        assert_eq!(directories, ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]);
        assert_eq!(with_parents("/r", "/").collect::<Vec<_>>(), ["/r"]);
    }

    #[test]
    fn memberships_are_told_by_controller() {
        let text = "12:cpu,cpuacct:/one\n5:cpuset:/two\n4:memory:/three\n0::/four\n";
        assert_eq!(paths(text, "cpu"), ("/four", "/one"));
        assert_eq!(paths(text, "memory"), ("/four", "/three"));
        assert_eq!(paths("", "cpu"), ("", ""));
    }
}
