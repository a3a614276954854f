//! What an app says on its notify socket (`sd_notify(3)`), and what guard does about it.

use crate::common::{self, Guard, Setup, descendants, eventually, everywhere, pid1, status_field};
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// Guard with a stop timeout that a test can wait for.
fn setups() -> impl Iterator<Item = Setup> {
    everywhere().into_iter().map(|setup| setup.env("GUARD_READY", "notify").env("GUARD_STOP_TIMEOUT", "700ms"))
}

fn last_exit(guard: &mut Guard) -> String {
    guard.line_after("env GUARD_LAST_EXIT=")
}

#[test]
fn a_run_is_ready_when_it_says_so() {
    for setup in setups() {
        let mut guard = setup.fixture("on USR1 READY=1,STATUS=busy serve").start();
        guard.line("ready");
        let answer = guard.ask(&["ready"]);
        assert_eq!((answer.code, answer.out.as_str()), (1, "not ready: the app has not said yet that it is ready\n"));
        guard.signal(libc::SIGUSR1);
        guard.event("ready");
        assert_eq!(guard.ask(&["ready"]).out, "ready\n");
        assert!(guard.ask(&["status"]).out.contains("busy"));
    }
}

#[test]
fn a_run_that_is_never_ready_is_a_failure_that_counts() {
    for setup in setups() {
        let setup = setup.env("GUARD_READY_TIMEOUT", "500ms").env("GUARD_MAX_RESTARTS", "1");
        let mut guard = setup.fixture("env quit TERM 0 serve").start();
        guard.line("got TERM");
        assert_eq!(last_exit(&mut guard), "not-ready");
        assert_eq!(guard.code(), 1, "an exit with 0 is no success then");
        assert_eq!(guard.events().iter().filter(|event| event.name() == "give-up").count(), 1);
    }
}

#[test]
fn a_run_that_is_not_ready_in_time_is_told_what_may_be_missing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = common::fixture_at(directory.path(), "node").display().to_string();
    let fixture = common::fixture().display().to_string();
    let below_a_shell = format!("{node} serve; exit $?");
    let nobody = "nobody has written to NOTIFY_SOCKET";
    let another = "what was written to NOTIFY_SOCKET was not READY=1";
    let channel = "the app is Node, whose process.send('ready') needs GUARD_NODE_IPC=on";
    let unsaid = "no process.send('ready') has come over Node's channel";
    for (ipc, command, said, unsaid) in [
        ("off", &[&fixture, "serve"][..], &[nobody][..], &["Node", "READY=1"][..]),
        ("off", &[&fixture, "notify", "STATUS=up", "serve"], &[another], &["Node", nobody]),
        ("off", &[&fixture, "notify", "READY=yes", "serve"], &[another], &[nobody]),
        ("off", &[&node, "serve"], &[nobody, channel], &[unsaid]),
        ("off", &["sh", "-c", &below_a_shell], &[nobody, channel], &[]),
        ("on", &[&node, "serve"], &[nobody, unsaid], &[channel]),
        ("on", &[&fixture, "notify", "STATUS=up", "serve"], &[another, unsaid], &[channel]),
    ] {
        for setup in setups() {
            let setup =
                setup.env("GUARD_READY_TIMEOUT", "300ms").env("GUARD_RESTART", "never").env("GUARD_NODE_IPC", ipc);
            let mut guard = setup.app(command).start();
            let event = guard.event("failing");
            let message = event.get("msg").expect("a message");
            assert!(message.starts_with("not ready within GUARD_READY_TIMEOUT=300ms: "), "{message}");
            assert!(said.iter().all(|part| message.contains(part)), "{command:?}, {ipc}: {message}");
            assert!(!unsaid.iter().any(|part| message.contains(part)), "{command:?}, {ipc}: {message}");
        }
    }
}

#[test]
fn without_a_notify_socket_only_the_channel_can_be_silent() {
    for setup in setups() {
        let setup = setup.env("GUARD_READY_TIMEOUT", "100ms").env("GUARD_RESTART", "never");
        let mut guard = setup.env("GUARD_NODE_IPC", "on").env("GUARD_NOTIFY", "off").fixture("serve").start();
        let event = guard.event("failing");
        let expected =
            "not ready within GUARD_READY_TIMEOUT=100ms: no process.send('ready') has come over Node's channel";
        assert_eq!(event.get("msg"), Some(expected));
    }
}

