use super::*;
use crate::sys::process;
use nix::sys::socket::{ControlMessage, sendmsg};
use std::fs::File;
use std::io::{IoSlice, Read};
use std::path::Path;

/// Long, since machines are busy, and never waited out where all is well.
const DEADLINE: Duration = Duration::from_secs(20);

fn pair() -> (DatagramSocket, DatagramSocket, Address) {
    let socket = DatagramSocket::bind_anew().expect("a socket");
    let address = Address::abstract_name(&socket.name().expect("a name")).expect("an address");
    (socket, DatagramSocket::bind_anew().expect("a socket"), address)
}

const LONGEST: usize = 4096;

#[test]
fn a_datagram_says_who_sent_it() {
    let (receiver, sender, address) = pair();
    assert!(!wait_readable(&[receiver.as_fd()], Duration::ZERO).expect("a wait"));
    assert_eq!(receiver.receive(LONGEST).expect_err("nothing is there").kind(), io::ErrorKind::WouldBlock);
    sender.send(b"READY=1\n", &address).expect("a receiver");
    assert!(wait_readable(&[receiver.as_fd()], DEADLINE).expect("a wait"));
    let datagram = receiver.receive(LONGEST).expect("a datagram");
    assert_eq!(datagram.bytes, b"READY=1\n");
    assert_eq!(datagram.credentials, Some(Credentials { pid: process::id(), uid: process::effective_uid() }));
    let name = sender.name().expect("a name");
    assert_eq!(datagram.sender, Address::abstract_name(&name).ok());
    assert!(datagram.descriptors.is_empty() && !datagram.truncated);
    assert_eq!(name.len(), 5, "unix(7): a name that the kernel picks has five digits");
}

#[test]
fn a_sender_without_an_address_is_none() {
    let (receiver, _, address) = pair();
    let flags = SockFlag::SOCK_CLOEXEC;
    let sender = nix_socket::socket(AddressFamily::Unix, SockType::Datagram, flags, None).expect("a socket");
    nix_socket::sendto(sender.as_raw_fd(), b"x", &address.0, NEVER_WAIT).expect("a receiver");
    let datagram = receiver.receive(LONGEST).expect("a datagram");
    assert_eq!((datagram.sender, datagram.credentials.map(|sender| sender.pid)), (None, Some(process::id())));
}

#[test]
fn the_close_of_a_socket_that_came_along_does_not_wait() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let bytes = [IoSlice::new(b"FDSTORE=1")];
    let sent = |through: &dyn Fn(&[ControlMessage])| {
        let lingering = std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let linger = libc::linger { l_onoff: 1, l_linger: 60 };
        nix_socket::setsockopt(&lingering, sockopt::Linger, &linger).expect("a socket");
        through(&[ControlMessage::ScmRights(&[lingering.as_raw_fd()])]);
        lingering
    };
    let lingers = |socket| nix_socket::getsockopt(&socket, sockopt::Linger).expect("a socket").l_onoff == 1;

    let (receiver, sender, address) = pair();
    let socket = sent(&|message| {
        sendmsg(sender.0.as_raw_fd(), &bytes, message, NEVER_WAIT, Some(&address.0)).expect("a receiver");
    });
    drop(receiver.receive(LONGEST).expect("a datagram"));
    assert!(!lingers(socket), "with a datagram");

    let (own, other) = channel().expect("a channel");
    let socket = sent(&|message| {
        sendmsg::<()>(other.as_raw_fd(), &bytes, message, NEVER_WAIT, None).expect("a receiver");
    });
    let mut buffer = [0; 4096];
    assert_eq!(read(&own, &mut buffer), Ok(9));
    assert_eq!(buffer[..9], *b"FDSTORE=1");
    assert!(!lingers(socket), "through a channel");
}

#[test]
fn descriptors_come_closed_on_exec_and_close_with_the_datagram() {
    let (receiver, sender, address) = pair();
    let (reader, writer) = pipe().expect("a pipe");
    let numbers = [writer.as_raw_fd(); 253];
    let message = [ControlMessage::ScmRights(&numbers)];
    let bytes = [IoSlice::new(b"BARRIER=1")];
    sendmsg(sender.0.as_raw_fd(), &bytes, &message, NEVER_WAIT, Some(&address.0)).expect("a receiver");
    drop(writer);
    let datagram = receiver.receive(LONGEST).expect("a datagram");
    assert_eq!(datagram.descriptors.len(), 253, "SCM_MAX_FD, unix(7)");
    assert!(datagram.credentials.is_some());
    for descriptor in &datagram.descriptors {
        let flags = fcntl(descriptor, FcntlArg::F_GETFD).expect("an open descriptor");
        assert_eq!(flags, libc::FD_CLOEXEC);
    }
    assert!(!wait_readable(&[reader.as_fd()], Duration::ZERO).expect("a wait"), "still open");
    drop(datagram);
    assert_eq!(File::from(reader).read(&mut [0; 8]).expect("the end"), 0);
}

#[test]
fn what_is_too_long_is_cut() {
    let (receiver, sender, address) = pair();
    sender.send(&vec![b'x'; LONGEST], &address).expect("a receiver");
    sender.send(&vec![b'x'; LONGEST + 1], &address).expect("a receiver");
    sender.send(b"", &address).expect("a receiver");
    let received = std::iter::from_fn(|| receiver.receive(LONGEST).ok());
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
    assert_eq!(sender.send(b"x", &address).expect_err("nobody").kind(), io::ErrorKind::ConnectionRefused);
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
    let seen = receiver.receive(LONGEST).expect("a datagram").sender.expect("an address");
    assert_eq!(seen.0.path(), Some(Path::new(&path)));
}

#[test]
fn a_channel_is_guards_own_at_one_end() {
    let (own, other) = channel().expect("a channel");
    for end in [&own, &other] {
        assert_eq!(fcntl(end, FcntlArg::F_GETFD).expect("open"), libc::FD_CLOEXEC);
    }
    let waits = |end| fcntl(end, FcntlArg::F_GETFL).expect("open") & libc::O_NONBLOCK == 0;
    assert!(!waits(&own) && waits(&other));
    assert_eq!(send(&own, b"\"drain\"\n").expect("room"), 8);
    end(&own);
    assert!(wait_readable(&[own.as_fd()], Duration::ZERO).expect("a wait"), "the end can be read");
    drop(other);
    assert_eq!(send(&own, b"x").expect_err("nobody").kind(), io::ErrorKind::BrokenPipe);
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
