use super::*;
use crate::sys::socket::{Address, Credentials};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket};
use proptest::prelude::*;
use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::AsRawFd;

const RUN: RunId = RunId { instance: 0, number: 3 };
const SENDER: Pid = 7;

fn heard(bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    Words::read(bytes).messages(RUN, SENDER, &mut messages);
    messages
}

fn event(event: Event) -> Vec<Message> {
    vec![Message::Event(event)]
}

fn status(text: &str) -> Vec<Message> {
    vec![Message::Status(RUN, text.to_owned())]
}

#[test]
fn every_key_has_its_meaning() {
    let micros = Duration::from_micros;
    let cases: &[(&str, Vec<Message>)] = &[
        ("READY=1", event(Event::SaidReady(RUN))),
        ("READY=1\n", event(Event::SaidReady(RUN))),
        ("READY=1\r\n", event(Event::SaidReady(RUN))),
        ("READY=1\0", event(Event::SaidReady(RUN))),
        ("\n\nX_OURS=1\nREADY=1\nREADY=1", event(Event::SaidReady(RUN))),
        ("STOPPING=1", vec![Message::Stopping(RUN, SENDER)]),
        ("RELOADING=1\nMONOTONIC_USEC=123", vec![Message::Reloading(RUN)]),
        ("RELOADING=1", vec![Message::Reloading(RUN)]),
        ("READY=1\nRELOADING=1", vec![Message::Reloading(RUN), Message::Event(Event::SaidReady(RUN))]),
        ("STATUS=serving a=b", status("serving a=b")),
        ("STATUS=", status("")),
        ("STATUS=one\nSTATUS=two", status("two")),
        ("MAINPID=42", vec![Message::MainPid(RUN, 42)]),
        ("WATCHDOG=1", event(Event::WatchdogPing(RUN))),
        ("WATCHDOG=trigger", event(Event::WatchdogTriggered(RUN))),
        ("WATCHDOG_USEC=1500", event(Event::WatchdogPeriod(RUN, micros(1500)))),
        ("WATCHDOG_USEC=0", event(Event::WatchdogPeriod(RUN, Duration::ZERO))),
        ("EXTEND_TIMEOUT_USEC=5000000", event(Event::TimeoutExtended(RUN, micros(5_000_000)))),
        ("EXTEND_TIMEOUT_USEC=18446744073709551615", event(Event::TimeoutExtended(RUN, micros(u64::MAX)))),
        ("BARRIER=1", vec![]),
        ("FDSTORE=1\nFDNAME=x", vec![]),
    ];
    for (text, expected) in cases {
        assert_eq!(heard(text.as_bytes()), *expected, "{text:?}");
    }
}

#[test]
fn what_does_not_fit_is_skipped() {
    for text in [
        "",
        "\n",
        "READY",
        "READY=",
        "READY=0",
        "READY=11",
        "READY =1",
        "ready=1",
        "=1",
        "READY=1\0STOPPING=1",
        "MAINPID=0",
        "MAINPID=-1",
        "MAINPID=+1",
        "MAINPID=2147483648",
        "MAINPID=1x",
        "WATCHDOG=2",
        "WATCHDOG_USEC=",
        "WATCHDOG_USEC=1.5",
        "WATCHDOG_USEC=18446744073709551616",
        "EXTEND_TIMEOUT_USEC=soon",
    ] {
        assert_eq!(heard(text.as_bytes()), [], "{text:?}");
    }
}

#[test]
fn a_datagram_counts_as_a_whole() {
    let all = "STOPPING=1\nWATCHDOG=1\nREADY=1\nEXTEND_TIMEOUT_USEC=1\nWATCHDOG_USEC=2\nMAINPID=9\nSTATUS=up";
    let expected = [
        Message::Status(RUN, "up".to_owned()),
        Message::MainPid(RUN, 9),
        Message::Event(Event::WatchdogPeriod(RUN, Duration::from_micros(2))),
        Message::Event(Event::TimeoutExtended(RUN, Duration::from_micros(1))),
        Message::Event(Event::SaidReady(RUN)),
        Message::Event(Event::WatchdogPing(RUN)),
        Message::Stopping(RUN, SENDER),
    ];
    assert_eq!(heard(all.as_bytes()), expected);
}

