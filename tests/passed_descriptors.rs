//! Descriptors that others pass along (SCM_RIGHTS, `unix(7)`): to close one may take for ever, and guard never waits for that.

use crate::common::notify::{barrier, speak};
use crate::common::operator::{GUARD, alone, beside, name};
use crate::common::processes::{limit_processes, of_another_user};
use crate::common::{self, Guard, child, children, eventually, everywhere, send, skipped};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};
use std::fs::{self, File};
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};

/// How long the kernel would wait in the close of what is sent here, in seconds.
const LINGER: libc::c_int = 3600;

/// A unix socket in whose queue there is a TCP socket with unsent data that lingers, and the peer that does not read.
fn lingering() -> (UnixDatagram, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut own = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let (peer, _) = listener.accept().expect("a connection");
    own.set_nonblocking(true).expect("a socket");
    while own.write(&[b'x'; 65_536]).is_ok() {}
    setsockopt(&own, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: LINGER }).expect("a socket");
    let (carrier, other) = UnixDatagram::pair().expect("two sockets");
    let rights = [own.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&rights)];
    sendmsg::<()>(other.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).expect("room");
    (carrier, peer)
}

/// Says something with descriptors that linger, of which nobody but the queue holds one when guard goes on. Returns the peer.
fn speak_lingering(guard: &Guard, socket: &str, count: usize) -> TcpStream {
    guard.signal(libc::SIGSTOP);
    eventually("guard at rest", || common::status_field(guard.pid(), "State:").starts_with('T').then_some(()));
    let (carrier, peer) = lingering();
    speak(socket, b"FDSTORE=1", &vec![carrier.as_raw_fd(); count]).expect("it is sent");
    drop(carrier);
    guard.signal(libc::SIGCONT);
    peer
}

fn stops(mut guard: Guard) {
    guard.signal(libc::SIGTERM);
    guard.line("got TERM");
    assert_eq!(guard.code(), 143);
}

#[test]
fn a_socket_that_lingers_in_a_datagram_holds_nothing_up() {
    for setup in everywhere() {
        let mut guard = setup.env("GUARD_NOTIFY", "on").fixture("env serve").start();
        let socket = guard.line_after("env NOTIFY_SOCKET=");
        guard.line("ready");
        for _ in 0..5 {
            let _peer = speak_lingering(&guard, &socket, 60);
            barrier(&socket);
            guard.until_yes(&["ready"]);
        }
        // One is in the queue when the run ends.
        let _peer = speak_lingering(&guard, &socket, 1);
        stops(guard);
    }
}

#[test]
fn a_door_closes_at_once_whatever_is_in_its_queue() {
    let mut guard = child().env("GUARD_NOTIFY", "on").fixture("env ids serve").start();
    let socket = guard.line_after("env NOTIFY_SOCKET=");
    let main: i32 = guard.line_after("pid ").parse().expect("a pid");
    guard.line("ready");
    guard.signal(libc::SIGSTOP);
    let peers: Vec<TcpStream> = (0..5)
        .map(|_| {
            let (carrier, peer) = lingering();
            speak(&socket, b"FDSTORE=1", &[carrier.as_raw_fd()]).expect("it is sent");
            peer
        })
        .collect();
    send(main, libc::SIGKILL);
    guard.signal(libc::SIGCONT);
    assert_eq!(guard.event("restart").get("last"), Some("SIGKILL"));
    guard.line("ready");
    stops(guard);
    drop(peers);
}

#[test]
fn what_finds_no_room_holds_nothing_up_either() {
    let mut guard = child().env("GUARD_NOTIFY", "on").inherits("nofile 40").fixture("env serve").start();
    let socket = guard.line_after("env NOTIFY_SOCKET=");
    guard.line("ready");
    let _peers = [speak_lingering(&guard, &socket, 150), speak_lingering(&guard, &socket, 150)];
    guard.until_yes(&["ready"]);
    barrier(&socket);
    stops(guard);
}

