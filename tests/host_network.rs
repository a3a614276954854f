//! guard in the host's network, as with `docker run --network host`, whose connections are not its own.

use crate::common::{pid1, skipped};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

/// A connection that a server has closed and whose client takes nothing, which is what the kernel then waits for.
fn somebody_elses_connection() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("a listener");
    setsockopt(&client, sockopt::RcvBuf, &1).expect("a socket");
    let (mut server, _) = listener.accept().expect("a client");
    server.set_nonblocking(true).expect("a socket");
    let full = loop {
        if let Err(error) = server.write(&[0; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    client
}

#[test]
fn the_hosts_connections_do_not_keep_guard() {
    // guard's network namespace is the one of this test.
    if !Path::new("/proc/sys/net/core/dev_weight").exists() {
        return skipped("the network is a container's, so its connections are guard's to wait for");
    }
    let Some(setup) = pid1() else { return };
    let _client = somebody_elses_connection();
    let mut guard = setup.fixture("exit 0").start();
    assert_eq!(guard.code(), 0);
    assert!(!guard.events().iter().any(|event| event.name() == "unsent"), "{}", guard.transcript());
}
