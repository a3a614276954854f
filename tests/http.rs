//! The HTTP door (GUARD_HTTP): what probes and Prometheus see.

use crate::common::port::Port;
use crate::common::{self, Answer, Setup, begin, child, eventually, everywhere, in_path, skipped};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
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
    request_at(SocketAddr::from(([127, 0, 0, 1], port)), text)
}

fn request_at(address: SocketAddr, text: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("guard listens");
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
fn the_pages_follow_a_crash_a_reload_and_a_drain() {
    for setup in everywhere() {
        let (setup, port) = with_http(setup.env("GUARD_DRAIN_DELAY", "10s").env("GUARD_STOP_TIMEOUT", "60s"));
        let setup =
            setup.env("GUARD_READY", "notify").env("GUARD_BACKOFF_INITIAL", "1h").env("GUARD_BACKOFF_MAX", "1h");
        let mut guard = setup.fixture("quit HUP 3 quit TERM 0 on USR1 READY=1 serve").start();
        let status = |parts: &[&str]| {
            let (code, page) = get(port, "/status");
            assert_eq!((code, get(port, "/livez").0), (200, 200));
            for part in parts {
                assert!(page.contains(part), "{part} in {page}");
            }
        };
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
        guard.event("ready");
        status(&[r#""ready":true,"why":null,"stopping":false"#, r#""run":1,"#, r#""state":"ready""#]);

        guard.signal(libc::SIGHUP);
        guard.line("ready");
        assert_eq!(get(port, "/readyz").0, 503);
        let why = r#""ready":false,"why":"the app has not said yet that it is ready""#;
        status(&[why, r#""run":2,"#, r#""state":"starting""#, r#""restarts":1,"last_exit":"3""#]);
        guard.signal(libc::SIGHUP);
        guard.event("restart");
        guard.event("restart");
        eventually("a backoff", || get(port, "/status").1.contains(r#""state":"backoff""#).then_some(()));
        assert_eq!(get(port, "/readyz"), (503, "not ready: the app is between two runs\n".to_owned()));
        status(&[r#""run":null,"pid":null,"state":"backoff","ending":null,"uptime":null,"next_in":"#]);

        let restart = begin(&mut guard.client(&["restart"]));
        guard.line("ready");
        guard.signal(libc::SIGUSR1);
        guard.event("ready");
        assert_eq!(Answer::of(restart).code, 0, "{}", guard.transcript());
        assert_eq!(get(port, "/readyz").0, 200);

        let reload = begin(&mut guard.client(&["reload"]));
        guard.line("ready");
        // The old run serves until the new one does.
        assert_eq!(get(port, "/readyz"), (200, "ready\n".to_owned()));
        status(&[r#""ready":true"#, r#""run":4,"#, r#""state":"starting""#]);
        guard.signal(libc::SIGUSR1);
        assert_eq!(Answer::of(reload).code, 0, "{}", guard.transcript());
        assert_eq!(get(port, "/readyz").0, 200);
        status(&[r#""run":4,"#, r#""state":"ready""#]);

        guard.signal(libc::SIGTERM);
        guard.event("drain");
        assert_eq!(get(port, "/readyz"), (503, "not ready: guard is stopping\n".to_owned()));
        status(&[r#""ready":false,"why":"guard is stopping","stopping":true"#, r#""state":"draining""#]);
    }
}

#[test]
fn a_port_is_one_of_all_addresses_and_an_address_is_one_alone() {
    let v6 = |port| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let Ok(reserved) = TcpListener::bind(v6(0)) else { return skipped("there is no IPv6") };
    let port = reserved.local_addr().expect("it is bound").port();
    drop(reserved);
    let (v4, livez) = (SocketAddr::from(([127, 0, 0, 1], port)), "GET /livez HTTP/1.1\r\n\r\n");

    let mut guard = child().env("GUARD_HTTP", port.to_string()).fixture("serve").start();
    guard.line("ready");
    assert_eq!((request_at(v4, livez).0, request_at(v6(port), livez).0), (200, 200));
    drop(guard);

    let mut guard = child().env("GUARD_HTTP", format!("[::1]:{port}")).fixture("serve").start();
    guard.line("ready");
    assert_eq!(request_at(v6(port), livez).0, 200);
    assert!(TcpStream::connect(v4).is_err(), "{}", guard.transcript());
}

/// A byte a second never ends a request.
#[test]
fn a_slow_client_is_closed_in_time_and_keeps_nobody_waiting() {
    let (setup, port) = with_http(child());
    let mut guard = setup.fixture("serve").start();
    guard.line("ready");
    let mut slow = TcpStream::connect(("127.0.0.1", port)).expect("guard listens");
    slow.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let mut bytes = b"GET /livez HTTP/1.1\r\na: ".iter().chain(std::iter::repeat(&b'b'));
    // A read waits for a second, unless the connection is closed.
    eventually("end of a slow client", || {
        let sent = slow.write_all(&[*bytes.next().expect("bytes without end")]);
        assert_eq!(get(port, "/livez").0, 200);
        let closed = |error: std::io::Error| !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        (sent.is_err() || slow.read(&mut [0]).map_or_else(closed, |count| count == 0)).then_some(())
    });
}

/// Connections that are answered and not closed leave no single place for those that come, which would be the next to go.
#[test]
fn open_connections_push_no_new_one_out() {
    let (setup, port) = with_http(child());
    let mut guard = setup.fixture("serve").start();
    guard.line("ready");
    let connect = || TcpStream::connect(("127.0.0.1", port)).expect("guard listens");
    let half = |text: &str| {
        let mut stream = connect();
        stream.write_all(text.as_bytes()).expect("guard reads");
        stream
    };
    let answered = (0..40).map(|_| {
        let mut stream = half("GET /livez HTTP/1.1\r\n\r\n");
        stream.read_exact(&mut [0; 12]).expect("guard answers");
        stream
    });
    let answered: Vec<_> = answered.collect();
    let mut probe = half("GET /livez HTTP/1.1\r\n");
    let silent: Vec<_> = (0..8).map(|_| connect()).collect();
    // guard has taken all of these when it answers one that came later.
    assert_eq!(get(port, "/livez").0, 200);
    probe.write_all(b"\r\n").expect("guard has not closed it");
    let mut answer = [0; 12];
    probe.read_exact(&mut answer).expect("guard answers");
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop((answered, silent));
}

/// CPU time that a process has used, in nanoseconds (`/proc/PID/schedstat`).
fn cpu_time(pid: i32) -> Option<u64> {
    std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?.split(' ').next()?.parse().ok()
}

/// Who asks without a pause does not make guard look at all processes without a pause.
#[test]
fn pages_in_a_row_share_a_look_at_many_processes() {
    let (setup, port) = with_http(child());
    let mut guard = setup.fixture("crowd 300 serve").start();
    guard.line("ready");
    let cost = |pages: u32| {
        let before = cpu_time(guard.pid())?;
        (0..pages).for_each(|_| assert_eq!(get(port, "/metrics").0, 200));
        Some(cpu_time(guard.pid())? - before)
    };
    let Some((first, more)) = cost(1).zip(cost(60)) else { return skipped("there is no /proc/PID/schedstat") };
    assert!(more < 30 * first, "60 pages: {more} ns, the first: {first} ns");
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

/// Nobody has asked for its end: the reload only starts the run that follows.
#[test]
fn a_run_that_crashes_while_its_reload_starts_the_new_one_is_counted() {
    for setup in everywhere() {
        let (setup, port) = with_http(setup.env("GUARD_READY", "notify").env("GUARD_SIGNAL_MAP", "USR2=reload"));
        let words = "tagged on HUP READY=1 before-run 2 quit USR1 3 quit TERM 0 serve";
        let mut guard = setup.fixture(words).start();
        let count = |samples: [&str; 3]| {
            let (_, page) = get(port, "/metrics");
            for sample in samples {
                assert!(page.lines().any(|line| line == sample), "{sample} in {page}");
            }
        };
        guard.line("0.1 ready");
        guard.signal(libc::SIGHUP);
        guard.event("ready");
        guard.signal(libc::SIGUSR2);
        guard.line("0.2 ready");
        guard.signal(libc::SIGUSR1);
        guard.event("exit");
        guard.line("0.2 got USR1");
        guard.signal(libc::SIGHUP);
        guard.event("reloaded");
        let runs = "guard_runs_total{app_instance=\"0\"} 2";
        count([runs, "guard_restarts_total{reason=\"exit\"} 1", "guard_restarts_total{reason=\"reload\"} 0"]);

        guard.signal(libc::SIGUSR2);
        guard.line("0.3 ready");
        guard.signal(libc::SIGHUP);
        guard.event("reloaded");
        let runs = "guard_runs_total{app_instance=\"0\"} 3";
        count([runs, "guard_restarts_total{reason=\"exit\"} 1", "guard_restarts_total{reason=\"reload\"} 1"]);
    }
}

/// A counter that goes down looks like a restart to Prometheus.
#[test]
fn the_cpu_time_of_a_run_stays_when_a_process_of_it_has_ended() {
    let work = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done";
    // The worker is an orphan by then, so nobody adds its time to that of its parent. It stops where it is, since its memory
    // would be another program's after an exec.
    let script = format!("(sh -c '{work}; echo worked $$; kill -STOP $$' &); exec sleep 1000");
    for setup in everywhere() {
        let (setup, port) = with_http(setup.env("GUARD_LOG", "debug"));
        let mut guard = setup.app(["sh", "-c", &script]).start();
        let worker = guard.line_after("worked ");
        let of_the_run = |name: &str| {
            let (_, page) = get(port, "/metrics");
            let prefix = format!("{name}{{app_instance=\"0\"}} ");
            let value = page.lines().find_map(|line| line.strip_prefix(&prefix)?.parse::<f64>().ok());
            value.unwrap_or_else(|| panic!("{name} in {page}"))
        };
        let used = eventually("time that the worker has used", || {
            Some(of_the_run("guard_app_cpu_seconds_total")).filter(|used| *used > 0.05)
        });
        let memory = of_the_run("guard_app_resident_memory_bytes");
        guard.signal_inside(worker.parse().expect("a pid"), libc::SIGKILL);
        // A new look finds less memory.
        eventually("a look without the worker", || {
            (of_the_run("guard_app_resident_memory_bytes") < memory).then_some(())
        });
        assert!(of_the_run("guard_app_cpu_seconds_total") >= used, "{}", guard.transcript());
    }
}

/// The old run serves until the new one is ready, and goes on if that fails.
#[test]
fn the_cpu_time_does_not_go_down_and_up_in_a_reload_that_fails() {
    let work = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done";
    for setup in everywhere() {
        let (setup, port) = with_http(setup.env("GUARD_HEALTH_CHECK", "exec:sh -c '[ $GUARD_RUN = 1 ]'"));
        let setup = setup.env("GUARD_READY_TIMEOUT", "3s").env("GUARD_SIGNAL_MAP", "HUP=reload");
        let mut guard = setup.app(["sh", "-c", &format!("[ $GUARD_RUN = 1 ] && {work}; exec sleep 1000")]).start();
        let used = || {
            let (_, page) = get(port, "/metrics");
            let value =
                page.lines().find_map(|line| line.strip_prefix("guard_app_cpu_seconds_total{app_instance=\"0\"} "));
            value.and_then(|value| value.parse::<f64>().ok()).unwrap_or_else(|| panic!("no CPU time in {page}"))
        };
        guard.event("ready");
        let before = eventually("time that the run has used", || Some(used()).filter(|used| *used > 0.05));
        guard.signal(libc::SIGHUP);
        while guard.event("spawn").get("run") != Some("2") {}
        let meanwhile = used();
        guard.event("reload-failed");
        let after = used();
        assert!(before <= meanwhile && meanwhile <= after, "{before}, {meanwhile}, {after}");
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
    assert_eq!(request(port, "HEAD /passwd HTTP/1.1\r\n\r\n"), (404, String::new()));
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
    let expected =
        format!("guard: GUARD_HTTP: cannot listen on 127.0.0.1:{}: another process has this port", taken.number);
    assert_eq!(guard.err().last(), Some(&expected.as_str()));
}
