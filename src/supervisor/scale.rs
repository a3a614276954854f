//! The number of instances, which an operator, a mapped signal or the CPU quota sets.
//!
//! More: the new instances take the smallest numbers that are free, and start at once. Fewer: the last ones are drained and
//! stopped, each within a stop timeout of its own. No run starts in them again, and guard forgets them when nothing of their
//! runs is left. A new instance that takes the number of a forgotten one has a history of its own, and goes on with the
//! numbers of its runs, so that no two runs of one guard have the same name.
//!
//! An instance that is finished counts no longer: the number is of those that run, or will. Requests that come together share
//! one [`Action::ConcludeScale`], when the new instances are ready and those that leave are forgotten.

use super::cause::Cause;
use super::state::{Instance, Mode, Run, Slot};
use super::timestamp::Timestamp;
use super::{Action, InPlace, Notice, Supervisor};
use crate::config::{Instances, MOST_INSTANCES, Scale};

const OUT_OF_RANGE: &str = "there can be 1 to 1024 instances";

impl Supervisor {
    /// How many instances there are now, and how many there would be; `None` as long as nobody has counted the CPUs. An
    /// error if there cannot be so many.
    pub fn scale_target(&self, scale: Scale) -> Result<(u32, Option<u32>), &'static str> {
        let now = u32::try_from(self.instances.iter().filter(|instance| instance.works()).count()).unwrap_or(u32::MAX);
        let then = match scale {
            Scale::To(Instances::Number(number)) => number,
            Scale::To(Instances::Auto) => return Ok((now, None)),
            Scale::More(step) => now.saturating_add(step),
            Scale::Fewer(step) => now.saturating_sub(step),
        };
        if (1..=MOST_INSTANCES).contains(&then) { Ok((now, Some(then))) } else { Err(OUT_OF_RANGE) }
    }

    pub(super) fn scale_requested(&mut self, now: Timestamp, scale: Scale) {
        match (self.mode, self.scale_target(scale)) {
            (Mode::Serving, _) if self.unmarked.kill_at().is_some() => self.conclude_scale(Err("the app has ended")),
            (Mode::Serving, Err(why)) => self.report(Notice::Ignored { what: "scale", why }),
            (Mode::Serving, Ok((_, target))) => {
                self.scaling = true;
                self.auto = target.is_none();
                match target {
                    Some(number) => self.scale_to(now, number),
                    None => {
                        // Whatever the answer is, it is news.
                        self.wanted = 0;
                        self.actions.push(Action::CountCpus);
                    }
                }
            }
            (Mode::Draining(_) | Mode::Sweeping(_) | Mode::Killing { .. } | Mode::Lingering(_) | Mode::Done, _) => {
                self.conclude_scale(Err("guard is stopping"));
            }
        }
    }

    /// A run is replaced, and the container may have another quota by now.
    pub(super) fn recount_cpus(&mut self) {
        if self.auto {
            self.actions.push(Action::CountCpus);
        }
    }

    pub(super) fn cpus_counted(&mut self, now: Timestamp, cpus: u32) {
        let number = cpus.clamp(1, MOST_INSTANCES);
        if self.mode == Mode::Serving && self.auto && number != self.wanted {
            self.scale_to(now, number);
        }
    }

    fn scale_to(&mut self, now: Timestamp, number: u32) {
        self.wanted = number;
        let working: Vec<u32> = self.instances.iter().filter(|i| i.works()).map(|i| i.number).collect();
        let from = u32::try_from(working.len()).unwrap_or(u32::MAX);
        if from != number {
            self.report(Notice::Scaling { from, to: number });
        }
        for _ in from..number {
            self.add_instance(now);
        }
        let kept = usize::try_from(number).unwrap_or(usize::MAX);
        self.dismiss(now, working.get(kept..).unwrap_or_default());
    }

    /// A new instance, with the smallest number that no working instance has.
    fn add_instance(&mut self, now: Timestamp) {
        let mut number = 0;
        let mut index = 0;
        while let Some(instance) = self.instances.get(index).filter(|known| known.number == number && !known.is_over())
        {
            number = instance.number + 1;
            index += 1;
        }
        let finished = self.instances.get(index).filter(|known| known.number == number).map(|known| known.runs);
        let past = usize::try_from(number).ok().and_then(|number| self.past_runs.get(number)).copied();
        let runs = finished.or(past).unwrap_or(0);
        let slot = Slot::Waiting { spawn_at: Some(now) };
        let new = Instance { slot, runs, awaited: true, ..Instance::new(number) };
        match finished {
            Some(_) => self.instances[index] = new,
            None => self.instances.insert(index, new),
        }
    }

    /// Drains these instances for good.
    fn dismiss(&mut self, now: Timestamp, numbers: &[u32]) {
        let drain = self.drain_of(now, true);
        let leads = self.holds && self.any_ready(|instance| !numbers.contains(&instance.number));
        let was_restarting = self.is_restarting();
        for instance in self.instances.iter_mut().filter(|instance| numbers.contains(&instance.number)) {
            (instance.leaving, instance.awaited, instance.restarting) = (true, false, false);
            if let Slot::Waiting { .. } = instance.slot {
                instance.slot = Slot::Finished;
            }
            for run in instance.runs_mut() {
                run.end_for(Cause::Scale);
                run.begin_end(now, drain, leads);
            }
        }
        // Others may be all that a restart or a reload has waited for.
        if was_restarting && !self.is_restarting() {
            let ready = self.runs().filter(|run| run.is_ready()).map(|run| run.id).last();
            self.conclude(InPlace::Restart, ready.ok_or("there are fewer instances now"));
        }
        if let Some(reload) = self.reload
            && numbers.contains(&reload.instance)
        {
            self.reload_after_instance(now, reload, reload.replaced_by.or(reload.newest));
        }
    }

    /// Instances that have left are forgotten, and the scale is concluded when nobody is waited for any more.
    pub(super) fn advance_scale(&mut self) {
        while let Some(index) = self.instances.iter().position(|instance| instance.leaving && instance.is_over()) {
            let removed = self.instances.remove(index);
            let place = usize::try_from(removed.number).unwrap_or(0);
            self.past_runs.resize(self.past_runs.len().max(place + 1), 0);
            self.past_runs[place] = removed.runs;
        }
        // One that not even SIGKILL ends is waited for no longer.
        let is_pending = |instance: &Instance| {
            instance.awaited && instance.works() || instance.leaving && !instance.runs().all(Run::is_stuck)
        };
        // While the CPUs are being counted nothing is wanted yet.
        if self.scaling && self.wanted > 0 && !self.instances.iter().any(is_pending) {
            self.conclude_scale(Ok(self.wanted));
        }
    }

    /// `awaited` stays: the next request waits for the new instances that are not ready yet.
    pub(super) fn conclude_scale(&mut self, outcome: Result<u32, &'static str>) {
        self.scaling = false;
        self.actions.push(Action::ConcludeScale(outcome));
        self.report(Notice::Scaled(outcome));
    }
}
