//! The HTTP door (GUARD_HTTP): read-only pages for probes and for Prometheus, in plain HTTP/1.1 (RFC 9112).
//!
//! One connection brings one request and takes one answer. Their number, the bytes of a request and the time of each are
//! bounded: where there are too many, the oldest connection makes room. Nothing here waits. The door has a poll of its own,
//! so that guard's knows one descriptor, and a ticker that runs only while there is a connection.

mod request;

pub use request::Page;

use super::{Door, Message, Received};
use crate::sys::errno::is_shortage;
use crate::sys::file::errno_of;
use crate::sys::poll::{Poll, Token};
use crate::sys::ticker::Ticker;
use request::{Parsed, Refusal, parse};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Connections at a time.
const MOST: usize = 32;

/// Connections taken per wake-up.
const AT_ONCE: usize = 8;

/// The longest head of a request, its line and header fields, in bytes.
const LONGEST_HEAD: usize = 8 * 1024;

/// What a client may send after its request, in bytes.
const LONGEST_REST: usize = 64 * 1024;

/// How long a connection lives, in ticks. The last tick counts though it may be a short one.
const LONGEST_LIFE: u32 = 6;

/// How often the door closes connections whose time is over.
const TICK: Duration = Duration::from_secs(1);

const LISTENER: Token = 0;
const TICKER: Token = 1;
const FIRST_CLIENT: Token = 2;

/// guard's end.
pub struct Http {
    poll: Poll,
    listener: TcpListener,
    ticker: Ticker,
    /// The oldest first.
    connections: Vec<Connection>,
    next: Token,
    /// The kernel had no room for another connection: the door takes none until the next tick.
    rests: bool,
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpClient {
    connection: Token,
    head_only: bool,
}

/// What guard answers.
pub struct Answer {
    /// 200, or 503 (RFC 9110, 15.6.4).
    pub yes: bool,
    pub content_type: &'static str,
    pub body: String,
}

struct Connection {
    token: Token,
    stream: TcpStream,
    state: State,
    /// Ticks that it has seen.
    age: u32,
}

enum State {
    /// The request so far.
    Reading(Vec<u8>),
    /// The rest of the answer.
    Writing(Vec<u8>),
    /// The answer is on its way. What the client still sends is thrown away, so many bytes so far: closing at once would make the kernel
    /// reset the connection, and the client might never read the answer (RFC 9112, 9.6).
    Closing(usize),
}

impl Http {
    /// Waits for clients of a socket that listens and never waits. Errors are those of `epoll_ctl(2)` and
    /// `timerfd_create(2)`.
    pub fn open(listener: TcpListener) -> io::Result<Http> {
        let poll = Poll::new()?;
        let ticker = Ticker::new(TICK)?;
        poll.add(listener.as_fd(), LISTENER)?;
        poll.add(ticker.as_fd(), TICKER)?;
        Ok(Http { poll, listener, ticker, connections: Vec::new(), next: FIRST_CLIENT, rests: false })
    }

    /// Answers, if the client is still there.
    pub fn answer(&mut self, client: HttpClient, answer: &Answer) {
        let status = if answer.yes { "200 OK" } else { "503 Service Unavailable" };
        self.respond(client, status, "", answer.content_type, &answer.body);
    }

    fn refuse(&mut self, connection: Token, refusal: Refusal) {
        // An answer to HEAD has no body, whatever it says (RFC 9110, 9.3.2).
        let client = HttpClient { connection, head_only: refusal == Refusal::NoPage { head_only: true } };
        let fields = if refusal == Refusal::Method { "Allow: GET, HEAD\r\n" } else { "" };
        self.respond(client, refusal.status(), fields, "text/plain; charset=utf-8", refusal.text());
    }

    fn respond(&mut self, client: HttpClient, status: &str, fields: &str, content_type: &str, body: &str) {
        let mut response = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n{fields}Connection: close\r\n\r\n",
            body.len()
        );
        if !client.head_only {
            response.push_str(body);
        }
        let Some(index) = self.connections.iter().position(|connection| connection.token == client.connection) else {
            return;
        };
        self.connections[index].state = State::Writing(response.into_bytes());
        self.write(index);
    }

