//! Listening sockets that guard hands to each run (`sd_listen_fds(3)`).

use crate::common::{self, Guard, Setup, eventually, everywhere, fixture, skipped};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

const PYTHON: &str = "/usr/bin/python3";

fn has_python() -> bool {
    let exists = Path::new(PYTHON).exists();
    if !exists {
        skipped("no python3");
    }
    exists
}

/// A guard that was handed a socket, as Podman and systemd do it.
fn handed(setup: Setup, socket: TcpListener, words: &str) -> Setup {
    let script = format!(
        "exec 3<&0 4</dev/null 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=${{NAMES-web:other}} LISTEN_PIDFDID=7 exec {} \"$@\"",
        env!("CARGO_BIN_EXE_guard")
    );
    let setup = setup.program("/bin/sh").options(["-c", &script, "guard"]).stdin(OwnedFd::from(socket));
    setup.fixture(words)
}

/// What the fixture's `env` says next.
fn environment(guard: &mut Guard) -> BTreeMap<String, String> {
    let lines = guard.lines_until("end");
    let entries = lines.iter().filter_map(|line| line.strip_prefix("env ")?.split_once('='));
    entries.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn sockets_that_guard_was_handed_are_for_each_run() {
    for setup in everywhere() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let setup = handed(setup, socket, "ids env fds before-run 2 exit 1 serve");
        let mut guard = setup.env("GUARD_NODE_IPC", "on").start();
        for run in 1..=2 {
            let pid = guard.line_after("pid ");
            let environment = environment(&mut guard);
            let value = |name| environment.get(name).map(String::as_str);
            assert_eq!(value("LISTEN_PID"), Some(pid.as_str()), "the run's own, in run {run}");
            assert_eq!(value("LISTEN_FDS"), Some("2"));
            assert_eq!(value("LISTEN_FDNAMES"), Some("web:other"));
            assert_eq!(value("LISTEN_PIDFDID"), None, "it would name guard");
            let descriptors = guard.lines_until("end");
            assert!(descriptors.iter().any(|line| line.starts_with("fd 3 socket:")), "{descriptors:?}");
            assert!(descriptors.iter().any(|line| line == "fd 4 /dev/null"), "{descriptors:?}");
            let channel = value("NODE_CHANNEL_FD").expect("a channel").parse::<i32>().expect("a number");
            assert!(channel > 4, "{channel}");
        }
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// sd_listen_fds_with_names(3): a name may be empty, and the others stay where they are.
#[test]
fn a_socket_without_a_name_keeps_its_place() {
    for setup in everywhere() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut guard = handed(setup.env("NAMES", ":other"), socket, "env serve").start();
        assert_eq!(environment(&mut guard).get("LISTEN_FDNAMES").map(String::as_str), Some("unknown:other"));
    }
}

#[test]
fn sockets_of_somebody_else_are_left_alone() {
    for setup in everywhere() {
        let setup = setup.env("LISTEN_PID", "4711").env("LISTEN_FDS", "1").fixture("env exit 0");
        let mut guard = setup.start();
        let environment = environment(&mut guard);
        assert_eq!(environment.get("LISTEN_PID").map(String::as_str), Some("4711"));
        assert_eq!(guard.code(), 0);
    }
}

/// A port that nobody has, or had a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
}

/// What a server in the queue of which one waits has said: the connection stands before anybody accepts it.
fn connects(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).expect("nobody is refused")
}

