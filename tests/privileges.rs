//! GUARD_USER and GUARD_LIMIT_*: what the app may do, and as whom.

use crate::common::{self, Answer, Setup, begin, child, in_path, pid1, skipped, status_field};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{User, geteuid};
use std::process::Command;
use tempfile::TempDir;

/// Guard as PID 1 and as a child, where both may change their user; none where the tests are not root's.
fn as_root() -> Vec<Setup> {
    if !geteuid().is_root() {
        skipped("only root can become another user");
        return Vec::new();
    }
    // In a user namespace that maps root alone there would be nobody else to become.
    pid1().into_iter().chain([child()]).collect()
}

fn nobody() -> User {
    User::from_name("nobody").ok().flatten().expect("the tests' system has a user nobody")
}

const WHO: &str = "echo stdout >/dev/stdout && echo ids $(id -u) $(id -g) $(id -G) $HOME; exec sleep 1000";

#[test]
fn the_app_and_guard_become_the_user() {
    let nobody = nobody();
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    for user in ["nobody".to_owned(), uid.to_string(), format!("nobody:{gid}"), format!("{uid}:{gid}")] {
        for setup in as_root() {
            let setup = setup.env("GUARD_USER", &user).env("HOME", "/root");
            let mut guard = setup.app(["sh", "-c", WHO]).start();
            guard.line(&format!("ids {uid} {gid} {gid} {}", nobody.dir.display()));
            let ids = status_field(guard.pid(), "Uid:");
            assert_eq!(ids.split_whitespace().collect::<Vec<_>>(), [uid.to_string().as_str(); 4], "{user}");
            assert_eq!(status_field(guard.pid(), "Groups:").trim(), "");
            for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
                assert_eq!(status_field(guard.pid(), set).trim(), "0000000000000000", "{set}");
            }
            // Root may still ask, and guard still ends its app.
            guard.ask(&["ready"]).yes("ready");
            guard.signal(libc::SIGTERM);
            assert_eq!(guard.code(), 143);
        }
    }
}

/// Those of the image's /etc/group, and HOME where it is not set.
#[test]
fn the_app_has_the_supplementary_groups_of_its_user() {
    let nobody = nobody();
    let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
    let directory = TempDir::new().expect("a directory");
    let group = directory.path().join("group");
    std::fs::write(&group, "root:x:0:\nours:x:4242:nobody\nother:x:4243:root\nalso:x:4244:root,nobody\n")
        .expect("ours");
    for setup in as_root().into_iter().filter(Setup::is_pid1) {
        // In the mount namespace of this guard.
        let mount = format!("mount --bind {} /etc/group && exec \"$@\"", group.display());
        let setup = setup.program("/bin/sh").options(["-c", &mount, "sh", env!("CARGO_BIN_EXE_guard")]);
        let mut guard = setup.env("GUARD_USER", "nobody").app(["sh", "-c", WHO]).start();
        guard.line(&format!("ids {uid} {gid} {gid} 4242 4244 {}", nobody.dir.display()));
        assert_eq!(status_field(guard.pid(), "Groups:"), "4242 4244");
    }
}

/// What a program with capabilities of its own would inherit is taken away, too.
#[test]
fn no_capability_is_left() {
    let Some(setpriv) = in_path("setpriv") else { return skipped("there is no setpriv") };
    for setup in as_root() {
        let setup = setup.env("GUARD_USER", "54321").program(&setpriv).options(["--inh-caps=+net_raw"]);
        let setup = setup.options([env!("CARGO_BIN_EXE_guard")]);
        let mut guard = setup.app(["sh", "-c", "grep Cap /proc/self/status; echo all; exec sleep 1000"]).start();
        let lines = guard.lines_until("all");
        let is_none = |line: &String| line.starts_with("CapBnd") || line.ends_with("0000000000000000");
        assert!(lines.len() >= 4 && lines.iter().all(is_none), "{lines:?}");
        for kind in ["CapInh:", "CapPrm:", "CapEff:"] {
            assert_eq!(status_field(guard.pid(), kind), "0000000000000000", "guard's own {kind}");
        }
    }
}

