//! `guard probe URL`: asks a server whether it is alive, for images without curl.

use super::timeout;
use crate::config::arguments::{Argument, Arguments};
use crate::config::duration;
use crate::config::subcommands::Invocation;
use crate::config::target::{FORMS, Server, Target, parse_host};
use crate::sys::clock::{Deadline, OVERSLEPT};
use crate::sys::fork::{spawn_copy, wait_for_copy};
use crate::sys::socket::wait_readable;
use crate::text::printable;
use anyhow::bail;
use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A probe reads at most this much of a response.
const LONGEST_HEAD: u64 = 16 * 1024;

/// The exit code if the server is not alive.
pub const FAILED: u8 = 1;

/// A probe has not passed, for this reason: [`FAILED`].
#[derive(Debug)]
pub struct Failed(String);

impl std::error::Error for Failed {}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Probes. The error is [`Failed`], or says what is wrong with the command line.
pub fn run(words: &[OsString]) -> anyhow::Result<()> {
    let usage = || format!("{}, where URL is {FORMS}", Invocation::Probe.usage());
    let Question { target, host, timeout } =
        parse(words).map_err(|problem| anyhow::Error::msg(format!("{}; {}", printable(&problem), usage())))?;
    let name = target.to_string();
    let work = || probe(&target, &host, timeout);
    match ask_in_copy(work, timeout) {
        Err(error) => bail!("{name}: no process can be made to ask it: {error}"),
        Ok(Ok(())) => Ok(()),
        Ok(Err(reason)) => bail!(Failed(format!("{name}: {reason}"))),
    }
}

