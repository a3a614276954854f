//! The very last: connections that the app has closed go on sending what it has written to them, and end with guard.

use super::state::{Mode, Timestamp};
use super::{Action, Notice, Supervisor};
use std::time::Duration;

/// Whoever takes nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(1);

/// After a failure that nobody asked for it takes no longer: the orchestrator is to start anew.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// The pause after the first look. Each is twice the one before, so that guard stays no longer than twice the time needed.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// What closed connections have not sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Unsent {
    pub connections: usize,
    pub bytes: u64,
}

/// Waiting for connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Linger {
    pub(super) code: u8,
    /// No longer in any case.
    pub(super) until: Timestamp,
    /// No longer if nothing is taken.
    pub(super) give_up_at: Timestamp,
    pub(super) look_at: Timestamp,
    pub(super) pause: Duration,
    /// At the last look.
    pub(super) left: Option<Unsent>,
}

impl Supervisor {
    /// How long connections may take after an end that comes in time.
    pub(super) fn linger_until(&self, now: Timestamp, code: u8) -> Timestamp {
        let (until, asked) = match self.mode {
            Mode::Draining(end) | Mode::Sweeping(end) => (end.linger_until, end.code.is_none()),
            Mode::Serving | Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done => {
                (now.after(self.settings.stop.restart_timeout), false)
            }
        };
        if asked || code == 0 { until } else { until.min(now.after(AFTER_FAILURE)) }
    }

    pub(super) fn begin_linger(&mut self, now: Timestamp, code: u8, until: Timestamp) {
        let give_up_at = now.after(STALLED).min(until);
        self.mode = Mode::Lingering(Linger { code, until, give_up_at, look_at: now, pause: FIRST_PAUSE, left: None });
        self.report(Notice::Over { code });
        self.actions.push(Action::Look);
    }

    /// What a look has found.
    pub(super) fn unsent(&mut self, now: Timestamp, unsent: Unsent) {
        let Mode::Lingering(linger) = &mut self.mode else { return };
        if linger.left.is_some_and(|left| unsent.bytes < left.bytes) {
            linger.give_up_at = now.after(STALLED).min(linger.until);
        }
        linger.left = Some(unsent);
        if unsent.connections == 0 || linger.give_up_at <= now {
            return self.leave();
        }
        linger.look_at = now.after(linger.pause).min(linger.give_up_at);
        let pause = (linger.pause * 2).min(LONGEST_PAUSE);
        let takes_long = std::mem::replace(&mut linger.pause, pause) < pause && pause == LONGEST_PAUSE;
        if takes_long {
            self.report(Notice::Lingering { unsent });
        }
    }

    /// guard's work is done.
    pub(super) fn leave(&mut self) {
        let Mode::Lingering(linger) = self.mode else { return };
        if let Some(unsent) = linger.left.filter(|left| left.connections > 0) {
            self.report(Notice::Unsent { unsent });
        }
        self.mode = Mode::Done;
        self.mark_drain();
        self.actions.push(Action::Exit { code: linger.code });
    }
}
