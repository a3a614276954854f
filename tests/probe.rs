//! `guard probe URL`: a server that gives a good answer in time is alive, and no server can keep the probe waiting.

#![allow(clippy::disallowed_methods, reason = "the clock of the tests")]

use crate::common::port::Port;
use crate::common::{
    DEADLINE, Guard, Setup, child, children, eventually, everywhere, in_path, pid1, program, send, skipped,
    status_field,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// A server that calls `serve` with each connection, once it has read the head of a request.
fn server(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    server_at("127.0.0.1", serve).expect("IPv4 has a loopback")
}

fn server_at(host: &str, serve: impl Fn(TcpStream) + Send + 'static) -> Option<SocketAddr> {
    let listener = TcpListener::bind((host, 0)).ok()?;
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                head.push(byte[0]);
            }
            serve(stream);
        }
    });
    Some(address)
}

fn says(response: &'static [u8]) -> SocketAddr {
    server(move |mut stream| {
        let _ = stream.write_all(response);
    })
}

/// A server that sends `first`, and then `then` for ever.
fn endless(first: &'static [u8], then: &'static [u8]) -> SocketAddr {
    server(move |mut stream| {
        let _ = stream.write_all(first);
        while stream.write_all(then).is_ok() {}
    })
}

/// Runs a probe, which must end in time with this exit code.
fn probe(setup: Setup, words: &[&str], code: i32) -> Guard {
    let begin = Instant::now();
    let mut guard = setup.options(["probe"]).options(words.iter().copied()).start();
    assert_eq!(guard.code(), code, "{words:?}: {}", guard.transcript());
    assert!(begin.elapsed() < DEADLINE / 2, "{words:?}: {:?}", begin.elapsed());
    assert!(guard.out().is_empty(), "{}", guard.transcript());
    assert_eq!(guard.err().is_empty(), code == 0, "{}", guard.transcript());
    guard
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/health")
}

/// The probe passes long before its timeout.
fn passes(address: SocketAddr) {
    probe(child(), &[&url(address), "--timeout", "1h"], 0);
}

/// The probe fails, and prints the URL and the reason.
fn fails(address: SocketAddr, timeout: &str, why: &str) {
    let guard = probe(child(), &[&url(address), "--timeout", timeout], 1);
    let said = guard.err().join("\n");
    assert!(said.contains(&url(address)) && said.contains(why), "{said}");
}

