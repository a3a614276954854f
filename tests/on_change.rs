//! GUARD_ON_CHANGE: what follows when a file or a directory changes.

use crate::common::{self, DEADLINE, Guard, Setup, child, everywhere, in_path, pid1, skipped};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
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

/// As on a node whose users have as many of inotify's instances as the kernel allows (`inotify(7)`).
#[test]
fn without_inotify_guard_compares_the_files() {
    let Some(unshare) = in_path("unshare") else { return skipped("there is no unshare") };
    let used_up = "echo 0 >/proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    let words = ["--user", "--map-root-user", "sh", "-c", used_up, env!("CARGO_BIN_EXE_guard")];
    let mut probe =
        child().program(&unshare).options(["--user", "--map-root-user", "sh", "-c", used_up, "true"]).start();
    if probe.code() != 0 {
        return skipped("no user namespace can be made here");
    }
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("key");
    fs::write(&path, "1").expect("ours");
    let setup = watching(child().program(&unshare).options(words), &path, "HUP");
    let mut guard = setup.fixture("quit HUP 0 serve").start();
    assert!(guard.event("watch").line.contains("guard looks every 10 s"), "{}", guard.transcript());
    guard.line("ready");
    fs::write(&path, "2").expect("ours");
    guard.line("got HUP");
    assert_eq!(guard.code(), 0);
}

/// guard drops to a user who may not read the file, and may read its directory.
#[test]
fn a_file_that_guard_may_not_read_is_told_by_its_size() {
    use std::os::unix::fs::PermissionsExt;
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can give guard another user");
    }
    let Some(setup) = pid1() else { return };
    let directory = TempDir::new().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let path = directory.path().join("key");
    fs::write(&path, "1").expect("ours");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
    let mut guard = watching(setup.env("GUARD_USER", "65534:65534"), &path, "HUP").fixture("serve").start();
    guard.line("ready");
    fs::write(&path, "22").expect("ours");
    guard.line("got HUP");
}

#[test]
fn the_end_says_that_a_file_has_changed() {
    for setup in everywhere() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("key");
        fs::write(&path, "1").expect("ours");
        let mut guard = watching(setup, &path, "stop").fixture("serve").start();
        guard.line("ready");
        fs::write(&path, "22").expect("ours");
        let reason = guard.event("end").get("reason").expect("a reason").to_owned();
        assert!(reason.starts_with("a file has changed; run 1 "), "{reason}");
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

/// A volume of a Secret as the kubelet makes it: its files are links through `..data`, which a rename has lead to another directory.
struct Volume {
    path: PathBuf,
    names: &'static [&'static str],
    version: u32,
}

impl Volume {
    fn new(path: &Path, names: &'static [&'static str], content: &str) -> Volume {
        let mut volume = Volume { path: path.to_owned(), names, version: 0 };
        fs::create_dir_all(path).expect("ours");
        volume.publish(content);
        for name in names {
            symlink(format!("..data/{name}"), path.join(name)).expect("ours");
        }
        volume
    }

    /// All of its files change at once.
    fn publish(&mut self, content: &str) {
        let before = self.path.join(format!("..{}", self.version));
        self.version += 1;
        let directory = self.path.join(format!("..{}", self.version));
        fs::create_dir(&directory).expect("ours");
        for name in self.names {
            fs::write(directory.join(name), content).expect("ours");
        }
        symlink(format!("..{}", self.version), self.path.join("..data_tmp")).expect("ours");
        fs::rename(self.path.join("..data_tmp"), self.path.join("..data")).expect("ours");
        let _ = fs::remove_dir_all(before);
    }
}

/// Makes one change after the other. Of each of them one signal comes, and no more.
fn one_signal_each(mut guard: Guard, root: &Path, changes: &mut [&mut dyn FnMut()]) {
    guard.line("ready");
    for change in changes.iter_mut() {
        change();
        guard.line("got HUP");
    }
    // What else the last one was taken for comes before this.
    fs::write(root.join("sentinel"), "1").expect("ours");
    guard.line("got USR1");
    let told = guard.out().iter().filter(|line| **line == "got HUP").count();
    assert_eq!(told, changes.len(), "{}", guard.transcript());
}