#[test]
fn the_last_reference_to_much_memory_is_dropped_by_another_process() {
    let mut guard = child().env("GUARD_NOTIFY", "on").fixture("env serve").start();
    let socket = guard.line_after("env NOTIFY_SOCKET=");
    guard.line("ready");
    barrier(&socket);
    let schedstat = format!("/proc/{}/schedstat", guard.pid());
    let nanoseconds = || {
        let text = fs::read_to_string(&schedstat).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    let Some(before) = nanoseconds() else { return skipped("the kernel does not count guard's time") };
    let memory = nix::sys::memfd::memfd_create(c"much", nix::sys::memfd::MFdFlags::empty()).expect("a file");
    let mut file = File::from(memory.try_clone().expect("a descriptor"));
    (0..256).for_each(|_| file.write_all(&[1; 1 << 20]).expect("room"));
    drop(file);
    speak(&socket, b"FDSTORE=1", &[memory.as_raw_fd()]).expect("it is sent");
    drop(memory);
    barrier(&socket);
    let used = nanoseconds().expect("guard lives") - before;
    assert!(used < 20_000_000, "guard has freed it itself: {used} ns");
    stops(guard);
}

#[test]
fn a_file_that_nobody_can_close_holds_nothing_up() {
    for setup in everywhere().into_iter().filter(|_| nix::unistd::geteuid().is_root()) {
        let setup = setup.env("GUARD_STOP_TIMEOUT", "1s").env("GUARD_NOTIFY", "on");
        // More than there may be copies of guard.
        let words = "fork hung-file FDSTORE=1 12 . quit USR1 9 quit TERM 143 serve";
        let mut guard = setup.fixture(words).start();
        if guard.line_after("fuse ") == "no" {
            return skipped("there is no /dev/fuse");
        }
        guard.line("sent");
        let asked_for = |children: Vec<i32>| Some(children.len()).filter(|count| *count >= 9);
        let copies = eventually("copies that hang", || asked_for(children(guard.pid())));
        assert!(copies <= 10, "main, its child, and 8 copies at most: {copies}");
        guard.until_yes(&["ready"]);
        guard.signal(libc::SIGUSR1);
        guard.event("restart");
        guard.line("sent");
        guard.until_yes(&["ready"]);
        stops(guard);
    }
}

#[test]
fn where_no_process_can_be_made_guard_tries_again() {
    let Some((setup, user)) = of_another_user() else { return };
    let mut guard = setup.env("GUARD_NOTIFY", "on").fixture("env serve").start();
    let socket = guard.line_after("env NOTIFY_SOCKET=");
    guard.line("ready");
    barrier(&socket);
    limit_processes(&guard, &user, 1);
    let (own, other) = UnixStream::pair().expect("two sockets");
    speak(&socket, b"STATUS=mine\nBARRIER=1", &[other.as_raw_fd()]).expect("it is sent");
    drop(other);
    eventually("the status", || guard.ask(&["status"]).out.contains("mine").then_some(()));
    let before = cpu(guard.pid());
    (0..10).for_each(|_| drop(guard.until_yes(&["ready"])));
    own.set_nonblocking(true).expect("a socket");
    assert!((&own).read(&mut [0]).is_err(), "nobody could take it");
    assert!(cpu(guard.pid()) - before < 5, "guard does not spin");
    limit_processes(&guard, &user, 1000);
    own.set_nonblocking(false).expect("a socket");
    own.set_read_timeout(Some(common::DEADLINE)).expect("a timeout");
    assert_eq!((&own).read(&mut [0]).expect("guard answers"), 0);
    stops(guard);
}

/// What a process has used of the CPU, in ticks of 10 ms.
fn cpu(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum()
}

#[test]
fn the_control_socket_takes_no_descriptors_and_is_not_held_up() {
    let Some(setup) = alone() else { return };
    let mut guard = setup.options([GUARD]).fixture("serve").start();
    guard.line("ready");
    eventually("guard", || (beside(&guard, &[GUARD, "ready"]).code == 0).then_some(()));
    let name = name(guard.pid());
    let mut peers = Vec::new();
    for _ in 0..3 {
        guard.signal(libc::SIGSTOP);
        let (carrier, peer) = lingering();
        let sent = speak(&name, b"guard 1 ping", &[carrier.as_raw_fd()]);
        if let Err(error) = sent {
            // SO_PASSRIGHTS, Linux 6.16. Nobody else has the carrier, so its close would wait for the peer.
            assert_eq!(error, nix::Error::EPERM);
            drop(peer);
        } else {
            peers.push(peer);
        }
        drop(carrier);
        guard.signal(libc::SIGCONT);
        beside(&guard, &[GUARD, "ready"]).yes("ready");
    }
    stops(guard);
}
