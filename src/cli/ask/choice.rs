//! The choice of the guard to ask, where several sockets have a guard's name.
//!
//! Anybody may bind such a name, answer there, or leave questions unread. So each candidate is asked at once, none is waited
//! for, and the answers of those that the client trusts hide all others.

use super::conversation::{Answer, Conversation};
use super::{GRACE, NoAnswer, PATIENCE, PAUSE};
use crate::doors::wire::{Reply, Request};
use crate::sys::Pid;
use crate::sys::clock::Deadline;
use crate::sys::socket::wait_readable;
use anyhow::bail;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::time::Duration;

struct Candidate {
    conversation: Conversation,
    /// There was room for the question.
    asked: bool,
    state: State,
}

enum State {
    Silent,
    Guard(Guard),
    Refused(String),
    /// The conversation has failed: no guard listens there, or none any more.
    Closed,
}

/// A guard that has answered.
struct Guard {
    pid: Pid,
    trusted: bool,
    app: String,
}

/// Replies that guard reads from a candidate before it is another's turn.
const MOST_REPLIES: usize = 16;

impl Candidate {
    /// Asks it, and reads its answer if there is one.
    fn receive(&mut self) {
        if !self.asked {
            match self.conversation.ask(Request::Ping) {
                Ok(asked) => self.asked = asked,
                Err(_) => self.state = State::Closed,
            }
        }
        // A stranger may send replies without an end.
        for _ in 0..MOST_REPLIES {
            if !self.is_silent() {
                return;
            }
            match self.conversation.answer() {
                Ok(Answer { pid, trusted, reply: Reply::Yes(text) }) => {
                    let app = text.split_once(' ').map_or(String::new(), |(_, app)| app.replace('\n', " "));
                    self.state = State::Guard(Guard { pid, trusted, app });
                }
                Ok(Answer { reply: Reply::Refused(text), .. }) => self.state = State::Refused(text),
                // This answers no ping.
                Ok(Answer { reply: Reply::No(_) | Reply::Wait(..) | Reply::Text(_), .. }) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.state = State::Closed,
            }
        }
    }

    fn guard(&self) -> Option<&Guard> {
        match &self.state {
            State::Guard(guard) => Some(guard),
            State::Silent | State::Refused(_) | State::Closed => None,
        }
    }

    fn is_silent(&self) -> bool {
        matches!(self.state, State::Silent)
    }
}

/// Asks all candidates at once, and picks the one guard among them, or the one with this pid. `None` if no candidate listens.
pub(super) fn choose(
    conversations: Vec<Conversation>,
    pid: Option<Pid>,
    timeout: Option<Duration>,
) -> anyhow::Result<Option<Conversation>> {
    let candidate = |conversation| Candidate { conversation, asked: false, state: State::Silent };
    let mut candidates: Vec<Candidate> = conversations.into_iter().map(candidate).collect();
    let is_meant = |candidate: &Candidate| pid.is_some() && candidate.guard().map(|guard| guard.pid) == pid;
    let mut deadline = Deadline::after(timeout.unwrap_or(PATIENCE));
    loop {
        candidates.iter_mut().for_each(Candidate::receive);
        if let Some(index) = candidates.iter().position(is_meant) {
            return Ok(Some(candidates.swap_remove(index).conversation));
        }
        candidates.retain(|candidate| !matches!(candidate.state, State::Closed));
        if pid.is_none() && candidates.iter().filter_map(Candidate::guard).any(Guard::stands_alone) {
            deadline = deadline.sooner(Deadline::after(GRACE));
        }
        if !candidates.iter().any(Candidate::is_silent) || deadline.left().is_zero() {
            return decide(candidates, pid);
        }
        wait(&candidates, deadline)?;
    }
}

/// Waits for an answer, or for a moment where one was not asked yet.
fn wait(candidates: &[Candidate], deadline: Deadline) -> io::Result<()> {
    let silent = || candidates.iter().filter(|candidate| candidate.is_silent());
    let descriptors: Vec<_> = silent().map(|candidate| candidate.conversation.as_fd()).collect();
    let most = if silent().all(|candidate| candidate.asked) { Duration::MAX } else { PAUSE };
    wait_readable(&descriptors, deadline.left().min(most)).map(drop)
}

impl Guard {
    /// Whether no other user can speak for this guard: it is trusted, or it is PID 1, which belongs to the container.
    fn stands_alone(&self) -> bool {
        self.trusted || self.pid == 1
    }
}

fn decide(mut candidates: Vec<Candidate>, pid: Option<Pid>) -> anyhow::Result<Option<Conversation>> {
    if candidates.is_empty() {
        return Ok(None);
    }
    let all = |which: &dyn Fn(&Guard) -> bool| -> Vec<usize> {
        let is_one = |candidate: &Candidate| candidate.guard().is_some_and(which);
        candidates.iter().enumerate().filter(|(_, candidate)| is_one(candidate)).map(|(index, _)| index).collect()
    };
    let ranks = [all(&|guard| guard.trusted), all(&|guard| guard.pid == 1), all(&|_| true)];
    let found = ranks.into_iter().find(|found| !found.is_empty()).unwrap_or_default();
    let list = || {
        let line = |guard: &Guard| format!("\n  --pid {}  {}", guard.pid, guard.app);
        found.iter().filter_map(|index| candidates[*index].guard().map(line)).collect::<String>()
    };
    let silent = candidates.iter().any(Candidate::is_silent);
    let refusal = candidates.iter().find_map(|candidate| match &candidate.state {
        State::Refused(text) => Some(text.clone()),
        State::Silent | State::Guard(_) | State::Closed => None,
    });
    let late = |text: String| Err(NoAnswer(text).into());
    match (&found[..], pid, refusal) {
        ([only], None, _) => {
            let stands_alone = candidates[*only].guard().is_some_and(Guard::stands_alone);
            if silent && !stands_alone {
                // Another user could speak for a guard that hangs.
                return late(format!("guard has not answered in time; there is{}", list()));
            }
            let only = *only;
            Ok(Some(candidates.swap_remove(only).conversation))
        }
        ([], _, Some(refusal)) if silent => {
            late(format!("no guard has answered in time; one that has refuses: {refusal}"))
        }
        ([], _, Some(refusal)) => bail!(refusal),
        ([], _, None) => late("no guard has answered in time".to_owned()),
        (_, Some(pid), _) if silent => late(format!("no guard of pid {pid} has answered in time; there is{}", list())),
        (_, Some(pid), _) => bail!("no guard here has pid {pid}; there is{}", list()),
        (_, None, _) => bail!("more than one guard is running here; say which:{}", list()),
    }
}
