//! GUARD_NOTIFY: where there is a notify socket, and where it is.

use crate::common::{self, Guard, Setup, eventually, everywhere, fixture, in_path, pid1, send, skipped};
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const ASKED_FOR: [(&str, &str); 4] =
    [("GUARD_NOTIFY", "on"), ("GUARD_READY", "notify"), ("GUARD_WATCHDOG", "1h"), ("NOTIFY_SOCKET", "/nowhere/outer")];

/// What the app's environment says, once the app has printed it.
fn notify_socket(guard: &mut Guard) -> Option<String> {
    guard.lines_until("end").iter().find_map(|line| line.strip_prefix("env NOTIFY_SOCKET=")).map(str::to_owned)
}

/// The same, for a socket that is a file.
fn socket_file(guard: &mut Guard) -> PathBuf {
    let path = PathBuf::from(notify_socket(guard).expect("a socket"));
    assert!(path.is_absolute() && path.as_os_str().len() < 108, "{path:?}");
    path
}

fn directory(socket: &Path) -> &Path {
    socket.parent().expect("it is in a directory")
}

/// A file as guard's processes see it.
fn seen_by(guard: &Guard, path: &Path) -> Option<Metadata> {
    let root = PathBuf::from(format!("/proc/{}/root", guard.pid()));
    fs::symlink_metadata(root.join(path.strip_prefix("/").expect("absolute"))).ok()
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.mode() & 0o7777
}

fn as_root(what: &str) -> Option<Setup> {
    let setup = pid1().filter(|_| nix::unistd::geteuid().is_root());
    if setup.is_none() {
        skipped(&format!("only root can {what}"));
    }
    setup
}

#[test]
fn without_being_asked_for_there_is_none() {
    let settings: [&[(&str, &str)]; 4] = [
        &[],
        &[("GUARD_NOTIFY", "off")],
        &[("GUARD_NOTIFY", "off"), ("NOTIFY_SOCKET", "/nowhere/outer")],
        &[("GUARD_NOTIFY", "off"), ("GUARD_READY", "notify"), ("GUARD_NODE_IPC", "on")],
    ];
    for settings in settings {
        for setup in everywhere() {
            let setup = settings.iter().fold(setup, |setup, (name, value)| setup.env(name, value));
            let mut guard = setup.fixture("env serve").start();
            assert_eq!(notify_socket(&mut guard), None, "{settings:?}");
            guard.line("ready");
            let own = guard.pid();
            let sockets = fs::read_to_string(format!("/proc/{own}/net/unix")).expect("guard lives");
            let open = fs::read_dir(format!("/proc/{own}/fd")).expect("guard lives");
            let open = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned));
            let inodes = open.filter_map(|target| Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()));
            let named = inodes.filter_map(|inode| {
                let line = sockets.lines().find(|line| line.split_whitespace().nth(6) == Some(&inode))?;
                line.split_whitespace().nth(7).map(str::to_owned)
            });
            // Operators ask at the other one.
            let named: Vec<_> = named.filter(|name| !name.starts_with("@guard/")).collect();
            assert!(named.is_empty(), "{settings:?}: {named:?}");
        }
    }
}

#[test]
fn asked_for_it_is_a_file_that_all_may_write_to_and_goes_with_its_run() {
    for (name, value) in ASKED_FOR {
        for setup in everywhere() {
            // A umask of the image's keeps nobody out.
            let setup = setup.env(name, value).env("GUARD_SIGNAL_MAP", "USR1=restart").inherits("umask 077");
            let mut guard = setup.fixture("env quit TERM 0 serve").start();
            let first = socket_file(&mut guard);
            guard.line("ready");
            let socket = fs::symlink_metadata(&first).expect("a file");
            assert!(socket.file_type().is_socket() && mode(&socket) & 0o222 == 0o222, "{:o}", mode(&socket));
            let directory = fs::symlink_metadata(directory(&first)).expect("a directory");
            assert_eq!(mode(&directory), 0o711);
            guard.signal(libc::SIGUSR1);
            let second = socket_file(&mut guard);
            guard.line("ready");
            assert_ne!(first, second, "{name}");
            eventually("the end of the first", || (!first.exists()).then_some(()));
            guard.signal(libc::SIGTERM);
            assert_eq!(guard.code(), 0);
            for socket in [first, second] {
                assert!(!socket.exists() && !self::directory(&socket).exists(), "{name}: {socket:?}");
            }
        }
    }
}

