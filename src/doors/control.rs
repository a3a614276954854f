//! The control socket, on which `guard ready`, `guard status`, `guard stop` and the like ask. It needs no port, no file and no
//! writable disk. The kernel vouches for each client's pid and user.

use super::queue::Queue;
use super::wire::{self, Reply, Request, is_trusted};
use super::{Door, Message, Received};
use crate::sys::file::errno_of;
use crate::sys::rights::Receiver;
use crate::sys::socket::{Address, Datagram, DatagramSocket};
use crate::sys::{Errno, Pid, process};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// The longest request, in bytes.
const LONGEST_REQUEST: usize = 64;

/// Requests received per wake-up.
const AT_ONCE: usize = 16;

/// The process that asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub pid: Pid,
    address: Address,
}

/// guard's end.
pub struct Control(Queue);

impl Control {
    /// Takes the first name of its mount namespace that is free; an error if [`wire::NAMES`] are taken. Without a /proc the
    /// namespace counts as 0.
    pub fn open() -> io::Result<Control> {
        Control::open_for(process::mount_namespace().unwrap_or(0))
    }

    /// The same for the namespace of this inode.
    pub fn open_for(mount_namespace: u64) -> io::Result<Control> {
        let mut number = 1;
        loop {
            let address = Address::abstract_name(wire::name(mount_namespace, number).as_bytes())?;
            match DatagramSocket::bind(&address) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && number < wire::NAMES => number += 1,
                result => {
                    let socket = result?.refuse_descriptors().make_room(wire::LONGEST_ANSWER);
                    return Ok(Control(Queue::new(socket, LONGEST_REQUEST)));
                }
            }
        }
    }

    /// Answers, if the client is still there and has room for it; `false` if the answer is too long for a datagram.
    pub fn answer(&self, client: &Client, reply: &Reply) -> bool {
        send(&self.0.socket, &client.address, reply)
    }
}

fn send(socket: &DatagramSocket, to: &Address, reply: &Reply) -> bool {
    let text = reply.to_text();
    let is_too_long = |error: &io::Error| [Errno::EMSGSIZE, Errno::ENOBUFS].contains(&errno_of(error));
    text.len() <= wire::LONGEST_ANSWER && !socket.send(text.as_bytes(), to).is_err_and(|error| is_too_long(&error))
}

/// The message of a datagram. Requests that guard does not know, and clients that may not ask, get their answer here.
fn read(socket: &DatagramSocket, datagram: &Datagram) -> Option<Message> {
    let (Some(address), Some(sender)) = (datagram.sender, datagram.credentials) else {
        return Some(Message::Refused);
    };
    // From another PID namespace. The answer says so, since the client would take a guard that is silent for one that hangs,
    // and would wait for it.
    if sender.pid == 0 {
        send(socket, &address, &Reply::Refused("guard may only be asked from its own PID namespace".to_owned()));
        return Some(Message::Refused);
    }
    let own = process::effective_uid();
    if !is_trusted(sender.uid, own) {
        send(socket, &address, &Reply::Refused(refusal_for(own)));
        return Some(Message::Refused);
    }
    let Some(request) = Request::parse(&datagram.bytes) else {
        send(socket, &address, &Reply::No("unknown request".to_owned()));
        return None;
    };
    Some(Message::Request(request, Client { pid: sender.pid, address }))
}

/// What a stranger hears from the guard of this user.
fn refusal_for(own: u32) -> String {
    let or_own = if own == 0 { String::new() } else { format!(" or uid {own}") };
    format!("only root{or_own} may ask this guard")
}

impl Door for Control {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn receive(&mut self) -> Received {
        self.0.receive(AT_ONCE, &mut |socket, datagram, messages| messages.extend(read(socket, datagram)))
    }

    fn receive_in_copy(&mut self) -> Result<Receiver, Errno> {
        self.0.receive_in_copy()
    }

    fn received(&mut self, reported: bool) {
        self.0.received(reported);
    }