#[test]
fn who_ignores_the_signal_for_not_being_ready_is_killed() {
    for setup in setups() {
        let setup = setup.env("GUARD_READY_TIMEOUT", "500ms").env("GUARD_RESTART", "never");
        let mut guard = setup.fixture("deaf serve").start();
        guard.line("got TERM");
        assert_eq!(guard.code(), 137);
    }
}

#[test]
fn more_time_can_be_asked_for() {
    for setup in setups() {
        let setup = setup.env("GUARD_READY_TIMEOUT", "500ms");
        let mut guard = setup.fixture("notify EXTEND_TIMEOUT_USEC=60000000 on USR1 READY=1 serve").start();
        guard.line("ready");
        // Far longer than the timeout: a client has come and gone several times.
        (0..40).for_each(|_| assert_eq!(guard.ask(&["ready"]).code, 1));
        guard.signal(libc::SIGUSR1);
        guard.event("ready");
        assert!(!guard.events().iter().any(|event| event.name() == "failing"), "{}", guard.transcript());
    }
}

#[test]
fn an_app_that_says_it_stops_gets_no_second_signal() {
    for setup in setups() {
        let mut guard = setup.fixture("notify READY=1 on USR1 STOPPING=1 serve").start();
        guard.event("ready");
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
        guard.event("stopping");
        assert_eq!(guard.ask(&["ready"]).out, "not ready: the app is stopping\n");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 137, "its deadline is the stop timeout");
        assert_eq!(guard.out(), ["ready", "got USR1"]);
    }
}

/// As the server does that a database's image starts for its set-up, before the one that stays.
#[test]
fn a_helper_that_says_it_stops_ends_nobody_else() {
    for setup in setups() {
        let words = "notify READY=1 fork as helper notify STOPPING=1 exit 0 . notify STATUS=well serve";
        let mut guard = setup.fixture(words).start();
        guard.event("ready");
        guard.line("ready");
        common::eventually("its status", || guard.ask(&["status"]).out.contains("well").then_some(()));
        guard.ask(&["ready"]).yes("ready");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert_eq!(guard.code(), 143);
        assert!(!guard.events().iter().any(|event| event.name() == "stopping"), "{}", guard.transcript());
    }
}

#[test]
fn what_is_too_long_is_not_heard_and_the_log_says_so_once() {
    for setup in setups() {
        let long = format!("notify READY=1,STATUS={} ", "x".repeat(5_000)).repeat(2);
        let mut guard = setup.fixture(&format!("{long} notify READY=1 serve")).start();
        guard.event("ready");
        let refused: Vec<_> = guard.events().into_iter().filter(|event| event.name() == "refused").collect();
        assert_eq!(refused.len(), 1, "{}", guard.transcript());
        assert!(refused[0].line.contains("4096 bytes"), "{}", refused[0].line);
    }
}

#[test]
fn after_an_app_has_stopped_by_itself_the_policy_decides() {
    for setup in setups() {
        let mut guard = setup.fixture("notify READY=1,STOPPING=1 before-run 2 exit 3 exit 0").start();
        assert_eq!(guard.code(), 0);
        assert_eq!(guard.events().iter().filter(|event| event.name() == "restart").count(), 1);
    }
}

#[test]
fn who_does_not_end_after_saying_so_is_killed_and_replaced() {
    for setup in setups() {
        let mut guard = setup.fixture("notify READY=1 before-run 2 notify STOPPING=1 deaf serve").start();
        assert_eq!(guard.event("exit").get("signal"), Some("SIGKILL"));
        assert_eq!(guard.event("restart").get("last"), Some("deadline"));
        guard.event("ready");
        guard.line("ready");
        guard.line("ready");
        assert_eq!(guard.out(), ["ready"; 2], "it got no other signal");
    }
}

