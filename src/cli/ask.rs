//! `guard ready`, `health`, `status`, `stop`, `restart`, `reload` and `scale`: ask the guard that runs, over its control socket,
//! and wait for the outcome.

mod choice;
mod conversation;
mod options;

use crate::config::subcommands::ClientCommand;
use crate::doors::wire::{self, Reply, Request};
use crate::sys::clock::Deadline;
use crate::sys::file::read;
use crate::sys::process;
use crate::sys::socket::{Address, is_readable, wait_readable};
use anyhow::{anyhow, bail, ensure};
use choice::choose;
use conversation::Conversation;
use options::Options;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// What guard exits with if no answer came in time.
pub const NO_ANSWER: u8 = 124;

/// How long guard may take for an answer that it has at hand. Where guard announces how long an outcome takes, the outcome may
/// take this much longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long other guards may take after the first answer, and a guard that has just started to open its socket.
const GRACE: Duration = Duration::from_millis(200);

/// How long a client waits before it tries again: where guard has no room for one more request, and where it has no socket yet.
const PAUSE: Duration = Duration::from_millis(10);

/// What to print, and what to exit with.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub text: String,
    /// 0 for yes, 1 for no.
    pub code: u8,
}

/// Nobody answered in time: [`NO_ANSWER`].
#[derive(Debug)]
pub struct NoAnswer(String);

impl std::error::Error for NoAnswer {}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Asks the running guard; `words` are the arguments of the subcommand. An error is [`NoAnswer`], or says why no guard could be
/// asked.
pub fn run(command: ClientCommand, words: &[OsString]) -> anyhow::Result<Answer> {
    let options = Options::parse(command, words)?;
    ask_in(process::mount_namespace().unwrap_or(0), options.request(command), &options)
}

fn ask_in(mount_namespace: u64, request: Request, options: &Options) -> anyhow::Result<Answer> {
    let names = names(mount_namespace, Deadline::after(options.timeout.unwrap_or(GRACE).min(GRACE)));
    let nobody = || {
        format!(
            "no guard is running here: looked for @{} in /proc/net/unix; it must be in the same container, that is in \
             this mount and network namespace",
            wire::name(mount_namespace, 1)
        )
    };
    ensure!(!names.is_empty(), nobody());
    let addresses = names.iter().flat_map(|name| Address::abstract_name(name.as_bytes()));
    let conversations: io::Result<Vec<Conversation>> =
        addresses.filter_map(|address| open(&address).transpose()).collect();
    let mut conversations = conversations.map_err(|error| anyhow!("cannot ask: {error}"))?;
    let guard = match (conversations.len(), options.pid) {
        (1, None) => conversations.pop(),
        _ => choose(conversations, options.pid, options.timeout)?,
    };
    let Some(guard) = guard else { bail!(nobody()) };
    ask(&guard, request, options.timeout).map_err(|error| match error.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == ErrorKind::ConnectionRefused => anyhow::Error::msg(nobody()),
        Some(error) => anyhow!("cannot ask the guard that runs: {error}"),
        None => error,
    })
}

/// `None` if nobody listens there.
fn open(address: &Address) -> io::Result<Option<Conversation>> {
    match Conversation::with(address) {
        Ok(conversation) => Ok(Some(conversation)),
        // PermissionDenied: the socket is connected to another peer, as a guard's never is.
        Err(error) if [ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied].contains(&error.kind()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The control sockets of a mount namespace. A guard that is just beginning has none yet, so the client reads the table again.
fn names(mount_namespace: u64, deadline: Deadline) -> Vec<String> {
    loop {
        let names = match read("/proc/net/unix", u64::MAX) {
            Ok(table) => names_in(&table, mount_namespace),
            Err(_) => vec![wire::name(mount_namespace, 1)],
        };
        if !names.is_empty() || deadline.left().is_zero() {
            return names;
        }
        let _ = wait_readable(&[], PAUSE.min(deadline.left()));
    }
}

/// The control sockets of a mount namespace, in the text of /proc/net/unix (`proc_net(5)`), whose lines end with a name.
fn names_in(table: &[u8], mount_namespace: u64) -> Vec<String> {
    let is_there = |name: &String| {
        let end = format!(" @{name}");
        table.split(|&byte| byte == b'\n').any(|line| line.ends_with(end.as_bytes()))
    };
    (1..=wire::NAMES).map(|number| wire::name(mount_namespace, number)).filter(is_there).collect()
}

/// Asks one guard, and waits as long as guard itself says, unless `timeout` says otherwise.
fn ask(guard: &Conversation, request: Request, timeout: Option<Duration>) -> anyhow::Result<Answer> {
    let mut deadline = Deadline::after(timeout.unwrap_or(PATIENCE));
    // A request that could not be sent in time will not be answered in time.
    while !guard.ask(request)? && !deadline.left().is_zero() {
        wait_readable(&[], PAUSE.min(deadline.left()))?;
    }
    let mut process = None;
    loop {
        let answer = match guard.answer() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) if error.kind() == ErrorKind::PermissionDenied && !deadline.left().is_zero() => continue,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
            answer => Some(answer?),
        };
        let Some(conversation::Answer { pid, reply, .. }) = answer else {
            if deadline.left().is_zero() {
                return Err(NoAnswer("guard has not answered in time".to_owned()).into());
            }
            if process.as_ref().is_some_and(|process: &OwnedFd| is_readable(process.as_fd()))
                && !is_readable(guard.as_fd())
            {
                return Err(NoAnswer("guard has ended without an answer".to_owned()).into());
            }
            let descriptors: Vec<_> = [guard.as_fd()].into_iter().chain(process.as_ref().map(AsFd::as_fd)).collect();
            wait_readable(&descriptors, deadline.left())?;
            continue;
        };
        match reply {
            Reply::Yes(text) | Reply::Text(text) => return Ok(Answer { text: line(text), code: 0 }),
            Reply::No(text) => return Ok(Answer { text: line(text), code: 1 }),
            Reply::Refused(text) => bail!(text),
            Reply::Wait(time) => {
                // Without it only the deadline ends the wait.
                process = process::watch_process(pid).ok();
                if timeout.is_none() {
                    deadline = time.map_or(Deadline::NEVER, |time| Deadline::after(time.saturating_add(PATIENCE)));
                }
            }
        }
    }
}

fn line(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
