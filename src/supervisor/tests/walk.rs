//! Every state that can be reached, and everything that can happen in it.
//!
//! Worlds that differ only in the time that has passed and in the numbers of their runs are one state, so the states are
//! finitely many: where the walk comes to its end, every event sequence of any length has been walked.

use super::super::Settings;
use super::world::{UNIT, World, settings, signal};
use crate::config::{HealthSettings, Meaning, Readiness, RestartPolicy, StopSettings};
use std::collections::HashSet;
use std::io::Write;
use std::time::Duration;

struct Walk {
    states: usize,
    steps: usize,
    depth: usize,
    complete: bool,
}

/// Walks on from every new state with every step, level by level, until there is none or `depth` is reached.
fn walk(name: &str, settings: Settings, depth: usize) -> Walk {
    walk_from(name, World::new(settings), depth)
}

fn walk_from(name: &str, first: World, depth: usize) -> Walk {
    let mut first = first.normalised();
    first.prompt = false;
    let mut seen = HashSet::from([fingerprint(&first)]);
    let mut level = vec![first];
    let mut walk = Walk { states: 1, steps: 0, depth: 0, complete: false };
    while walk.depth < depth && !level.is_empty() {
        let mut next = Vec::new();
        for world in &level {
            for step in world.choices() {
                let mut world = world.clone();
                world.step(step);
                walk.steps += 1;
                let world = world.normalised();
                if seen.insert(fingerprint(&world)) {
                    next.push(world);
                }
            }
        }
        walk.depth += 1;
        walk.states += next.len();
        level = next;
    }
    walk.complete = level.is_empty();
    let Walk { states, steps, depth, complete } = &walk;
    let extent = if *complete { "complete, sequences of any length" } else { "all sequences up to this length" };
    let _ = writeln!(std::io::stderr(), "walk {name}: {states} states, {steps} steps, depth {depth} ({extent})");
    walk
}

/// 128 bits stand for a state: that two of some millions share them is less likely than a broken memory cell.
fn fingerprint(world: &World) -> u128 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        world.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(1) << 64 | half(2)
}

/// Settings without the reload, which makes the states too many to come to an end.
fn without_reload() -> Settings {
    let mut settings = settings();
    settings.signal_map.truncate(1);
    settings
}

#[test]
fn every_state_with_drain_delay_hook_and_limit() {
    let walk = walk("drain delay, hook, limit", without_reload(), usize::MAX);
    assert!(walk.complete && walk.states > 100_000);
}

#[test]
fn every_state_at_a_terminal() {
    let mut settings = without_reload();
    settings.init = false;
    settings.terminal = true;
    settings.holds = true;
    settings.pre_stop = false;
    settings.stop.drain_delay = Duration::ZERO;
    settings.restart.max = Some(1);
    assert!(walk("terminal", settings, usize::MAX).complete);
}

#[test]
fn every_state_with_a_forwarded_quit() {
    let mut settings = without_reload();
    settings.init = false;
    settings.pre_stop = false;
    settings.stop.drain_delay = Duration::ZERO;
    settings.stop.timeout = Some(UNIT * 2);
    settings.stop.restart_timeout = UNIT * 2;
    settings.restart.policy = RestartPolicy::Always;
    settings.restart.max = Some(1);
    let mut first = World::new(settings);
    first.quits = true;
    assert!(walk_from("a forwarded QUIT", first, usize::MAX).complete);
}

#[test]
fn every_state_with_a_daemon_of_no_run() {
    let mut settings = without_reload();
    settings.stop.drain_delay = Duration::ZERO;
    settings.stop.timeout = Some(UNIT * 2);
    settings.restart.max = Some(1);
    let mut first = World::new(settings);
    for unmarked in [true, false] {
        (first.unmarked, first.adopted) = (unmarked, !unmarked);
        assert!(walk_from("a daemon of no run", first.clone(), usize::MAX).complete);
    }
}

#[test]
fn every_state_with_connections_left_in_the_end() {
    let mut settings = without_reload();
    settings.init = false;
    settings.terminal = true;
    settings.pre_stop = false;
    settings.stop.drain_delay = Duration::ZERO;
    settings.restart.max = Some(0);
    let mut first = World::new(settings);
    first.connections = 2;
    assert!(walk_from("connections", first, usize::MAX).complete);
}

#[test]
fn every_state_without_a_stop_timeout() {
    let mut settings = without_reload();
    settings.stop.timeout = None;
    settings.stop.drain_delay = Duration::ZERO;
    settings.restart.policy = RestartPolicy::Always;
    settings.restart.max = Some(1);
    assert!(walk("no stop timeout, always", settings, usize::MAX).complete);
}

/// Small settings, for what the app says and what is asked of it.
fn talking() -> Settings {
    let mut settings = without_reload();
    settings.pre_stop = false;
    settings.restart.max = Some(1);
    settings.restart.window = UNIT;
    settings.stop.drain_delay = Duration::ZERO;
    settings.stop.timeout = Some(UNIT * 2);
    settings.stop.restart_timeout = UNIT * 2;
    settings.ready.when = Readiness::Notify;
    settings
}

#[test]
fn every_state_of_readiness() {
    assert!(walk("readiness", talking(), usize::MAX).complete);
}