#[test]
fn a_reload_is_shown_and_ends_with_ready() {
    for setup in setups() {
        let words = "notify READY=1 on USR1 RELOADING=1,MONOTONIC_USEC=12345 on USR2 READY=1 serve";
        let mut guard = setup.fixture(words).start();
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
        let shown = |guard: &Guard| guard.ask(&["status"]).out.contains("ready, reloading");
        eventually("reloading", || shown(&guard).then_some(()));
        assert_eq!(guard.ask(&["ready"]).code, 0, "whoever reloads still serves");
        guard.signal(libc::SIGUSR2);
        eventually("the end of the reload", || (!shown(&guard)).then_some(()));
    }
}

#[test]
fn what_a_run_said_last_is_read_before_its_death_is_believed() {
    for setup in setups() {
        let setup = setup.env("GUARD_MAX_RESTARTS", "unlimited").env("GUARD_BACKOFF_MAX", "0");
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "0");
        let mut guard = setup.fixture("notify READY=1 before-run 200 exit 1 exit 0").start();
        assert_eq!(guard.code(), 0);
        assert_eq!(guard.events().iter().filter(|event| event.name() == "ready").count(), 200);
    }
}

#[test]
fn a_barrier_comes_after_what_was_said_before() {
    for setup in setups() {
        let mut guard = setup.fixture("notify STATUS=first notify READY=1 barrier serve").start();
        guard.line("barrier");
        assert_eq!(guard.ask(&["ready"]).code, 0);
    }
}

#[test]
fn another_user_of_the_namespace_may_speak() {
    for setup in setups() {
        if !nix::unistd::geteuid().is_root() {
            return common::skipped("only root can run the app as another user");
        }
        let mut guard = setup.fixture("setuid 65534 notify READY=1 serve").start();
        guard.event("ready");
    }
}

#[test]
fn a_flood_keeps_guard_from_nothing() {
    for setup in setups() {
        let mut guard = setup.fixture("notify READY=1 fork as flood flood 100000000 STATUS=x . serve").start();
        // The parent waits for its child, which never comes to an end.
        guard.event("ready");
        guard.signal(libc::SIGUSR1);
        assert_eq!(guard.event("exit").get("signal"), Some("SIGUSR1"));
        // The child of the last run is swept though it floods the last run's socket.
        guard.event("ready");
        guard.signal(libc::SIGTERM);
        assert!([143, 137].contains(&guard.code()), "{}", guard.transcript());
    }
}

