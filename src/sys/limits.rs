//! Resource limits of a child (`setrlimit(2)`), and how many descriptors guard itself may have.

use super::Errno;
pub use nix::sys::resource::Resource;
use nix::sys::resource::{RLIM_INFINITY, getrlimit, setrlimit};
use std::sync::OnceLock;

/// A limit as the kernel takes it.
#[derive(Clone, Copy)]
pub struct ChildLimit {
    resource: Resource,
    limit: libc::rlimit,
}

/// Prepares the limit of a child. Where the child needs a higher hard limit guard raises its own now, since it cannot when it has
/// changed its user. Its soft limit stays. `None` is unlimited; without a `hard` limit the present one stays, or is raised to
/// the soft one. The error is that of `setrlimit(2)`, with the hard limit that is in force.
pub fn prepare(resource: Resource, soft: Option<u64>, hard: Option<Option<u64>>) -> Result<ChildLimit, (Errno, u64)> {
    let (own_soft, own_hard) = getrlimit(resource).map_err(|error| (error, 0))?;
    let value = |limit: Option<u64>| limit.unwrap_or(RLIM_INFINITY);
    let soft = value(soft);
    let hard = hard.map_or(own_hard.max(soft), value);
    if hard > own_hard {
        setrlimit(resource, own_soft, hard).map_err(|error| (error, own_hard))?;
    }
    Ok(ChildLimit { resource, limit: libc::rlimit { rlim_cur: soft, rlim_max: hard } })
}

/// The limit of descriptors that guard was started with, where it has raised its own.
static FOUND: OnceLock<Option<ChildLimit>> = OnceLock::new();

/// Raises guard's soft limit of descriptors to the hard one, once. Each child gets the limit back.
pub fn raise_descriptors() {
    FOUND.get_or_init(|| {
        let resource = Resource::RLIMIT_NOFILE;
        let (soft, hard) = getrlimit(resource).ok().filter(|(soft, hard)| soft < hard)?;
        setrlimit(resource, hard, hard).ok()?;
        Some(ChildLimit { resource, limit: libc::rlimit { rlim_cur: soft, rlim_max: hard } })
    });
}

/// The limits of a child, in the order in which they are set.
pub(super) fn of_child(own: &[ChildLimit]) -> impl Iterator<Item = &ChildLimit> {
    FOUND.get().into_iter().flatten().chain(own)
}

impl ChildLimit {
    /// Sets the limit of this process. It only makes the system call, so a child may do it between clone and exec.
    pub(super) fn set(&self) -> Result<(), Errno> {
        // SAFETY: setrlimit(2) reads one structure.
        Errno::result(unsafe { libc::setrlimit(self.resource as _, &raw const self.limit) }).map(drop)
    }
}
