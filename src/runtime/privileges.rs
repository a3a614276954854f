//! What guard needs root for, before the first run: limits of the app, and the change of user. Errors end guard with 125.

use super::environment::Environment;
use crate::config::limits::{Limit, Resource, show};
use crate::config::{Config, Warning, WarningKind};
use crate::sys::errno::reason;
use crate::sys::limits::{self, ChildLimit};
use crate::sys::user::become_user;
use crate::sys::{Errno, process};
use anyhow::anyhow;
use nix::unistd::{AccessFlags, access};
use std::path::Path;

/// What would end guard at its start, or fail the first run, as far as `guard check` may try it.
pub fn doubts(config: &Config) -> Vec<Warning> {
    let limits = prepare_limits(config).err().map(|error| error.to_string());
    let files = Environment::new(config, false, 0).read_files(config).err().map(|unread| unread.to_string());
    let doubt = |text| Warning { kind: WarningKind::Doubt, variable: String::new(), text };
    limits.into_iter().chain(files).map(doubt).collect()
}

/// The limits of the app, ready to be set in each run.
pub(super) fn prepare_limits(config: &Config) -> anyhow::Result<Vec<ChildLimit>> {
    let prepare = |&(resource, limit): &(Resource, Limit)| {
        limits::prepare(of_kernel(resource), limit.soft, limit.hard).map_err(|(error, hard)| {
            let hard = if hard == u64::MAX { "unlimited".to_owned() } else { hard.to_string() };
            let (name, given, why) = (resource.variable(), show(config, resource), reason(error));
            anyhow!("{name}={given}: {why}: the hard limit may not be raised, so it takes {hard} at most")
        })
    };
    config.limits.iter().map(prepare).collect()
}

fn of_kernel(resource: Resource) -> limits::Resource {
    match resource {
        Resource::NoFile => limits::Resource::RLIMIT_NOFILE,
        Resource::Core => limits::Resource::RLIMIT_CORE,
        Resource::NProc => limits::Resource::RLIMIT_NPROC,
        Resource::MemLock => limits::Resource::RLIMIT_MEMLOCK,
        Resource::Stack => limits::Resource::RLIMIT_STACK,
    }
}

/// guard becomes the user that GUARD_USER names. What needs root is open by now.
pub(super) fn drop(config: &Config) -> anyhow::Result<()> {
    let Some(user) = &config.user else { return Ok(()) };
    let gid = user.gid_of_process(process::effective_ids());
    become_user(user.uid, gid, &user.groups).map_err(|error| {
        let why = if error == Errno::EPERM {
            let own = process::effective_uid();
            format!("uid {own} may not change its user or groups (CAP_SETUID, CAP_SETGID)")
        } else {
            reason(error).to_owned()
        };
        anyhow!("GUARD_USER={user}: {why}")
    })?;
    log::info!(user:%, uid = user.uid, gid; "user");
    let directory = config.drain_file.as_deref().and_then(Path::parent);
    if let Some(directory) = directory
        && let Err(error) = access(directory, AccessFlags::W_OK | AccessFlags::X_OK)
    {
        let msg = format!("{user} cannot write GUARD_DRAIN_FILE in {}: {}", directory.display(), reason(error));
        log::warn!(msg:%; "user");
    }
    Ok(())
}
