//! A real server under guard: requests in flight at a stop, a crash under load, and an app that ignores SIGTERM.

#![allow(clippy::disallowed_methods, reason = "the clock of the tests")]

use crate::common::{DEADLINE, Guard, Setup, descendants, eventually, everywhere, in_path, inline, pid1, skipped};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

fn node() -> Option<PathBuf> {
    let node = in_path("node");
    if node.is_none() {
        skipped("there is no node");
    }
    node
}

/// The server of examples/node, not yet started. Its network is the host's loopback.
fn server(setup: Setup, node: &Path, port: u16) -> Setup {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/node/server.js");
    setup.env("HOST", "127.0.0.1").env("PORT", port.to_string()).app([node.as_os_str(), script.as_ref()])
}

/// Waits until the server listens, and gives its address.
fn address(guard: &mut Guard) -> String {
    guard.line_after("listening on http://")
}

/// An HTTP response, as far as the tests look.
struct Response {
    status: u16,
    head: String,
    body: String,
}

/// Sends a request on a connection of its own.
fn get(address: &str, path: &str) -> io::Result<Response> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    // The server says how long the body is, and may keep the connection.
    loop {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes)?;
        text += &String::from_utf8_lossy(&bytes[..count]);
        let length = |head: &str| {
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
        };
        match text.split_once("\r\n\r\n") {
            Some((head, body)) if count == 0 || length(head).is_some_and(|length: usize| body.len() >= length) => {
                let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
                return Ok(Response { status, head: head.to_ascii_lowercase(), body: body.trim_end().to_owned() });
            }
            _ if count == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
}

#[test]
fn requests_in_flight_at_the_stop_are_answered() {
    const REQUESTS: usize = 8;
    let Some(node) = node() else { return };
    for setup in everywhere() {
        let mut guard = server(setup, &node, 0).start();
        let address = address(&mut guard);
        assert_eq!(get(&address, "/").unwrap().body, "run 1");
        thread::scope(|scope| {
            let requests: Vec<_> = (0..REQUESTS).map(|_| scope.spawn(|| get(&address, "/slow?ms=1500"))).collect();
            eventually("requests in flight", || {
                (get(&address, "/in-flight").unwrap().body == REQUESTS.to_string()).then_some(())
            });
            guard.signal(libc::SIGTERM);
            guard.line_after("draining, ");
            assert!(get(&address, "/").is_err(), "nobody new is let in");
            for request in requests {
                let response = request.join().unwrap().expect("a request in flight is answered");
                assert_eq!((response.status, response.body.as_str()), (200, "done"));
                assert!(response.head.contains("connection: close"), "{}", response.head);
            }
        });
        guard.line("drained");
        assert_eq!(guard.code(), 0);
        assert!(guard.events().iter().all(|event| event.name() != "kill"), "{}", guard.transcript());
    }
}

/// A port that no client can be given, as it is below the range of the ephemeral ones: between two runs nobody else may
/// have it.
fn port() -> u16 {
    let first = 10_000 + (std::process::id() % 10_000) as u16;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (first..first + 100).find(free).expect("a port is free")
}

/// What a client saw of one request.
struct Try {
    begun: Instant,
    ended: Instant,
    /// The body, if the status was 200.
    body: Option<String>,
}

/// Asks until there is enough, or the test has failed.
fn keep_asking(address: &str, enough: &AtomicBool) -> Vec<Try> {
    let mut tries = Vec::new();
    let started = Instant::now();
    while !enough.load(Ordering::Relaxed) && started.elapsed() < 3 * DEADLINE {
        let begun = Instant::now();
        let body = get(address, "/").ok().filter(|response| response.status == 200).map(|response| response.body);
        tries.push(Try { begun, ended: Instant::now(), body });
    }
    tries
}

