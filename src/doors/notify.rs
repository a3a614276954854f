//! A run's notify socket (`sd_notify(3)`). Each run has its own, which closes with the run, so guard knows the run of each
//! message. Every process of guard's PID namespace may write to it, whatever its user, since apps change theirs.

mod file;

use super::queue::Queue;
use super::{Door, Message, Received, Restricted};
use crate::supervisor::{Event, RunId};
use crate::sys::rights::Receiver;
use crate::sys::socket::{Credentials, Datagram, DatagramSocket};
use crate::sys::{Errno, Pid};
use crate::text::cut;
use file::SocketFile;
pub use file::remove_stale;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// The longest datagram, in bytes: systemd takes as much (PIPE_BUF).
pub const LONGEST: usize = 4096;

/// Datagrams received per wake-up.
const AT_ONCE: usize = 16;

/// Datagrams read when the run has ended. A queue has 10, under systemd 512 (net.unix.max_dgram_qlen, `unix(7)`).
const REST: usize = 1024;

/// How much of a STATUS guard keeps, in bytes.
const LONGEST_STATUS: usize = 400;

/// The socket of one run.
pub struct Notify {
    run: RunId,
    /// `None` for a socket with an abstract name. This field comes first, so the file is removed before the socket closes.
    file: Option<SocketFile>,
    queue: Queue,
    was_written_to: bool,
}

impl Notify {
    /// A socket whose name no other has: a file where one can be made, else an abstract name.
    pub fn open(run: RunId) -> io::Result<Notify> {
        let (file, socket) = match SocketFile::bind() {
            Some((file, socket)) => (Some(file), socket),
            None => (None, DatagramSocket::bind_anew()?),
        };
        Ok(Notify { run, file, queue: Queue::new(socket, LONGEST), was_written_to: false })
    }

    /// The value of NOTIFY_SOCKET: a path, or `@` and an abstract name.
    pub fn name(&self) -> io::Result<OsString> {
        match &self.file {
            Some(file) => Ok(file.path().into_os_string()),
            None => Ok(format!("@{}", String::from_utf8_lossy(&self.queue.socket.name()?)).into()),
        }
    }

    /// Whether anything has come from a process that may use this socket.
    pub fn was_written_to(&self) -> bool {
        self.was_written_to
    }

    /// Whether there is something to receive.
    pub fn has_something(&self) -> bool {
        self.queue.socket.has_something()
    }

    /// All that the run has said before its main process ended. Datagrams that are behind one with descriptors stay in the
    /// queue, and are not handled again.
    pub fn receive_rest(&mut self) -> Received {
        let mut received = Received { descriptors: true, ..Received::default() };
        if !self.queue.has_copy() {
            received = self.receive_up_to(REST);
        }
        if received.descriptors {
            for datagram in self.queue.peek_queue(REST) {
                self.was_written_to |= read(self.run, &datagram, &mut received.messages);
            }
        }
        received
    }

    fn receive_up_to(&mut self, datagrams: usize) -> Received {
        let Notify { run, queue, was_written_to, .. } = self;
        queue.receive(datagrams, &mut |_, datagram, messages| *was_written_to |= read(*run, datagram, messages))
    }
}

/// Adds the messages of a datagram; `false` if its sender may not use the socket.
fn read(run: RunId, datagram: &Datagram, messages: &mut Vec<Message>) -> bool {
    let Some(sender) = datagram.credentials.filter(|sender| sender.pid != 0) else {
        messages.push(Message::Refused);
        return false;
    };
    // A line that was cut may say something else.
    if datagram.truncated {
        messages.push(Message::TooLong(run));
    } else {
        Fields::parse(&datagram.bytes).into_messages(run, sender, messages);
    }
    true
}

impl Door for Notify {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }

    fn receive(&mut self) -> Received {
        self.receive_up_to(AT_ONCE)
    }

    fn receive_in_copy(&mut self) -> Result<Receiver, Errno> {
        self.queue.receive_in_copy()
    }

    fn received(&mut self, reported: bool) {
        self.queue.received(reported);
    }

    fn close(self) -> Option<Pid> {
        drop(self.file);
        self.queue.close()
    }
}

/// The fields of one datagram; of a key that it has twice, the last.
///
/// FDSTORE and BARRIER need nothing: the descriptors of every datagram are closed when it was handled. MONOTONIC_USEC, which
/// comes with RELOADING for a manager that has asked for the reload, needs nothing either.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fields {
    ready: bool,
    reloading: bool,
    stopping: bool,
    status: Option<String>,
    main_pid: Option<Pid>,
    watchdog_ping: bool,
    watchdog_trigger: bool,
    watchdog_period: Option<Duration>,
    timeout_extension: Option<Duration>,
}

impl Fields {
    /// Reads lines of `KEY=VALUE`, and skips what is unknown or does not fit, as the protocol wants it.
    fn parse(bytes: &[u8]) -> Fields {
        let mut fields = Fields::default();
        // Some clients count the NUL at the end of their string in.
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        if bytes.contains(&0) {
            return fields;
        }
        for line in bytes.split(|byte| matches!(byte, b'\n' | b'\r')) {
            let Some(equals) = line.iter().position(|&byte| byte == b'=') else { continue };
            fields.set(&line[..equals], &line[equals + 1..]);
        }
        fields
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        match (key, value) {
            (b"READY", b"1") => self.ready = true,
            (b"RELOADING", b"1") => self.reloading = true,
            (b"STOPPING", b"1") => self.stopping = true,
            (b"STATUS", text) => self.status = Some(cut(&String::from_utf8_lossy(text), LONGEST_STATUS).to_owned()),
            (b"MAINPID", pid) => self.main_pid = number(pid).filter(|&pid| pid > 0).or(self.main_pid),
            (b"WATCHDOG", b"1") => self.watchdog_ping = true,
            (b"WATCHDOG", b"trigger") => self.watchdog_trigger = true,
            (b"WATCHDOG_USEC", time) => self.watchdog_period = microseconds(time).or(self.watchdog_period),
            (b"EXTEND_TIMEOUT_USEC", time) => self.timeout_extension = microseconds(time).or(self.timeout_extension),
            _ => {}
        }
    }

    /// The fields of a datagram count together: first what changes the run, then its state. A run that is reloading and ready
    /// is ready.
    fn into_messages(self, run: RunId, sender: Credentials, messages: &mut Vec<Message>) {
        let said = |happened: bool, event: fn(RunId) -> Event| happened.then(|| Message::Event(event(run)));
        let restricted = |what| Message::Restricted(run, sender, what);
        messages.extend(self.status.map(|status| Message::Status(run, status)));
        messages.extend(self.main_pid.map(Restricted::MainPid).map(restricted));
        messages.extend(self.watchdog_period.map(Restricted::WatchdogPeriod).map(restricted));
        messages.extend(self.timeout_extension.map(|time| Message::Event(Event::TimeoutExtended(run, time))));
        messages.extend(self.reloading.then_some(Message::Reloading(run)));
        messages.extend(said(self.ready, Event::SaidReady));
        messages.extend(said(self.watchdog_ping, Event::WatchdogPing));
        messages.extend(self.watchdog_trigger.then_some(Restricted::WatchdogTrigger).map(restricted));
        messages.extend(self.stopping.then_some(Restricted::Stopping).map(restricted));
    }
}

fn microseconds(value: &[u8]) -> Option<Duration> {
    number(value).map(Duration::from_micros)
}

/// A number of digits alone.
fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests;
