//! `guard ready`, `health`, `status`, `stop` and `restart`: ask the guard that runs, over its control socket, and wait for
//! the outcome. Whoever else sits on such a socket is not believed.

mod conversation;
mod options;

use crate::config::layers::ClientCommand;
use crate::doors::wire::{self, Reply, Request};
use crate::sys::Pid;
use crate::sys::clock::Deadline;
use crate::sys::process;
use crate::sys::socket::{Address, wait_readable};
use anyhow::{Context, bail, ensure};
use conversation::{Conversation, Heard, PAUSE};
use options::Options;
use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

/// What guard exits with if no answer came in time.
pub const NO_ANSWER: u8 = 124;

/// How long an answer may take that guard has at hand, and how much longer than guard itself said one that it has not.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long others may take when one guard has said that it is there, and a guard that has just begun to be there.
const GRACE: Duration = Duration::from_millis(200);

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

/// Asks, with these words after the subcommand. An error says why it could not be asked, or is [`NoAnswer`].
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
    let conversation = Conversation::open().context("cannot open a socket")?;
    let addresses: Vec<Address> = names.iter().flat_map(|name| Address::abstract_name(name.as_bytes())).collect();
    let guard = match (&addresses[..], options.pid) {
        ([only], None) => Some(*only),
        _ => choose(&conversation, &addresses, options)?,
    };
    let Some(guard) = guard else { bail!(nobody()) };
    ask(&conversation, &guard, request, options.timeout).map_err(|error| match error.downcast_ref::<std::io::Error>() {
        Some(error) if error.kind() == ErrorKind::ConnectionRefused => anyhow::Error::msg(nobody()),
        Some(_) => error.context("cannot ask the guard that runs"),
        None => error,
    })
}

/// The control sockets of a mount namespace. A guard that is just beginning has none yet, so it is looked for again.
fn names(mount_namespace: u64, deadline: Deadline) -> Vec<String> {
    loop {
        let names = match std::fs::read("/proc/net/unix") {
            Ok(table) => names_in(&table, mount_namespace),
            Err(_) => vec![wire::name(mount_namespace, 1)],
        };
        if !names.is_empty() || deadline.left().is_zero() {
            return names;
        }
        let _ = wait_readable(&[], PAUSE.min(deadline.left()));
    }
}

/// The control sockets of a mount namespace, in the text of /proc/net/unix (`proc_net(5)`), where a name is what ends a line.
fn names_in(table: &[u8], mount_namespace: u64) -> Vec<String> {
    let is_there = |name: &String| {
        let end = format!(" @{name}");
        table.split(|&byte| byte == b'\n').any(|line| line.ends_with(end.as_bytes()))
    };
    (1..=wire::NAMES).map(|number| wire::name(mount_namespace, number)).filter(is_there).collect()
}

/// A guard that has answered.
struct Found {
    address: Address,
    pid: Pid,
    trusted: bool,
    app: String,
}

/// Asks all who they are and picks the one that is there, or that is meant; `None` if nobody listens at all.
fn choose(conversation: &Conversation, all: &[Address], options: &Options) -> anyhow::Result<Option<Address>> {
    let mut deadline = Deadline::after(options.timeout.unwrap_or(PATIENCE));
    let asked = all.iter().filter(|address| conversation.send(Request::Ping, address, deadline).is_ok()).count();
    if asked == 0 {
        return Ok(None);
    }
    let (mut found, mut refusal) = (Vec::new(), None);
    while found.len() + usize::from(refusal.is_some()) < asked {
        let Heard::Reply { address, pid, trusted, reply } = conversation.listen(deadline, None)? else { break };
        if !all.contains(&address) {
            continue;
        }
        match reply {
            Reply::Yes(_) if options.pid == Some(pid) => return Ok(Some(address)),
            Reply::Yes(text) => {
                let app = text.split_once(' ').map_or(String::new(), |(_, app)| app.replace('\n', " "));
                found.push(Found { address, pid, trusted, app });
                if options.pid.is_none() && trusted {
                    deadline = deadline.sooner(Deadline::after(GRACE));
                }
            }
            Reply::Refused(text) => refusal = Some(text),
            Reply::No(_) | Reply::Wait(..) | Reply::Text(_) => {}
        }
    }
    let silent = found.len() + usize::from(refusal.is_some()) < asked;
    match (&found[..], options.pid, refusal) {
        // Another user could speak for a guard that hangs.
        ([only], None, _) if only.trusted || !silent => Ok(Some(only.address)),
        ([_], None, _) => Err(NoAnswer(format!("guard has not answered in time; there is{}", list(&found))).into()),
        ([], _, Some(refusal)) => bail!(refusal),
        ([], _, None) => Err(NoAnswer("no guard has answered in time".to_owned()).into()),
        (_, Some(pid), _) if silent => {
            Err(NoAnswer(format!("no guard of pid {pid} has answered in time; there is{}", list(&found))).into())
        }
        (_, Some(pid), _) => bail!("no guard here has pid {pid}; there is{}", list(&found)),
        (_, None, _) => bail!("more than one guard is running here; say which:{}", list(&found)),
    }
}

fn list(found: &[Found]) -> String {
    found.iter().map(|guard| format!("\n  --pid {}  {}", guard.pid, guard.app)).collect()
}

/// Asks one guard, and waits as long as it says itself unless `timeout` says otherwise.
fn ask(
    conversation: &Conversation,
    guard: &Address,
    request: Request,
    timeout: Option<Duration>,
) -> anyhow::Result<Answer> {
    let mut deadline = Deadline::after(timeout.unwrap_or(PATIENCE));
    conversation.send(request, guard, deadline)?;
    let mut process = None;
    loop {
        let (pid, reply) = match conversation.listen(deadline, process.as_ref())? {
            Heard::Reply { address, pid, reply, .. } if address == *guard => (pid, reply),
            Heard::Reply { .. } => continue,
            Heard::Nothing => return Err(NoAnswer("guard has not answered in time".to_owned()).into()),
            Heard::End => return Err(NoAnswer("guard has ended without an answer".to_owned()).into()),
        };
        match reply {
            Reply::Yes(text) | Reply::Text(text) => return Ok(Answer { text: line(text), code: 0 }),
            Reply::No(text) => return Ok(Answer { text: line(text), code: 1 }),
            Reply::Refused(text) => bail!(text),
            Reply::Wait(time, _) => {
                // Without it there is only the deadline.
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
