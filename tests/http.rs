//! The HTTP door (GUARD_HTTP): what probes and Prometheus see.

mod common;
#[path = "common/port.rs"]
mod port;

use common::{Setup, child, everywhere};
use port::Port;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A setup whose guard listens at a port that was free a moment ago.
fn with_http(setup: Setup) -> (Setup, u16) {
    let port = Port::reserve().number;
    (setup.env("GUARD_HTTP", format!("127.0.0.1:{port}")), port)
}

/// What a path answers: the code, and the body.
fn get(port: u16, path: &str) -> (u16, String) {
    request(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

fn request(port: u16, text: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("guard listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    stream.write_all(text.as_bytes()).expect("guard reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("guard answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.unwrap_or_else(|| panic!("no status in {head}")), body.to_owned())
}

#[test]
fn the_pages_say_what_the_commands_say() {
    for setup in everywhere() {
        let (setup, port) = with_http(setup.env("GUARD_DRAIN_DELAY", "10s").env("GUARD_STOP_TIMEOUT", "60s"));
        let mut guard = setup.env("GUARD_READY", "notify").fixture("on USR1 READY=1 serve").start();
        guard.line("ready");
        assert_eq!(get(port, "/livez"), (200, "alive\n".to_owned()));
        let unready = "not ready: the app has not said yet that it is ready\n";
        assert_eq!(get(port, "/readyz"), (503, unready.to_owned()));
        guard.signal(libc::SIGUSR1);
        guard.event("ready");
        assert_eq!(get(port, "/readyz?verbose"), (200, "ready\n".to_owned()));
        assert_eq!(request(port, "HEAD /readyz HTTP/1.1\r\n\r\n"), (200, String::new()));
        guard.signal(libc::SIGTERM);
        guard.event("drain");
        assert_eq!(get(port, "/readyz"), (503, "not ready: guard is stopping\n".to_owned()));
        assert_eq!(get(port, "/livez"), (200, "alive\n".to_owned()));
    }
}

#[test]
fn no_page_shows_the_command_line_or_the_environment() {
    for setup in everywhere() {
        let (setup, port) = with_http(setup.env("PASSWORD", "secret-1"));
        let mut guard = setup.fixture("say secret-2 serve").start();
        guard.line("ready");
        for path in ["/status", "/metrics", "/readyz", "/livez", "/", "/nothing"] {
            let (_, body) = get(port, path);
            assert!(!body.contains("secret"), "{path}: {body}");
        }
        let (code, status) = get(port, "/status");
        assert!(
            code == 200 && status.starts_with(r#"{"version":"#) && status.contains(r#""state":"ready""#),
            "{status}"
        );
    }
}

#[test]
fn metrics_count_what_has_happened() {
    for setup in everywhere() {
        let (setup, port) = with_http(setup.env("GUARD_BACKOFF_INITIAL", "10ms"));
        let mut guard = setup.fixture("before-run 2 exit 3 before-run 3 die SEGV serve").start();
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
        guard.line("got USR1");
        let (code, page) = get(port, "/metrics");
        assert_eq!(code, 200);
        for sample in [
            "guard_ready 1",
            "guard_instances{state=\"ready\"} 1",
            "guard_instances{state=\"backoff\"} 0",
            "guard_runs_total{instance=\"0\"} 3",
            "guard_restarts_total{reason=\"exit\"} 1",
            "guard_restarts_total{reason=\"signal\"} 1",
            "guard_restarts_total{reason=\"oom\"} 0",
            "guard_signals_forwarded_total 1",
            "guard_restarts_limit 10",
        ] {
            assert!(page.lines().any(|line| line == sample), "{sample} in {page}");
        }
    }
}

#[test]
fn what_is_no_request_harms_nobody() {
    let (setup, port) = with_http(child());
    let mut guard = setup.fixture("serve").start();
    guard.line("ready");
    assert_eq!(request(port, "PUT /livez HTTP/1.1\r\n\r\n").0, 405);
    assert_eq!(request(port, "GET /passwd HTTP/1.1\r\n\r\n").0, 404);
    assert_eq!(request(port, "SSH-2.0-x\r\n\r\n").0, 400);
    assert_eq!(request(port, &format!("GET /livez HTTP/1.1\r\na: {}\r\n", "b".repeat(40_000))).0, 431);
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("guard listens")).collect();
    assert_eq!(get(port, "/livez").0, 200);
    guard.ask(&["ready"]).yes("ready");
    drop(silent);
}

#[test]
fn an_address_that_cannot_be_had_is_one_error() {
    let taken = Port::reserve();
    taken.listen();
    let mut guard = child().env("GUARD_HTTP", format!("127.0.0.1:{}", taken.number)).fixture("serve").start();
    assert_eq!(guard.code(), 125);
    let expected = format!("guard: GUARD_HTTP=127.0.0.1:{}: Address already in use (os error 98)", taken.number);
    assert_eq!(guard.err().last(), Some(&expected.as_str()));
}
