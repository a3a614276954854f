//! The doors: where the app and the operator talk with guard. A door turns bytes into messages and answers into bytes; it
//! neither spawns nor kills.
//!
//! No door can stop guard: each never waits, takes a bounded amount per wake-up and keeps a bounded amount of it, and is
//! closed on error.

pub mod control;
pub mod health;
pub mod node_ipc;
pub mod notify;
pub mod wire;

use crate::supervisor::{Event, RunId};
use crate::sys::Pid;
use control::Client;
use nix::errno::Errno;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use wire::Request;

/// Something that is polled for reading.
pub trait Door {
    /// What to poll.
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// Takes what has come, within the door's bound: what is left wakes guard again.
    fn take(&mut self) -> Taken;
}

/// What a door has taken.
#[derive(Debug, Default)]
pub struct Taken {
    /// In the order in which they came.
    pub messages: Vec<Message>,
    /// Nothing more can come, and the door is to be dropped.
    pub closed: bool,
    /// Descriptors whose closing tells their sender that all up to there was handled (BARRIER, `sd_notify(3)`). So this is
    /// to be dropped when the messages have been.
    pub barriers: Vec<OwnedFd>,
}

/// What somebody said.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// For the core.
    Event(Event),
    /// What a run says of itself, for people.
    Status(RunId, String),
    /// A run reads its configuration again.
    Reloading(RunId),
    /// A run's main process is to be another one.
    MainPid(RunId, Pid),
    /// A process says that it begins to end, which is news of its run if it is the main one.
    Stopping(RunId, Pid),
    /// What was too long to be heard.
    TooLong(RunId),
    /// Somebody who may not.
    Refused,
    /// The operator wants to know or to have something.
    Request(Request, Client),
}

/// Whether an error of a socket says more than that nothing is there.
fn is_lasting(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Reads what is there, in so many reads of 4 KiB at most; `true` at the end, and on an error.
fn read_some(mut read: impl FnMut(&mut [u8]) -> nix::Result<usize>, reads: usize, each: &mut dyn FnMut(&[u8])) -> bool {
    let mut buffer = [0; 4096];
    for _ in 0..reads {
        match read(&mut buffer) {
            Ok(0) => return true,
            Ok(count) => each(&buffer[..count]),
            Err(Errno::EINTR) => {}
            Err(error) => return error != Errno::EAGAIN,
        }
    }
    false
}
