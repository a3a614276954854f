//! A download that the server cannot have done with before the client reads on.

use crate::common::DEADLINE;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Bytes of the body, as images/servers.Dockerfile has it.
pub(super) const SIZE: usize = 64 << 20;

/// A response of which the head was read, and a part of its body.
pub(super) struct Transfer {
    stream: TcpStream,
    body: usize,
}

impl Transfer {
    pub(super) fn begin(address: &str) -> Transfer {
        let mut stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        stream.write_all(b"GET /big HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("a request");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        Transfer { stream, body: 0 }
    }

    /// Whether nobody listens any more.
    pub(super) fn is_refused(address: &str) -> bool {
        TcpStream::connect(address).is_err()
    }

    /// Reads on to the end, whatever that is, and says how long the body was.
    pub(super) fn rest(mut self) -> usize {
        if let Err(error) = self.read() {
            println!("a transfer ended after {} bytes: {error}", self.body);
        }
        self.body
    }

    /// How much of the body has come, when the server is gone.
    pub(super) fn arrived(mut self) -> usize {
        // There may be no end to hear of: the network went away with the container.
        self.stream.set_nonblocking(true).expect("a socket");
        let _ = self.read();
        self.body
    }

    fn read(&mut self) -> std::io::Result<()> {
        let mut bytes = [0; 1 << 16];
        loop {
            match self.stream.read(&mut bytes)? {
                0 => return Ok(()),
                count => self.body += count,
            }
        }
    }
}
