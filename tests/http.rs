//! The HTTP door (GUARD_HTTP): what probes and Prometheus see.

mod common;
#[path = "common/port.rs"]
mod port;

use common::{Answer, Setup, begin, child, eventually, everywhere, in_path, skipped};
use port::Port;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
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
            "guard_instances_desired 1",
            "guard_runs_total{app_instance=\"0\"} 3",
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

/// Prometheus gives each sample a label `instance` of its own, and would rename another's.
#[test]
fn no_sample_has_a_label_of_prometheus() {
    let (setup, port) = with_http(child());
    let mut guard = setup.fixture("serve").start();
    guard.line("ready");
    let (_, page) = get(port, "/metrics");
    for label in ["{instance=", ",instance=", "{job=", ",job="] {
        assert!(!page.contains(label), "{label} in {page}");
    }
}

#[test]
fn metrics_tell_of_queues_and_of_instances_to_be() {
    for setup in everywhere() {
        let (setup, port) = with_http(setup.env("GUARD_INSTANCES", "2"));
        let held = Port::reserve().number;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("so\\\"called\".sock");
        let listen = format!("127.0.0.1:{held},unix:{}", path.display());
        let setup =
            setup.env("GUARD_LISTEN", listen).env("GUARD_HOLD_TIMEOUT", "10ms").env("GUARD_BACKOFF_INITIAL", "1h");
        let mut guard = setup.env("GUARD_BACKOFF_MAX", "1h").fixture("quit TERM 0 quit USR1 1 serve").start();
        guard.line("ready");
        guard.line("ready");
        // The app accepts none, so both wait.
        let clients = [0, 1].map(|_| TcpStream::connect(("127.0.0.1", held)).expect("guard listens"));
        let page = eventually("two clients", || {
            let (_, page) = get(port, "/metrics");
            page.contains(&format!("guard_held_queue_length{{address=\"127.0.0.1:{held}\"}} 2\n")).then_some(page)
        });
        let unix = format!("unix:{}", path.display()).replace('\\', r"\\").replace('"', "\\\"");
        for sample in [
            "guard_instances_desired 2".to_owned(),
            format!("guard_held_refusing{{address=\"127.0.0.1:{held}\"}} 0"),
            format!("guard_held_refusing{{address=\"{unix}\"}} 0"),
        ] {
            assert!(page.lines().any(|line| line == sample), "{sample} in {page}");
        }
        let limit = format!("guard_held_queue_limit{{address=\"127.0.0.1:{held}\"}} ");
        let limit = page.lines().find_map(|line| line.strip_prefix(&limit)?.parse::<u32>().ok());
        assert!(limit.is_some_and(|limit| limit >= 128), "{page}");
        assert_eq!(guard.ask(&["scale", "1"]).code, 0, "{}", guard.transcript());
        let (_, page) = get(port, "/metrics");
        assert!(page.contains("\nguard_instances_desired 1\n"), "{page}");
        drop(clients);
        // The first restart is at once.
        guard.signal(libc::SIGUSR1);
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
        guard.event("not-held");
        guard.event("not-held");
        let (_, page) = get(port, "/metrics");
        assert!(page.contains(&format!("\nguard_held_refusing{{address=\"127.0.0.1:{held}\"}} 1\n")), "{page}");
    }
}

/// Reads the page on its stdin as a client of Prometheus does, and prints the labels of held sockets.
const PARSER: &str = r#"
import sys
from prometheus_client.parser import text_string_to_metric_families
seen = set()
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.documentation and family.type in ("gauge", "counter"), family
    for sample in family.samples:
        assert sample.name.endswith("_total") == (family.type == "counter"), sample
        key = (sample.name, tuple(sorted(sample.labels.items())))
        assert key not in seen, f"{sample} comes twice"
        seen.add(key)
        if sample.name == "guard_held_refusing":
            print(sample.labels["address"])
"#;

/// Debian's python3 with the client of Prometheus.
fn parser() -> Option<Command> {
    let python = |code| {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-I", "-c", code]);
        command
    };
    let is_there = in_path("/usr/bin/python3").is_some();
    (is_there && Answer::of(begin(&mut python("import prometheus_client"))).code == 0).then(|| python(PARSER))
}

/// What a program prints that is given a text; it has to find no fault.
fn prints(mut command: Command, text: &str) -> String {
    let mut child = common::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("the program reads");
    let answer = Answer::of(child);
    assert_eq!((answer.code, answer.err.as_str()), (0, ""), "{command:?} of\n{text}");
    answer.out
}

#[test]
fn prometheus_understands_the_metrics() {
    let promtool = in_path("promtool").map(Command::new);
    let parser = parser();
    if promtool.is_none() && parser.is_none() {
        return skipped("there is no promtool (prometheus), and no python3-prometheus-client");
    }
    let (setup, port) = with_http(child().env("GUARD_WATCHDOG", "1h").env("GUARD_INSTANCES", "2"));
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(r#"a\"b\nc"#);
    let mut guard = setup.env("GUARD_LISTEN", format!("unix:{}", path.display())).fixture("serve").start();
    guard.line("ready");
    guard.line("ready");
    let (_, page) = get(port, "/metrics");
    if let Some(mut promtool) = promtool {
        promtool.args(["check", "metrics"]);
        prints(promtool, &page);
    }
    if let Some(parser) = parser {
        assert_eq!(prints(parser, &page), format!("unix:{}\n", path.display()));
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
