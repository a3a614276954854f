//! Node's IPC channel with Node itself: the example of docs/node.md, apps written for pm2, and apps that use the channel
//! badly.

#![allow(clippy::disallowed_methods, reason = "the clock of the tests")]

use crate::common::client::Client;
use crate::common::clock::between;
use crate::common::{
    self, Event, Guard, Setup, child, eventually, everywhere, fixture, in_path, pid1, program, skipped,
};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

fn node() -> Option<PathBuf> {
    let node = in_path("node");
    if node.is_none() {
        skipped("there is no node");
    }
    node
}

/// The server of examples/node with the channel. Its network is the host's loopback.
fn example(setup: Setup, node: &Path) -> Setup {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/node/server.js");
    let setup = setup.env("GUARD_NODE_IPC", "on").env("GUARD_READY", "notify");
    setup.env("HOST", "127.0.0.1").env("PORT", "0").app([node.as_os_str(), script.as_ref()])
}

/// A script with the channel.
fn script(setup: Setup, node: &Path, script: &str) -> Setup {
    setup.env("GUARD_NODE_IPC", "on").app([node.as_os_str(), "-e".as_ref(), script.as_ref()])
}

/// A pre-stop hook that ends at SIGUSR1: the drain lasts as long as the test wants.
fn hook() -> String {
    format!("'{}' as hook ids quit USR1 0 serve", fixture().display())
}

/// All of that name so far.
fn logged(guard: &Guard, name: &str) -> Vec<Event> {
    guard.events().into_iter().filter(|event| event.name() == name).collect()
}

/// From the stop request to the signal for the app.
fn until_signal(guard: &Guard) -> Duration {
    let signals = logged(guard, "stop-signal");
    assert_eq!(signals.len(), 1, "{}", guard.transcript());
    between(&logged(guard, "drain")[0], &signals[0])
}

/// Whether the app can take work, as `guard ready` says in guard's own namespaces.
fn is_ready(guard: &Guard) -> bool {
    let mut command = Command::new(in_path("nsenter").expect("who has unshare has nsenter"));
    let user: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["--user", "--preserve-credentials"] };
    command.args(user).args(["--pid", "--mount", "--target", &guard.pid().to_string()]);
    command.args([env!("CARGO_BIN_EXE_guard"), "ready"]).stdout(Stdio::null());
    let code = common::spawn(&mut command).wait().expect("a child").code();
    assert!(matches!(code, Some(0 | 1)), "guard ready: {code:?}");
    code == Some(0)
}

/// That a response has this status, and closes its connection.
fn assert_closes(response: &str, status: u16) {
    assert!(response.starts_with(&format!("http/1.1 {status} ")), "{response}");
    assert!(response.contains("connection: close"), "{response}");
}

#[test]
fn the_example_drains_in_order() {
    let Some(node) = node() else { return };
    for setup in everywhere() {
        let setup = setup.env("GUARD_STOP_TIMEOUT", "1m").env("GUARD_PRE_STOP", hook());
        let mut guard = example(setup, &node).start();
        let address = guard.line_after("listening on http://");
        let mut silent = Client::connect(&address);
        let mut idle = Client::connect(&address);
        assert!(idle.get("/", "run 1\n").contains("connection: keep-alive"));
        let mut upload = Client::connect(&address);
        upload.send("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nhalf");
        eventually("an upload in flight", || {
            idle.get("/in-flight", "\r\n\r\n");
            (idle.hear("\n") == "1\n").then_some(())
        });
        let mut websocket = Client::connect(&address);
        websocket.send("GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n");
        websocket.send("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
        websocket.hear(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x05hello");

        guard.signal(libc::SIGTERM);
        let hook = guard.line_after("hook pid ").parse().unwrap();
        guard.line("hook ready");
        let refuses = |address: &str| Client::connect(address).get("/ready", "ready\n").starts_with("http/1.1 503 ");
        eventually("an answer that it is not ready", || refuses(&address).then_some(()));
        // It serves on for those who have not noticed, and does not keep their connections.
        assert_closes(&Client::connect(&address).get("/", "run 1\n"), 200);
        assert_closes(&Client::connect(&address).get("/ready", "not ready\n"), 503);

        guard.signal_inside(hook, libc::SIGUSR1);
        guard.line("draining, 1 in flight");
        TcpStream::connect(&address).expect_err("nobody new is let in");
        assert_closes(&silent.get("/", "stopping\n"), 503);
        silent.closed();
        idle.closed();
        websocket.hear(b"\x88\x0c\x03\xe9going away");
        websocket.send(b"\x88\x82\0\0\0\0\x03\xe9");
        websocket.closed();
        upload.send("half");
        assert_closes(&upload.hear("\r\n\r\n8\n"), 200);
        upload.closed();
        guard.line("drained");
        assert_eq!(guard.code(), 0);
        assert!(logged(&guard, "kill").is_empty(), "{}", guard.transcript());
    }
}

/// Tells of every message and signal that comes; ends as it was told. Ready at SIGUSR2.
const LISTENER: &str = "
    const lives = setInterval(() => {}, 1e6);
    process.on('message', (message) => {
        console.log('message ' + JSON.stringify(message));
        if (message === 'shutdown') { clearInterval(lives); process.disconnect(); }
    });
    for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => console.log('signal ' + signal));
    process.on('SIGUSR2', () => process.send('ready'));
    console.log('up');
";

#[test]
fn a_run_is_ready_when_it_says_so() {
    let Some(node) = node() else { return };
    let Some(setup) = pid1() else { return };
    let mut guard = script(setup.env("GUARD_READY", "notify"), &node, LISTENER).start();
    guard.line("up");
    assert!(!is_ready(&guard));
    guard.signal(libc::SIGUSR2);
    eventually("readiness", || is_ready(&guard).then_some(()));
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 0);
}