    /// Takes the connections that have come, up to a bound.
    fn accept(&mut self) {
        for _ in 0..AT_ONCE {
            match self.listener.accept() {
                Ok((stream, _)) => self.welcome(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The connection stays in the queue, and would wake guard at once.
                Err(error) if is_shortage(errno_of(&error)) => {
                    self.poll.remove(self.listener.as_fd());
                    self.rests = true;
                    return self.ticker.run(true);
                }
                // It is of the connection, which has ended early, and not of the listener (`accept(2)`).
                Err(_) => {}
            }
        }
    }

    fn welcome(&mut self, stream: TcpStream) {
        if self.connections.len() >= MOST {
            // Whatever it waits for: a stranger who keeps connections open must not make a new one the next to go.
            self.close(0);
        }
        let token = self.next;
        self.next += 1;
        if stream.set_nonblocking(true).is_ok() && self.poll.add(stream.as_fd(), token).is_ok() {
            self.connections.push(Connection { token, stream, state: State::Reading(Vec::new()), age: 0 });
            self.ticker.run(true);
        }
    }

    /// Closes a connection. A copy of guard may have the socket too, so guard shuts it down and takes it out of the poll.
    fn close(&mut self, index: usize) {
        let connection = self.connections.remove(index);
        self.poll.remove(connection.stream.as_fd());
        let _ = connection.stream.shutdown(Shutdown::Both);
        self.ticker.run(!self.connections.is_empty() || self.rests);
    }

    /// Closes what is too old, and takes connections again.
    fn tick(&mut self) {
        self.ticker.take();
        if std::mem::take(&mut self.rests) && self.poll.add(self.listener.as_fd(), LISTENER).is_err() {
            self.rests = true;
        }
        self.connections.iter_mut().for_each(|connection| connection.age += 1);
        while let Some(index) = self.connections.iter().position(|connection| connection.age >= LONGEST_LIFE) {
            self.close(index);
        }
        self.ticker.run(!self.connections.is_empty() || self.rests);
    }

    /// Goes on with a connection that has something to read, or room to write.
    fn proceed(&mut self, token: Token) -> Option<Message> {
        let index = self.connections.iter().position(|connection| connection.token == token)?;
        if let State::Writing(_) = self.connections[index].state {
            self.write(index);
            return None;
        }
        let Connection { stream, state, .. } = &mut self.connections[index];
        let mut buffer = [0; 1024];
        let count = match stream.read(&mut buffer) {
            Ok(0) => None,
            Ok(count) => Some(count),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Some(0),
            Err(_) => None,
        };
        let head = match (count, state) {
            (Some(count), State::Reading(head)) => {
                head.extend_from_slice(&buffer[..count]);
                head
            }
            (Some(count), State::Closing(thrown_away)) if *thrown_away < LONGEST_REST => {
                *thrown_away += count;
                return None;
            }
            (_, State::Reading(_) | State::Closing(_) | State::Writing(_)) => {
                self.close(index);
                return None;
            }
        };
        match parse(head) {
            Ok(Parsed::Request { page, head_only }) => {
                return Some(Message::Page(page, HttpClient { connection: token, head_only }));
            }
            Ok(Parsed::Unfinished) if head.len() <= LONGEST_HEAD => {}
            Ok(Parsed::Unfinished) => self.refuse(token, Refusal::TooLong),
            Err(refusal) => self.refuse(token, refusal),
        }
        None
    }

    /// Writes what there is room for.
    fn write(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let (token, stream) = (connection.token, &mut connection.stream);
        let State::Writing(rest) = &mut connection.state else { return };
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(count) => drop(rest.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.poll.add_once_for_writing(stream.as_fd(), token).is_err() {
                        self.close(index);
                    }
                    return;
                }
                Err(_) => return self.close(index),
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
        connection.state = State::Closing(0);
        let stream = &connection.stream;
        // It may have waited for room to write.
        self.poll.remove(stream.as_fd());
        if self.poll.add(stream.as_fd(), token).is_err() {
            self.close(index);
        }
    }
}

impl Door for Http {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }

    fn receive(&mut self) -> Received {
        let mut received = Received::default();
        for token in self.poll.wait(Some(Duration::ZERO)).iter() {
            match token {
                LISTENER => self.accept(),
                TICKER => self.tick(),
                client => received.messages.extend(self.proceed(client)),
            }
        }
        received
    }
}

#[cfg(test)]
mod tests;
