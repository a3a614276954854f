//! Reload: for each instance in turn, the new run starts beside the old one, and when it is ready the old one is stopped.

use super::state::{Mode, Run, RunId, Slot, Timestamp};
use super::stop::drain;
use super::{Notice, Supervisor};
use crate::signal::Signal;
use std::time::Duration;

impl Supervisor {
    pub(super) fn reload_requested(&mut self, now: Timestamp) {
        if self.mode != Mode::Serving {
            self.report(Notice::Ignored { what: "reload", why: "guard is stopping" });
        } else if self.instances.iter().any(|instance| instance.retiring.is_some()) {
            self.report(Notice::Ignored { what: "reload", why: "one is under way" });
        } else {
            self.reload = Some(0);
            self.reload_on(now);
        }
    }

    /// Goes on with the next instance that has a run to replace.
    pub(super) fn reload_on(&mut self, now: Timestamp) {
        let Some(from) = self.reload else { return };
        for (index, instance) in self.instances.iter_mut().enumerate().skip(from) {
            match &mut instance.slot {
                Slot::Live(run) if run.serves() => {
                    let slot = std::mem::replace(&mut instance.slot, Slot::Waiting { until: Some(now) });
                    if let Slot::Live(run) = slot {
                        instance.retiring = Some(run);
                    }
                    self.reload = Some(index + 1);
                    return;
                }
                // The run that comes will be a new one anyway.
                Slot::Waiting { until: Some(until) } => *until = now,
                Slot::Live(run) if !run.main_lives() => run.asked = true,
                Slot::Waiting { until: None } | Slot::Live(_) | Slot::Finished { .. } => {}
            }
        }
        self.reload = None;
    }

    /// The new run is ready: the old one beside it is stopped, without a drain delay, since the new one serves.
    pub(super) fn retire(&mut self, now: Timestamp, new: RunId) {
        let stop = &self.settings.stop;
        let (signal, timeout) = (stop.signal.unwrap_or(Signal::TERM), stop.restart_timeout);
        let Some(instance) = self.instances.get_mut(new.instance) else { return };
        let Some(old) = instance.retiring.as_mut().filter(|old| old.serves() && old.id != new) else { return };
        old.asked = true;
        drain(old, now, signal, Duration::ZERO, Some(now.after(timeout)));
        let old = old.id;
        self.report(Notice::Reloading { old, new });
    }

    /// The new run failed before it was ready: the old one stays, and the reload has failed.
    pub(super) fn restore(&mut self, new: RunId) -> bool {
        let Some(instance) = self.instances.get_mut(new.instance) else { return false };
        if !instance.retiring.as_ref().is_some_and(Run::serves) {
            return false;
        }
        let Some(run) = instance.retiring.take() else { return false };
        let old = run.id;
        instance.slot = Slot::Live(run);
        self.reload = None;
        self.report(Notice::ReloadFailed { old, new });
        true
    }
}