#[test]
fn nothing_of_it_is_left_after_a_kill_at_the_stop_timeout() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_NOTIFY", "on").env("GUARD_STOP_TIMEOUT", "200ms");
        let mut guard = setup.fixture("env deaf serve").start();
        let socket = socket_file(&mut guard);
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 137);
        assert!(!directory(&socket).exists());
    }
}

#[test]
fn nothing_of_it_is_left_where_the_command_cannot_be_started() {
    let Some(setup) = pid1() else { return };
    let words =
        ["-c", "\"$@\"; echo code $? left $(ls -A /run)", "sh", env!("CARGO_BIN_EXE_guard"), "--", "/nowhere/at/all"];
    let setup = setup.inherits("hide /run").env("GUARD_NOTIFY", "on").program("/bin/sh").options(words);
    setup.start().line("code 127 left");
}

#[test]
fn what_a_killed_guard_has_left_the_next_one_removes() {
    for (first, second) in everywhere().into_iter().zip(everywhere()) {
        let mut killed = first.env("GUARD_NOTIFY", "on").fixture("env serve").start();
        let socket = socket_file(&mut killed);
        killed.line("ready");
        let mut alive = everywhere().remove(0).env("GUARD_NOTIFY", "on").fixture("env serve").start();
        let other = socket_file(&mut alive);
        alive.line("ready");
        // One that was killed before it had made its socket, some time ago.
        let empty = directory(&socket).with_file_name("guard-notify-00000000000000ff");
        fs::create_dir(&empty).expect("where guard makes its own");
        let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        fs::File::open(&empty).and_then(|empty| empty.set_modified(long_ago)).expect("ours");
        let own = killed.pid();
        send(own, libc::SIGKILL);
        // Any other guard of this user that begins meanwhile may be the next one.
        eventually("its end", || UnixDatagram::unbound().ok()?.connect(&socket).err());
        let mut next = second.env("GUARD_NOTIFY", "on").fixture("serve").start();
        next.line("ready");
        eventually("a clean directory", || (!directory(&socket).exists() && !empty.exists()).then_some(()));
        assert!(other.exists(), "that one's guard lives");
    }
}

#[test]
fn another_user_and_another_network_namespace_reach_it() {
    let Some(setup) = as_root("make a network namespace") else { return };
    let unshare = in_path("unshare").expect("it has made the PID namespace");
    let app = fixture().to_str().expect("UTF-8");
    let words = ["--net", "--", app, "setuid", "65534", "notify", "READY=1", "serve"];
    let command = [unshare.to_str().expect("UTF-8")].into_iter().chain(words);
    let mut guard = setup.env("GUARD_READY", "notify").app(command).start();
    guard.event("ready");
}

#[test]
fn one_who_may_not_list_the_directory_cannot_change_it() {
    let Some(setup) = as_root("run the app as another user") else { return };
    let script = "exec setpriv --reuid 65534 --clear-groups sh -c 'ls \"${NOTIFY_SOCKET%/*}\" || echo unseen; \
                  rm -f \"$NOTIFY_SOCKET\" || echo unmoved'";
    let mut guard = setup.env("GUARD_NOTIFY", "on").app(["sh", "-c", script]).start();
    guard.line("unseen");
    guard.line("unmoved");
    assert_eq!(guard.code(), 0);
}

#[test]
fn it_is_in_the_first_directory_that_can_be_written() {
    for (state, place) in [
        ("hide /run hide /dev/shm", Some("/run/")),
        ("seal /run hide /dev/shm", Some("/dev/shm/")),
        ("fill /run hide /dev/shm", Some("/dev/shm/")),
        ("shut /run hide /dev/shm", Some("/dev/shm/")),
        ("seal /run fill /dev/shm hide /tmp", Some("/tmp/")),
        // Somebody else could put another directory into its place.
        ("open-up /run hide /dev/shm", Some("/dev/shm/")),
        ("seal /run fill /dev/shm open-up /tmp", None),
        ("seal /run seal /dev/shm seal /tmp", None),
    ] {
        let Some(setup) = pid1() else { return };
        if state.contains("/tmp") && fixture().starts_with("/tmp") {
            skipped("the tests themselves are below /tmp, which this hides");
            continue;
        }
        let setup = setup.env("GUARD_READY", "notify").inherits(state);
        let mut guard = setup.fixture("env notify READY=1 serve").start();
        let socket = notify_socket(&mut guard).expect("a socket");
        guard.event("ready");
        match place {
            Some(place) => {
                assert!(socket.starts_with(place), "{state}: {socket}");
                assert!(seen_by(&guard, Path::new(&socket)).is_some_and(|file| file.file_type().is_socket()));
            }
            None => assert!(socket.starts_with('@'), "{state}: {socket}"),
        }
    }
}

