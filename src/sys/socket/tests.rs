use super::*;
use crate::sys::{Pid, process};
use nix_socket::SockaddrLike;
use std::mem::zeroed;
use std::path::Path;

/// Long, since machines are busy, and never waited out where all is well.
const DEADLINE: Duration = Duration::from_secs(20);

fn pair() -> (DatagramSocket, DatagramSocket, Address) {
    let socket = DatagramSocket::bind_anew().expect("a socket");
    let address = Address::abstract_name(&socket.name().expect("a name")).expect("an address");
    (socket, DatagramSocket::bind_anew().expect("a socket"), address)
}

const LONGEST: usize = 4096;

/// Receives the next datagram, which came without descriptors.
fn receive(socket: &DatagramSocket) -> io::Result<Datagram> {
    let Head::Datagram(datagram) = socket.peek(LONGEST)? else { panic!("descriptors") };
    socket.discard();
    Ok(datagram)
}

#[test]
fn a_datagram_says_who_sent_it() {
    let (receiver, sender, address) = pair();
    assert!(!wait_readable(&[receiver.as_fd()], Duration::ZERO).expect("a wait"));
    assert_eq!(receive(&receiver).expect_err("nothing is there").kind(), io::ErrorKind::WouldBlock);
    sender.send(b"READY=1\n", &address).expect("a receiver");
    assert!(wait_readable(&[receiver.as_fd()], DEADLINE).expect("a wait"));
    let datagram = receive(&receiver).expect("a datagram");
    assert_eq!(datagram.bytes, b"READY=1\n");
    assert_eq!(datagram.credentials, Some(Credentials { pid: process::id(), uid: process::effective_uid() }));
    let name = sender.name().expect("a name");
    assert_eq!(datagram.sender, Address::abstract_name(&name).ok());
    assert!(!datagram.truncated);
    assert_eq!(name.len(), 5, "unix(7): a name that the kernel picks has five digits");
}

#[test]
fn a_sender_without_an_address_is_none() {
    let (receiver, _, address) = pair();
    let flags = SockFlag::SOCK_CLOEXEC;
    let sender = nix_socket::socket(AddressFamily::Unix, SockType::Datagram, flags, None).expect("a socket");
    nix_socket::sendto(sender.as_raw_fd(), b"x", &address.0, NEVER_WAIT).expect("a receiver");
    let datagram = receive(&receiver).expect("a datagram");
    assert_eq!((datagram.sender, datagram.credentials.map(|sender| sender.pid)), (None, Some(process::id())));
}

#[test]
fn what_is_too_long_is_cut() {
    let (receiver, sender, address) = pair();
    sender.send(&vec![b'x'; LONGEST], &address).expect("a receiver");
    sender.send(&vec![b'x'; LONGEST + 1], &address).expect("a receiver");
    sender.send(b"", &address).expect("a receiver");
    let received = std::iter::from_fn(|| receive(&receiver).ok());
    let seen: Vec<_> = received.map(|datagram| (datagram.bytes.len(), datagram.truncated)).collect();
    assert_eq!(seen, [(LONGEST, false), (LONGEST, true), (0, false)]);
}

#[test]
fn sending_never_waits() {
    let (receiver, sender, address) = pair();
    // The queue of a receiver has its limit (net.unix.max_dgram_qlen, unix(7)).
    let full = (0..100_000).find_map(|_| sender.send(b"x", &address).err()).expect("a limit");
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    drop(receiver);
    // A copy that another test has just made may still have the receiver, which is shut down.
    let nobody = sender.send(b"x", &address).expect_err("nobody").kind();
    assert!([io::ErrorKind::ConnectionRefused, io::ErrorKind::BrokenPipe].contains(&nobody), "{nobody}");
}

#[test]
fn a_name_is_taken_once() {
    let name = format!("guard-test/{}", process::id());
    let address = Address::abstract_name(name.as_bytes()).expect("an address");
    let first = DatagramSocket::bind(&address).expect("a socket");
    assert_eq!(first.name().expect("a name"), name.as_bytes());
    assert_eq!(DatagramSocket::bind(&address).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    drop(first);
    DatagramSocket::bind(&address).expect("free again");
    assert!(Address::abstract_name(&[b'x'; 108]).is_err());
}

#[test]
fn notify_socket_is_a_path_or_an_abstract_name() {
    let of = |value: &str| Address::of_notify_socket(OsStr::new(value));
    assert_eq!(of("@outer"), Address::abstract_name(b"outer").ok());
    assert_eq!(of("/run/notify").expect("an address").0.path(), Some(Path::new("/run/notify")));
    for value in ["", "@", "run/notify", "vsock:2:1", &format!("/{}", "x".repeat(108))] {
        assert_eq!(of(value), None, "{value}");
    }
}

#[test]
fn a_path_of_full_length_can_be_a_sender() {
    let directory = tempfile::tempdir().expect("a directory");
    let stem = directory.path().to_str().expect("UTF-8");
    let path = format!("{stem}/{}", "x".repeat(107 - stem.len()));
    // SAFETY: plain data, for which all zeros is a value; it is filled, and read as far as it goes.
    let address = unsafe {
        let mut raw: libc::sockaddr_un = zeroed();
        raw.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).expect("a family");
        path.bytes()
            .zip(&mut raw.sun_path)
            .for_each(|(byte, place)| *place = libc::c_char::try_from(byte).expect("ASCII"));
        UnixAddr::from_raw((&raw const raw).cast(), Some(UnixAddr::size())).expect("an address")
    };
    let sender = DatagramSocket::bind_to(&address).expect("108 bytes without a NUL fit (unix(7))");
    let (receiver, _, to) = pair();
    sender.send(b"x", &to).expect("a receiver");
    let seen = receive(&receiver).expect("a datagram").sender.expect("an address");
    assert_eq!(seen.0.path(), Some(Path::new(&path)));
}

#[test]
fn a_stream_is_guards_own_at_one_end() {
    let (own, other) = Stream::open().expect("a stream");
    for end in [own.as_fd(), other.as_fd()] {
        assert_eq!(fcntl(end, FcntlArg::F_GETFD).expect("open"), libc::FD_CLOEXEC);
    }
    let waits = |end| fcntl(end, FcntlArg::F_GETFL).expect("open") & libc::O_NONBLOCK == 0;
    assert!(!waits(own.as_fd()) && waits(other.as_fd()));
    assert_eq!(own.send(b"\"drain\"\n").expect("room"), 8);
    own.end();
    assert!(wait_readable(&[own.as_fd()], Duration::ZERO).expect("a wait"), "the end can be read");
    drop(other);
    assert_eq!(own.send(b"x").expect_err("nobody").kind(), io::ErrorKind::BrokenPipe);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a child to wait for")]
fn the_end_of_a_process_can_be_waited_for() {
    let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().expect("cat");
    let watched = process::watch_process(Pid::try_from(child.id()).expect("a pid")).expect("a descriptor");
    assert!(!wait_readable(&[watched.as_fd()], Duration::ZERO).expect("a wait"));
    drop(child.stdin.take());
    assert!(wait_readable(&[watched.as_fd()], DEADLINE).expect("a wait"));
    child.wait().expect("an end");
    assert!(process::watch_process(0).is_err());
}
