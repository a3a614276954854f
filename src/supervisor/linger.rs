//! The last wait: the kernel goes on sending what the app has written to connections that it has closed, and in a container
//! it stops when guard exits.

use super::event::UnsentData;
use super::state::Mode;
use super::timestamp::Timestamp;
use super::{Action, Notice, Supervisor};
use std::time::Duration;

/// guard gives up if the other sides take nothing for so long.
const STALLED: Duration = Duration::from_secs(1);

/// guard waits no longer after a failure: the orchestrator is to start anew.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// The pause after the first count. Each is twice the one before, so that guard stays no longer than twice the time needed.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// Waiting for connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Linger {
    pub(super) code: u8,
    /// guard waits no longer in any case.
    pub(super) until: Timestamp,
    /// guard waits no longer if the other sides take nothing until then.
    pub(super) give_up_at: Timestamp,
    pub(super) count_at: Timestamp,
    /// Before the count after the next.
    pub(super) pause: Duration,
    /// At the last count.
    pub(super) left: Option<UnsentData>,
}

impl Supervisor {
    /// How long connections may take after an end that comes in time.
    pub(super) fn linger_until(&self, now: Timestamp, code: u8) -> Timestamp {
        let (until, asked) = match self.mode {
            Mode::Draining(shutdown) | Mode::Sweeping(shutdown) => (shutdown.linger_until, shutdown.code.is_none()),
            Mode::Serving | Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => {
                (now.after(self.settings.stop.restart_timeout), false)
            }
        };
        if asked || code == 0 { until } else { until.min(now.after(AFTER_FAILURE)) }
    }

    pub(super) fn begin_linger(&mut self, now: Timestamp, code: u8, until: Timestamp) {
        let give_up_at = now.after(STALLED).min(until);
        self.mode = Mode::Lingering(Linger { code, until, give_up_at, count_at: now, pause: FIRST_PAUSE, left: None });
        self.report(Notice::Over { code });
        self.actions.push(Action::CountUnsent);
    }

    pub(super) fn unsent_counted(&mut self, now: Timestamp, unsent: UnsentData) {
        let Mode::Lingering(linger) = &mut self.mode else { return };
        if linger.left.is_some_and(|left| unsent.bytes < left.bytes) {
            linger.give_up_at = now.after(STALLED).min(linger.until);
        }
        linger.left = Some(unsent);
        if unsent.connections == 0 || linger.give_up_at <= now {
            return self.exit();
        }
        linger.count_at = now.after(linger.pause).min(linger.give_up_at);
        let pause = (linger.pause * 2).min(LONGEST_PAUSE);
        let takes_long = std::mem::replace(&mut linger.pause, pause) < pause && pause == LONGEST_PAUSE;
        if takes_long {
            self.report(Notice::Lingering { unsent });
        }
    }

    /// guard's work is done.
    pub(super) fn exit(&mut self) {
        let Mode::Lingering(linger) = self.mode else { return };
        if let Some(unsent) = linger.left.filter(|left| left.connections > 0) {
            self.report(Notice::Unsent { unsent });
        }
        self.mode = Mode::Done;
        self.update_drain_file();
        self.actions.push(Action::Exit { code: linger.code });
    }
}
