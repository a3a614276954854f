//! A client that says what it wants when it wants, and reads what comes, byte by byte.

use crate::common::DEADLINE;
use std::io::{Read, Write};
use std::net::TcpStream;

/// A connection to the server, with what it has said.
pub(crate) struct Client {
    stream: TcpStream,
    said: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: &str) -> Client {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        Client { stream, said: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server reads");
    }

    /// Reads until it has said this, and forgets all up to there.
    pub(crate) fn hear(&mut self, what: impl AsRef<[u8]>) -> String {
        let what = what.as_ref();
        loop {
            if let Some(start) = self.said.windows(what.len()).position(|part| part == what) {
                let heard: Vec<u8> = self.said.drain(..start + what.len()).collect();
                return String::from_utf8_lossy(&heard).to_ascii_lowercase();
            }
            let mut bytes = [0; 1024];
            let count = self.stream.read(&mut bytes).expect("the server goes on");
            assert_ne!(count, 0, "the end, before {:?}", String::from_utf8_lossy(what));
            self.said.extend(&bytes[..count]);
        }
    }

    /// Sends a request without a body, and reads the response up to the end of its body.
    pub(crate) fn get(&mut self, path: &str, end: &str) -> String {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.hear(end)
    }

    /// Waits until the server has closed the connection, having said nothing more.
    pub(crate) fn closed(mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).expect("an end in order");
        assert!(self.said.is_empty() && rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }
}
