//! What the doors have received: events for the core, and facts that guard notes itself.

use super::Runtime;
use super::children::{Owner, RunProcess, Successor};
use super::journal::of_run;
use crate::doors::notify::{LONGEST, Notify};
use crate::doors::wire::is_trusted;
use crate::doors::{Message, Received, Restricted};
use crate::supervisor::{Event, RunId};
use crate::sys::socket::Credentials;
use crate::sys::{Pid, process, procfs};
use log::Level;

impl Runtime<'_> {
    /// Handles all that the runs have said up to now. guard calls it when processes have ended: the kernel has put what
    /// they said into the sockets before.
    pub(super) fn handle_last_messages(&mut self) {
        let speaks = |run: &&RunProcess| run.notify.as_ref().is_some_and(Notify::has_something);
        let speaking: Vec<RunId> = self.children.runs().filter(speaks).map(|run| run.id).collect();
        for id in speaking {
            let notify = self.children.get_mut(id).and_then(|run| run.notify.as_mut());
            if let Some(received) = notify.map(Notify::receive_rest) {
                self.handle_messages(received);
            }
        }
    }

    pub(super) fn handle_messages(&mut self, received: Received) {
        for message in received.messages {
            match message {
                Message::Event(event) => {
                    if let Event::SaidReady(id) = event
                        && let Some(run) = self.children.get_mut(id)
                    {
                        run.reloading = false;
                    }
                    self.dispatch(event);
                }
                Message::Status(id, text) => self.note_status(id, text),
                Message::Reloading(id) => {
                    if let Some(run) = self.children.get_mut(id) {
                        run.reloading = true;
                    }
                }
                Message::Restricted(id, sender, what) => self.handle_restricted(id, sender, what),
                Message::TooLong(id) => self.note_too_long(id),
                Message::Refused => {
                    self.operator.refused += 1;
                    // Once: a sender that goes on must not fill the log. `guard status` has the count.
                    if !std::mem::replace(&mut self.operator.has_refused, true) {
                        log::warn!(msg = "a datagram from another user or PID namespace was refused"; "refused");
                    }
                }
                Message::Request(request, client) => self.serve(request, client),
                Message::Page(page, client) => self.answer_page(page, client),
            }
        }
    }

    /// A message that ends or changes a run, which not every sender may send.
    fn handle_restricted(&mut self, id: RunId, sender: Credentials, what: Restricted) {
        let Some(run) = self.children.get(id) else { return };
        let main = run.pid;
        let event = match what {
            // A helper, such as the server that a database's image starts for its set-up, ends without its run.
            Restricted::Stopping if sender.pid == main => Event::SaidStopping(id),
            Restricted::Stopping => {
                self.operator.refused += 1;
                return;
            }
            Restricted::WatchdogPeriod(_) | Restricted::WatchdogTrigger | Restricted::MainPid(_)
                if !self.may_change(id, sender) =>
            {
                return self.refuse(id, sender, "the sender is not root, the main process or of its user");
            }
            Restricted::WatchdogPeriod(period) => Event::WatchdogPeriod(id, period),
            Restricted::WatchdogTrigger => Event::WatchdogTriggered(id),
            Restricted::MainPid(pid) => return self.name_successor(id, sender, pid),
        };
        self.dispatch(event);
    }

    /// Whether a sender may end or change a run: its main process may, root, and the main process's user.
    fn may_change(&mut self, id: RunId, sender: Credentials) -> bool {
        let Some(run) = self.children.get_mut(id) else { return false };
        if sender.pid == run.pid || sender.uid == 0 {
            return true;
        }
        if !run.reaped {
            run.user = process::effective_uid_of(run.pid).or(run.user);
        }
        // Of one that was reaped before anybody asked, guard knows only the user that it was started as.
        is_trusted(sender.uid, run.user.unwrap_or_else(process::effective_uid))
    }

    /// Said once a run; `guard status` has the count.
    fn refuse(&mut self, id: RunId, sender: Credentials, why: &str) {
        self.operator.refused += 1;
        if let Some(run) = self.children.get_mut(id)
            && !std::mem::replace(&mut run.has_refused, true)
        {
            let msg = format!("MAINPID, WATCHDOG_USEC or WATCHDOG=trigger was refused: {why}");
            of_run!(self.journal, Level::Warn, id, pid = sender.pid, uid = sender.uid, msg:%; "refused");
        }
    }

    /// Said once a run.
    fn note_too_long(&mut self, id: RunId) {
        if let Some(run) = self.children.get_mut(id)
            && !std::mem::replace(&mut run.was_too_long, true)
        {
            let msg = format!("a datagram to the notify socket was longer than {LONGEST} bytes, and is not heard");
            of_run!(self.journal, Level::Warn, id, msg:%; "refused");
        }
    }

    fn note_status(&mut self, id: RunId, text: String) {
        of_run!(self.journal, Level::Debug, id, text:%; "status");
        if let Some(outer) = &mut self.outer {
            outer.status(&text, &self.poll);
        }
        if let Some(run) = self.children.get_mut(id) {
            run.status = text;
        }
    }

    /// Somebody names the process that will be the main one. Whether it can be is seen when the present one has ended.
    fn name_successor(&mut self, id: RunId, sender: Credentials, pid: Pid) {
        let successor = match self.children.owner(pid) {
            // It was reaped before guard has read this, and no other process has its pid by now.
            Owner::Nobody if !procfs::exists(pid) && self.ended_lately(pid).is_some() => {
                self.ended_lately(pid).map(|(status, usage)| Successor::Ended(status, usage))
            }
            // One that has ended, or cleared its environment, has no trace of its run any more.
            Owner::Nobody
                if pid == sender.pid || process::is_zombie(pid) || pid != process::id() && self.belongs_to(pid, id) =>
            {
                Some(Successor::Alive(pid))
            }
            // The present one stays: an upgrade was taken back.
            Owner::Run(owner) if owner == id => None,
            Owner::Run(_) | Owner::Check(_) | Owner::Diagnosis(_) | Owner::Hook | Owner::Copy | Owner::Nobody => {
                return self.refuse(id, sender, "MAINPID names no process of the run");
            }
        };
        of_run!(self.journal, Level::Debug, id, pid; "heir");
        if let Some(run) = self.children.get_mut(id) {
            run.successor = successor;
        }
    }
}