#[test]
fn a_run_that_never_says_ready_has_failed() {
    let Some(node) = node() else { return };
    let setup = child().env("GUARD_READY", "notify").env("GUARD_READY_TIMEOUT", "1s").env("GUARD_MAX_RESTARTS", "1");
    let last = "console.log('last exit ' + process.env.GUARD_LAST_EXIT); setInterval(() => {}, 1e6)";
    let mut guard = script(setup, &node, last).start();
    guard.line("last exit undefined");
    guard.line("last exit not-ready");
    assert_ne!(guard.code(), 0);
}

#[test]
fn messages_come_in_place_of_the_signal() {
    let Some(node) = node() else { return };
    for setup in everywhere() {
        let mut guard = script(setup.env("GUARD_STOP_TIMEOUT", "1m"), &node, LISTENER).start();
        guard.line("up");
        guard.signal(libc::SIGINT);
        // It closed its channel and is on its way out: there is nobody left to be signalled.
        assert_eq!(guard.code(), 0);
        assert_eq!(guard.out(), ["up", "message \"drain\"", "message \"shutdown\""]);
    }
}

#[test]
fn a_restart_in_place_speaks_too() {
    let Some(node) = node() else { return };
    let mut guard = script(child().env("GUARD_SIGNAL_MAP", "USR1=restart"), &node, LISTENER).start();
    guard.line("up");
    for _ in 0..2 {
        guard.signal(libc::SIGUSR1);
        guard.line("message \"drain\"");
        guard.line("message \"shutdown\"");
        guard.line("up");
    }
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 0);
}

/// As pm2 has it: listens, says ready, closes its server at SIGINT.
const PM2_STYLE: &str = "
    const server = require('node:http').createServer((request, response) => response.end('hey'));
    server.listen(0, '127.0.0.1', () => {
        console.log('listening on ' + server.address().port);
        if (process.send) process.send('ready');
    });
    process.on('SIGINT', () => server.close((error) => {
        console.log('closed');
        process.exit(error ? 1 : 0);
    }));
";

#[test]
fn an_app_for_sigint_gets_it_at_once_without_the_channel() {
    let Some(node) = node() else { return };
    for setup in everywhere() {
        let setup = setup.env("GUARD_STOP_SIGNAL", "INT").env("GUARD_STOP_TIMEOUT", "1m");
        let mut guard = setup.app([node.as_os_str(), "-e".as_ref(), PM2_STYLE.as_ref()]).start();
        guard.line_after("listening on ");
        guard.signal(libc::SIGTERM);
        guard.line("closed");
        assert_eq!(guard.code(), 0);
        assert!(until_signal(&guard) < Duration::from_secs(20), "{}", guard.transcript());
    }
}

#[test]
fn an_app_that_does_not_listen_gets_the_signal_at_half_time() {
    let Some(node) = node() else { return };
    for setup in everywhere() {
        let setup = setup.env("GUARD_STOP_SIGNAL", "INT").env("GUARD_STOP_TIMEOUT", "4s").env("GUARD_READY", "notify");
        let mut guard = script(setup, &node, PM2_STYLE).start();
        guard.line_after("listening on ");
        guard.signal(libc::SIGTERM);
        guard.line("closed");
        assert_eq!(guard.code(), 0);
        let waited = until_signal(&guard);
        assert!((1900..4000).contains(&waited.as_millis()), "{waited:?}");
    }
}