#[test]
fn a_status_is_cut_between_characters() {
    let text = |bytes: &[u8]| match &heard(&[b"STATUS=", bytes].concat())[..] {
        [Message::Status(_, text)] => text.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(text(&[b'x'; 400]), "x".repeat(400));
    assert_eq!(text(&[b'x'; 401]), "x".repeat(400));
    assert_eq!(text("\u{20ac}".repeat(200).as_bytes()), "\u{20ac}".repeat(133));
    assert_eq!(text(b"a\xffb"), "a\u{fffd}b");
}

/// A socket, and one to speak to it with.
fn open() -> (Notify, DatagramSocket, Address) {
    let notify = Notify::open(RUN).expect("a socket");
    let name = notify.name().expect("a name");
    let address = Address::of_notify_socket(name.as_ref()).expect("an address that clients understand");
    (notify, DatagramSocket::bind_anew().expect("a socket"), address)
}

#[test]
fn a_flood_is_taken_in_parts_and_the_rest_at_the_end() {
    let (mut notify, client, address) = open();
    let fill = || (0..500).take_while(|_| client.send(b"WATCHDOG=1", &address).is_ok()).count();
    let sent = fill();
    assert_eq!(notify.take().messages.len(), sent.min(AT_ONCE));
    let sent = sent - sent.min(AT_ONCE) + fill();
    assert_eq!(notify.take_rest().messages.len(), sent);
    let taken = notify.take();
    assert!(taken.messages.is_empty() && !taken.closed);
}

#[test]
fn a_barrier_closes_after_the_messages_before_it_and_nothing_else_is_kept() {
    let (mut notify, client, address) = open();
    let raw = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    let name = notify.socket.name().expect("a name");
    let to = UnixAddr::new_abstract(&name).expect("an address");
    let send = |text: &[u8]| {
        let (reader, writer) = crate::sys::socket::pipe().expect("a pipe");
        let rights = [writer.as_raw_fd()];
        let message = [ControlMessage::ScmRights(&rights)];
        sendmsg(raw.as_raw_fd(), &[IoSlice::new(text)], &message, MsgFlags::empty(), Some(&to)).expect("a receiver");
        File::from(reader)
    };
    let ended = |mut reader: &File| matches!(reader.read(&mut [0]), Ok(0));
    client.send(b"STATUS=before", &address).expect("a receiver");
    let barrier = send(b"BARRIER=1");
    let stored = send(b"FDSTORE=1\nFDNAME=x");
    let taken = notify.take();
    assert_eq!(taken.messages, status("before"));
    assert!(!ended(&barrier) && ended(&stored));
    drop(taken);
    assert!(ended(&barrier));
}

#[test]
fn only_this_pid_namespace_is_heard() {
    let (notify, ..) = open();
    let from = |credentials| Datagram {
        bytes: b"READY=1".to_vec(),
        sender: None,
        credentials,
        descriptors: Vec::new(),
        truncated: false,
    };
    let hear = |datagram| {
        let mut taken = Taken::default();
        notify.hear(datagram, &mut taken);
        taken.messages
    };
    assert_eq!(hear(from(Some(Credentials { pid: 0, uid: 0 }))), [Message::Refused]);
    assert_eq!(hear(from(None)), [Message::Refused]);
    assert_eq!(hear(from(Some(Credentials { pid: 7, uid: 12345 }))), event(Event::SaidReady(RUN)));
    let long = Datagram { truncated: true, ..from(Some(Credentials { pid: 7, uid: 0 })) };
    assert_eq!(hear(long), [Message::TooLong(RUN)]);
}

proptest! {
    #[test]
    fn nothing_panics_and_all_is_bounded(bytes in any::<Vec<u8>>(), text in "([A-Z_]{1,20}=[0-9a-z\u{20ac}]*\r?\n)*") {
        for bytes in [&bytes[..], text.as_bytes(), &[b"STATUS=", &bytes[..]].concat()] {
            let messages = heard(bytes);
            prop_assert!(messages.len() <= 9);
            for message in messages {
                if let Message::Status(_, text) = message {
                    prop_assert!(text.len() <= LONGEST_STATUS);
                }
            }
        }
    }
}