/// A copy of this process asks, since a copy can be abandoned: the C library's resolver knows no deadline, and a server may send a
/// byte now and then for ever. The inner result is the answer; its error says why the server is not alive.
fn ask_in_copy(work: impl FnOnce() -> Result<(), String>, timeout: Duration) -> std::io::Result<Result<(), String>> {
    let mut deadline = Deadline::after(timeout);
    let (mut reader, mut writer) = std::io::pipe()?;
    let copy = spawn_copy(|| {
        let answer = work().map_or_else(|why| format!("-{why}"), |()| "+".to_owned());
        let _ = writer.write_all(answer.as_bytes());
    })?;
    drop(writer);
    let mut answer = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let left = deadline.left();
        let overslept = Deadline::after(left.saturating_add(OVERSLEPT));
        if !wait_readable(&[reader.as_fd()], left)? && deadline.left().is_zero() {
            if overslept.left().is_zero() {
                // The container was paused, and the server with it.
                deadline = Deadline::after(left);
                continue;
            }
            // The copy ends with this process.
            return Ok(Err(format!("no answer within {}", duration::show(timeout))));
        }
        match reader.read(&mut buffer)? {
            0 => break,
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    wait_for_copy(copy);
    Ok(match answer.split_first() {
        Some((b'+', _)) => Ok(()),
        Some((_, why)) => Err(String::from_utf8_lossy(why).into_owned()),
        None => Err("the process that asked was killed".to_owned()),
    })
}

/// What the command line asks.
struct Question {
    target: Target,
    /// The value of HTTP's Host field.
    host: String,
    timeout: Duration,
}

fn parse(words: &[OsString]) -> Result<Question, String> {
    let mut target: Option<Target> = None;
    let mut host = None;
    let mut timeout = Duration::from_secs(1);
    let mut arguments = Arguments::new(words.to_vec());
    while let Some(argument) = arguments.next() {
        match argument {
            Argument::Option(name, inline) if name == "--timeout" => {
                let value = arguments.text(&name, inline)?;
                let parsed = timeout::parse(&value).ok().filter(|timeout| !timeout.is_zero());
                timeout = parsed
                    .ok_or_else(|| format!("--timeout {value}: it takes a duration above zero such as 500ms or 2s"))?;
            }
            Argument::Option(name, inline) if name == "--host" => {
                let value = arguments.text(&name, inline)?;
                host = Some(parse_host(&value).map_err(|problem| format!("--host {value}: {problem}"))?);
            }
            Argument::Option(name, _) => return Err(format!("{name}: no such option")),
            Argument::Separator => return Err("--: no such option".to_owned()),
            Argument::Word(word) => {
                let word = word.to_string_lossy();
                if target.is_some() {
                    return Err(format!("{word}: one URL at a time"));
                }
                target = Some(Target::parse(&word).map_err(|error| format!("{word}: {error}"))?);
            }
        }
    }
    let target = target.ok_or("no URL")?;
    Ok(Question { host: host.unwrap_or_else(|| target.authority()), target, timeout })
}

fn probe(target: &Target, host: &str, timeout: Duration) -> Result<(), String> {
    let deadline = Deadline::after(timeout);
    // Reads and writes are the same for both kinds.
    let stream: UnixStream = match &target.server {
        Server::Network(host, port) => {
            let addresses = (host.as_str(), *port).to_socket_addrs();
            let addresses: Vec<SocketAddr> = addresses.map_err(|_| "no such host".to_owned())?.collect();
            OwnedFd::from(connect_to_any(&addresses, deadline)?).into()
        }
        // connect(2) waits where the queue is full; `run` does not.
        Server::Socket(path) => UnixStream::connect(path).map_err(|error| explain(&error))?,
    };
    target.path.as_ref().map_or(Ok(()), |path| request(stream, host, path))
}

fn explain(error: &std::io::Error) -> String {
    if error.kind() == ErrorKind::ConnectionRefused {
        "connection refused".to_owned()
    } else if error.kind() == ErrorKind::NotFound {
        "no such socket".to_owned()
    } else {
        error.to_string()
    }
}

/// Connects to the first address that accepts.
fn connect_to_any(addresses: &[SocketAddr], deadline: Deadline) -> Result<TcpStream, String> {
    let mut failure = "no such host".to_owned();
    for (index, address) in addresses.iter().enumerate() {
        // An address that never answers leaves time for the next ones.
        let rest = u32::try_from(addresses.len() - index).unwrap_or(1);
        match connect(address, deadline.left() / rest) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn connect(address: &SocketAddr, timeout: Duration) -> Result<TcpStream, String> {
    // connect_timeout refuses zero, which means that `run` has stopped waiting.
    let silent = |kind| [ErrorKind::TimedOut, ErrorKind::WouldBlock].contains(&kind);
    TcpStream::connect_timeout(address, timeout.max(Duration::from_millis(1)))
        .map_err(|error| if silent(error.kind()) { format!("{address} does not answer") } else { explain(&error) })
}

/// Sends a request and judges the status of the response (RFC 9112). Redirects are not followed.
fn request(mut stream: UnixStream, host: &str, path: &str) -> Result<(), String> {
    let text = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: guard-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    // A server may answer and close before it has read the whole request: its answer counts.
    let sent = stream.write_all(text.as_bytes());
    let mut head = Vec::new();
    let mut stream = stream.take(LONGEST_HEAD);
    let mut buffer = [0; 1024];
    loop {
        match read_head(&head) {
            Head::Code(200..=399) => return Ok(()),
            Head::Code(code) => return Err(format!("status {code}")),
            Head::NoHttp => return Err("the answer is not HTTP".to_owned()),
            Head::Unfinished => {}
        }
        match stream.read(&mut buffer) {
            Ok(0) if head.is_empty() => return Err("closed without an answer".to_owned()),
            Ok(0) => return Err("the answer is not HTTP".to_owned()),
            Ok(count) => head.extend(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(sent.err().unwrap_or(error).to_string()),
        }
    }
}

/// The part of a response that has been read so far.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    Code(u16),
    NoHttp,
    Unfinished,
}

/// The first status that is not an interim one (1xx).
fn read_head(head: &[u8]) -> Head {
    let mut rest = head;
    loop {
        const VERSION: &[u8] = b"HTTP/1.";
        let known = rest.len().min(VERSION.len());
        if rest[..known] != VERSION[..known] {
            return Head::NoHttp;
        }
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { return Head::Unfinished };
        let line = String::from_utf8_lossy(&rest[..end]);
        let code = line.split_ascii_whitespace().nth(1).filter(|code| code.len() == 3);
        match code.and_then(|code| code.parse().ok()) {
            Some(100..=199) => {}
            Some(code) => return Head::Code(code),
            None => return Head::NoHttp,
        }
        let blank = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let Some(blank) = blank else { return Head::Unfinished };
        rest = &rest[blank + 4..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// `listen(2)`: what comes when the queue is full is not answered.
    #[test]
    fn an_address_that_never_answers_leaves_time_for_the_next() {
        let [full, free] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let [hole, next] = [&full, &free].map(|listener| listener.local_addr().expect("it is bound"));
        let fill = || TcpStream::connect_timeout(&hole, Duration::from_millis(300)).ok();
        let queue: Vec<TcpStream> = std::iter::from_fn(fill).collect();
        let deadline = Deadline::after(Duration::from_secs(4));
        let stream = connect_to_any(&[hole, next], deadline).expect("the second one is there");
        assert_eq!(stream.peer_addr().ok(), Some(next));
        assert!(!deadline.left().is_zero(), "the first one had all the time, behind {} connections", queue.len());
        let error = connect_to_any(&[hole], Deadline::after(Duration::from_millis(100))).expect_err("full");
        assert_eq!(error, format!("{hole} does not answer"));
    }

    #[test]
    fn the_status_is_found_as_soon_as_it_is_there() {
        for (head, expected) in [
            ("", Head::Unfinished),
            ("HTT", Head::Unfinished),
            ("HTTP/1.1 200 OK\r", Head::Unfinished),
            ("HTTP/1.1 200 OK\r\n", Head::Code(200)),
            ("HTTP/1.0 503\r\n", Head::Code(503)),
            ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", Head::Unfinished),
            ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 x\r\n", Head::Code(204)),
            ("SSH-2.0-OpenSSH\r\n", Head::NoHttp),
            ("HTTP/1.1 2000 x\r\n", Head::NoHttp),
            ("HTTP/1.1\r\n", Head::NoHttp),
            ("HTTP/2 200\r\n", Head::NoHttp),
        ] {
            assert_eq!(read_head(head.as_bytes()), expected, "{head:?}");
        }
    }
}