#[test]
fn a_status_from_200_to_399_passes_wherever_guard_runs() {
    for setup in everywhere() {
        probe(setup, &[&url(says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"))], 0);
    }
    passes(says(b"HTTP/1.1 204 No Content\r\n\r\n"));
    passes(says(b"HTTP/1.0 301 Moved\r\nLocation: http://127.0.0.1:1/\r\n\r\n"));
    passes(says(b"HTTP/1.1 399 x\r\n\r\n"));
    passes(says(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"));
}

#[test]
fn other_statuses_fail() {
    for setup in everywhere() {
        let guard = probe(setup, &[&url(says(b"HTTP/1.1 500 Oops\r\n\r\n"))], 1);
        assert!(guard.err().join("\n").contains("status 500"), "{}", guard.transcript());
    }
    fails(says(b"HTTP/1.1 404 Not Found\r\n\r\n"), "1h", "status 404");
    fails(says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "1h", "status 400");
    fails(says(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 Unavailable\r\n\r\n"), "1h", "status 503");
}

#[test]
fn the_request_names_path_and_host_and_closes_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let asked = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a probe");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let mut head = String::new();
        let mut bytes = [0; 1024];
        while !head.ends_with("\r\n\r\n") {
            let count = stream.read(&mut bytes).expect("the probe goes on");
            head.push_str(std::str::from_utf8(&bytes[..count]).expect("text"));
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("the probe reads");
        head
    });
    probe(child(), &[&format!("http://{address}/deep/health?a=b")], 0);
    let head = asked.join().expect("a request");
    assert!(head.starts_with("GET /deep/health?a=b HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nHost: {address}\r\n")) && head.contains("\r\nConnection: close\r\n"), "{head}");
}

#[test]
fn an_answer_that_is_not_http_fails_at_once() {
    fails(says(b"SSH-2.0-OpenSSH_9.6\r\n"), "1h", "not HTTP");
    fails(says(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), "1h", "not HTTP");
    fails(says(b"\0\xff\xfe\x80garbage"), "1h", "not HTTP");
    fails(says(b"HTTP/1.1 200"), "1h", "not HTTP");
    fails(says(b"HTTP/1.1 abc x\r\n\r\n"), "1h", "not HTTP");
    fails(says(b""), "1h", "closed without an answer");
}

#[test]
fn an_endless_answer_is_cut_off() {
    fails(endless(b"HTTP/1.1 ", b"xxxxxxxxxxxxxxxx"), "1h", "not HTTP");
    fails(endless(b"HTTP/1.1 100 Continue\r\n", b"X-Header: x\r\n"), "1h", "not HTTP");
    fails(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "1h", "not HTTP");
    // The probe reads no further than the status.
    passes(endless(b"HTTP/1.1 200 OK\r\n", b"X-Header: x\r\n"));
    passes(endless(b"HTTP/1.1 200 OK\r\n\r\n", b"body"));
}

#[test]
fn the_timeout_holds_however_slowly_a_server_speaks() {
    let byte_by_byte = server(|mut stream| {
        let pause = Some(Duration::from_millis(20));
        stream.set_read_timeout(pause).expect("a timeout");
        for byte in b"HTTP/1.1 200 ".iter().chain(std::iter::repeat(&b'x')) {
            // The loop ends as soon as the probe has closed the connection.
            let left = stream.read(&mut [0]).is_ok_and(|count| count == 0);
            if left || stream.write_all(&[*byte]).is_err() {
                return;
            }
        }
    });
    fails(byte_by_byte, "300ms", "no answer within 300ms");
    let silent = server(|mut stream| while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {});
    fails(silent, "300ms", "no answer within 300ms");
    // The kernel answers in the name of a server that never accepts.
    let hung = TcpListener::bind("127.0.0.1:0").expect("a port");
    fails(hung.local_addr().expect("it is bound"), "300ms", "no answer within 300ms");
}

/// As in a pause of the container, in which the server stands still too.
#[test]
fn who_stood_still_has_the_time_that_was_left() {
    let (sender, receiver) = mpsc::channel();
    let address = server(move |stream| sender.send(stream).expect("the test waits"));
    let mut probe = child().options(["probe", &url(address), "--timeout", "2s"]).start();
    let mut stream = receiver.recv_timeout(DEADLINE).expect("a client");
    // It has sent its request, and waits for the answer.
    eventually("probe that waits", || status_field(probe.pid(), "State:").starts_with('S').then_some(()));
    let all = [&[probe.pid()][..], &children(probe.pid())].concat();
    all.iter().for_each(|pid| send(*pid, libc::SIGSTOP));
    // The read is what takes the time.
    stream.set_read_timeout(Some(Duration::from_millis(3_200))).expect("a timeout");
    while stream.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    all.iter().for_each(|pid| send(*pid, libc::SIGCONT));
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("it is open");
    assert_eq!(probe.code(), 0, "{}", probe.transcript());
}

#[test]
fn the_default_timeout_is_a_second() {
    let hung = TcpListener::bind("127.0.0.1:0").expect("a port");
    let begin = Instant::now();
    let guard = probe(child(), &[&url(hung.local_addr().expect("it is bound"))], 1);
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    assert!(guard.err().join("\n").contains("no answer within 1s"), "{}", guard.transcript());
}

#[test]
fn a_tcp_probe_passes_when_the_connection_is_accepted() {
    let port = Port::reserve();
    let address = format!("tcp://127.0.0.1:{}", port.number);
    for setup in everywhere() {
        let guard = probe(setup, &["--timeout=1h", &address], 1);
        let said = guard.err().join("\n");
        assert!(said.contains(&address) && said.contains("connection refused"), "{said}");
    }
    port.listen();
    for setup in everywhere() {
        probe(setup, &[&address], 0);
    }
}

#[test]
fn ipv6_stands_in_brackets() {
    let Some(address) = server_at("::1", |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    }) else {
        return skipped("there is no IPv6 loopback");
    };
    passes(address);
    probe(child(), &[&format!("tcp://{address}")], 0);
}

/// A probe where names are looked up in this file alone.
fn probe_with_hosts(hosts: &str, url: &str, code: i32) -> Option<Guard> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("hosts");
    std::fs::write(&file, hosts).expect("a file");
    let (Some(unshare), true) = (in_path("unshare"), nix::unistd::geteuid().is_root()) else {
        skipped("an /etc/hosts of its own needs root");
        return None;
    };
    let script = format!("mount --bind '{}' /etc/hosts && exec \"$@\"", file.display());
    let setup = child().program(unshare).options(["--mount", "sh", "-c", &script, "sh"]);
    Some(probe(setup.options([env!("CARGO_BIN_EXE_guard")]), &[url, "--timeout", "5s"], code))
}

#[test]
fn every_address_of_a_name_is_tried() {
    let address = says(b"HTTP/1.1 200 OK\r\n\r\n");
    let port = address.port();
    // Nothing listens at 127.0.0.2, which is the first address or the last.
    for hosts in ["127.0.0.2 twins\n127.0.0.1 twins\n", "127.0.0.1 twins\n127.0.0.2 twins\n"] {
        probe_with_hosts(hosts, &format!("http://twins:{port}/"), 0);
    }
    if TcpListener::bind("[::1]:0").is_ok() {
        probe_with_hosts("127.0.0.1 localhost\n::1 localhost\n", &format!("http://localhost:{port}/"), 0);
    }
    let Some(guard) = probe_with_hosts("127.0.0.2 twins\n127.0.0.3 twins\n", &format!("tcp://twins:{port}"), 1) else {
        return;
    };
    assert!(guard.err().join("\n").contains("connection refused"), "{}", guard.transcript());
}

#[test]
fn an_unknown_host_fails_the_probe_and_is_no_usage_error() {
    // RFC 6761: this name exists nowhere. Without a name server the probe fails at its timeout.
    let guard = probe(child(), &["http://nobody.invalid/", "--timeout", "2s"], 1);
    let said = guard.err().join("\n");
    assert!(said.contains("http://nobody.invalid/"), "{said}");
    assert!(said.contains("no such host") || said.contains("no answer within 2s"), "{said}");
}

#[test]
fn an_address_needs_no_file_of_the_image() {
    let Some(setup) = pid1() else { return };
    if !nix::unistd::geteuid().is_root() {
        return skipped("hiding /etc needs root");
    }
    let address = says(b"HTTP/1.1 200 OK\r\n\r\n");
    probe(setup.inherits("hide /etc"), &[&url(address)], 0);
}

/// A server on a unix socket or port that answers 200 to the request for this host and path, and 400 to others.
fn answers_to(mut stream: impl Read + Write, path: &str, host: &str) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let is_right = head.starts_with(&format!("GET {path} ")) && head.contains(&format!("\r\nHost: {host}\r\n"));
    let status = if is_right { "200 OK" } else { "400 Bad Request" };
    let _ = stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes());
}

