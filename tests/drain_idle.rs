//! GUARD_DRAIN_IDLE: the stop signal waits until the app's clients have gone.

use crate::common::clock::between;
use crate::common::port::Port;
use crate::common::{self, Guard, Setup, child, everywhere, in_path, skipped, without_ptrace};
use std::net::TcpStream;
use std::time::Duration;

fn draining(setup: Setup, port: u16) -> Setup {
    let setup = setup.env("GUARD_STOP_TIMEOUT", "1m").env("GUARD_READY", "listen");
    setup.fixture(&format!("listen {port} quit TERM 0 serve"))
}

/// A connection that the server has in its queue.
fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).expect("it listens")
}

fn took(guard: &Guard) -> Duration {
    let at = |name: &str| guard.events().into_iter().find(|event| event.name() == name).expect("in the log");
    between(&at("drain"), &at("stop-signal"))
}

/// A port that is free, most likely.
fn free_port() -> u16 {
    Port::reserve().number
}

#[test]
fn the_stop_signal_waits_for_the_last_connection() {
    for setup in everywhere() {
        let port = free_port();
        let mut guard = draining(setup.env("GUARD_DRAIN_IDLE", "50s"), port).start();
        guard.event("ready");
        let clients = [connect(port), connect(port)];
        guard.signal(libc::SIGTERM);
        guard.event("drain");
        let [first, second] = clients;
        drop(first);
        // The app still serves.
        drop(connect(port));
        // As many questions as take guard more than a count or two.
        (0..60).for_each(|_| assert_eq!(guard.ask(&["ready"]).code, 1));
        assert!(!guard.out().contains(&"got TERM"), "{}", guard.transcript());
        drop(second);
        guard.line("got TERM");
        assert_eq!(guard.code(), 0);
        assert!(!guard.events().iter().any(|event| event.name() == "connections-left"), "{}", guard.transcript());
    }
}

