//! guard's end of Node's IPC channel: a stream with one JSON value a line, in both directions.
//!
//! guard reads it always, since a full channel would keep a finished app from exiting. guard writes whole lines only, since a
//! piece of one would crash the app. guard closes the descriptors that the app sends (`process.send(message, handle)`), and says
//! that they have come: until then Node keeps all later messages back.

use super::{Door, Message, Received};
use crate::supervisor::{Event, RunId};
use crate::sys::rights::Receiver;
use crate::sys::socket::{Piece, Stream};
use crate::sys::{Errno, Pid};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// 64 KiB per wake-up.
const READS: usize = 16;

/// How much guard keeps of a line, in bytes. The only line that matters is far shorter.
const LONGEST_LINE: usize = 64;

/// How a message begins that comes with a handle, and the answer to it (lib/internal/child_process.js of Node).
const HANDLE: &[u8] = b"{\"cmd\":\"NODE_HANDLE\",";
const HANDLE_HAS_COME: &[u8] = b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n";

/// What guard says to the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppMessage {
    /// A drain has begun.
    Drain,
    /// The same as the stop signal.
    Shutdown,
}

/// The channel of one run.
pub struct NodeIpc {
    run: RunId,
    stream: Stream,
    line: Line,
    /// Bytes that came with descriptors: guard has handled them, and they are still at the head of the stream.
    handled: Vec<u8>,
}

impl NodeIpc {
    /// A channel, and the end of it that is the app's (NODE_CHANNEL_FD).
    pub fn open(run: RunId) -> io::Result<(NodeIpc, OwnedFd)> {
        let (stream, of_the_app) = Stream::open()?;
        Ok((NodeIpc { run, stream, line: Line::default(), handled: Vec::new() }, of_the_app))
    }

    /// Sends a message; `false` if the channel is full or closed, so the app will not get it.
    pub fn send(&mut self, message: AppMessage) -> bool {
        self.send_line(match message {
            AppMessage::Drain => b"\"drain\"\n",
            AppMessage::Shutdown => b"\"shutdown\"\n",
        })
    }

    fn send_line(&mut self, line: &[u8]) -> bool {
        match self.stream.send(line) {
            Ok(count) if count < line.len() => {
                // The app would take what follows for the rest of this line. The next read finds the end.
                self.stream.end();
                false
            }
            result => result.is_ok(),
        }
    }
}

impl Door for NodeIpc {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    fn receive(&mut self) -> Received {
        let (mut received, mut heard) = (Received::default(), Heard::default());
        for _ in 0..READS {
            match self.stream.peek() {
                Ok(Piece::Bytes(bytes)) => {
                    self.line.read(&bytes, &mut heard);
                    if self.stream.discard(bytes.len()).is_err() {
                        received.closed = true;
                        break;
                    }
                    continue;
                }
                Ok(Piece::WithDescriptors(bytes)) => {
                    received.descriptors = true;
                    if self.handled.is_empty() {
                        self.line.read(&bytes, &mut heard);
                        self.handled = bytes;
                    }
                }
                Ok(Piece::End) => received.closed = true,
                Err(Errno::EINTR) => continue,
                Err(error) => received.closed = error != Errno::EAGAIN,
            }
            break;
        }
        for _ in 0..heard.handles {
            self.send_line(HANDLE_HAS_COME);
        }
        received.messages.extend(heard.ready.then_some(Message::Event(Event::SaidReady(self.run))));
        received
    }

    fn receive_in_copy(&mut self) -> Result<Receiver, Errno> {
        self.stream.receive_in_copy(self.handled.len())
    }

    fn received(&mut self, reported: bool) {
        let is_there = || match self.stream.peek() {
            Ok(Piece::WithDescriptors(bytes)) => bytes.starts_with(&self.handled),
            Ok(Piece::Bytes(_) | Piece::End) | Err(_) => false,
        };
        if reported || !is_there() {
            self.handled.clear();
        }
    }

    fn close(self) -> Option<Pid> {
        self.stream.close()
    }
}

/// What lines have said.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    ready: bool,
    /// Messages that come with a handle, each of which Node wants to be told of.
    handles: usize,
}

/// The beginning of the line that is being read.
#[derive(Default)]
struct Line(Vec<u8>);

