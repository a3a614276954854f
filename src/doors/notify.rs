//! A run's notify socket (`sd_notify(3)`), which is its alone and closes with it: so it is the socket that says whose word
//! it is. Every user of guard's PID namespace may speak, since apps change theirs; nobody else may.

use super::{Door, Message, Taken, is_lasting};
use crate::supervisor::{Event, RunId};
use crate::sys::Pid;
use crate::sys::socket::{Datagram, DatagramSocket};
use crate::text::cut;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// A datagram is no longer, in bytes: systemd takes as much (PIPE_BUF).
pub const LONGEST: usize = 4096;

/// Datagrams taken per wake-up.
const AT_ONCE: usize = 16;

/// Datagrams read when the run has ended. A queue has 10, under systemd 512 (net.unix.max_dgram_qlen, `unix(7)`).
const REST: usize = 1024;

/// What is kept of a STATUS, in bytes.
const LONGEST_STATUS: usize = 400;

/// The socket of one run.
pub struct Notify {
    run: RunId,
    socket: DatagramSocket,
}

impl Notify {
    /// A socket whose name no other has.
    pub fn open(run: RunId) -> io::Result<Notify> {
        Ok(Notify { run, socket: DatagramSocket::bind_anew()? })
    }

    /// What NOTIFY_SOCKET is to say: `@` and an abstract name.
    pub fn name(&self) -> io::Result<String> {
        Ok(format!("@{}", String::from_utf8_lossy(&self.socket.name()?)))
    }

    /// Whether there is something to take.
    pub fn has_something(&self) -> bool {
        self.socket.has_something()
    }

    /// Takes all that is left of what the run has said, when it has ended.
    pub fn take_rest(&mut self) -> Taken {
        self.take_up_to(REST)
    }

    fn take_up_to(&self, datagrams: usize) -> Taken {
        let mut taken = Taken::default();
        for _ in 0..datagrams {
            match self.socket.receive(LONGEST) {
                Ok(datagram) => self.hear(datagram, &mut taken),
                Err(error) => {
                    taken.closed = is_lasting(&error);
                    break;
                }
            }
        }
        taken
    }

    fn hear(&self, datagram: Datagram, taken: &mut Taken) {
        let Some(sender) = datagram.credentials.map(|sender| sender.pid).filter(|&pid| pid != 0) else {
            return taken.messages.push(Message::Refused);
        };
        // A line that was cut may say something else.
        if datagram.truncated {
            return taken.messages.push(Message::TooLong(self.run));
        }
        let words = Words::read(&datagram.bytes);
        if words.barrier {
            taken.barriers.extend(datagram.descriptors);
        }
        words.messages(self.run, sender, &mut taken.messages);
    }
}

impl Door for Notify {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn take(&mut self) -> Taken {
        self.take_up_to(AT_ONCE)
    }
}

/// What one datagram says; of a key that it has twice, the last.
///
/// FDSTORE needs nothing: the descriptors are closed with the datagram, and so refused. Nor does MONOTONIC_USEC, which
/// comes with RELOADING for whoever has sent a signal to ask for it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Words {
    ready: bool,
    reloading: bool,
    stopping: bool,
    status: Option<String>,
    main_pid: Option<Pid>,
    watchdog_ping: bool,
    watchdog_trigger: bool,
    watchdog_period: Option<Duration>,
    timeout_extension: Option<Duration>,
    barrier: bool,
}

impl Words {
    /// Reads lines of `KEY=VALUE`. What is not known or does not fit is skipped, as the protocol wants it.
    fn read(bytes: &[u8]) -> Words {
        let mut words = Words::default();
        // Some clients count the NUL at the end of their string in.
        let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        if bytes.contains(&0) {
            return words;
        }
        for line in bytes.split(|byte| matches!(byte, b'\n' | b'\r')) {
            let Some(equals) = line.iter().position(|&byte| byte == b'=') else { continue };
            words.set(&line[..equals], &line[equals + 1..]);
        }
        words
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
            (b"BARRIER", b"1") => self.barrier = true,
            _ => {}
        }
    }

    /// What came together counts together: first what is said of the run, then what it is at. One that is reloading and
    /// ready is ready.
    fn messages(self, run: RunId, sender: Pid, messages: &mut Vec<Message>) {
        let said = |happened: bool, event: fn(RunId) -> Event| happened.then(|| Message::Event(event(run)));
        messages.extend(self.status.map(|status| Message::Status(run, status)));
        messages.extend(self.main_pid.map(|pid| Message::MainPid(run, pid)));
        messages.extend(self.watchdog_period.map(|period| Message::Event(Event::WatchdogPeriod(run, period))));
        messages.extend(self.timeout_extension.map(|time| Message::Event(Event::TimeoutExtended(run, time))));
        messages.extend(self.reloading.then_some(Message::Reloading(run)));
        messages.extend(said(self.ready, Event::SaidReady));
        messages.extend(said(self.watchdog_ping, Event::WatchdogPing));
        messages.extend(said(self.watchdog_trigger, Event::WatchdogTriggered));
        messages.extend(self.stopping.then_some(Message::Stopping(run, sender)));
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