/// The directory is root's alone.
#[test]
fn what_needs_root_is_open_before_guard_becomes_the_user() {
    for setup in as_root() {
        let directory = TempDir::new().expect("a directory");
        let (log, socket) = (directory.path().join("last-word"), directory.path().join("socket"));
        let setup = setup.env("GUARD_USER", "nobody").env("GUARD_TERMINATION_LOG", &log);
        let setup = setup.env("GUARD_LISTEN", format!("unix:{}", socket.display())).env("GUARD_RESTART", "never");
        let mut guard = setup.app(["sh", "-c", "echo fds $LISTEN_FDS; exit 7"]).start();
        guard.line("fds 1");
        assert_eq!(guard.code(), 7);
        let word = std::fs::read_to_string(&log).expect("a last word");
        assert!(word.contains("run 1 exited with code 7"), "{word}");
    }
}

#[test]
fn a_user_without_an_entry_has_the_group_of_its_number() {
    for setup in as_root() {
        let mut guard = setup.env("GUARD_USER", "54321").env("HOME", "/data").app(["sh", "-c", WHO]).start();
        guard.line("ids 54321 54321 54321 /data");
    }
    for setup in as_root() {
        let mut guard = setup.env("GUARD_USER", "54321").env("HOME", "/root").app(["sh", "-c", WHO]).start();
        guard.line("ids 54321 54321 54321 /");
    }
}

/// As an engine's `--user 54321` has it.
#[test]
fn a_process_that_is_the_user_already_keeps_its_group_where_none_is_named() {
    let Some(setpriv) = in_path("setpriv") else { return skipped("there is no setpriv") };
    for setup in as_root() {
        let ids = ["--reuid=54321", "--regid=0", "--clear-groups", env!("CARGO_BIN_EXE_guard")];
        let setup = setup.env("GUARD_USER", "54321").program(&setpriv).options(ids);
        setup.app(["sh", "-c", "echo ids $(id -u) $(id -G); exec sleep 1000"]).start().line("ids 54321 0");
    }
}

#[test]
fn who_is_not_there_is_an_error() {
    for (user, problem) in [
        ("nobdy", "/etc/passwd knows no user \"nobdy\""),
        ("0:nogruop", "/etc/group knows no group \"nogruop\""),
        ("4294967295", "\"4294967295\" is no id: ids are 0 to 4294967294"),
    ] {
        let mut guard = child().env("GUARD_USER", user).fixture("serve").start();
        assert_eq!(guard.code(), 125);
        let expected = format!(
            "guard: GUARD_USER={user}: {problem}; it takes NAME, UID, NAME:GROUP or UID:GID, as /etc/passwd and /etc/group have them"
        );
        assert_eq!(guard.err(), [expected.as_str()]);
    }
}

#[test]
fn whoever_may_not_change_its_user_says_so() {
    let nobody = nobody();
    let mut setup = child().env("GUARD_USER", "54321");
    let mut own = geteuid().as_raw();
    if geteuid().is_root() {
        own = nobody.uid.as_raw();
        setup = setup.inherits(&format!("setuid {own}"));
    }
    let mut guard = setup.fixture("serve").start();
    assert_eq!(guard.code(), 125);
    let expected =
        format!("guard: GUARD_USER=54321: uid {own} may not change its user or groups (CAP_SETUID, CAP_SETGID)");
    assert_eq!(guard.err().last(), Some(&expected.as_str()));
}

#[test]
fn a_drain_file_that_the_user_cannot_write_is_a_warning() {
    let directory = TempDir::new().expect("a directory");
    for setup in as_root() {
        let setup = setup.env("GUARD_USER", "nobody").env("GUARD_DRAIN_FILE", directory.path().join("draining"));
        let mut guard = setup.app(["sleep", "1000"]).start();
        let warning = guard.log_line("a warning", |line| line.contains("event=user") && line.contains("level=warn"));
        assert!(warning.contains("nobody cannot write GUARD_DRAIN_FILE in "), "{warning}");
    }
}