#[test]
fn every_state_of_the_watchdog() {
    let settings = Settings { watchdog: Some(UNIT), ..talking() };
    assert!(walk("watchdog", settings, usize::MAX).complete);
}

#[test]
fn every_state_of_the_health_checks() {
    let (timeout, start_period) = (UNIT, UNIT * 2);
    let mut settings = talking();
    settings.ready.when = Readiness::Health;
    settings.health = Some(HealthSettings { interval: UNIT, timeout, retries: 2, start_period });
    assert!(walk("health", settings, usize::MAX).complete);
}

#[test]
fn every_state_of_a_diagnosis() {
    let settings = Settings { diagnose: Some(UNIT * 2), watchdog: Some(UNIT), ..talking() };
    let stop = StopSettings { timeout: Some(UNIT * 3), restart_timeout: UNIT * 3, ..settings.stop.clone() };
    assert!(walk("diagnosis", Settings { stop, ..settings }, usize::MAX).complete);
}

#[test]
fn every_state_of_a_drain_with_connections() {
    let mut settings = talking();
    settings.stop = StopSettings { drain_delay: UNIT, drain_idle: UNIT * 2, ..settings.stop };
    (settings.stop.timeout, settings.stop.restart_timeout) = (Some(UNIT * 4), UNIT * 4);
    settings.pre_stop = true;
    settings.restart.max = Some(0);
    let mut first = World::new(settings);
    first.clients = 1;
    assert!(walk_from("a drain with connections", first, usize::MAX).complete);
}

#[test]
fn every_state_of_nodes_channel() {
    let mut settings = talking();
    settings.node_ipc = true;
    settings.stop.drain_delay = UNIT;
    assert!(walk("Node's channel", settings, usize::MAX).complete);
}

#[test]
fn every_sequence_with_reloads_that_wait_for_readiness() {
    let mut settings = settings();
    settings.ready.when = Readiness::Notify;
    settings.watchdog = Some(UNIT);
    walk("reload with readiness", settings, 8);
}

/// What runs reach by themselves, among what is asked for.
fn limited() -> Settings {
    Settings { lifetime: Some(UNIT * 3), ..talking() }
}

#[test]
fn every_state_of_the_limits_in_place() {
    assert!(walk("limits in place", limited(), usize::MAX).complete);
}

#[test]
fn every_sequence_with_limits_and_reloads() {
    let mut settings = limited();
    settings.holds = true;
    settings.signal_map.push((signal("USR2"), Meaning::Reload));
    walk("limits by reload", settings, 8);
}

#[test]
fn every_sequence_with_limits_and_a_diagnosis() {
    let mut settings = limited();
    // A third of the stop timeout, so that the times stay on the grid.
    settings.diagnose = Some(UNIT);
    (settings.stop.timeout, settings.stop.restart_timeout) = (Some(UNIT * 3), UNIT * 3);
    settings.signal_map.push((signal("USR2"), Meaning::Reload));
    walk("limits with a diagnosis", settings, 9);
}

#[test]
fn every_sequence_with_reloads() {
    walk("reload", settings(), 9);
}

/// A million states: by `cargo test --bin guard -- --ignored every_state_with_reloads`, after a change to the core.
#[test]
#[ignore = "takes minutes"]
fn every_state_with_reloads() {
    let mut settings = settings();
    settings.pre_stop = false;
    settings.restart.max = Some(1);
    settings.stop.drain_delay = Duration::ZERO;
    settings.stop.timeout = Some(UNIT * 2);
    settings.stop.restart_timeout = UNIT * 2;
    assert!(walk("reload, complete", settings, usize::MAX).complete);
}

#[test]
fn every_sequence_with_two_instances() {
    walk("two instances", Settings { instances: 2, ..settings() }, 8);
}

/// Two instances, one more or one less, with reloads and restarts, and as little else as can be.
fn scaled() -> Settings {
    let mut settings = settings();
    settings.pre_stop = false;
    settings.instances = 2;
    settings.restart.max = Some(1);
    settings.stop.drain_delay = Duration::ZERO;
    settings.stop.timeout = Some(UNIT * 2);
    settings.stop.restart_timeout = UNIT * 2;
    settings.signal_map.push((signal("TTIN"), Meaning::ScaleUp));
    settings.signal_map.push((signal("TTOU"), Meaning::ScaleDown));
    settings
}

#[test]
fn every_sequence_with_a_scale_and_reloads() {
    walk("scale", scaled(), 8);
}

#[test]
fn every_sequence_with_a_scale_and_reloads_that_wait_for_readiness() {
    let mut settings = scaled();
    settings.ready.when = Readiness::Notify;
    walk("scale with readiness", settings, 8);
}

#[test]
fn every_sequence_with_connections_that_are_led_away() {
    let mut first = World::new(Settings { holds: true, ..scaled() });
    first.queues = true;
    walk_from("led away", first, 7);
    let mut settings = Settings { holds: true, ..scaled() };
    settings.ready.when = Readiness::Notify;
    let mut first = World::new(settings);
    first.queues = true;
    walk_from("led away with readiness", first, 7);
}

#[test]
fn every_sequence_with_instances_by_the_quota() {
    let mut settings = Settings { auto: true, instances: 1, ..scaled() };
    settings.signal_map.truncate(2);
    walk("quota", settings, 8);
}
