//! Cgroups of the tests' own, of version 1 or 2 (`cgroups(7)`).

use crate::common::{Setup, eventually, skipped};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A cgroup below the tests' own, removed when it is dropped.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// With so many bytes of memory. None where it cannot be made: that takes root, and a writable hierarchy.
    pub(crate) fn new(limit: u64) -> Option<Cgroup> {
        Cgroup::with("memory", |cgroup| cgroup.limit(limit))
    }

    /// With so many microseconds of the CPUs in each tenth of a second. None where it cannot be made.
    pub(crate) fn with_quota(microseconds: u32) -> Option<Cgroup> {
        Cgroup::with("cpu", |cgroup| cgroup.quota(microseconds))
    }

    fn with(controller: &str, set: impl Fn(&Cgroup) -> bool) -> Option<Cgroup> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("guard-test-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let made = memberships.lines().find_map(|line| {
            let fields: Vec<&str> = line.splitn(3, ':').collect();
            let [_, controllers, own] = fields[..] else { return None };
            let hierarchy = match controllers {
                "" => Path::new("/sys/fs/cgroup").to_owned(),
                several if several.split(',').any(|one| one == controller) => {
                    Path::new("/sys/fs/cgroup").join(controller)
                }
                _ => return None,
            };
            let parent = hierarchy.join(own.trim_start_matches('/'));
            // Version 2 hands the controller down only if it is told so, and only where no process is in between.
            let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
            let path = parent.join(&name);
            fs::create_dir(&path).ok()?;
            let cgroup = Cgroup(path);
            set(&cgroup).then_some(cgroup)
        });
        if made.is_none() {
            skipped(&format!("no {controller} cgroup can be made here"));
        }
        made
    }

    /// Another below this one, without limits of its own.
    pub(crate) fn below(&self) -> Cgroup {
        let path = self.0.join("below");
        fs::create_dir(&path).expect("a cgroup can be made");
        Cgroup(path)
    }

    /// Sets the limit, in bytes. Where there is swap, it is no way out.
    pub(crate) fn limit(&self, bytes: u64) -> bool {
        let bytes = bytes.to_string();
        self.set("memory.swap.max", "0");
        // Version 1 lets neither of the two be the wrong side of the other.
        let combined = self.set("memory.memsw.limit_in_bytes", &bytes);
        let is_set = self.set("memory.max", &bytes) || self.set("memory.limit_in_bytes", &bytes);
        if !combined {
            self.set("memory.memsw.limit_in_bytes", &bytes);
        }
        is_set
    }

    /// Sets the CPU time in each tenth of a second.
    pub(crate) fn quota(&self, microseconds: u32) -> bool {
        self.set("cpu.max", &format!("{microseconds} 100000"))
            || self.set("cpu.cfs_period_us", "100000") && self.set("cpu.cfs_quota_us", &microseconds.to_string())
    }

    fn set(&self, file: &str, value: &str) -> bool {
        fs::write(self.0.join(file), value).is_ok()
    }

    /// Guard in the cgroup; its options and its app are still to be named.
    pub(crate) fn setup(&self, setup: Setup) -> Setup {
        let enter = format!("echo $$ >'{}/cgroup.procs' && exec \"$@\"", self.0.display());
        setup.program("/bin/sh").options(["-c", &enter, "sh", env!("CARGO_BIN_EXE_guard")])
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Some time may pass until the kernel counts the last process as gone.
        let removed = || fs::remove_dir(&self.0).ok();
        if std::thread::panicking() {
            removed();
        } else {
            eventually("end of the cgroup", removed);
        }
    }
}
