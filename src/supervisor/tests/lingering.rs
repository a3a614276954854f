//! Connections that still send when all is over.

use super::super::{Action, Ending, Notice, Settings};
use super::world::{Leftovers, STOP, Step, UNIT, World, run, settings};
use crate::signal::Signal;
use std::time::Duration;

const STOP_TIMEOUT: Duration = Duration::from_secs(10);

fn plain() -> Settings {
    let mut settings = settings();
    settings.pre_stop = false;
    settings.stop.drain_delay = Duration::ZERO;
    (settings.stop.timeout, settings.stop.restart_timeout) = (Some(STOP_TIMEOUT), STOP_TIMEOUT);
    settings.restart.max = Some(0);
    settings
}

/// So many connections are left when the app has ended, asked to or not.
fn ended(settings: Settings, asked: bool, code: u8, connections: usize) -> World {
    let mut world = World::serving(settings);
    world.connections = connections;
    if asked {
        world.step(Step::Signal(STOP));
    }
    world.step(Step::Exit(run(1), Ending::Exited(code), Leftovers::None));
    assert!(world.step(Step::Reaped).contains(&Action::Report(Notice::Over { code })), "the last word comes first");
    world
}

/// How long guard stays, where each count but the first finds one connection less as long as there is more than `stuck`.
fn stay(world: &mut World, stuck: usize) -> Duration {
    let begun = world.now;
    world.step(Step::Count(world.connections));
    while world.exit.is_none() {
        let counts = world.wait().contains(&Action::CountUnsent);
        assert!(counts, "nothing else is waited for");
        world.step(Step::Count(world.connections.saturating_sub(1).max(stuck)));
    }
    world.now.since(begun)
}

#[test]
fn without_connections_guard_exits_at_once() {
    let mut world = World::serving(plain());
    world.step(Step::Signal(STOP));
    world.step(Step::Exit(run(1), Ending::Exited(0), Leftovers::None));
    let actions = world.step(Step::Reaped);
    assert!(actions.contains(&Action::CountUnsent) && actions.ends_with(&[Action::Exit { code: 0 }]), "{actions:?}");
    let is_lost = |action: &Action| matches!(action, Action::Report(Notice::Unsent { .. }));
    assert!(!actions.iter().any(is_lost), "{actions:?}");
}

#[test]
fn connections_that_get_on_are_waited_for_and_others_for_a_second() {
    let mut world = ended(plain(), true, 0, 30);
    let stay_of_30 = stay(&mut world, 0);
    assert!(stay_of_30 > Duration::from_secs(8) && stay_of_30 < Duration::from_secs(9), "{stay_of_30:?}");
    let mut world = ended(plain(), true, 0, 2);
    assert_eq!(stay(&mut world, 2), Duration::from_secs(1));
}

#[test]
fn no_connection_is_waited_for_past_the_stop_timeout() {
    for timeout in [Some(STOP_TIMEOUT), None] {
        let mut settings = plain();
        settings.stop.timeout = timeout;
        let mut world = World::serving(settings);
        world.connections = 1_000;
        world.step(Step::Signal(STOP));
        for _ in 0..3 {
            world.step(Step::Advance);
        }
        world.step(Step::Exit(run(1), Ending::Exited(0), Leftovers::None));
        world.step(Step::Reaped);
        assert_eq!(stay(&mut world, 0), STOP_TIMEOUT - UNIT * 3, "{timeout:?}");
    }
}

#[test]
fn a_failure_keeps_the_orchestrator_waiting_for_two_seconds_and_a_finished_job_for_all() {
    for (code, time) in [(7, Duration::from_secs(2)), (0, STOP_TIMEOUT)] {
        let mut world = ended(plain(), false, code, 1_000);
        assert_eq!(stay(&mut world, 0), time, "{code}");
    }
}

#[test]
fn a_long_wait_is_logged_once() {
    let mut world = ended(plain(), true, 0, 1);
    world.step(Step::Count(1));
    let mut actions = Vec::new();
    while world.exit.is_none() {
        world.wait();
        actions.extend(world.step(Step::Count(1)));
    }
    let count = |wanted: fn(&Notice) -> bool| {
        actions.iter().filter(|action| matches!(action, Action::Report(notice) if wanted(notice))).count()
    };
    assert_eq!(count(|notice| matches!(notice, Notice::Lingering { .. })), 1);
    assert_eq!(count(|notice| matches!(notice, Notice::Unsent { .. })), 1);
}

#[test]
fn at_a_terminal_ctrl_c_ends_the_wait_for_connections() {
    for terminal in [true, false] {
        let mut world = ended(Settings { terminal, ..plain() }, true, 0, 1);
        world.step(Step::Count(1));
        let left = world.step(Step::Signal(Signal::INT)).contains(&Action::Exit { code: 0 });
        assert_eq!(left, terminal);
    }
    let mut world = World::serving(Settings { terminal: true, ..plain() });
    world.connections = 1;
    world.step(Step::Signal(Signal::INT));
    world.step(Step::Signal(Signal::INT));
    world.step(Step::Reaped);
    assert!(world.step(Step::Count(1)).contains(&Action::Exit { code: 137 }), "after a kill nothing is waited for");
}