#[test]
fn a_host_can_be_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/health", listener.local_addr().expect("it is bound"));
    thread::spawn(move || {
        listener.incoming().map_while(Result::ok).for_each(|stream| answers_to(stream, "/health", "shop.example"));
    });
    probe(child(), &[&url, "--host", "shop.example"], 0);
    probe(child(), &[&url], 1);
    probe(child(), &[&url, "--host", "a b"], 125);
    for (host, ready) in [("shop.example", true), ("other.example", false)] {
        let setup = child().env("GUARD_HEALTH_CHECK", &url).env("GUARD_HEALTH_HOST", host);
        let mut guard = setup.env("GUARD_READY_TIMEOUT", "1s").env("GUARD_RESTART", "never").fixture("serve").start();
        let event = guard.log_line("an outcome", |line| line.contains("event=ready") || line.contains("event=failing"));
        assert_eq!(event.contains("event=ready"), ready, "{}", guard.transcript());
    }
}

#[test]
fn a_unix_socket_can_be_probed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("app.sock");
    let socket = path.to_str().expect("UTF-8").to_owned();
    let missing = probe(child(), &[&format!("http+unix://{socket}:/health")], 1);
    assert!(missing.err().join("\n").contains("no such socket"), "{}", missing.transcript());
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    thread::spawn(move || {
        listener.incoming().map_while(Result::ok).for_each(|stream| answers_to(stream, "/health", "localhost"));
    });
    probe(child(), &[&format!("http+unix://{socket}:/health")], 0);
    probe(child(), &[&format!("http+unix://{socket}")], 1);
    let setup = child().env("GUARD_HEALTH_CHECK", format!("http+unix://{socket}:/health"));
    setup.fixture("serve").start().event("ready");
}

#[test]
fn a_usage_error_names_the_argument_and_what_is_taken() {
    for (words, given, taken) in [
        (&[][..], "", "usage: guard probe URL"),
        (&["http://a/", "http://b/"], "http://b/", "one URL"),
        (&["--nonsense", "http://a/"], "--nonsense", "usage: guard probe URL"),
        (&["http://a/", "--timeout"], "--timeout", "no value"),
        (&["http://a/", "--timeout", "soon"], "--timeout soon", "500ms"),
        (&["http://a/", "--timeout=0"], "--timeout 0", "above zero"),
        (&["http://a/", "--timeout=-1s"], "--timeout -1s", "500ms"),
        (&["https://a/"], "https://a/", "TLS"),
        (&["localhost:8080"], "localhost:8080", "http://HOST"),
        (&["ftp://a/"], "ftp://a/", "http://HOST"),
        (&["tcp://a"], "tcp://a", "tcp://HOST:PORT"),
        (&["tcp://a:1/x"], "tcp://a:1/x", "tcp://HOST:PORT"),
        (&["http://a:0/"], "http://a:0/", "65535"),
        (&["http://::1/"], "http://::1/", "brackets"),
        (&[""], "", "http://HOST"),
    ] {
        let guard = probe(child(), words, 125);
        let said = guard.err().join("\n");
        assert!(said.contains(given) && said.contains(taken), "{words:?}: {said}");
    }
}

/// fork(2), EAGAIN: root has no limit, so root runs the probe as a user without other processes.
#[test]
fn without_a_process_the_probe_is_an_error_of_guards() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let guard = std::fs::read(env!("CARGO_BIN_EXE_guard")).expect("guard can be read");
    let guard = program(directory.path(), "guard", guard, 0o755);
    let limit = if nix::unistd::geteuid().is_root() { "setuid 54321 nproc 1" } else { "nproc 1" };
    let address = says(b"HTTP/1.1 200 OK\r\n\r\n");
    let guard = probe(child().program(guard).inherits(limit), &[&url(address)], 125);
    let said = guard.err().join("\n");
    assert!(said.starts_with("guard: ") && said.contains("no process"), "{said}");
}
