//! GUARD_ON_CHANGE: what follows when a file or a directory changes.

mod common;

use common::{Setup, everywhere, pid1, skipped};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use tempfile::TempDir;

fn watching(setup: Setup, path: &Path, meaning: &str) -> Setup {
    setup.env("GUARD_ON_CHANGE", format!("{}={meaning}", path.display()))
}

#[test]
fn a_file_that_changes_is_a_signal_once() {
    for setup in everywhere() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("tls.crt");
        fs::write(&path, "1").expect("ours");
        let mut guard = watching(setup, &path, "HUP").fixture("serve").start();
        guard.line("ready");
        // Written in place, in several steps, and replaced: one change.
        for content in ["2", "3", "4"] {
            fs::write(&path, content).expect("ours");
        }
        fs::write(directory.path().join("next"), "5").expect("ours");
        fs::rename(directory.path().join("next"), &path).expect("ours");
        let event = guard.event("changed");
        assert_eq!((event.get("path"), event.get("meaning")), (path.to_str(), Some("SIGHUP")));
        guard.line("got HUP");
        // It goes, which means nothing, and comes back, which does.
        fs::remove_file(&path).expect("ours");
        fs::write(directory.path().join("other"), "x").expect("ours");
        fs::write(&path, "6").expect("ours");
        guard.line("got HUP");
        assert_eq!(guard.out().iter().filter(|line| **line == "got HUP").count(), 2);
    }
}

#[test]
fn a_file_that_comes_later_is_a_change() {
    for setup in everywhere() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("later/app/key");
        let mut guard = watching(setup, &path, "USR1").fixture("serve").start();
        guard.line("ready");
        fs::create_dir_all(path.parent().expect("it has one")).expect("ours");
        fs::write(&path, "1").expect("ours");
        guard.line("got USR1");
        fs::remove_dir_all(directory.path().join("later")).expect("ours");
        fs::create_dir_all(path.parent().expect("it has one")).expect("ours");
        fs::write(&path, "22").expect("ours");
        guard.line("got USR1");
    }
}

/// As the kubelet updates a Secret: with the variable that is read from it this is a rotation without downtime.
#[test]
fn a_rotated_secret_reaches_the_next_run() {
    for setup in everywhere() {
        let root = TempDir::new().expect("a directory");
        let root = root.path();
        for (directory, text) in [("..1", "old"), ("..2", "new")] {
            fs::create_dir(root.join(directory)).expect("ours");
            fs::write(root.join(directory).join("password"), text).expect("ours");
        }
        symlink("..1", root.join("..data")).expect("ours");
        symlink("..data/password", root.join("password")).expect("ours");
        let setup = watching(setup, root, "reload").env("GUARD_ENV_FILES", "PASSWORD");
        let setup = setup.env("PASSWORD_FILE", root.join("password"));
        let mut guard = setup.app(["sh", "-c", "echo is $PASSWORD; exec sleep 1000"]).start();
        guard.line("is old");
        symlink("..2", root.join("..tmp")).expect("ours");
        fs::rename(root.join("..tmp"), root.join("..data")).expect("ours");
        guard.line("is new");
        guard.event("reloaded");
        assert_eq!(guard.events().iter().filter(|event| event.name() == "changed").count(), 1);
    }
}

#[test]
fn a_change_can_end_guard() {
    for setup in everywhere() {
        let directory = TempDir::new().expect("a directory");
        let mut guard = watching(setup, directory.path(), "stop").fixture("quit TERM 3 serve").start();
        guard.line("ready");
        fs::write(directory.path().join("stop"), "").expect("ours");
        assert_eq!(guard.code(), 3);
    }
}

/// A path may lead to a network file system whose server is gone.
#[test]
fn a_path_that_hangs_delays_neither_the_app_nor_the_stop() {
    let Some(setup) = pid1() else { return };
    if !nix::unistd::geteuid().is_root() || fs::File::options().read(true).write(true).open("/dev/fuse").is_err() {
        return skipped("no FUSE file system can be mounted");
    }
    let (hung, directory) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let setup = setup.inherits(&format!("hang {}", hung.path().display()));
    let paths = [hung.path(), directory.path()].map(|path| format!("{}/file=HUP", path.display()));
    let mut guard = setup.env("GUARD_ON_CHANGE", paths.join(",")).fixture("quit TERM 3 serve").start();
    guard.line("ready");
    fs::write(directory.path().join("file"), "1").expect("ours");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 3);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "changes over some time, and how much of it has passed")]
fn a_neighbour_that_changes_without_a_pause_costs_four_looks_a_second() {
    for setup in everywhere() {
        let directory = TempDir::new().expect("a directory");
        let (path, neighbour) = (directory.path().join("file"), directory.path().join("neighbour"));
        fs::write(&path, "1").expect("ours");
        let began = std::time::Instant::now();
        let mut guard = watching(setup, &path, "HUP").env("GUARD_LOG", "debug").fixture("serve").start();
        guard.line("ready");
        for _ in 0..300 {
            fs::write(&neighbour, "1").expect("ours");
            std::thread::sleep(std::time::Duration::from_millis(5));
            fs::remove_file(&neighbour).expect("ours");
        }
        fs::write(&path, "22").expect("ours");
        guard.line("got HUP");
        let scans = guard.events().iter().filter(|event| event.name() == "scan").count();
        // Two more are those at the start and at the first change.
        let most = began.elapsed().as_secs_f64() * 4.0 + 2.0;
        assert!((scans as f64) <= most, "{scans} scans: {}", guard.transcript());
    }
}

#[test]
fn nonsense_is_an_error() {
    let mut guard =
        common::child().env("GUARD_ON_CHANGE", "/etc/tls, =HUP,/a=reboot,/b=HUP,/b=TERM").fixture("serve").start();
    assert_eq!(guard.code(), 125);
    let errors = guard.err().join("\n");
    for problem in ["\"/etc/tls\" has no =", "\"=HUP\" names no path", "/b is named twice", "reboot"] {
        assert!(errors.contains(problem), "{problem} in {errors}");
    }
}