/// Guard that watches a path below a root, and a file beside it.
fn watching_below(setup: Setup, root: &Path, path: &str) -> Guard {
    let value = format!("{}=HUP,{}=USR1", root.join(path).display(), root.join("sentinel").display());
    setup.env("GUARD_ON_CHANGE", value).fixture("serve").start()
}

/// A volume as the kubelet makes it and swaps its content: a new directory, a link to it, which is put in the old one's
/// place, and the end of the old directory.
#[test]
fn a_swap_of_the_kubelets_is_one_change() {
    for path in ["volume", "volume/tls.crt"] {
        for setup in everywhere() {
            let root = TempDir::new().expect("a directory");
            let root = root.path();
            let mut volume = Volume::new(&root.join("volume"), &["tls.crt", "tls.key", "ca.crt"], "1");
            let mut versions = 2..;
            let publish = std::cell::RefCell::new(|| volume.publish(&versions.next().unwrap_or(0).to_string()));
            let guard = watching_below(setup, root, path);
            let again = || (publish.borrow_mut())();
            one_signal_each(guard, root, &mut [&mut { again }, &mut { again }, &mut { again }]);
        }
    }
}

#[test]
fn a_directory_changes_when_it_is_another_and_when_a_file_comes_or_goes() {
    for setup in everywhere() {
        let root = TempDir::new().expect("a directory");
        let path = root.path().join("conf");
        fs::create_dir(&path).expect("ours");
        fs::write(path.join("a"), "1").expect("ours");
        let guard = watching_below(setup, root.path(), "conf");
        let mut replace = || {
            fs::rename(&path, root.path().join("aside")).expect("ours");
            fs::create_dir(&path).expect("ours");
            fs::write(path.join("a"), "2").expect("ours");
        };
        let mut add = || fs::write(path.join("c"), "1").expect("ours");
        let mut remove = || fs::remove_file(path.join("c")).expect("ours");
        one_signal_each(guard, root.path(), &mut [&mut replace, &mut add, &mut remove]);
    }
}

/// As the kubelet updates a Secret: with the variable that is read from it this is a rotation without downtime.
#[test]
fn a_rotated_secret_reaches_the_next_run() {
    for setup in everywhere() {
        let root = TempDir::new().expect("a directory");
        let root = root.path();
        let mut volume = Volume::new(root, &["password"], "old");
        let setup = watching(setup, root, "reload").env("GUARD_ENV_FILES", "PASSWORD");
        let setup = setup.env("PASSWORD_FILE", root.join("password"));
        let mut guard = setup.app(["sh", "-c", "echo is $PASSWORD; exec sleep 1000"]).start();
        guard.line("is old");
        volume.publish("new");
        guard.line("is new");
        guard.signal(libc::SIGTERM);
        guard.code();
        let names: Vec<_> = guard.events().iter().map(|event| event.name().to_owned()).collect();
        assert_eq!(names.iter().filter(|name| *name == "changed").count(), 1, "{}", guard.transcript());
        // Nothing is held, so the old run ends first.
        assert!(!names.iter().any(|name| name.starts_with("reload")), "{}", guard.transcript());
    }
}

