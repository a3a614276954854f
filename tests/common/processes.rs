//! Guards of a user that nobody else is, and how many processes that user may have (RLIMIT_NPROC, `getrlimit(2)`).

use crate::common::{Answer, Guard, Setup, begin, child, fixture, in_path, skipped};
use std::process::Command;

/// Guard as that user, whose number is told too. The options and the app are still to be named.
pub(crate) fn of_another_user() -> Option<(Setup, String)> {
    if !nix::unistd::geteuid().is_root() {
        skipped("only root can be another user");
        return None;
    }
    let (app, user) = (fixture().to_str().expect("UTF-8"), (70_000 + std::process::id()).to_string());
    let setup = child().program(app).options(["in", "setuid", &user, "--", env!("CARGO_BIN_EXE_guard")]);
    Some((setup, user))
}

/// Limits how many processes guard's user may have: as that user, since containers have no CAP_SYS_RESOURCE.
pub(crate) fn limit_processes(guard: &Guard, user: &str, limit: u32) {
    let prlimit = in_path("prlimit").expect("util-linux has it beside unshare");
    let mut command = Command::new(fixture());
    command.args(["in", "setuid", user, "--"]).arg(prlimit);
    command.args(["--pid", &guard.pid().to_string(), &format!("--nproc={limit}:")]);
    assert_eq!(Answer::of(begin(&mut command)).code, 0);
}
