use super::*;
use std::io::{Read, Write};

/// A door, and a client that has sent this.
fn asked(text: &str) -> (Http, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let door = Http::open(listener).expect("a door");
    let client = connect(&door);
    (&client).write_all(text.as_bytes()).expect("it listens");
    (door, client)
}

fn connect(door: &Http) -> TcpStream {
    let client = TcpStream::connect(door.listener.local_addr().expect("it is bound")).expect("it listens");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    client
}

#[track_caller]
fn until_readable(descriptors: &[BorrowedFd<'_>]) {
    let comes = crate::sys::socket::wait_readable(descriptors, Duration::from_secs(20)).expect("poll(2)");
    assert!(comes, "nothing comes");
}

/// Lets the door work until it has a message.
fn message(door: &mut Http) -> Message {
    loop {
        until_readable(&[door.descriptor()]);
        if let Some(message) = door.receive().messages.pop() {
            return message;
        }
    }
}

/// Lets the door work until the client's connection is over, and returns what it has read.
fn read_all(door: &mut Http, client: &mut TcpStream) -> String {
    client.set_nonblocking(true).expect("a socket");
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return String::from_utf8(text).expect("text"),
            Ok(count) => text.extend(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let both = [door.descriptor(), client.as_fd()];
                until_readable(&both);
                door.receive();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn answer(body: String) -> Answer {
    Answer { yes: false, content_type: "text/plain", body }
}

#[test]
fn a_client_gets_its_answer_and_the_end() {
    let (mut door, mut client) = asked("GET /readyz HTTP/1.1\r\nHost: a\r\n\r\nand a body that nobody reads");
    let Message::Page(Page::Readyz, who) = message(&mut door) else { panic!("another page") };
    door.answer(who, &answer("not ready\n".to_owned()));
    let text = read_all(&mut door, &mut client);
    assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
    assert!(text.contains("\r\nContent-Length: 10\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\nnot ready\n"), "{text}");
}

#[test]
fn head_has_the_length_and_no_body() {
    let (mut door, mut client) = asked("HEAD /livez HTTP/1.1\r\n\r\n");
    let Message::Page(Page::Livez, who) = message(&mut door) else { panic!("another page") };
    door.answer(who, &answer("alive\n".to_owned()));
    let text = read_all(&mut door, &mut client);
    assert!(text.contains("\r\nContent-Length: 6\r\n") && text.ends_with("\r\n\r\n"), "{text}");
}

#[test]
fn a_long_answer_arrives_whole() {
    let (mut door, mut client) = asked("GET /metrics HTTP/1.1\r\n\r\n");
    let Message::Page(Page::Metrics, who) = message(&mut door) else { panic!("another page") };
    let body = "x".repeat(8 * 1024 * 1024);
    door.answer(who, &answer(body.clone()));
    let text = read_all(&mut door, &mut client);
    assert!(text.ends_with(&body), "{} bytes", text.len());
}

#[test]
fn what_is_refused_gets_a_status() {
    for (text, status) in [
        ("PUT /livez HTTP/1.1\r\n\r\n", "405 "),
        ("GET /secrets HTTP/1.1\r\n\r\n", "404 "),
        ("hello\r\n\r\n", "400 "),
        (&format!("GET /livez HTTP/1.1\r\na: {}", "b".repeat(2 * LONGEST_HEAD)), "431 "),
    ] {
        let (mut door, mut client) = asked(text);
        let answer = read_all(&mut door, &mut client);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[test]
fn silent_clients_make_room_for_one_that_asks() {
    let (mut door, mut first) = asked("GET /li");
    let silent: Vec<TcpStream> = (0..2 * MOST).map(|_| connect(&door)).collect();
    let mut last = connect(&door);
    last.write_all(b"GET /livez HTTP/1.1\r\n\r\n").expect("it listens");
    let Message::Page(_, who) = message(&mut door) else { panic!("no page") };
    door.answer(who, &answer("alive\n".to_owned()));
    assert!(read_all(&mut door, &mut last).ends_with("alive\n"));
    assert!(door.connections.len() <= MOST);
    assert_eq!(read_all(&mut door, &mut first), "", "the oldest one had to go");
    drop(silent);
}

#[test]
fn a_client_that_goes_on_sending_is_closed() {
    let (mut door, mut client) = asked("POST /livez HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n");
    client.set_nonblocking(true).expect("a socket");
    for _ in 0..LONGEST_REST / 256 {
        // It fails where there is no room, and at the end.
        let _ = client.write(&[0; 4096]);
        until_readable(&[door.descriptor()]);
        door.receive();
        if door.connections.is_empty() {
            return;
        }
    }
    panic!("it reads on and on");
}

#[test]
fn a_client_that_says_nothing_is_closed_in_time() {
    let (mut door, mut client) = asked("GET /livez HTTP/1.1\r\n");
    assert_eq!(read_all(&mut door, &mut client), "");
    assert!(door.connections.is_empty());
    door.receive();
    assert!(!crate::sys::socket::is_readable(door.descriptor()), "it costs nothing any more");
}