/// A certificate and its key, each with its own path.
#[test]
fn paths_that_change_together_bring_one_reload() {
    for setup in everywhere() {
        let root = TempDir::new().expect("a directory");
        let root = root.path();
        let mut volume = Volume::new(root, &["tls.crt", "tls.key"], "1");
        let paths = ["tls.crt", "tls.key"].map(|file| root.join(file));
        let setup = setup.env("GUARD_ON_CHANGE", paths.map(|path| format!("{}=reload", path.display())).join(","));
        let socket = TempDir::new().expect("a directory");
        let listen = format!("unix:{}", socket.path().join("socket").display());
        let setup = setup.env("GUARD_LISTEN", listen).env("GUARD_READY", "listen");
        let mut guard = setup.app(["sh", "-c", "echo serves; exec sleep 1000"]).start();
        guard.line("serves");
        volume.publish("2");
        guard.event("changed");
        guard.event("changed");
        guard.event("reloaded");
        guard.signal(libc::SIGTERM);
        guard.code();
        let started = guard.events().iter().filter(|event| event.name() == "spawn").count();
        assert_eq!(started, 2, "{}", guard.transcript());
    }
}

/// Nobody has sent it to guard, so it is no stop signal that guard should know.
#[test]
fn an_app_that_dies_of_a_changes_signal_gets_no_advice_about_stop_signals() {
    for setup in everywhere() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("file");
        fs::write(&path, "1").expect("ours");
        let mut guard = watching(setup, &path, "HUP").app(["sleep", "1000"]).start();
        guard.event("spawn");
        fs::write(&path, "2").expect("ours");
        let exit = guard.event("exit");
        assert_eq!((exit.get("signal"), exit.get("msg")), (Some("SIGHUP"), None), "{}", guard.transcript());
    }
}

/// As where two files are copied one after the other: the second one follows before the first one counts as quiet.
#[test]
fn a_path_waits_for_others_of_the_same_meaning() {
    for setup in everywhere() {
        let root = TempDir::new().expect("a directory");
        let paths = ["tls.crt", "tls.key", "other"].map(|file| root.path().join(file));
        paths.iter().for_each(|path| fs::write(path, "1").expect("ours"));
        let meanings = ["HUP", "HUP", "USR1"];
        let entries = paths.iter().zip(meanings).map(|(path, meaning)| format!("{}={meaning}", path.display()));
        let setup = setup.env("GUARD_ON_CHANGE", entries.collect::<Vec<_>>().join(",")).env("GUARD_LOG", "debug");
        let mut guard = setup.fixture("serve").start();
        guard.line("ready");
        guard.event("scan");
        fs::write(&paths[0], "2").expect("ours");
        guard.event("scan");
        paths[1..].iter().for_each(|path| fs::write(path, "2").expect("ours"));
        let mut changed = [(); 3].map(|()| guard.event("changed").get("meaning").map(str::to_owned));
        changed.sort();
        assert_eq!(changed.map(Option::unwrap_or_default), ["SIGHUP", "SIGHUP", "SIGUSR1"]);
        guard.lines(&["got HUP", "got USR1"]);
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
        assert_eq!(guard.out().iter().filter(|line| **line == "got HUP").count(), 1, "{}", guard.transcript());
    }
}

/// guard drops to a user who may pass through the directory, and may not read it: the kernel does not let it watch for names.
#[test]
fn what_lies_in_a_directory_that_guard_may_not_read_is_compared() {
    use std::os::unix::fs::PermissionsExt;
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can give guard another user");
    }
    for is_whole in [false, true] {
        let Some(setup) = pid1() else { return };
        let directory = TempDir::new().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).expect("ours");
        let path = directory.path().join("key");
        let watched = if is_whole { directory.path() } else { &path };
        let mut guard = watching(setup.env("GUARD_USER", "65534:65534"), watched, "HUP").fixture("serve").start();
        assert!(guard.event("watch").line.contains("guard looks every 10 s"), "{}", guard.transcript());
        guard.line("ready");
        fs::write(&path, "1").expect("ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
        guard.line("got HUP");
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
        let enough = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) && began.elapsed() < DEADLINE {
                    fs::write(&neighbour, "1").expect("ours");
                    fs::remove_file(&neighbour).expect("ours");
                }
            });
            for _ in 0..6 {
                guard.event("scan");
            }
            enough.store(true, Ordering::Relaxed);
        });
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
