use super::*;
use crate::sys::rights::has_received;
use crate::sys::socket::Address;
use crate::sys::socket::wait_readable;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket};
use proptest::prelude::*;
use std::fs::File;
use std::io::{IoSlice, Read};
use std::os::fd::AsRawFd;

const RUN: RunId = RunId { instance: 0, number: 3 };
const SENDER: Credentials = Credentials { pid: 7, uid: 33 };

fn parsed(bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    Fields::parse(bytes).into_messages(RUN, SENDER, &mut messages);
    messages
}

fn event(event: Event) -> Vec<Message> {
    vec![Message::Event(event)]
}

fn restricted(what: Restricted) -> Vec<Message> {
    vec![Message::Restricted(RUN, SENDER, what)]
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
        ("STOPPING=1", restricted(Restricted::Stopping)),
        ("RELOADING=1\nMONOTONIC_USEC=123", vec![Message::Reloading(RUN)]),
        ("RELOADING=1", vec![Message::Reloading(RUN)]),
        ("READY=1\nRELOADING=1", vec![Message::Reloading(RUN), Message::Event(Event::SaidReady(RUN))]),
        ("STATUS=serving a=b", status("serving a=b")),
        ("STATUS=", status("")),
        ("STATUS=one\nSTATUS=two", status("two")),
        ("MAINPID=42", restricted(Restricted::MainPid(42))),
        ("WATCHDOG=1", event(Event::WatchdogPing(RUN))),
        ("WATCHDOG=trigger", restricted(Restricted::WatchdogTrigger)),
        ("WATCHDOG_USEC=1500", restricted(Restricted::WatchdogPeriod(micros(1500)))),
        ("WATCHDOG_USEC=0", restricted(Restricted::WatchdogPeriod(Duration::ZERO))),
        ("EXTEND_TIMEOUT_USEC=5000000", event(Event::TimeoutExtended(RUN, micros(5_000_000)))),
        ("EXTEND_TIMEOUT_USEC=18446744073709551615", event(Event::TimeoutExtended(RUN, micros(u64::MAX)))),
        ("BARRIER=1", vec![]),
        ("FDSTORE=1\nFDNAME=x", vec![]),
    ];
    for (text, expected) in cases {
        assert_eq!(parsed(text.as_bytes()), *expected, "{text:?}");
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
        assert_eq!(parsed(text.as_bytes()), [], "{text:?}");
    }
}

#[test]
fn a_datagram_counts_as_a_whole() {
    let all = "STOPPING=1\nWATCHDOG=1\nREADY=1\nEXTEND_TIMEOUT_USEC=1\nWATCHDOG_USEC=2\nMAINPID=9\nSTATUS=up";
    let expected = [
        Message::Status(RUN, "up".to_owned()),
        Message::Restricted(RUN, SENDER, Restricted::MainPid(9)),
        Message::Restricted(RUN, SENDER, Restricted::WatchdogPeriod(Duration::from_micros(2))),
        Message::Event(Event::TimeoutExtended(RUN, Duration::from_micros(1))),
        Message::Event(Event::SaidReady(RUN)),
        Message::Event(Event::WatchdogPing(RUN)),
        Message::Restricted(RUN, SENDER, Restricted::Stopping),
    ];
    assert_eq!(parsed(all.as_bytes()), expected);
}

#[test]
fn a_status_is_cut_between_characters() {
    let text = |bytes: &[u8]| match &parsed(&[b"STATUS=", bytes].concat())[..] {
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
    let address = Address::of_notify_socket(&name).expect("an address that clients understand");
    (notify, DatagramSocket::bind_anew().expect("a socket"), address)
}

#[test]
fn a_flood_is_received_in_parts_and_the_rest_at_the_end() {
    let (mut notify, client, address) = open();
    let fill = || (0..500).take_while(|_| client.send(b"WATCHDOG=1", &address).is_ok()).count();
    let sent = fill();
    assert_eq!(notify.receive().messages.len(), sent.min(AT_ONCE));
    let sent = sent - sent.min(AT_ONCE) + fill();
    assert_eq!(notify.receive_rest().messages.len(), sent);
    let received = notify.receive();
    assert!(received.messages.is_empty() && !received.closed);
}

/// Sends a descriptor along, and returns the pipe that ends when all copies of it are closed.
fn send_descriptor(notify: &Notify, text: &[u8]) -> File {
    let raw = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    let to = UnixAddr::new(&*notify.name().expect("a name")).expect("an address");
    let (reader, writer) = crate::sys::socket::pipe().expect("a pipe");
    let rights = [writer.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&rights)];
    sendmsg(raw.as_raw_fd(), &[IoSlice::new(text)], &message, MsgFlags::empty(), Some(&to)).expect("a receiver");
    File::from(reader)
}