impl Line {
    /// Reads on. The app is ready if a line was exactly the string `"ready"`.
    fn read(&mut self, bytes: &[u8], heard: &mut Heard) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let room = LONGEST_LINE - self.0.len();
            self.0.extend(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                // A line that fills the buffer may have been longer.
                heard.ready |= self.0.len() < LONGEST_LINE && self.0.trim_ascii() == b"\"ready\"";
                heard.handles += usize::from(self.0.starts_with(HANDLE));
                self.0.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::{Read, Write};

    const RUN: RunId = RunId { instance: 0, number: 1 };

    fn channel() -> (NodeIpc, File) {
        let (door, of_the_app) = NodeIpc::open(RUN).expect("a channel");
        (door, File::from(of_the_app))
    }

    fn is_ready(received: &Received) -> bool {
        received.messages == [Message::Event(Event::SaidReady(RUN))]
    }

    #[test]
    fn only_the_string_ready_is_heard() {
        for (text, expected) in [
            ("\"ready\"\n", true),
            (" \t\"ready\" \r\n", true),
            ("{\"type\":\"x\"}\n\"ready\"\n[1]\n\"ready\"\n", true),
            ("ready\n", false),
            ("\"ready\"", false),
            ("[\"ready\"]\n", false),
            ("\"Ready\"\n\"ready\" 1\n\n", false),
            (&format!("\"ready\"{}\n", " ".repeat(LONGEST_LINE)), false),
            (&format!("\"ready\"{}x\n", " ".repeat(LONGEST_LINE)), false),
        ] {
            let (mut door, mut app) = channel();
            app.write_all(text.as_bytes()).expect("room");
            let received = door.receive();
            assert!(!received.closed, "{text:?}");
            assert_eq!(is_ready(&received), expected, "{text:?}");
            assert_eq!(received.messages.len(), usize::from(expected), "{text:?}");
        }
    }

    #[test]
    fn a_line_may_come_in_pieces() {
        let (mut door, mut app) = channel();
        for piece in ["\"re", "ad", "y\""] {
            app.write_all(piece.as_bytes()).expect("room");
            assert!(door.receive().messages.is_empty());
        }
        app.write_all(b"\n\"rea").expect("room");
        assert!(is_ready(&door.receive()));
        app.write_all(b"dy\"\n").expect("room");
        assert!(is_ready(&door.receive()));
    }

    #[test]
    fn each_message_with_a_handle_has_an_answer() {
        let (mut door, mut app) = channel();
        let with_handle = "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Server\",\"msg\":{\"cmd\":\"NODE_HANDLE\"}}\n";
        for piece in [with_handle, "\"NODE_HANDLE\"\n", with_handle] {
            app.write_all(piece.as_bytes()).expect("room");
        }
        door.receive();
        drop(door);
        let mut said = String::new();
        app.read_to_string(&mut said).expect("text");
        assert_eq!(said, "{\"cmd\":\"NODE_HANDLE_ACK\"}\n".repeat(2));
    }

    #[test]
    fn a_line_without_an_end_costs_nothing() {
        let (mut line, mut heard) = (Line::default(), Heard::default());
        for _ in 0..2_560 {
            line.read(&[b'x'; 4096], &mut heard);
        }
        assert_eq!(heard, Heard::default());
        assert!(line.0.capacity() <= 2 * LONGEST_LINE, "{}", line.0.capacity());
        line.read(b"\n\"ready\"\n", &mut heard);
        assert!(heard.ready, "the next one counts again");
    }

    #[test]
    fn no_more_than_its_share_is_taken_at_once() {
        let (mut door, app) = channel();
        let flags = FcntlArg::F_SETFL(OFlag::O_NONBLOCK);
        fcntl(&app, flags).expect("a descriptor");
        let mut filled = 0;
        while let Ok(count) = (&app).write(&[b'\n'; 4096]) {
            filled += count;
        }
        assert!(filled > 100_000, "{filled} bytes fill it");
        let mut wakeups = 0;
        drop(app);
        while !door.receive().closed {
            wakeups += 1;
        }
        assert_eq!(wakeups, filled / 65_536, "{filled}");
    }

    #[test]
    fn words_are_lines_and_their_own_end_is_seen() {
        let (mut door, mut app) = channel();
        assert!(door.send(AppMessage::Drain) && door.send(AppMessage::Shutdown));
        let mut said = [0; 19];
        app.read_exact(&mut said).expect("two lines");
        assert_eq!(&said, b"\"drain\"\n\"shutdown\"\n");
        drop(app);
        assert!(!door.send(AppMessage::Drain), "nobody hears it");
        assert!(door.receive().closed);
    }

    #[test]
    fn a_full_channel_takes_whole_lines_or_none() {
        let (mut door, mut app) = channel();
        let lines = (0..).take_while(|_| door.send(AppMessage::Shutdown)).count();
        assert!(!door.receive().closed, "still open");
        drop(door);
        let mut said = String::new();
        app.read_to_string(&mut said).expect("text");
        assert_eq!(said.lines().filter(|line| *line == "\"shutdown\"").count(), lines);
        assert_eq!(said.len(), lines * 11);
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(text in "[\"a-z \n]*|(\"ready\"[ \n]){0,9}", at in any::<prop::sample::Index>()) {
            let (head, tail) = text.as_bytes().split_at(at.index(text.len() + 1));
            let (mut line, mut in_pieces, mut at_once) = (Line::default(), Heard::default(), Heard::default());
            line.read(head, &mut in_pieces);
            line.read(tail, &mut in_pieces);
            Line::default().read(text.as_bytes(), &mut at_once);
            prop_assert_eq!(in_pieces, at_once);
        }
    }
}