#[test]
fn a_user_who_may_not_write_to_run_has_it_elsewhere() {
    let Some(setup) = as_root("start guard as another user") else { return };
    let mut guard =
        setup.env("GUARD_READY", "notify").inherits("setuid 65534").fixture("env notify READY=1 serve").start();
    let socket = socket_file(&mut guard);
    assert!(!socket.starts_with("/run"), "{socket:?}");
    guard.event("ready");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 143);
    assert!(!directory(&socket).exists());
}

#[test]
fn what_only_looks_as_if_a_guard_had_left_it_stays() {
    let Some(setup) = as_root("give a directory to another user") else { return };
    let elsewhere = tempfile::tempdir().expect("a directory");
    let theirs = tempfile::tempdir().expect("a directory");
    for directory in [&elsewhere, &theirs] {
        drop(UnixDatagram::bind(directory.path().join("socket")).expect("a socket"));
    }
    let script = format!(
        "ln -s {} /run/guard-notify-0000000000000001
        mv {} /run/guard-notify-0000000000000002 && chown 65534 /run/guard-notify-0000000000000002
        mkdir /run/guard-notify-0000000000000003
        mkdir /run/guard-notify-0000000000000004 && ln -s /etc/passwd /run/guard-notify-0000000000000004/socket
        exec \"$@\"",
        elsewhere.path().display(),
        theirs.path().display()
    );
    let app = fixture().to_str().expect("UTF-8");
    let words = ["-c", &script, "sh", env!("CARGO_BIN_EXE_guard"), "--", app, "serve"];
    let setup = setup.inherits("hide /run").env("GUARD_NOTIFY", "on").program("/bin/sh").options(words);
    let mut guard = setup.start();
    guard.line("ready");
    guard.until_yes(&["ready"]);
    for number in 1..=4 {
        let path = format!("/run/guard-notify-000000000000000{number}");
        assert!(seen_by(&guard, Path::new(&path)).is_some(), "{path}");
        let socket = seen_by(&guard, &Path::new(&path).join("socket"));
        assert!(socket.is_some() || number == 3, "{path}");
    }
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 143);
}

/// The root of a container, and what is to run in it.
fn bundle(runc: &Path, busybox: &Path, script: &str) -> tempfile::TempDir {
    let bundle = tempfile::tempdir().expect("a directory");
    let bin = bundle.path().join("rootfs/bin");
    fs::create_dir_all(&bin).expect("a directory");
    common::program(&bin, "sh", fs::read(busybox).expect("a program"), 0o755);
    let mut spec = common::spawn(Command::new(runc).arg("spec").current_dir(bundle.path()));
    assert!(spec.wait().is_ok_and(|status| status.success()));
    let path = bundle.path().join("config.json");
    let spec = fs::read_to_string(&path).expect("runc has written it");
    let spec = spec.replace(r#""terminal": true"#, r#""terminal": false"#);
    fs::write(&path, spec.replace(r#""sh""#, &format!(r#""sh", "-c", "{script}""#))).expect("a file");
    bundle
}

/// runc makes a protocol of the variable, and waits for a word of its container's after that has ended.
#[test]
fn runc_behind_guard_ends_with_its_container() {
    let (Some(runc), Some(busybox)) = (in_path("runc"), in_path("busybox")) else {
        return skipped("there is no runc, or no busybox");
    };
    if fs::read(&busybox).is_ok_and(|bytes| bytes.windows(9).any(|part| part == b"/ld-linux")) {
        return skipped("busybox is not static, and the container has no C library");
    }
    let Some(setup) = as_root("run runc") else { return };
    let bundle = bundle(&runc, &busybox, "echo inside; exit 7");
    let state = bundle.path().join("state").display().to_string();
    let container = format!("guard-{}", std::process::id());
    let words = ["runc", "--root", &state, "run", "--bundle", &bundle.path().display().to_string(), &container];
    let mut guard = setup.env("GUARD_RESTART", "never").app(words).start();
    guard.line("inside");
    assert_eq!(guard.code(), 7);
}
