//! GUARD_INSTANCES=auto: as many instances as the container may use CPUs.

use super::Runtime;
use crate::config::{Config, Instances, MOST_INSTANCES};
use crate::sys::cgroup;

/// How many instances a configuration asks for, and whether that is a guess for want of a quota.
pub(super) fn instances(config: &Config) -> u32 {
    match config.instances {
        Instances::Number(number) => number,
        Instances::Auto => quota().unwrap_or(1),
    }
}

/// The container's CPU quota, rounded up, as a number of instances.
fn quota() -> Option<u32> {
    cgroup::cpus().map(|cpus| cpus.clamp(1, MOST_INSTANCES))
}

impl Runtime<'_> {
    /// Says so where GUARD_INSTANCES is `auto` and there is nothing to count by.
    pub(super) fn check_quota(&self) {
        if self.config.instances == Instances::Auto && quota().is_none() {
            log::warn!(instances = 1, msg = "auto, and the container has no CPU quota: one instance"; "no-cpu-quota");
        }
    }
}
