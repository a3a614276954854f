//! The doors: where the app and the operator talk with guard. A door turns bytes into messages and answers into bytes; it
//! neither spawns nor kills.
//!
//! No door can stop guard: none waits, each receives a bounded amount per wake-up and keeps a bounded amount of it, and each
//! is closed on error.

pub mod control;
pub mod health;
pub mod hold;
pub mod http;
pub mod node_ipc;
pub mod notify;
mod queue;
pub mod wire;

use crate::supervisor::{Event, RunId};
use crate::sys::rights::Receiver;
use crate::sys::socket::Credentials;
use crate::sys::{Errno, Pid};
use control::Client;
use http::{HttpClient, Page};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;
use wire::Request;

/// Something that is polled for reading.
///
/// Where [`Received::descriptors`] says so, the door's owner handles the messages, calls [`Door::receive_in_copy`], and polls
/// for the copy's report instead of the door. After the report it calls [`Door::received`], and then [`Door::receive`] again.
pub trait Door {
    /// The descriptor to poll.
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// Receives what has come, within the door's bound: what is left wakes guard again.
    fn receive(&mut self) -> Received;

    /// Has a copy of guard receive the message that came with descriptors, and close those.
    fn receive_in_copy(&mut self) -> Result<Receiver, Errno> {
        Err(Errno::ENOTSUP)
    }

    /// Closes the door. What was in its queue may close in a copy of guard, a child that has to be reaped.
    fn close(self) -> Option<Pid>
    where
        Self: Sized,
    {
        None
    }

    /// The copy has ended; `reported` if it has said that it has received the message.
    fn received(&mut self, _reported: bool) {}
}

/// What a door has received.
#[derive(Debug, Default)]
pub struct Received {
    /// In the order in which they came.
    pub messages: Vec<Message>,
    /// Nothing more can come, and the door is to be dropped.
    pub closed: bool,
    /// The last message came with descriptors, which are still in the queue. They are closed when all up to there was
    /// handled: their sender may wait for that (BARRIER, `sd_notify(3)`).
    pub descriptors: bool,
}

/// A message that a door has received.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// For the core.
    Event(Event),
    /// A run's STATUS, for people.
    Status(RunId, String),
    /// A run reads its configuration again.
    Reloading(RunId),
    /// A message that only some senders may send, and its sender.
    Restricted(RunId, Credentials, Restricted),
    /// A datagram that was too long.
    TooLong(RunId),
    /// The sender may not use this door.
    Refused,
    /// A request of an operator.
    Request(Request, Client),
    /// A request for a page over HTTP.
    Page(Page, HttpClient),
}

/// A message that ends or changes a run (`sd_notify(3)`).
#[derive(Debug, PartialEq, Eq)]
pub enum Restricted {
    /// The sender begins to end (STOPPING).
    Stopping,
    /// The run's main process is to be this one.
    MainPid(Pid),
    /// A new watchdog period (WATCHDOG_USEC).
    WatchdogPeriod(Duration),
    /// WATCHDOG=trigger.
    WatchdogTrigger,
}

/// Whether a socket's error lasts, and does not just say that nothing has come.
fn is_lasting(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
