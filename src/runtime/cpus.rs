//! How many instances there are: GUARD_INSTANCES=auto wants as many as the container may use CPUs.

use super::Runtime;
use crate::config::{Config, Instances, MOST_INSTANCES};
use crate::sys::{Errno, cgroup};

/// How many instances a configuration asks for.
pub(super) fn instances(config: &Config) -> u32 {
    match config.instances {
        Instances::Number(number) => number,
        Instances::Auto => quota().ok().flatten().unwrap_or(1),
    }
}

/// The container's CPU quota, rounded up, as a number of instances.
fn quota() -> Result<Option<u32>, Errno> {
    Ok(cgroup::cpus()?.map(|cpus| u32::try_from(cpus).unwrap_or(MOST_INSTANCES).clamp(1, MOST_INSTANCES)))
}

impl Runtime<'_> {
    /// Says so where GUARD_INSTANCES is `auto` and there is nothing to count by.
    pub(super) fn check_quota(&mut self) {
        if self.config.instances == Instances::Auto {
            self.count_cpus();
        }
    }

    /// The container's CPU quota; 1 without one, with a warning when that is new. Where it cannot be read for now it is what it was.
    pub(super) fn count_cpus(&mut self) -> u32 {
        if let Ok(quota) = quota() {
            if quota.is_none() && self.cpu_quota != Some(None) {
                log::warn!(instances = 1, msg = "auto, and the container has no CPU quota: one instance"; "no-cpu-quota");
            }
            self.cpu_quota = Some(quota);
        }
        self.cpu_quota.flatten().unwrap_or(1)
    }

    /// Instances may have come or gone.
    pub(super) fn note_instances(&mut self) {
        let count = u32::try_from(self.supervisor.instance_count()).unwrap_or(u32::MAX);
        if self.journal.instances != count {
            let known: Vec<u32> = self.supervisor.instances().map(|instance| instance.number).collect();
            self.journal.keep_instances(count, &known);
        }
    }
}
