//! One turn of the loop: a wait, then everything that it brings, cause before effect.

use super::Runtime;
use super::doors::DoorId;
use crate::supervisor::{Event, Timestamp, earlier, is_due};
use crate::sys::clock::OVERSLEPT;
use crate::sys::residency;
use std::collections::VecDeque;
use std::time::Duration;

/// Before a rest of this length guard gives the pages of its code back, where it has used more than a few.
const LONG_REST: Duration = Duration::from_millis(250);

/// What guard does when its time has come, besides the core's deadlines. Each has one function.
#[derive(Clone, Copy)]
enum Timer {
    Foreground,
    Control,
    RestingDoors,
    Listeners,
    Memory,
    Queues,
    Files,
    OomKills,
    Answered,
}

impl Timer {
    /// In the order in which guard takes those that are due together.
    const ALL: [Timer; 9] = [
        Timer::Foreground,
        Timer::Control,
        Timer::RestingDoors,
        Timer::Listeners,
        Timer::Memory,
        Timer::Queues,
        Timer::Files,
        Timer::OomKills,
        Timer::Answered,
    ];
}

impl Runtime<'_> {
    /// Waits for something to happen, and gives it to the core as events.
    ///
    /// The order keeps cause before effect: what a run says comes before its death, its death before a signal that would
    /// have gone to it, and all of them before the deadlines.
    pub(super) fn turn(&mut self) {
        let next = earlier(self.deadline, self.next_timer());
        // guard reads the clock only where something is to come.
        let before = next.map(|_| self.clock.now());
        let rest = next.zip(before).map(|(at, now)| at.since(now));
        if self.has_worked && rest.is_none_or(|rest| rest >= LONG_REST) {
            self.has_worked = false;
            residency::forget_code();
        }
        self.reaping.walks_until.set(None);
        let tokens = self.poll.wait(rest);
        let woken = before.map(|_| self.clock.now());
        self.signals.receive(&tokens);
        self.take_typing();
        if let (Some(next), Some(before), Some(woken)) = (next, before, woken)
            && let Some(delay) = overslept(next.max(before), before, woken)
        {
            self.postpone_queues(delay);
            self.dispatch(Event::Overslept(delay));
        }
        let doors: Vec<DoorId> = tokens.iter().filter_map(DoorId::of).collect();
        let is_notify = |id: &&DoorId| matches!(id, DoorId::Notify(_));
        doors.iter().filter(is_notify).for_each(|id| self.handle_door(*id));
        if !self.signals.take_child_news() && doors.is_empty() {
            // No child had ended before these signals came.
            self.handle_signals();
        }
        self.reap();
        self.handle_signals();
        if self.ending.exit.is_some() {
            // The log's last line is written.
            return;
        }
        for id in doors.iter().filter(|id| !is_notify(id)) {
            self.has_worked = true;
            self.handle_door(*id);
        }
        // Only what was due when the wait ended: guard may have stood still since then, and what the app has said meanwhile
        // comes first.
        if let Some(woken) = woken {
            self.timers_elapsed(woken);
        }
        self.resume_hold();
        if woken.is_some_and(|woken| is_due(self.deadline, woken)) {
            self.dispatch(Event::Timeout);
        }
    }

    fn timers_elapsed(&mut self, now: Timestamp) {
        for timer in Timer::ALL {
            if is_due(self.due_at(timer), now) {
                self.has_worked = true;
                self.timer_elapsed(timer);
            }
        }
    }

    /// When the next timer is due; a turn reaps and reads signals in any case.
    fn next_timer(&self) -> Option<Timestamp> {
        // When a main process has ended guard reads all signals after the reap. A SIGCHLD among them may be of a child that ended
        // since, and no token will come for it.
        if self.signals.has_more() || self.signals.has_child_news() {
            return Some(Timestamp::default());
        }
        // A walk waits for the reap, where the kernel does not answer.
        let of_turn = self.reaping.again_at.or_else(|| self.next_recount());
        Timer::ALL.into_iter().fold(of_turn, |next, timer| earlier(next, self.due_at(timer)))
    }

    fn due_at(&self, timer: Timer) -> Option<Timestamp> {
        match timer {
            Timer::Foreground => self.typed.check_at,
            Timer::Control => self.operator.open_control_at,
            Timer::RestingDoors => self.resting.retry_at,
            Timer::Listeners => self.listener_search.due,
            Timer::Memory => self.measuring.due,
            Timer::Queues => earlier(self.holding.deadline(), self.held.deadline()),
            Timer::Files => self.changes.as_ref().and_then(|changes| changes.check_at),
            Timer::OomKills => self.oom_kills.notice_due,
            Timer::Answered => self.operator.answer_read_by(),
        }
    }

    fn timer_elapsed(&mut self, timer: Timer) {
        match timer {
            Timer::Foreground => self.check_foreground(),
            Timer::Control => self.open_control(),
            Timer::RestingDoors => {
                self.resting.retry_at = None;
                self.wake_doors(true);
            }
            Timer::Listeners => self.find_listeners(),
            Timer::Memory => self.check_memory(),
            Timer::Queues => self.queue_timer_elapsed(),
            Timer::Files => self.check_files(),
            Timer::OomKills => self.handle_oom_notice(),
            Timer::Answered => self.operator.forget_answered(self.clock.now()),
        }
    }

    /// Gives the signals that were received to the core.
    pub(super) fn handle_signals(&mut self) {
        while self.ending.exit.is_none()
            && let Some((signal, sender)) = self.signals.pop()
        {
            if let Some(event) = self.event_of_signal(signal, sender) {
                self.dispatch(event);
            }
        }
    }

    /// Gives an event to the core, does what it says, and gives it the answers.
    pub(super) fn dispatch(&mut self, event: Event) {
        let (mut next, mut answers) = (Some(event), VecDeque::new());
        let mut actions = std::mem::take(&mut self.actions);
        while let Some(event) = next {
            self.supervisor.handle(self.clock.now(), event, &mut actions);
            self.note_instances();
            // Before anybody hears of it, or is stopped.
            self.lead_connections();
            for action in actions.drain(..) {
                match self.perform(action) {
                    // The answer to a spawn comes before anything else.
                    Some(answer @ (Event::Spawned(_) | Event::SpawnFailed(..))) => answers.push_front(answer),
                    answer => answers.extend(answer),
                }
            }
            next = answers.pop_front();
        }
        self.actions = actions;
        self.deadline = self.supervisor.next_deadline();
        if let Some(outer) = &mut self.outer {
            outer.update(self.supervisor.readiness().is_ok(), self.supervisor.is_ending(), &self.poll);
        }
    }
}

/// How much a poll that was to end at `deadline` stood still, if it did. Nobody knows how much of the time before then the app
/// had, so none of it counts: a deadline that moves by the lateness alone would be over now, before the app can say a word.
fn overslept(deadline: Timestamp, before: Timestamp, now: Timestamp) -> Option<Duration> {
    (now.since(deadline) > OVERSLEPT).then(|| now.since(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_standing_still_each_deadline_is_as_far_as_before() {
        let at = |seconds| Timestamp(Duration::from_secs(seconds));
        let delay = overslept(at(15), at(10), at(3_600)).expect("far too late");
        assert_eq!(at(15).after(delay), at(3_605));
        assert_eq!(overslept(at(15), at(10), at(16)), None, "a busy machine");
    }
}
