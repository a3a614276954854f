//! Memory cgroups of the tests' own, of version 1 or 2 (`cgroups(7)`).

use crate::common::{Setup, eventually, skipped};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A cgroup below the tests' own, removed when it is dropped.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// None where no memory cgroup can be made: that takes root, and a writable hierarchy.
    pub(crate) fn new(limit: u64) -> Option<Cgroup> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("guard-test-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let memberships = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let made = memberships.lines().find_map(|line| {
            let fields: Vec<&str> = line.splitn(3, ':').collect();
            let [_, controllers, own] = fields[..] else { return None };
            let own = own.trim_start_matches('/');
            match controllers {
                "" => Cgroup::below(&Path::new("/sys/fs/cgroup").join(own), &name, limit),
                "memory" => Cgroup::below(&Path::new("/sys/fs/cgroup/memory").join(own), &name, limit),
                _ => None,
            }
        });
        if made.is_none() {
            skipped("no memory cgroup can be made here");
        }
        made
    }

    fn below(parent: &Path, name: &str, limit: u64) -> Option<Cgroup> {
        // Version 2 hands the controller down only if it is told so, and only where no process is in between.
        let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
        let path = parent.join(name);
        fs::create_dir(&path).ok()?;
        let cgroup = Cgroup(path);
        cgroup.limit(limit).then_some(cgroup)
    }

    /// Sets the limit, in bytes. Where there is swap, it is no way out.
    pub(crate) fn limit(&self, bytes: u64) -> bool {
        let set = |file: &str, value: &str| fs::write(self.0.join(file), value).is_ok();
        let bytes = bytes.to_string();
        set("memory.swap.max", "0");
        // Version 1 lets neither of the two be the wrong side of the other.
        let combined = set("memory.memsw.limit_in_bytes", &bytes);
        let is_set = set("memory.max", &bytes) || set("memory.limit_in_bytes", &bytes);
        if !combined {
            set("memory.memsw.limit_in_bytes", &bytes);
        }
        is_set
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
