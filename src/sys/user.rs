//! Becoming another user for good.

use super::Errno;
use nix::sys::stat::fstat;
use nix::unistd::{Gid, Uid, fchown, getegid, geteuid, isatty, setgroups, setresgid, setresuid, setuid};
use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd};

/// Changes the real, effective and saved ids of this process, and its groups (`credentials(7)`). There is no way back: of root's
/// capabilities none is left (`capabilities(7)`). A process that is that user and in that group already keeps its other groups where
/// it may not change them. The error is that of the first call that failed.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    give_standard_streams(uid);
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    // A process that is that user already needs no permission for it.
    let is_unchanged = geteuid() == uid;
    match setgroups(&groups).and_then(|()| setresgid(gid, gid, gid)) {
        Err(Errno::EPERM) if is_unchanged && getegid() == gid => {}
        result => result?,
    }
    setresuid(uid, uid, uid)?;
    if !uid.is_root() && setuid(Uid::from_raw(0)).is_ok() {
        return Err(Errno::ENOTRECOVERABLE);
    }
    if !uid.is_root() && !is_unchanged {
        drop_capabilities()?;
    }
    // The kernel hides a process that has changed its user from that user, /proc/self included (PR_SET_DUMPABLE, prctl(2)).
    // SAFETY: takes plain numbers.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) }).map(drop)
}

/// The kernel takes most capabilities away with the last id of root, but not those that a program with capabilities of its own
/// would inherit.
fn drop_capabilities() -> Result<(), Errno> {
    // _LINUX_CAPABILITY_VERSION_3 and this process; no effective, permitted and inheritable ones (<linux/capability.h>).
    let (header, none) = ([0x2008_0522_u32, 0], [0_u32; 6]);
    // SAFETY: capset(2) reads two structures of these sizes.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) }).map(drop)
}

/// Gives a socket to a user, where that is allowed.
pub fn give(socket: BorrowedFd, uid: u32) {
    let _ = fchown(socket, Some(Uid::from_raw(uid)), None);
}

/// Gives pipes and terminals at descriptors 0 to 2 to the user, as engines do for the user that an image names: an app that opens
/// /dev/stdout would otherwise be refused. Where that may not be done, it runs all the same.
fn give_standard_streams(uid: Uid) {
    let (stdin, stdout, stderr) = (stdin(), stdout(), stderr());
    for descriptor in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let is_stream = fstat(descriptor).is_ok_and(|status| {
            let kind = status.st_mode & libc::S_IFMT;
            // A terminal, and not /dev/null, which is everybody's.
            kind == libc::S_IFIFO || kind == libc::S_IFCHR && isatty(descriptor).unwrap_or(false)
        });
        if is_stream {
            let _ = fchown(descriptor, Some(uid), None);
        }
    }
}