#[test]
fn sockets_are_opened_in_order_and_named() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("app.sock");
        let (first, second) = (free_port(), free_port());
        let listen = format!("web={first},127.0.0.1:{second},admin=unix:{}", path.display());
        let setup = setup.env("GUARD_LISTEN", listen).fixture("ids env fds before-run 2 exit 1 serve");
        let mut guard = setup.env("GUARD_STOP_TIMEOUT", "5s").start();
        for _run in 1..=2 {
            let pid = guard.line_after("pid ");
            let environment = environment(&mut guard);
            let value = |name| environment.get(name).map(String::as_str);
            assert_eq!(value("LISTEN_PID"), Some(pid.as_str()));
            assert_eq!(value("LISTEN_FDS"), Some("3"));
            assert_eq!(value("LISTEN_FDNAMES"), Some("web:unknown:admin"));
            let descriptors = guard.lines_until("end");
            for number in 3..6 {
                let socket = format!("fd {number} socket:");
                assert!(descriptors.iter().any(|line| line.starts_with(&socket)), "{descriptors:?}");
            }
            assert_eq!(descriptors.iter().filter(|line| line.contains("socket:")).count(), 3, "{descriptors:?}");
        }
        guard.line("ready");
        connects(first);
        connects(second);
        let _waiting =
            TcpStream::connect(("::1", first)).map_err(|error| assert_ne!(error.kind(), ErrorKind::ConnectionRefused));
        UnixStream::connect(&path).expect("nobody is refused");
        let status = guard.ask(&["status"]).out;
        assert!(status.contains(" (web), 1 of ") || status.contains(" (web), 2 of "), "{status}");
        let json = guard.ask(&["status", "--json"]).out;
        assert!(json.contains(r#""name":"web","waiting":"#), "{json}");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
        assert!(!path.exists(), "guard removes what it has made");
        assert!(TcpStream::connect(("127.0.0.1", first)).is_err());
    }
}

#[test]
fn clients_wait_while_no_run_lives() {
    for setup in everywhere() {
        let port = free_port();
        let setup = setup.env("GUARD_LISTEN", format!("127.0.0.1:{port}")).env("GUARD_BACKOFF_INITIAL", "10m");
        let setup = setup.env("GUARD_BACKOFF_MAX", "10m").fixture("exit 1");
        let mut guard = setup.start();
        guard.event("restart");
        guard.event("restart");
        connects(port);
        assert_eq!(guard.ask(&["stop"]).code, 0);
        assert_eq!(guard.code(), 1);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it was let go");
    }
}

#[test]
fn after_the_hold_timeout_clients_are_refused_until_a_run_starts() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("app.sock");
        let port = free_port();
        let listen = format!("127.0.0.1:{port},unix:{}", path.display());
        let setup = setup.env("GUARD_LISTEN", listen).env("GUARD_HOLD_TIMEOUT", "1s");
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "10m").env("GUARD_BACKOFF_MAX", "10m");
        let mut guard = setup.fixture("before-run 3 exit 1 serve").start();
        guard.event("held");
        guard.event("held");
        let mut waiting = UnixStream::connect(&path).expect("it is held");
        waiting.write_all(b"hello").expect("it waits");
        for _socket in 0..2 {
            guard.event("not-held");
        }
        waiting.set_read_timeout(Some(common::DEADLINE)).expect("a timeout");
        let cut = waiting.read(&mut [0]).expect_err("it is cut off");
        assert_eq!(cut.kind(), ErrorKind::ConnectionReset);
        let refused = TcpStream::connect(("127.0.0.1", port)).expect_err("no run for too long");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let refused = UnixStream::connect(&path).expect_err("no run for too long");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err(), "the port is still guard's");
        assert_eq!(guard.ask(&["restart"]).code, 0);
        guard.line("ready");
        connects(port);
        UnixStream::connect(&path).expect("there is a run");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn what_a_run_did_to_its_sockets_is_mended() {
    if !has_python() {
        return;
    }
    for setup in everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("app.sock");
        let port = free_port();
        let listen = format!("127.0.0.1:{port},unix:{}", path.display());
        let script = "
import os, signal, socket, sys
tcp, unix = socket.socket(fileno=3), socket.socket(fileno=4)
if os.environ['GUARD_RUN'] == '1':
    tcp.listen(1)
    tcp.shutdown(socket.SHUT_RDWR)
    unix.shutdown(socket.SHUT_RDWR)
    sys.exit(1)
for server in (tcp, unix):
    print('serves', flush=True)
    connection, _ = server.accept()
    connection.send(b'hello')
signal.pause()
";
        let setup = setup.env("GUARD_LISTEN", listen).app([PYTHON, "-c", script]);
        let mut guard = setup.start();
        guard.line("serves");
        let mut answer = String::new();
        connects(port).take(5).read_to_string(&mut answer).expect("an answer");
        guard.line("serves");
        UnixStream::connect(&path).expect("it was opened anew").take(5).read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer, "hellohello");
        let json = guard.ask(&["status", "--json"]).out;
        assert!(!json.contains(r#""limit":1,"#), "the queue is long again: {json}");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// As an app does that was handed a socket by systemd (`sd_is_socket(3)`).
#[test]
fn who_asks_whether_a_reopened_socket_listens_is_ready() {
    if !has_python() {
        return;
    }
    for setup in everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let listen = format!("unix:{}", directory.path().join("app.sock").display());
        let script = "
import os, signal, socket, sys
unix = socket.socket(fileno=3)
assert unix.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
if os.environ['GUARD_RUN'] == '1':
    unix.shutdown(socket.SHUT_RDWR)
    sys.exit(1)
signal.pause()
";
        let setup = setup.env("GUARD_LISTEN", listen).env("GUARD_HOLD", "on").env("GUARD_READY", "listen");
        let mut guard = setup.app([PYTHON, "-c", script]).start();
        let runs = [guard.event("ready"), guard.event("ready")].map(|event| event.get("run").map(str::to_owned));
        assert_eq!(runs, [Some("1".to_owned()), Some("2".to_owned())]);
    }
}

/// guard knows what it has opened, and searches nothing.
#[test]
fn a_run_that_is_handed_sockets_listens_from_its_start() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let setup = setup.env("GUARD_LISTEN", format!("unix:{}", directory.path().join("app.sock").display()));
        let fixture = fixture().display().to_string();
        // As npm does for the app below it.
        let script = r#"exec 3>&-; exec "$0" serve"#;
        let mut guard = setup.env("GUARD_READY", "listen").app(["sh", "-c", script, &fixture]).start();
        assert_eq!(guard.event("ready").get("run"), Some("1"));
    }
}