#[test]
fn limits_are_the_apps_alone() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let (low, lower) = ((hard / 2).min(soft), (hard / 4).min(soft));
    for setup in common::everywhere() {
        let setup = setup.env("GUARD_LIMIT_NOFILE", format!("{lower}:{low}")).env("GUARD_LIMIT_CORE", "0");
        let setup = setup.env("GUARD_LIMIT_STACK", "unlimited:unlimited");
        let script = "echo nofile $(ulimit -Sn) $(ulimit -Hn) core $(ulimit -Sc) stack $(ulimit -Ss); exec sleep 1000";
        let mut guard = setup.app(["sh", "-c", script]).start();
        guard.line(&format!("nofile {lower} {low} core 0 stack unlimited"));
        let own = std::fs::read_to_string(format!("/proc/{}/limits", guard.pid())).expect("guard runs");
        let own = own.lines().find(|line| line.starts_with("Max open files")).expect("a limit").to_owned();
        let own: Vec<&str> = own.split_whitespace().collect();
        assert_eq!(own[3..5], [soft.to_string(), hard.to_string()]);
    }
}

#[test]
fn a_hard_limit_that_may_not_be_raised_is_one_error() {
    let setup = child().env("GUARD_LIMIT_NOFILE", "4096:unlimited");
    // Above fs.nr_open not even root may go.
    let mut guard = setup.fixture("serve").start();
    assert_eq!(guard.code(), 125);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let expected = format!(
        "guard: GUARD_LIMIT_NOFILE=4096:unlimited: Operation not permitted: the hard limit may not be raised, so it takes {hard} at most"
    );
    assert_eq!(guard.err().iter().filter(|line| line.starts_with("guard: ")).collect::<Vec<_>>(), [&expected.as_str()]);
}

#[test]
fn a_limit_that_makes_no_sense_is_an_error() {
    let mut guard = child().env("GUARD_LIMIT_STACK", "8M:4M").env("GUARD_LIMIT_NPROC", "many").fixture("serve").start();
    assert_eq!(guard.code(), 125);
    let errors = guard.err().join("\n");
    assert!(
        errors.contains("GUARD_LIMIT_STACK=8M:4M: the soft limit is above the hard one; it takes a size"),
        "{errors}"
    );
    assert!(errors.contains("GUARD_LIMIT_NPROC=many: not a number; it takes a number or unlimited"), "{errors}");
}

/// A guard of another PID namespace, which cannot tell who asks, shares the mount namespace with the guard that is asked.
#[test]
fn a_guard_of_another_pid_namespace_holds_no_answer_up() {
    const SCRIPT: &str = r#"
        unshare --pid --fork --kill-child "$0" -- sleep 1000 &
        GUARD_USER=nobody exec "$0" -- sleep 1000"#;
    if as_root().len() < 2 {
        return;
    }
    let nobody = nobody();
    let line = ["--mount", "sh", "-c", SCRIPT, env!("CARGO_BIN_EXE_guard")];
    let unshare = in_path("unshare").expect("the tests need it for PID 1");
    let mut guard = child().program(unshare).options(line).start();
    guard.event("spawn");
    guard.event("spawn");
    let pid = guard.pid().to_string();
    let user = ["--setuid", &nobody.uid.to_string(), "--setgid", &nobody.gid.to_string()].map(str::to_owned);
    for user in [&[][..], &user] {
        for words in [&["ready"][..], &["status"]] {
            let mut client = Command::new("nsenter");
            client.args(["--target", &pid, "--mount"]).args(user).arg("--").arg(env!("CARGO_BIN_EXE_guard"));
            let answer = Answer::of(begin(client.args(words)));
            assert_eq!(answer.code, 0, "{user:?} {words:?} {answer:?}\n{}", guard.transcript());
        }
    }
    // The client is in the other guard's mount namespace, and in another PID namespace.
    let mut alone = child().program(in_path("unshare").expect("as above"));
    alone = alone.options(["--mount", "unshare", "--pid", "--fork", "--kill-child", env!("CARGO_BIN_EXE_guard")]);
    let mut alone = alone.app(["sleep", "1000"]).start();
    alone.event("spawn");
    let mut client = Command::new("nsenter");
    client.args(["--target", &alone.pid().to_string(), "--mount", "--", env!("CARGO_BIN_EXE_guard"), "status"]);
    let answer = Answer::of(begin(&mut client));
    assert_eq!(answer.code, 125, "{answer:?}");
    assert_eq!(answer.err, "guard: guard may only be asked from its own PID namespace\n");
}
