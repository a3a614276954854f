//! GUARD_ENV_FILES: variables that are read from files before each run.

use crate::common::{Setup, child, everywhere, skipped};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// An app that prints a variable and exits with a failure, once; then it stays.
fn printing(setup: Setup, directory: &TempDir) -> Setup {
    setup.env("SECRET_FILE", directory.path().join("secret")).env("GUARD_ENV_FILES", "SECRET").env("GUARD_LOG", "debug")
}

fn write(directory: &TempDir, content: &[u8]) {
    fs::write(directory.path().join("secret"), content).expect("the directory is ours");
}

#[test]
fn what_guard_sets_itself_comes_from_no_file() {
    for name in ["GUARD_RUN", "LISTEN_FDS", "NOTIFY_SOCKET"] {
        let mut guard = child().env("GUARD_ENV_FILES", name).fixture("serve").start();
        assert_eq!(guard.code(), 125);
        let wanted = format!("{name:?} is one that guard sets itself");
        assert!(guard.err().iter().any(|line| line.contains(&wanted)), "{}", guard.transcript());
    }
}

#[test]
fn a_home_from_a_file_is_the_only_one() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can give the app another user");
    }
    for setup in everywhere() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("home");
        fs::write(&path, "/srv\n").expect("ours");
        let setup = setup.env("HOME", "").env("HOME_FILE", &path).env("GUARD_ENV_FILES", "HOME");
        let setup = setup.env("GUARD_USER", "65534:65534");
        let mut guard = setup.fixture("env exit 0").start();
        let environment = guard.lines_until("end");
        let homes: Vec<&String> = environment.iter().filter(|line| line.starts_with("env HOME=")).collect();
        assert_eq!(homes, ["env HOME=/srv"]);
    }
}

#[test]
fn each_run_gets_what_the_file_holds_then() {
    for setup in everywhere() {
        let directory = TempDir::new().expect("a directory");
        write(&directory, b"first \xff\n\n");
        let script = r#"printf '%s' "<$SECRET>" | od -An -c | tr -d ' '; read line; exit 1"#;
        let (reader, writer) = nix::unistd::pipe().expect("a pipe");
        let setup = printing(setup, &directory).env("GUARD_RESTART", "on-failure");
        let mut guard = setup.app(["sh", "-c", script]).stdin(fs::File::from(reader)).start();
        // One newline at the end is taken off.
        guard.line(r"<first377\n>");
        write(&directory, b"second");
        nix::unistd::write(&writer, b"\n").expect("somebody reads");
        guard.line("<second>");
        let transcript = guard.err().join("\n");
        assert!(!transcript.contains("second"), "the value is in the log: {transcript}");
        assert!(!guard.ask(&["status", "--json"]).out.contains("second"));
    }
}

#[test]
fn a_check_shows_no_value() {
    let directory = TempDir::new().expect("a directory");
    write(&directory, b"hidden");
    let mut check = printing(child(), &directory).options(["check"]).start();
    assert_eq!(check.code(), 0);
    let shown = check.out().join("\n");
    assert!(shown.contains("GUARD_ENV_FILES") && !shown.contains("hidden"), "{shown}");
}

#[test]
fn what_cannot_be_read_at_the_first_run_is_125() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("secret").display().to_string();
    for (content, problem, errno) in [
        (None, "No such file or directory", "ENOENT"),
        (Some(&b"a\0b"[..]), "holds a NUL byte, which no variable can", "EINVAL"),
        (Some(&[b'x'; 200_000]), "longer than the 128 KiB that a variable can have", "EINVAL"),
        // With its name and the NUL at the end.
        (Some(&[b'x'; 128 * 1024 - 7]), "longer than the 128 KiB that a variable can have", "EINVAL"),
    ] {
        if let Some(content) = content {
            write(&directory, content);
        }
        let mut guard = printing(child(), &directory).fixture("serve").start();
        assert_eq!(guard.code(), 125);
        let event = guard.event("variable-file");
        assert_eq!((event.get("variable"), event.get("path")), (Some("SECRET"), Some(path.as_str())));
        assert_eq!((event.get("error"), event.get("errno")), (Some(problem), Some(errno)));
    }
}

#[test]
fn what_cannot_be_read_later_is_a_failed_run() {
    for setup in everywhere() {
        let directory = TempDir::new().expect("a directory");
        write(&directory, b"there");
        let setup = printing(setup, &directory).env("GUARD_MAX_RESTARTS", "2").env("GUARD_BACKOFF_INITIAL", "2s");
        let mut guard = setup.fixture("quit USR1 3 serve").start();
        guard.line("ready");
        fs::remove_file(directory.path().join("secret")).expect("it was there");
        guard.signal(libc::SIGUSR1);
        guard.event("variable-file");
        assert!(guard.ask(&["status", "--json"]).out.contains(r#""last_exit":"ENOENT""#), "{}", guard.transcript());
        guard.event("variable-file");
        assert_eq!(guard.code(), 125);
    }
}

#[test]
fn a_variable_that_is_set_itself_stays() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_ENV_FILES", "SECRET,OTHER").env("SECRET", "set");
        let mut guard = setup.app(["sh", "-c", "echo $SECRET; exec sleep 1000"]).start();
        guard.line("set");
    }
}

/// Compose files leave a variable empty that is not set.
#[test]
fn an_empty_variable_counts_as_not_set() {
    for setup in everywhere() {
        let directory = TempDir::new().expect("a directory");
        write(&directory, b"read");
        let setup = printing(setup, &directory).env("SECRET", "").env("GUARD_ENV_FILES", "SECRET,OTHER");
        let setup = setup.env("OTHER", "set").env("OTHER_FILE", "");
        let mut guard = setup.app(["sh", "-c", "echo $SECRET $OTHER; exec sleep 1000"]).start();
        guard.line("read set");
    }
}

#[test]
fn a_variable_that_is_set_twice_is_an_error() {
    let directory = TempDir::new().expect("a directory");
    write(&directory, b"x");
    let mut guard = printing(child(), &directory).env("SECRET", "hidden").fixture("serve").start();
    assert_eq!(guard.code(), 125);
    let expected = "guard: GUARD_ENV_FILES=SECRET: SECRET and SECRET_FILE are both set; it takes one of them";
    assert_eq!(guard.err(), [expected]);
}

#[test]
fn a_file_of_somebody_elses_is_named() {
    if nix::unistd::geteuid().is_root() && nix::unistd::User::from_name("nobody").ok().flatten().is_none() {
        return skipped("there is no user nobody");
    }
    let directory = TempDir::new().expect("a directory");
    write(&directory, b"x");
    let path = directory.path().join("secret");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("the file is ours");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).expect("the directory is ours");
    let mut setup = printing(child(), &directory);
    if nix::unistd::geteuid().is_root() {
        setup = setup.env("GUARD_USER", "nobody");
    }
    let mut guard = setup.app(["/bin/true"]).start();
    assert_eq!(guard.code(), 125);
    assert_eq!(guard.event("variable-file").get("error"), Some("Permission denied"));
}
