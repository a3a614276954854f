//! `guard probe`: against servers that answer, and servers that had better not be waited for.

#![allow(clippy::disallowed_methods, reason = "the servers of the tests have threads")]

mod common;

use common::{DEADLINE, skipped, spawn};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// The exit code and what was said on stderr.
fn probe(words: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guard"));
    command.arg("probe").args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawn(&mut command).wait_with_output().expect("it ends");
    assert!(output.stdout.is_empty(), "{output:?}");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The port of a server that deals so with each connection, after the request has come.
fn server(address: &str, deal: impl Fn(TcpStream) + Send + 'static) -> Option<u16> {
    let listener = TcpListener::bind((address, 0)).ok()?;
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte) {
                    Ok(1) => request.push(byte[0]),
                    Ok(_) | Err(_) => break,
                }
            }
            deal(stream);
        }
    });
    Some(port)
}

fn answering(answer: &'static str) -> u16 {
    server("127.0.0.1", move |mut stream| drop(stream.write_all(answer.as_bytes()))).expect("a port")
}

/// Writes the same for as long as somebody listens.
fn endless(part: &'static [u8]) -> u16 {
    server("127.0.0.1", move |mut stream| while stream.write_all(part).is_ok() {}).expect("a port")
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/health")
}

#[test]
fn success_and_redirects_pass() {
    for answer in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 204 No Content\r\n\r\n",
        "HTTP/1.1 301 Moved\r\nLocation: http://nowhere.invalid/\r\n\r\n",
        "HTTP/1.1 399 x\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        assert_eq!(probe(&[&url(answering(answer))]), (Some(0), String::new()), "{answer:?}");
    }
}

#[test]
fn anything_else_does_not_and_says_why() {
    for (answer, reason) in [
        ("HTTP/1.1 404 Not Found\r\n\r\n", "status 404"),
        ("HTTP/1.1 503 Down\r\n\r\n", "status 503"),
        ("", "closed without an answer"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "no HTTP"),
        ("\u{16}\u{3}\u{1}\u{2}", "no HTTP"),
        ("HTTP/1.1", "no HTTP"),
        ("HTTP/1.1 103 Early Hints\r\n\r\n", "no HTTP"),
    ] {
        let url = url(answering(answer));
        let (code, said) = probe(&[&url]);
        assert_eq!(code, Some(1), "{answer:?}");
        assert!(said.starts_with(&format!("guard: {url}: ")) && said.contains(reason), "{answer:?}: {said}");
    }
}

#[test]
fn an_endless_answer_is_cut_off() {
    for (part, passes) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\nxxxxxxxxxxxxxxxx"[..], true),
        (&b"HTTP/1.1 103 Early Hints\r\n\r\n"[..], false),
        (&b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"[..], false),
        (&b"HTTP/1.1 103 x\r\nX: yyyyyyyyyyyyyyyyyyyyy"[..], false),
    ] {
        let (code, said) = probe(&[&url(endless(part)), "--timeout", "15s"]);
        assert_eq!(code, Some(i32::from(!passes)), "{said}");
        assert!(!said.contains("no answer within"), "it need not take all the time: {said}");
    }
}

#[test]
fn a_byte_now_and_then_is_no_answer() {
    let slowly = |mut stream: TcpStream| {
        // A read that times out is the pause.
        stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        while stream.write_all(b"H").is_ok() {
            let _ = stream.read(&mut [0]);
        }
    };
    let slow = server("127.0.0.1", slowly).expect("a port");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let never = silent.local_addr().expect("an address").port();
    let (code, said) = probe(&[&url(never), "--timeout=200ms"]);
    assert_eq!((code, said.contains("no answer within 200ms")), (Some(1), true), "{said}");
    assert_eq!(probe(&[&url(slow), "--timeout=200ms"]).0, Some(1));
    // The kernel has accepted the connection, and that is all that TCP asks.
    assert_eq!(probe(&[&format!("tcp://127.0.0.1:{never}")]).0, Some(0));
}

#[test]
fn names_and_both_kinds_of_addresses_do() {
    let port = answering("HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(probe(&[&format!("http://localhost:{port}/")]).0, Some(0), "whichever address comes first");
    let Some(port) = server("::1", |mut stream| drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n"))) else {
        return skipped("there is no IPv6 loopback");
    };
    assert_eq!(probe(&[&format!("http://[::1]:{port}/")]).0, Some(0));
    assert_eq!(probe(&[&format!("tcp://[::1]:{port}")]).0, Some(0));
}

#[test]
fn a_port_where_nobody_listens_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    for url in [format!("http://127.0.0.1:{port}/"), format!("tcp://127.0.0.1:{port}")] {
        assert_eq!(probe(&[&url]), (Some(1), format!("guard: {url}: connection refused\n")));
    }
}

#[test]
fn a_host_that_is_not_there_is_no_host() {
    let (code, said) = probe(&["http://nowhere.invalid/", "--timeout", &format!("{}s", DEADLINE.as_secs())]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no such host"), "{said}");
}

#[test]
fn the_request_is_what_servers_expect() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = [0; 1024];
        let count = stream.read(&mut request).expect("a request");
        sender.send(String::from_utf8_lossy(&request[..count]).into_owned()).expect("a test");
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("a reader");
    });
    assert_eq!(probe(&[&format!("http://127.0.0.1:{port}/a?b=c")]).0, Some(0));
    let request = receiver.recv_timeout(DEADLINE).expect("a request");
    let mut lines = request.split("\r\n");
    assert_eq!(lines.next(), Some("GET /a?b=c HTTP/1.1"));
    let fields: Vec<&str> = lines.collect();
    assert!(fields.contains(&format!("Host: 127.0.0.1:{port}").as_str()), "{fields:?}");
    assert!(fields.contains(&"Connection: close"), "{fields:?}");
}

#[test]
fn a_bad_line_is_125_and_says_what_is_taken() {
    for (words, reason) in [
        (&[][..], "usage: guard probe URL"),
        (&["https://localhost/"], "TLS"),
        (&["localhost:80"], "no scheme"),
        (&["tcp://localhost"], "no port"),
        (&["http://a/", "http://b/"], "one URL at a time"),
        (&["http://a/", "--timeout"], "no value"),
        (&["http://a/", "--timeout", "soon"], "--timeout soon: it takes"),
        (&["http://a/", "--timeout=0"], "above zero"),
        (&["--verbose", "http://a/"], "no such option"),
    ] {
        let (code, said) = probe(words);
        assert_eq!(code, Some(125), "{words:?}");
        assert!(said.starts_with("guard: ") && said.contains(reason), "{words:?}: {said}");
    }
}