#[test]
fn a_crash_under_load_fails_nothing_but_what_meets_the_gap() {
    const CLIENTS: usize = 4;
    let Some(node) = node() else { return };
    let Some(setup) = pid1() else { return };
    let mut guard = server(setup, &node, port()).start();
    let address = address(&mut guard);
    let enough = AtomicBool::new(false);
    let asked_for = |run: u32| {
        eventually("answers", || {
            let response = get(&address, "/").ok()?;
            (response.body == format!("run {run}")).then_some(())
        });
    };
    let (tries, gaps) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| keep_asking(&address, &enough))).collect();
        let mut gaps = Vec::new();
        for run in 1..3 {
            for _ in 0..100 {
                asked_for(run);
            }
            let crash = Instant::now();
            assert!(get(&address, "/crash").is_err(), "a crash is no answer");
            guard.line_after("listening on http://");
            gaps.push((crash, Instant::now()));
        }
        for _ in 0..100 {
            asked_for(3);
        }
        enough.store(true, Ordering::Relaxed);
        (clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<Try>>(), gaps)
    });
    for run in ["run 1", "run 2", "run 3"] {
        assert!(tries.iter().any(|one| one.body.as_deref() == Some(run)), "no client saw {run}");
    }
    for failed in tries.iter().filter(|one| one.body.is_none()) {
        let met = gaps.iter().any(|(crash, back)| failed.begun < *back && failed.ended > *crash);
        assert!(met, "a request failed though a run was there for it");
    }
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 0);
    assert_eq!(guard.events().iter().filter(|event| event.name() == "restart").count(), 2);
}

#[test]
fn a_deaf_app_is_killed_at_the_stop_timeout() {
    let Some(node) = node() else { return };
    for setup in everywhere() {
        let script = "process.on('SIGTERM', () => console.log('no')); setInterval(() => {}, 1e6); console.log('ready')";
        let setup = setup.env("GUARD_STOP_TIMEOUT", "1s").app([node.as_os_str(), "-e".as_ref(), script.as_ref()]);
        let mut guard = setup.start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        guard.line("no");
        assert_eq!(guard.code(), 137);
        assert_eq!(guard.out(), ["ready", "no"]);
    }
}

#[test]
fn nothing_of_the_app_is_left_behind() {
    let Some(node) = node() else { return };
    let Some(setup) = pid1() else { return };
    let script = "
        const { spawn } = require('node:child_process');
        const deaf = `process.on('SIGTERM', () => {}); setInterval(() => {}, 1e6); console.log('below')`;
        spawn(process.execPath, ['-e', deaf], { stdio: 'inherit', detached: true });
        spawn(process.execPath, ['-e', deaf], { stdio: 'inherit' });
        process.on('SIGTERM', () => process.exit(0));
        console.log('ready');
    ";
    let setup = setup.env("GUARD_STOP_TIMEOUT", "1s").app([node.as_os_str(), "-e".as_ref(), script.as_ref()]);
    let mut guard = setup.start();
    let mut lines = [(); 3].map(|()| guard.line_after(""));
    lines.sort_unstable();
    assert_eq!(lines, ["below", "below", "ready"]);
    let below = descendants(guard.pid());
    assert_eq!(below.len(), 3);
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 0);
    for pid in below {
        assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "{pid} lives");
    }
}

/// With the option of docs/kubernetes.md.
#[test]
fn a_heap_that_is_full_costs_a_run_and_not_the_container() {
    let Some(node) = node() else { return };
    let option = inline::inline().into_iter().find(|found| found.command.starts_with("node --max-old-space-size="));
    let option = option.expect("the guide has it").command.replace("node ", "");
    let script = "if (process.env.GUARD_LAST_EXIT) process.exit(0);
        const all = []; for (;;) all.push(new Array(1e5).fill(all.length))";
    for setup in everywhere() {
        let mut guard = setup.app([node.as_os_str(), option.as_ref(), "-e".as_ref(), script.as_ref()]).start();
        assert_eq!(guard.event("exit").get("signal"), Some("SIGABRT"), "{}", guard.transcript());
        guard.event("restart");
        assert_eq!(guard.code(), 0, "{}", guard.transcript());
    }
}