#[test]
fn an_app_that_has_left_the_channel_gets_the_signal_at_once() {
    let Some(node) = node() else { return };
    for setup in everywhere() {
        let app = "
            process.send('ready', () => process.disconnect());
            process.on('disconnect', () => console.log('left'));
            const lives = setInterval(() => {}, 1e6);
            process.on('SIGTERM', () => { console.log('signal'); clearInterval(lives); });
        ";
        let mut guard = script(setup.env("GUARD_READY", "notify").env("GUARD_STOP_TIMEOUT", "1m"), &node, app).start();
        guard.line("left");
        guard.signal(libc::SIGTERM);
        guard.line("signal");
        assert_eq!(guard.code(), 0);
        assert!(until_signal(&guard) < Duration::from_secs(20), "{}", guard.transcript());
    }
}

/// Node keeps back what it sends after a handle until that has come.
#[test]
fn an_app_that_sends_handles_lives_and_is_told_to_stop() {
    let Some(node) = node() else { return };
    for setup in everywhere() {
        let app = "
            const server = require('net').createServer().listen(0, '127.0.0.1', () => {
                for (let i = 0; i < 3; i++) process.send({ i }, server);
                process.send('ready');
                setImmediate(() => console.log('sent'));
            });
            process.on('message', (message) => { if (message === 'shutdown') process.exit(3); });
        ";
        let mut guard = script(setup.env("GUARD_READY", "notify").env("GUARD_STOP_TIMEOUT", "1m"), &node, app).start();
        guard.line("sent");
        guard.event("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 3);
        assert!(logged(&guard, "restart").is_empty(), "{}", guard.transcript());
    }
}

#[test]
fn a_flood_holds_up_neither_the_app_nor_guard() {
    let Some(node) = node() else { return };
    for setup in everywhere() {
        // 10 MB in many lines and 10 MB in one; then an exit, for which Node waits until all is written.
        let app = "
            const part = 'x'.repeat(1e5);
            for (let i = 0; i < 100; i++) process.send(part);
            process.send({ part: part.repeat(100) }, () => console.log('sent'));
            process.on('message', (message) => {
                if (message !== 'shutdown') return;
                for (let i = 0; i < 100; i++) process.send(part);
                process.disconnect();
            });
        ";
        let mut guard = script(setup.env("GUARD_STOP_TIMEOUT", "1m"), &node, app).start();
        guard.line("sent");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
        assert!(logged(&guard, "kill").is_empty(), "{}", guard.transcript());
    }
}

/// A port that no client can be given, as it is below the range of the ephemeral ones.
fn port() -> u16 {
    let first = 10_000 + (std::process::id() % 10_000) as u16;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (first..first + 100).find(free).expect("a port is free")
}

#[test]
fn a_hung_event_loop_is_replaced() {
    let Some(node) = node() else { return };
    let Some(setup) = pid1() else { return };
    let port = port();
    let setup = example(setup, &node).env("PORT", port.to_string()).env("GUARD_STOP_TIMEOUT", "1s");
    // Ready at the first check that passes, which ends the start period.
    let setup = setup.env("GUARD_READY", "health").env("GUARD_HEALTH_CHECK", format!("http://127.0.0.1:{port}/health"));
    let setup = setup.env("GUARD_HEALTH_INTERVAL", "200ms").env("GUARD_HEALTH_TIMEOUT", "2s");
    let mut guard = setup.env("GUARD_HEALTH_RETRIES", "2").start();
    let address = guard.line_after("listening on http://");
    guard.event("ready");
    let mut client = Client::connect(&address);
    client.send("GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(guard.event("restart").get("last"), Some("health"));
    guard.line_after("listening on http://");
    Client::connect(&address).get("/", "run 2\n");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 0);
}

#[test]
fn npm_keeps_the_channel_for_itself() {
    let Some(npm) = in_path("npm") else { return skipped("there is no npm") };
    for setup in everywhere() {
        let directory = tempfile::tempdir().unwrap();
        let package = r#"{ "name": "app", "version": "1.0.0", "scripts": { "start": "node app.js" } }"#;
        program(directory.path(), "package.json", package, 0o644);
        let app = "
            process.on('SIGTERM', () => { console.log('signal'); process.exit(0); });
            setInterval(() => {}, 1e6);
            console.log('send is ' + process.send);
        ";
        program(directory.path(), "app.js", app, 0o644);
        let setup = setup.env("HOME", directory.path()).env("GUARD_NODE_IPC", "on").env("GUARD_STOP_TIMEOUT", "6s");
        let setup = setup.directory(directory.path()).app([npm.as_os_str(), "start".as_ref()]);
        let mut guard = setup.start();
        guard.line("send is undefined");
        guard.signal(libc::SIGTERM);
        guard.line("signal");
        guard.code();
        let waited = until_signal(&guard);
        assert!((2900..6000).contains(&waited.as_millis()), "{waited:?}");
        assert!(logged(&guard, "kill").is_empty(), "{}", guard.transcript());
    }
}