#[test]
fn a_socket_that_cannot_be_opened_again_is_told() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can become another user");
    }
    if !has_python() {
        return;
    }
    for setup in everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("ours");
        let path = directory.path().join("app.sock");
        let setup = setup.env("GUARD_USER", "54321").env("GUARD_LISTEN", format!("unix:{}", path.display()));
        let script = "
import os, signal, socket
if os.environ['GUARD_RUN'] == '1':
    socket.socket(fileno=3).shutdown(socket.SHUT_RDWR)
    os._exit(1)
signal.pause()
";
        let mut guard = setup.app([PYTHON, "-c", script]).start();
        let told = guard.event("not-held");
        let address = format!("unix:{}", path.display());
        assert_eq!(told.get("address"), Some(address.as_str()), "{}", told.line);
        assert_eq!((told.get("level"), told.get("error")), (Some("error"), Some("Permission denied")), "{}", told.line);
        guard.event("spawn");
        assert!(guard.ask(&["status", "--json"]).out.contains(r#""refusing":true"#));
    }
}

/// guard has made the socket listen again when the run's main process had ended, and the leftover shuts it down after that.
#[test]
fn what_a_leftover_did_to_a_socket_is_mended_before_the_next_run() {
    if !has_python() {
        return;
    }
    for setup in everywhere() {
        let port = free_port();
        let script = "
import os, signal, socket, sys
server = socket.socket(fileno=3)
def shut(*_):
    server.shutdown(socket.SHUT_RDWR)
    os.write(1, b'shut\\n')
    os._exit(0)
if os.environ['GUARD_RUN'] == '1':
    begins, tells = os.pipe()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, shut)
        os.write(tells, b'.')
        while True: signal.pause()
    os.read(begins, 1)
    sys.exit(1)
print('serves', flush=True)
connection, _ = server.accept()
connection.send(b'hello')
signal.pause()
";
        let setup = setup.env("GUARD_LISTEN", format!("127.0.0.1:{port}"));
        let mut guard = setup.app([PYTHON, "-c", script]).start();
        guard.line("shut");
        guard.line("serves");
        let mut answer = String::new();
        connects(port).take(5).read_to_string(&mut answer).expect("an answer");
        assert_eq!(answer, "hello");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// guard knows then that it holds nothing of what the app opens itself. It still holds what it has opened.
#[test]
fn sockets_are_let_go_before_the_stop_signal_though_there_is_no_filter() {
    if !has_python() {
        return;
    }
    for setup in everywhere() {
        let port = free_port();
        let script = "
import os, signal, socket
server = socket.socket(fileno=3)
def stop(*_):
    server.close()
    os.write(1, b'closed\\n')
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
print('serves', flush=True)
while True: signal.pause()
";
        let setup = setup.env("GUARD_LISTEN", format!("127.0.0.1:{port}")).env("GUARD_HOLD", "on");
        let setup = setup.env("GUARD_READY", "exec").inherits("forbid filter");
        let mut guard = setup.app([PYTHON, "-c", script]).start();
        let event = guard.event("not-held");
        assert!(event.get("msg").is_some_and(|msg| msg.contains("a seccomp profile forbids it")), "{event:?}");
        guard.line("serves");
        connects(port);
        guard.signal(libc::SIGTERM);
        guard.line("closed");
        let refused = TcpStream::connect(("127.0.0.1", port)).expect_err("it was let go");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        guard.signal(libc::SIGUSR1);
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn a_socket_that_cannot_be_had_is_one_clear_error() {
    for setup in everywhere() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let mut guard = setup.env("GUARD_LISTEN", format!("127.0.0.1:{port}")).fixture("say started serve").start();
        assert_eq!(guard.code(), 125);
        let error = format!("GUARD_LISTEN: cannot listen on 127.0.0.1:{port}: another process has this port");
        assert!(guard.err().iter().any(|line| line.contains(&error)), "{:?}", guard.err());
        assert!(guard.out().is_empty());
    }
}

#[test]
fn a_stale_path_is_replaced_and_a_live_one_refused() {
    let ways: [fn() -> Option<Setup>; 2] = [common::pid1, || Some(common::child())];
    for way in ways {
        let Some(_) = way() else { continue };
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("app.sock");
        let start = || {
            let setup = way().expect("as before").env("GUARD_LISTEN", format!("unix:{}", path.display()));
            setup.fixture("serve").start()
        };
        let live = UnixListener::bind(&path).expect("a socket");
        let mut guard = start();
        assert_eq!(guard.code(), 125);
        UnixStream::connect(&path).expect("the other's still");
        drop(live);
        // A child of another test has it too, until it executes its program.
        eventually("the end of the socket", || UnixStream::connect(&path).is_err().then_some(()));
        let mut guard = start();
        guard.line("ready");
        UnixStream::connect(&path).expect("guard's");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
        std::fs::write(&path, "precious").expect("a file");
        let mut guard = start();
        assert_eq!(guard.code(), 125);
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "precious");
    }
}

#[test]
fn each_run_finds_the_socket_waiting_whatever_the_last_one_has_set() {
    const PYTHON: &str = "/usr/bin/python3";
    if !std::path::Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    let script = "import os, signal\nprint('blocking', os.get_blocking(3), flush=True)\nos.set_blocking(3, False)\n\
                  if os.environ['GUARD_RUN'] == '1': os._exit(1)\nsignal.pause()";
    for setup in everywhere() {
        let mut guard =
            setup.env("GUARD_LISTEN", format!("127.0.0.1:{}", free_port())).app([PYTHON, "-c", script]).start();
        guard.line("blocking True");
        guard.line("blocking True");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn a_socket_that_another_has_put_in_the_place_of_guards_stays() {
    for setup in common::everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("app.sock");
        let mut guard = setup.env("GUARD_LISTEN", format!("unix:{}", path.display())).fixture("serve").start();
        guard.line("ready");
        std::fs::remove_file(&path).expect("guard's");
        let _other = UnixListener::bind(&path).expect("a socket");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
        UnixStream::connect(&path).expect("the other's still");
    }
}

#[test]
fn a_unix_socket_that_guards_user_cannot_remove_is_told() {
    if !nix::unistd::geteuid().is_root() {
        return skipped("only root can become another user");
    }
    for setup in everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("ours");
        let path = directory.path().join("app.sock");
        let setup = setup.env("GUARD_USER", "54321").env("GUARD_LISTEN", format!("unix:{}", path.display()));
        let mut guard = setup.app(["sleep", "1000"]).start();
        guard.event("spawn");
        guard.signal(libc::SIGTERM);
        let told = guard.event("not-removed");
        assert_eq!(told.get("path"), path.to_str(), "{}", told.line);
        assert_eq!(guard.code(), 143);
    }
}

/// Everybody may connect to a socket, whatever mask guard was started with; the app has that mask.
#[test]
fn a_unix_socket_is_for_everybody_and_the_mask_stays() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("app.sock");
        let setup = setup.inherits("umask 077").env("GUARD_LISTEN", format!("unix:{}", path.display()));
        let mut guard = setup.app(["sh", "-c", "umask; exec sleep 1000"]).start();
        guard.line("0077");
        let mode = path.metadata().expect("guard has made it").permissions().mode();
        assert_eq!(mode & 0o7777, 0o666);
    }
}
