//! How often the kernel's out-of-memory killer has struck in this container's memory cgroup.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

/// The file with the count, kept open: it is read at every spawn.
pub struct OomCounter(File);

impl OomCounter {
    /// The counter of guard's own cgroup, v2 or v1 (`cgroups(7)`); `None` where there is none to read.
    pub fn of_this_cgroup() -> Option<OomCounter> {
        let mut memberships = String::new();
        if let Ok(file) = File::open("/proc/self/cgroup") {
            // A cgroup's path has 4096 bytes at most, and there are a dozen hierarchies.
            let _ = file.take(64 * 1024).read_to_string(&mut memberships);
        }
        let mut v2 = "";
        let mut v1 = "";
        for line in memberships.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            match (fields.next(), fields.next()) {
                (Some(""), Some(path)) => v2 = path,
                (Some(controllers), Some(path)) if controllers.split(',').any(|name| name == "memory") => v1 = path,
                _ => {}
            }
        }
        // In a cgroup namespace the mount's root is the container's own cgroup, whatever the path says.
        let candidates = [
            format!("/sys/fs/cgroup{v2}/memory.events"),
            "/sys/fs/cgroup/memory.events".to_owned(),
            format!("/sys/fs/cgroup/memory{v1}/memory.oom_control"),
            "/sys/fs/cgroup/memory/memory.oom_control".to_owned(),
        ];
        candidates
            .iter()
            .filter_map(|path| File::open(path).ok().map(OomCounter))
            .find(|counter| counter.read().is_some())
    }

    /// Processes killed so far.
    pub fn read(&self) -> Option<u64> {
        let mut buffer = [0; 1024];
        let count = self.0.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(&buffer[..count]).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }
}