#[test]
fn garbage_is_skipped() {
    for setup in setups() {
        let long = "x".repeat(8_000);
        let words =
            format!("notify = notify , notify READY notify READY=yes notify STATUS={long} notify X_MINE=1 serve");
        let mut guard = setup.fixture(&words).start();
        guard.line("ready");
        assert_eq!(guard.ask(&["ready"]).code, 1);
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn descriptors_are_closed_after_each_run() {
    for setup in setups() {
        let setup = setup.env("GUARD_NODE_IPC", "on").env("GUARD_MAX_RESTARTS", "unlimited");
        let setup = setup.env("GUARD_HEALTH_CHECK", "exec:true").env("GUARD_BACKOFF_MAX", "0");
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "0");
        let mut guard = setup.fixture("notify READY=1 before-run 30 exit 1 serve").start();
        guard.line("ready");
        let open = || fs::read_dir(format!("/proc/{}/fd", guard.pid())).map_or(0, Iterator::count);
        // 0 to 2, the poll, the signals' three and their writers, stderr again, the OOM counter, the control socket, the
        // run's two and a check's one.
        assert!(open() <= 16, "{}", open());
    }
}

/// Sockets such as systemd has, at a path and abstract, and what NOTIFY_SOCKET says of them.
fn outer_sockets(directory: &Path) -> [(UnixDatagram, String); 2] {
    let path = directory.join("outer").display().to_string();
    let address = SocketAddr::from_abstract_name(&path).expect("a name");
    let sockets = [(UnixDatagram::bind(&path), path.clone()), (UnixDatagram::bind_addr(&address), format!("@{path}"))];
    sockets.map(|(socket, name)| {
        let socket = socket.expect("nobody else has the name");
        socket.set_read_timeout(Some(common::DEADLINE)).expect("a timeout");
        (socket, name)
    })
}

fn hear(outer: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let count = outer.recv(&mut bytes).expect("a datagram");
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

#[test]
fn an_outer_socket_hears_of_ready_status_and_stopping() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for ((outer, name), setup) in outer_sockets(directory.path()).into_iter().zip(setups()) {
        let mut guard =
            setup.env("NOTIFY_SOCKET", name).fixture("on USR1 READY=1 on USR2 STATUS=late env serve").start();
        let socket = guard.line_after("env NOTIFY_SOCKET=");
        assert!(socket.starts_with('/') && !socket.contains("outer"), "the app has one of its own: {socket}");
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
        assert_eq!(hear(&outer), "READY=1");
        guard.signal(libc::SIGUSR2);
        assert_eq!(hear(&outer), "STATUS=late");
        guard.signal(libc::SIGTERM);
        assert_eq!(hear(&outer), "STOPPING=1");
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn an_outer_socket_without_room_hears_of_it_later() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (outer, name) in outer_sockets(directory.path()) {
        let setup = common::child().env("GUARD_READY", "notify").env("NOTIFY_SOCKET", name);
        let mut guard = setup.fixture("flood 100 STATUS=x notify STATUS=y notify READY=1 serve").start();
        guard.event("ready");
        guard.line("ready");
        // By now it waits for nothing but room.
        common::sleeps_at_rest(guard.pid());
        let news = (0..100).map(|_| hear(&outer)).find(|text| text != "STATUS=x");
        assert_eq!(news.as_deref(), Some("STATUS=y\nREADY=1"), "what was lost is not told one by one");
        guard.signal(libc::SIGTERM);
        assert_eq!(hear(&outer), "STOPPING=1");
    }
}

#[test]
fn an_outer_socket_that_stays_full_neither_wakes_nor_delays_guard() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (_outer, name) in outer_sockets(directory.path()) {
        let Some(setup) = pid1() else { return };
        let setup = setup.env("GUARD_READY", "notify").env("NOTIFY_SOCKET", name);
        let mut guard = setup.fixture("flood 100 STATUS=x notify READY=1 serve").start();
        guard.event("ready");
        guard.line("ready");
        assert_idle(&guard);
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn guards_in_guards_pass_readiness_up() {
    for setup in setups() {
        let app = common::fixture().to_str().expect("UTF-8");
        let guard = env!("CARGO_BIN_EXE_guard");
        let setup = setup.app([guard, "--ready", "notify", "--", app, "on", "USR1", "READY=1", "serve"]);
        let mut guard = setup.start();
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
        // The inner one's, and the outer one's.
        guard.event("ready");
        guard.event("ready");
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn an_outer_socket_that_nobody_reads_is_no_obstacle() {
    for socket in ["/nowhere/at/all", "@nobody-is-here", "neither"] {
        for setup in everywhere() {
            let setup = setup.env("NOTIFY_SOCKET", socket).env("GUARD_RESTART", "never");
            assert_eq!(setup.fixture("notify STATUS=x exit 4").start().code(), 4);
        }
    }
}

#[test]
fn nothing_of_it_wakes_an_idle_guard() {
    let Some(setup) = pid1() else { return };
    let setup = setup.env("GUARD_NODE_IPC", "on").env("GUARD_READY", "notify");
    let mut guard = setup.fixture("notify READY=1 serve").start();
    guard.event("ready");
    guard.line("ready");
    assert_idle(&guard);
}

/// For a guard in a mount namespace of its own: in the tests' the clients of all of them ask whether it is theirs.
fn assert_idle(guard: &Guard) {
    let pid = guard.pid();
    let switches = || status_field(pid, "voluntary_ctxt_switches:");
    let on_cpu = || -> u64 {
        let times = fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("guard lives");
        times.split(' ').next().and_then(|time| time.parse().ok()).expect("nanoseconds")
    };
    eventually("guard to wait", || status_field(pid, "State:").starts_with('S').then_some(()));
    let before = (switches(), on_cpu());
    // What others do takes its time.
    (0..50).for_each(|_| assert!(!descendants(pid).is_empty()));
    let after = (switches(), on_cpu());
    assert_eq!(before.0, after.0, "it was woken");
    assert!(after.1 - before.1 < 5_000_000, "it spins: {before:?}, {after:?}");
}