    fn close(self) -> Option<Pid> {
        self.0.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::{self, Head};
    use std::time::Duration;

    /// A namespace that nobody has: inodes of the kernel's are above 0xefff0000.
    fn namespace(test: u64) -> u64 {
        u64::from(std::process::id()) * 100 + test
    }

    fn client(control: &Control) -> (DatagramSocket, Address) {
        let name = control.0.socket.name().expect("a name");
        (DatagramSocket::bind_anew().expect("a socket"), Address::abstract_name(&name).expect("an address"))
    }

    fn next(client: &DatagramSocket) -> Option<Datagram> {
        let Ok(Head::Datagram(datagram)) = client.peek(1024) else { return None };
        client.discard();
        Some(datagram)
    }

    fn reply(client: &DatagramSocket) -> Option<Reply> {
        next(client).and_then(|datagram| Reply::parse(&datagram.bytes))
    }

    fn asks_for_status(client: &DatagramSocket, guard: &Address, control: &mut Control) -> Client {
        client.send(b"guard 1 status", guard).expect("a receiver");
        let mut received = control.receive();
        assert!(!received.closed);
        let Some(Message::Request(Request::Status, asker)) = received.messages.pop() else { panic!("{received:?}") };
        assert!(received.messages.is_empty());
        asker
    }

    #[test]
    fn a_request_is_handed_on_and_its_answer_sent() {
        let mut control = Control::open_for(namespace(1)).expect("a socket");
        let (client, guard) = client(&control);
        let asker = &asks_for_status(&client, &guard, &mut control);
        assert_eq!(asker.pid, process::id());
        control.answer(asker, &Reply::Text("fine\n".to_owned()));
        assert_eq!(reply(&client), Some(Reply::Text("fine\n".to_owned())));
        drop(client);
        control.answer(asker, &Reply::Text("nobody hears it".to_owned()));
    }

    #[test]
    fn an_answer_of_hundreds_of_kilobytes_is_sent_and_one_that_is_too_long_is_told() {
        let mut control = Control::open_for(namespace(6)).expect("a socket");
        let (client, guard) = client(&control);
        let asker = &asks_for_status(&client, &guard, &mut control);
        let long = Reply::Text("x".repeat(300_000));
        assert!(control.answer(asker, &long));
        let Ok(Head::Datagram(datagram)) = client.peek(wire::LONGEST_ANSWER) else { panic!("no answer") };
        assert_eq!(Reply::parse(&datagram.bytes), Some(long));
        assert!(!control.answer(asker, &Reply::Text("x".repeat(wire::LONGEST_ANSWER))));
    }

    #[test]
    fn what_is_unknown_is_answered_at_once() {
        let mut control = Control::open_for(namespace(2)).expect("a socket");
        let (client, guard) = client(&control);
        for bytes in [&b"guard 1 dance"[..], b"guard 9 ready", b"", b"\xff"] {
            client.send(bytes, &guard).expect("a receiver");
            assert!(control.receive().messages.is_empty());
            assert_eq!(reply(&client), Some(Reply::No("unknown request".to_owned())));
        }
    }

    #[test]
    fn strangers_are_refused_and_counted() {
        let control = Control::open_for(namespace(3)).expect("a socket");
        let (client, _) = client(&control);
        let sender = Address::abstract_name(&client.name().expect("a name")).ok();
        let from = |pid, uid| Datagram {
            bytes: b"guard 1 stop".to_vec(),
            sender,
            credentials: Some(socket::Credentials { pid, uid }),
            truncated: false,
        };
        let own = process::effective_uid();
        assert_eq!(read(&control.0.socket, &from(7, own + 1)), Some(Message::Refused));
        assert_eq!(reply(&client), Some(Reply::Refused(refusal_for(own))));
        assert_eq!(read(&control.0.socket, &from(0, 0)), Some(Message::Refused));
        let refusal = "guard may only be asked from its own PID namespace".to_owned();
        assert_eq!(reply(&client), Some(Reply::Refused(refusal)));
        assert_eq!(read(&control.0.socket, &Datagram { credentials: None, ..from(7, 0) }), Some(Message::Refused));
        assert_eq!(read(&control.0.socket, &Datagram { sender: None, ..from(7, 0) }), Some(Message::Refused));
        assert!(
            !socket::wait_readable(&[client.as_fd()], Duration::ZERO).expect("a wait"),
            "a stranger that nobody vouches for gets no answer"
        );
    }

    #[test]
    fn a_flood_is_taken_in_parts() {
        let mut control = Control::open_for(namespace(4)).expect("a socket");
        let (client, guard) = client(&control);
        let mut sent = 0;
        while sent < 40 && client.send(b"guard 1 ping", &guard).is_ok() {
            sent += 1;
        }
        let mut counts = Vec::new();
        while counts.last() != Some(&0) {
            counts.push(control.receive().messages.len());
        }
        assert_eq!(counts.iter().sum::<usize>(), sent);
        assert!(counts.iter().all(|&count| count <= AT_ONCE), "{counts:?}");
    }

    #[test]
    fn names_are_taken_in_turn() {
        let all: Vec<Control> = (0..wire::NAMES).map_while(|_| Control::open_for(namespace(5)).ok()).collect();
        let names = all.iter().map(|control| control.0.socket.name().expect("a name"));
        let expected = (1..=wire::NAMES).map(|number| wire::name(namespace(5), number).into_bytes());
        assert!(names.eq(expected));
        assert!(Control::open_for(namespace(5)).is_err());
    }
}