fn has_ended(mut reader: &File) -> bool {
    matches!(reader.read(&mut [0]), Ok(0))
}

fn wait_for(descriptor: &impl AsFd) {
    assert!(wait_readable(&[descriptor.as_fd()], Duration::from_secs(20)).expect("a wait"));
}

#[test]
fn descriptors_close_after_the_messages_before_them_were_handled() {
    let (mut notify, client, address) = open();
    client.send(b"STATUS=before", &address).expect("a receiver");
    let barrier = send_descriptor(&notify, b"BARRIER=1");
    client.send(b"STATUS=after", &address).expect("a receiver");
    let received = notify.receive();
    assert_eq!(received.messages, status("before"));
    assert!(received.descriptors && !has_ended(&barrier));
    let receiver = notify.receive_in_copy().expect("a copy");
    wait_for(&receiver.report);
    notify.received(has_received(&receiver.report));
    let received = notify.receive();
    assert_eq!(received.messages, status("after"));
    assert!(!received.descriptors);
    wait_for(&barrier);
    assert!(has_ended(&barrier));
}

#[test]
fn a_datagram_with_descriptors_is_handled_once() {
    let (mut notify, client, address) = open();
    let _first = send_descriptor(&notify, b"STATUS=one");
    let _second = send_descriptor(&notify, b"STATUS=two");
    client.send(b"STATUS=three", &address).expect("a receiver");
    assert_eq!(notify.receive().messages, status("one"));
    // No copy could be made.
    assert!(notify.receive().messages.is_empty() && notify.receive().descriptors);
    let receiver = notify.receive_in_copy().expect("a copy");
    wait_for(&receiver.report);
    // A copy that is killed tells nothing, whether it had received or not.
    notify.received(false);
    assert_eq!(notify.receive().messages, status("two"));
    notify.received(false);
    let received = notify.receive();
    assert!(received.messages.is_empty() && received.descriptors, "it is still there");
}

#[test]
fn at_the_end_of_a_run_descriptors_hide_nothing() {
    let (mut notify, client, address) = open();
    let _barrier = send_descriptor(&notify, b"BARRIER=1");
    for text in [&b"STATUS=one"[..], b"", &[b'x'; 3 * LONGEST], b"STATUS=two"] {
        client.send(text, &address).expect("a receiver");
    }
    assert!(notify.receive().messages.is_empty());
    let receiver = notify.receive_in_copy().expect("a copy");
    // Before the report, whether the copy was fast or slow.
    let expected: Vec<_> = [status("one"), vec![Message::TooLong(RUN)], status("two")].into_iter().flatten().collect();
    assert_eq!(notify.receive_rest().messages, expected);
    assert!(notify.receive_rest().messages.is_empty(), "once");
    wait_for(&receiver.report);
    notify.received(has_received(&receiver.report));
    client.send(b"STATUS=three", &address).expect("a receiver");
    assert_eq!(notify.receive().messages, status("three"), "the others were handled");
}

#[test]
fn only_this_pid_namespace_may_speak() {
    let from = |credentials| Datagram { bytes: b"READY=1".to_vec(), sender: None, credentials, truncated: false };
    let read = |datagram: Datagram| {
        let mut messages = Vec::new();
        (super::read(RUN, &datagram, &mut messages), messages)
    };
    assert_eq!(read(from(Some(Credentials { pid: 0, uid: 0 }))), (false, vec![Message::Refused]));
    assert_eq!(read(from(None)), (false, vec![Message::Refused]));
    assert_eq!(read(from(Some(Credentials { pid: 7, uid: 12345 }))), (true, event(Event::SaidReady(RUN))));
    let long = Datagram { truncated: true, ..from(Some(Credentials { pid: 7, uid: 0 })) };
    assert_eq!(read(long), (true, vec![Message::TooLong(RUN)]));
}

proptest! {
    #[test]
    fn nothing_panics_and_all_is_bounded(bytes in any::<Vec<u8>>(), text in "([A-Z_]{1,20}=[0-9a-z\u{20ac}]*\r?\n)*") {
        for bytes in [&bytes[..], text.as_bytes(), &[b"STATUS=", &bytes[..]].concat()] {
            let messages = parsed(bytes);
            prop_assert!(messages.len() <= 9);
            for message in messages {
                if let Message::Status(_, text) = message {
                    prop_assert!(text.len() <= LONGEST_STATUS);
                }
            }
        }
    }
}
