//! A cgroup that limits how many processes there are, for experiments that fork without an end.

use crate::common::{send, skipped};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A pids cgroup. All in it are killed, and it is removed, when it is dropped.
pub(crate) struct Pids(PathBuf);

impl Pids {
    /// One with room for so many processes; none where it cannot be made, which takes root and a writable hierarchy
    /// (`cgroups(7)`).
    pub(crate) fn limited_to(most: u32) -> Option<Pids> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("guard-pids-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let made = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].iter().find_map(|hierarchy| {
            let path = Path::new(hierarchy).join(&name);
            fs::create_dir(&path).ok()?;
            let made = Pids(path);
            made.limit(most).then_some(made)
        });
        if made.is_none() {
            skipped("no pids cgroup can be made here");
        }
        made
    }

    fn limit(&self, most: u32) -> bool {
        // Not to be created in a plain directory.
        fs::OpenOptions::new()
            .write(true)
            .open(self.0.join("pids.max"))
            .and_then(|mut file| std::io::Write::write_all(&mut file, most.to_string().as_bytes()))
            .is_ok()
    }

    /// What puts guard into it, for `Setup::inherits`.
    pub(crate) fn words(&self) -> String {
        format!("pids {}", self.0.display())
    }

    /// How many processes are in it.
    pub(crate) fn count(&self) -> u32 {
        fs::read_to_string(self.0.join("pids.current")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Pids {
    fn drop(&mut self) {
        // From here on none of them can fork.
        self.limit(0);
        let members = || fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for _ in 0..10_000 {
            members().split_whitespace().filter_map(|pid| pid.parse().ok()).for_each(|pid| send(pid, libc::SIGKILL));
            if fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::yield_now();
        }
    }
}
