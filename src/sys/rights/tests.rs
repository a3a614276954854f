use super::*;
use crate::sys::fork::wait_for_copy;
use crate::sys::socket::{DatagramSocket, Head, Piece, Stream, wait_readable};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, sendmsg};
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// How long guard would wait in a close that waits, in seconds.
const LINGER: libc::c_int = 3600;

/// Long, since machines are busy, and never waited out where all is well.
const DEADLINE: Duration = Duration::from_secs(20);

/// A unix socket in whose queue there is a TCP socket that lingers, and the peer that does not read.
fn lingering() -> (UnixDatagram, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut own = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let (peer, _) = listener.accept().expect("a connection");
    own.set_nonblocking(true).expect("a socket");
    while own.write(&[b'x'; 65_536]).is_ok() {}
    let linger = libc::linger { l_onoff: 1, l_linger: LINGER };
    nix_socket::setsockopt(&own, sockopt::Linger, &linger).expect("a socket");
    let (carrier, other) = UnixDatagram::pair().expect("two sockets");
    send(&other, b"x", &[own.as_raw_fd()]);
    (carrier, peer)
}

fn send(through: &impl AsRawFd, bytes: &[u8], descriptors: &[RawFd]) {
    let rights = [ControlMessage::ScmRights(descriptors)];
    sendmsg::<()>(through.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::empty(), None).expect("room");
}

/// Runs what must not wait.
#[expect(clippy::disallowed_methods, reason = "the clock of a test")]
fn at_once<T>(what: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = what();
    assert!(begun.elapsed() < DEADLINE);
    result
}

fn wait_for(descriptor: &impl AsFd) {
    assert!(wait_readable(&[descriptor.as_fd()], DEADLINE).expect("a wait"));
}

/// A socket for datagrams, and one that is connected to it.
fn datagrams() -> (DatagramSocket, UnixDatagram) {
    let receiver = DatagramSocket::bind_anew().expect("a socket");
    let address = UnixAddr::new_abstract(&receiver.name().expect("a name")).expect("an address");
    let sender = UnixDatagram::unbound().expect("a socket");
    nix_socket::connect(sender.as_raw_fd(), &address).expect("a receiver");
    (receiver, sender)
}

#[test]
fn a_look_and_a_copy_do_not_wait() {
    let (receiver, sender) = datagrams();
    let (carrier, _peer) = lingering();
    send(&sender, b"FDSTORE=1", &[carrier.as_raw_fd(); 253]);
    sender.send(b"next").expect("room");
    drop(carrier);
    at_once(|| {
        for _ in 0..3 {
            let Ok(Head::WithDescriptors(datagram)) = receiver.peek(LONGEST) else { panic!("no descriptors") };
            assert_eq!(datagram.bytes, b"FDSTORE=1");
        }
        let copy = receiver.receive_in_copy().expect("a copy");
        wait_for(&copy.report);
        assert!(has_received(&copy.report));
        let Ok(Head::Datagram(datagram)) = receiver.peek(LONGEST) else { panic!("no datagram") };
        assert_eq!(datagram.bytes, b"next");
    });
}

#[test]
fn to_drop_a_socket_does_not_wait() {
    let (receiver, sender) = datagrams();
    let (carrier, _peer) = lingering();
    sender.send(b"").expect("room");
    sender.send(b"before").expect("room");
    send(&sender, b"FDSTORE=1", &[carrier.as_raw_fd()]);
    drop(carrier);
    at_once(|| drop(receiver));
    assert!(sender.send(b"x").is_err(), "nobody receives it");
}

/// Who closes a socket is told of the child that it has from then on.
#[test]
fn to_close_a_socket_names_the_copy_in_which_it_closes() {
    let (receiver, _sender) = datagrams();
    assert_eq!(receiver.close(), None, "nothing is in the queue");
    let (receiver, sender) = datagrams();
    let (carrier, _peer) = lingering();
    send(&sender, b"FDSTORE=1", &[carrier.as_raw_fd()]);
    let copy = receiver.close().expect("a copy");
    wait_for_copy(copy);
    assert!(sender.send(b"x").is_err(), "nobody receives it");
}

#[test]
fn a_stream_is_looked_at_and_dropped_in_the_same_way() {
    let (own, other) = Stream::open().expect("a stream");
    let (carrier, _peer) = lingering();
    nix::unistd::write(&other, b"plain\n").expect("room");
    send(&other, b"with", &[carrier.as_raw_fd()]);
    nix::unistd::write(&other, b"after\n").expect("room");
    at_once(|| {
        let Ok(Piece::WithDescriptors(bytes)) = own.peek() else { panic!("no descriptors") };
        assert_eq!(bytes, b"plain\nwith");
        let copy = own.receive_in_copy(bytes.len()).expect("a copy");
        wait_for(&copy.report);
        assert!(has_received(&copy.report));
        let Ok(Piece::Bytes(bytes)) = own.peek() else { panic!("no bytes") };
        assert_eq!(bytes, b"after\n");
        send(&other, b"with", &[carrier.as_raw_fd()]);
        drop(carrier);
        drop(own);
    });
}

#[test]
fn an_urgent_byte_is_seen_with_its_descriptors() {
    let (own, other) = Stream::open().expect("a stream");
    let (carrier, _peer) = lingering();
    let rights = [carrier.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&rights)];
    if sendmsg::<()>(other.as_raw_fd(), &[IoSlice::new(b"!")], &rights, MsgFlags::MSG_OOB, None).is_err() {
        return; // Linux before 5.15
    }
    nix::unistd::write(&other, b"after\n").expect("room");
    drop(carrier);
    at_once(|| {
        assert!(matches!(own.peek(), Ok(Piece::WithDescriptors(bytes)) if bytes == b"!"));
        drop(own);
    });
}

#[test]
fn where_the_kernel_can_refuse_descriptors_it_does() {
    let receiver = DatagramSocket::bind_anew().expect("a socket");
    if refuse(receiver.as_fd()).is_err() {
        return; // Linux before 6.16
    }
    let address = UnixAddr::new_abstract(&receiver.name().expect("a name")).expect("an address");
    let sender =
        nix_socket::socket(AddressFamily::Unix, SockType::Datagram, SockFlag::empty(), None).expect("a socket");
    let rights = [sender.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&rights)];
    let sent = sendmsg(sender.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), Some(&address));
    assert_eq!(sent, Err(Errno::EPERM));
}

#[test]
fn a_copy_has_none_of_guards_descriptors_but_two() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let (kept, told) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    spawn_copy(|| {
        keep_only([kept.as_raw_fd(), told.as_raw_fd()]);
        let _ = nix::unistd::write(&told, b"x");
        limit_time();
        loop {
            // SAFETY: pause(2) waits for the alarm.
            unsafe { libc::pause() };
        }
    })
    .expect("a copy");
    wait_for(&kept);
    drop(writer);
    assert_eq!(reader.read(&mut [0]).expect("the end"), 0, "though the copy lives");
}

#[test]
fn nothing_that_was_sent_enters_guards_table() {
    let (receiver, sender) = datagrams();
    let (own, other) = Stream::open().expect("a stream");
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    send(&sender, b"x", &[writer.as_raw_fd()]);
    send(&other, b"x", &[writer.as_raw_fd()]);
    drop(writer);
    assert!(matches!(receiver.peek(LONGEST), Ok(Head::WithDescriptors(_))));
    assert!(matches!(own.peek(), Ok(Piece::WithDescriptors(_))));
    let _ = (receiver.discard(), own.discard(1));
    assert_eq!(reader.read(&mut [0]).expect("the end"), 0, "nobody has it");
}
