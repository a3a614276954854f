//! Random event sequences, longer than a walk can go, with random settings.

use super::super::Settings;
use super::world::{UNIT, World, settings, signal};
use crate::config::{HealthSettings, Meaning, Readiness, RestartPolicy, Scope};
use proptest::prelude::*;

prop_compose! {
    fn any_settings()(
        instances in 1..4_u32,
        policy in prop::sample::select(vec![RestartPolicy::OnFailure, RestartPolicy::Always, RestartPolicy::Never]),
        max in prop::option::of(1..5_u32),
        window in 0..20_u32,
        stable_after in 0..5_u32,
        timeout in prop::option::of(0..10_u32),
        drain_delay in 0..3_u32,
        when in prop::sample::select(vec![Readiness::Exec, Readiness::Notify, Readiness::Health]),
        watchdog in prop::option::of(1..4_u32),
        retries in prop::option::of(1..4_u32),
        start_period in 0..6_u32,
        node_ipc in any::<bool>(),
        flags in any::<[bool; 5]>(),
        (scales, auto, diagnose, drain_idle) in (any::<bool>(), any::<bool>(), prop::option::of(1..6_u32), 0..4_u32),
        seed in any::<u64>(),
    ) -> Settings {
        let [pre_stop, init, terminal, job_control, group] = flags;
        let mut settings = Settings { instances, pre_stop, init, terminal, job_control, seed, ..settings() };
        settings.auto = auto;
        settings.diagnose = diagnose.map(|units| UNIT * units);
        if scales {
            let map = [("TTIN", Meaning::ScaleUp), ("TTOU", Meaning::ScaleDown)];
            settings.signal_map.extend(map.map(|(name, meaning)| (signal(name), meaning)));
        }
        settings.restart.policy = policy;
        settings.restart.max = max;
        settings.restart.window = UNIT * window;
        settings.restart.stable_after = UNIT * stable_after;
        settings.stop.timeout = timeout.map(|units| UNIT * units);
        settings.stop.restart_timeout = UNIT * timeout.unwrap_or(8);
        settings.stop.drain_delay = UNIT * drain_delay;
        settings.stop.drain_idle = UNIT * drain_idle;
        settings.ready.when = if retries.is_none() && when == Readiness::Health { Readiness::Exec } else { when };
        settings.watchdog = watchdog.map(|units| UNIT * units);
        settings.health = retries.map(|retries| HealthSettings {
            interval: UNIT * 2,
            timeout: UNIT,
            retries,
            start_period: UNIT * start_period,
        });
        settings.node_ipc = node_ipc;
        settings.scope = if group { Scope::Group } else { Scope::Process };
        settings
    }
}

proptest! {
    /// Whatever happens in whatever order, the invariants hold. The world checks them after each step.
    #[test]
    fn invariants_hold(
        settings in any_settings(),
        choices in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        connections in 0..4_usize,
        quits in any::<bool>(),
    ) {
        let mut world = World::new(settings);
        world.prompt = false;
        (world.connections, world.clients, world.quits) = (connections, connections, quits);
        for choice in choices {
            let steps = world.choices();
            if steps.is_empty() {
                break;
            }
            world.step(steps[choice.index(steps.len())]);
        }
    }
}