/// As gosu in an entrypoint makes it, in a container that has no CAP_SYS_PTRACE.
#[test]
fn the_stop_signal_waits_for_the_connections_of_an_app_of_another_user() {
    for setup in without_ptrace() {
        let port = free_port();
        let setup = setup.env("GUARD_DRAIN_IDLE", "700ms");
        let setup = setup.env("GUARD_STOP_TIMEOUT", "1m");
        let mut guard = setup.fixture(&format!("setuid 65534 listen {port} quit TERM 0 serve")).start();
        guard.line("ready");
        let _client = connect(port);
        guard.signal(libc::SIGTERM);
        guard.event("connections-left");
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn a_connection_that_stays_is_counted_in_the_log() {
    for setup in everywhere() {
        let port = free_port();
        let mut guard = draining(setup.env("GUARD_DRAIN_IDLE", "700ms"), port).start();
        guard.event("ready");
        let _clients = [connect(port), connect(port)];
        guard.signal(libc::SIGTERM);
        let left = guard.event("connections-left");
        assert_eq!(left.get("connections"), Some("2"));
        assert!(left.line.contains("GUARD_DRAIN_IDLE=700ms"), "{}", left.line);
        assert_eq!(guard.code(), 0);
        assert!(took(&guard) >= Duration::from_millis(700), "{}", guard.transcript());
    }
}

#[test]
fn without_a_client_and_without_a_server_nothing_waits() {
    let both =
        everywhere().into_iter().map(|setup| (setup, true)).chain(everywhere().into_iter().map(|setup| (setup, false)));
    for (setup, listens) in both {
        let setup = setup.env("GUARD_DRAIN_IDLE", "50s").env("GUARD_STOP_TIMEOUT", "1m");
        let port = free_port();
        let words = if listens { format!("listen {port} quit TERM 0 serve") } else { "quit TERM 0 serve".to_owned() };
        let mut guard = setup.fixture(&words).start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
        assert!(took(&guard) < Duration::from_secs(10), "{}", guard.transcript());
    }
}

#[test]
fn what_guard_listens_on_for_the_app_counts_too_and_its_own_door_does_not() {
    for setup in everywhere() {
        let (port, door) = (free_port(), free_port());
        let setup =
            setup.env("GUARD_LISTEN", format!("127.0.0.1:{port}")).env("GUARD_HTTP", format!("127.0.0.1:{door}"));
        let setup = setup.env("GUARD_DRAIN_IDLE", "50s").env("GUARD_STOP_TIMEOUT", "1m");
        let mut guard = setup.fixture("quit TERM 0 serve").start();
        guard.line("ready");
        let (client, _scraper) = (connect(port), connect(door));
        guard.signal(libc::SIGTERM);
        guard.event("drain");
        (0..60).for_each(|_| assert_eq!(guard.ask(&["ready"]).code, 1));
        assert!(!guard.out().contains(&"got TERM"), "{}", guard.transcript());
        drop(client);
        guard.line("got TERM");
        assert_eq!(guard.code(), 0);
    }
}

/// Many apps close what they listen on when they learn of a drain, and finish what they have.
#[test]
fn connections_count_though_the_app_accepts_no_more() {
    const PYTHON: &str = "/usr/bin/python3";
    if in_path(PYTHON).is_none() {
        return skipped("there is no python3");
    }
    let script = "import signal, socket, sys\nserver = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n\
                  def close(*_): server.close(); print('closed', flush=True)\n\
                  signal.signal(signal.SIGUSR1, close)\n\
                  def quit(*_): print('quits', flush=True); sys.exit(0)\nsignal.signal(signal.SIGTERM, quit)\n\
                  client = server.accept()\nprint('accepted', flush=True)\nwhile True: signal.pause()";
    for setup in everywhere() {
        let port = free_port();
        let directory = tempfile::tempdir().expect("a directory");
        let closed = directory.path().join("closed");
        let hook = format!("sh -c 'until [ -e {} ]; do sleep 0.01; done'", closed.display());
        let setup = setup.env("GUARD_DRAIN_IDLE", "50s").env("GUARD_STOP_TIMEOUT", "1m").env("GUARD_PRE_STOP", hook);
        let setup = setup.env("GUARD_READY", "listen").app([PYTHON, "-c", script, &port.to_string()]);
        let mut guard = setup.start();
        guard.event("ready");
        let client = connect(port);
        guard.line("accepted");
        guard.signal(libc::SIGTERM);
        guard.event("drain");
        guard.signal(libc::SIGUSR1);
        guard.line("closed");
        std::fs::write(&closed, "").expect("ours");
        guard.event("pre-stop-ended");
        (0..60).for_each(|_| assert_eq!(guard.ask(&["ready"]).code, 1));
        assert!(!guard.out().contains(&"quits"), "{}", guard.transcript());
        drop(client);
        guard.line("quits");
        assert_eq!(guard.code(), 0);
    }
}

/// guard keeps a duplicate of what the app listens on, which knows nothing of it.
#[test]
fn what_guard_holds_counts_once() {
    const PYTHON: &str = "/usr/bin/python3";
    if in_path(PYTHON).is_none() {
        return skipped("there is no python3");
    }
    let script = "import signal, socket, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n\
                  server = socket.create_server(('', int(sys.argv[1])))\nprint('listens', flush=True)\nsignal.pause()";
    for setup in everywhere() {
        let port = free_port();
        let setup = setup.env("GUARD_HOLD", "on").env("GUARD_DRAIN_IDLE", "700ms").env("GUARD_STOP_TIMEOUT", "1m");
        let mut guard = setup.app([PYTHON, "-c", script, &port.to_string()]).start();
        guard.line("listens");
        let _clients = [connect(port), connect(port), connect(port)];
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.event("connections-left").get("connections"), Some("3"), "{}", guard.transcript());
        assert_eq!(guard.code(), 0);
    }
}

#[test]
fn a_node_server_on_ipv6_with_a_client_of_ipv4() {
    if in_path("node").is_none() {
        return skipped("there is no node");
    }
    let text = "const server = require('net').createServer(() => {}); server.listen(0, () => console.log('port', server.address().port));
        process.on('SIGTERM', () => process.exit(0))";
    for setup in everywhere() {
        let setup = setup.env("GUARD_DRAIN_IDLE", "700ms").env("GUARD_STOP_TIMEOUT", "1m");
        let mut guard = setup.app(["node", "-e", text]).start();
        let port = guard.line_after("port ").parse().expect("a port");
        let _client = connect(port);
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.event("connections-left").get("connections"), Some("1"));
        assert_eq!(guard.code(), 0);
    }
}

/// Without a stop timeout a restart has the platform's, on top of the drain: here 1 s.
#[test]
fn without_a_stop_timeout_a_restart_still_leaves_the_app_time_to_stop() {
    for setup in everywhere() {
        let port = free_port();
        let setup = setup.env("RAILWAY_ENVIRONMENT_ID", "test").env("RAILWAY_DEPLOYMENT_DRAINING_SECONDS", "2");
        let setup = setup.env("GUARD_STOP_TIMEOUT", "none").env("GUARD_DRAIN_IDLE", "1500ms");
        let mut guard = setup.env("GUARD_READY", "listen").fixture(&format!("listen {port} quit TERM 7 serve")).start();
        guard.event("ready");
        let _client = connect(port);
        let asked = common::begin(&mut guard.client(&["restart"]));
        guard.line("got TERM");
        let exit = guard.event("exit");
        assert_eq!((exit.get("code"), exit.get("cause")), (Some("7"), Some("operator")), "{}", guard.transcript());
        common::Answer::of(asked);
    }
}

#[test]
fn it_leaves_the_app_time_to_stop() {
    for (delay, idle) in [("0s", "10s"), ("6s", "4s")] {
        let setup = child().env("GUARD_DRAIN_DELAY", delay).env("GUARD_DRAIN_IDLE", idle);
        let mut guard = setup.env("GUARD_STOP_TIMEOUT", "10s").fixture("exit 0").start();
        assert_eq!(guard.code(), 125);
        let said = guard.err().join("\n");
        assert!(said.contains(&format!("GUARD_DRAIN_IDLE={idle}")) && said.contains("GUARD_STOP_TIMEOUT"), "{said}");
    }
}
