//! Podman as systemd's go-between: `--sdnotify=container` hands NOTIFY_SOCKET to guard, which says there how the app is.

use crate::common::DEADLINE;
use crate::container::podman;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixDatagram;

tests![podman_passes_on_when_the_app_is_ready];

/// The runtime in between waits for READY=1 and passes that on. Of what comes later runc tells nobody.
fn podman_passes_on_when_the_app_is_ready() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let systemd = UnixDatagram::bind(&path).expect("a socket");
    let shared = directory.path().join("shared");
    fs::create_dir(&shared).expect("a directory");
    let go = shared.join("go");
    mkfifo(&go, Mode::S_IRWXU).expect("a pipe");
    let mut go =
        File::options().read(true).write(true).open(&go).expect("both ends, so that nobody waits for the other");

    let run = podman().options("--sdnotify=container").client_env("NOTIFY_SOCKET", &path.display().to_string());
    let run = run.env("GUARD_READY", "notify").options(&format!("--volume {}:/shared", shared.display()));
    let script = "echo waits; read line </shared/go; exec fixture notify READY=1 quit TERM 0 serve";
    let mut container = run.command(["sh", "-c", script]).start();
    container.line("waits");
    systemd.set_nonblocking(true).expect("a socket");
    while let Some(text) = hear(&systemd) {
        assert!(!is_ready(&text), "too early: {text}");
    }

    systemd.set_nonblocking(false).expect("a socket");
    systemd.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    writeln!(go, "go").expect("room in a pipe");
    while !is_ready(&hear(&systemd).expect("READY=1")) {}
    container.line("ready");
    container.tell("stop");
    assert_eq!(container.code(), 0);
}

fn hear(socket: &UnixDatagram) -> Option<String> {
    let mut bytes = [0; 4096];
    let count = socket.recv(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

fn is_ready(text: &str) -> bool {
    text.lines().any(|line| line == "READY=1")
}
