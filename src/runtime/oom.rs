//! Which deaths are the work of the kernel's out-of-memory killer. The kernel counts a kill and then kills, and does not name the
//! victim, so a kill that was counted waits for a death that it explains.

use super::Runtime;
use super::doors::DoorId;
use crate::supervisor::Timestamp;
use crate::sys::cgroup::OomCounter;
use crate::sys::procfs::is_dying;
use std::time::Duration;

/// The longest time from the kernel's count of a kill to the end of its victim. A process takes long to end on a busy machine.
const VICTIM_TIMEOUT: Duration = Duration::from_secs(1);

/// The same for a victim that guard has seen dying. The kernel may take seconds to free its memory.
const DYING_TIMEOUT: Duration = Duration::from_secs(60);

/// The time in which a shell passes on the code of its child, if guard has seen that no main process is dying.
const SHELL_TIMEOUT: Duration = Duration::from_millis(500);

/// The time from the kernel's notice to guard's look at what it meant: the notice may come before the count and the kill. The
/// kernel notifies of each time that the limit of memory is met too, so this bounds how often guard wakes up for it.
const NOTICE_DELAY: Duration = Duration::from_millis(200);

/// What guard knows of out-of-memory kills.
#[derive(Default)]
pub(super) struct OomKills {
    /// Found at the first spawn; `Some(None)` where there is none.
    counter: Option<Option<OomCounter>>,
    /// Kills that the kernel has counted and no death explains yet.
    unexplained: u64,
    /// Until when a death may explain them.
    until: Timestamp,
    /// The kernel notifies of them.
    noticed: bool,
    /// When guard looks at what the kernel's notice meant.
    pub(super) notice_due: Option<Timestamp>,
}

impl Runtime<'_> {
    /// A run has started. With the first one guard begins to count, which need not delay the app.
    pub(super) fn expect_oom_kills(&mut self) {
        if self.oom_kills.counter.is_none() {
            self.oom_kills.counter = Some(OomCounter::of_this_cgroup());
            self.await_oom_notice();
        }
        if !self.children.any_main() {
            // Earlier kills are none of this run's.
            self.count_oom_kills();
            self.oom_kills.unexplained = 0;
        }
    }

    /// Some child has ended which is not likely to be a victim. To read the count costs more than to reap it, so guard does that only
    /// where the kernel does not tell of a victim that another process has reaped.
    pub(super) fn count_oom_kills_without_notice(&mut self) {
        if !self.oom_kills.noticed {
            self.count_oom_kills();
        }
    }

    /// Asks the kernel how many kills there were since the last time.
    pub(super) fn count_oom_kills(&mut self) {
        let OomKills { counter, unexplained, until, .. } = &mut self.oom_kills;
        let more = counter.as_mut().and_then(Option::as_mut).map_or(0, OomCounter::more);
        if more > 0 {
            let now = self.clock.now();
            *unexplained = more + if now < *until { *unexplained } else { 0 };
            *until = now.after(VICTIM_TIMEOUT);
        }
    }

    /// Called for a process that died as victims do. Takes one of the kills that no other death explains; `false` if there is
    /// none.
    pub(super) fn take_oom_kill(&mut self) -> bool {
        let explains = self.oom_kills.unexplained > 0 && self.clock.now() < self.oom_kills.until;
        self.oom_kills.unexplained -= u64::from(explains);
        explains
    }

    /// The kernel notifies: the killer may have struck, or does so now.
    pub(super) fn oom_noticed(&mut self) {
        self.oom_kills.notice_due = Some(self.clock.now().after(NOTICE_DELAY));
    }

    /// It is time to look at what the kernel's notice meant. A victim that is a main process is dying by now. The end of a worker
    /// that its own parent has reaped explains no later death.
    pub(super) fn handle_oom_notice(&mut self) {
        self.oom_kills.notice_due = None;
        self.count_oom_kills();
        if self.oom_kills.unexplained > 0 {
            let is_main = self.children.runs().filter(|run| !run.reaped).any(|run| is_dying(run.pid));
            let timeout = if is_main { DYING_TIMEOUT } else { SHELL_TIMEOUT };
            self.oom_kills.until = self.clock.now().after(timeout);
        }
        self.await_oom_notice();
    }

    fn await_oom_notice(&mut self) {
        if let Some(counter) = self.oom_kills.counter.as_mut().and_then(Option::as_mut) {
            self.oom_kills.noticed = counter.await_notice(&self.poll, DoorId::OomKills.token());
        }
    }
}
