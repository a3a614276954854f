//! Guards in a mount namespace of their own, and who asks them there.

use crate::common::{Answer, Guard, Setup, begin, child, eventually, fixture, in_path, skipped};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

pub(crate) const GUARD: &str = env!("CARGO_BIN_EXE_guard");

/// A mount namespace of its own, in which no other test's guard is found: the options go on with what runs there.
pub(crate) fn alone() -> Option<Setup> {
    let unshare = in_path("unshare").filter(|_| nix::unistd::geteuid().is_root());
    if unshare.is_none() {
        skipped("a mount namespace of its own needs root");
    }
    unshare.map(|unshare| child().program(unshare).options(["--mount"]))
}

/// A command in the mount namespace of a guard that is alone there.
pub(crate) fn beside(guard: &Guard, words: &[&str]) -> Answer {
    let mut command = Command::new(in_path("nsenter").expect("who has unshare has nsenter"));
    command.args(["--target", &guard.pid().to_string(), "--mount", "--"]).args(words);
    Answer::of(begin(&mut command))
}

/// The same as another user, `guard` and its words.
pub(crate) fn beside_as(user: u32, guard: &Guard, words: &[&str]) -> Answer {
    let (fixture, user) = (fixture().to_str().expect("UTF-8"), user.to_string());
    let line = [&[fixture, "in", "setuid", &user, "--", GUARD], words].concat();
    beside(guard, &line)
}

/// The name of a guard's control socket. An inode is soon used again, and whoever had it before may not be quite gone.
pub(crate) fn name(pid: i32) -> String {
    let namespace = fs::metadata(format!("/proc/{pid}/ns/mnt")).expect("guard lives");
    let first = format!("@guard/{}", namespace.ino());
    eventually("guard's socket alone", || {
        let sockets = fs::read_to_string("/proc/net/unix").expect("a list of sockets");
        let names = sockets.lines().filter_map(|line| line.split_whitespace().nth(7));
        let mut own = names.filter(|name| *name == first || name.starts_with(&format!("{first}/")));
        own.next().filter(|_| own.next().is_none()).map(|name| name[1..].to_owned())
    })
}
