//! The stop signal waits until no connection is left.

use super::super::{Action, KillReason, Notice, Settings};
use super::scenarios::{exit, plain};
use super::world::{STOP, Step, UNIT, World, run, settings};
use crate::signal::Signal;
use std::time::Duration;

const COUNT: Action = Action::CountConnections;

/// A server with clients that has two units for them, after one of drain delay.
fn busy(mut settings: Settings) -> World {
    (settings.stop.drain_delay, settings.stop.drain_idle) = (UNIT, UNIT * 2);
    let mut world = World::serving(settings);
    world.clients = 9;
    world
}

fn stop_signal() -> [Action; 4] {
    let signal = Action::Report(Notice::StopSignal { run: run(1), signal: STOP });
    [Action::Release, Action::Stop(run(1), STOP), Action::Signal(run(1), Signal::CONT), signal]
}

/// They may be those of the others.
#[test]
fn a_limit_of_one_instance_waits_for_no_connections() {
    for instances in [1, 2] {
        let mut world = busy(Settings { instances, lifetime: Some(UNIT * 1_000), ..plain() });
        world.step(Step::Advance);
        let begun = world.now;
        world.step(Step::Grows(run(1)));
        let actions = world.wait();
        assert_eq!(world.now, begun.after(UNIT), "after the drain delay");
        assert_eq!(actions.contains(&COUNT), instances == 1, "{actions:?}");
    }
}

#[test]
fn the_last_connection_is_what_the_stop_signal_waits_for() {
    let mut world = busy(plain());
    let begun = world.now;
    world.step(Step::Signal(STOP));
    assert_eq!(world.wait(), [COUNT]);
    assert_eq!(world.now, begun.after(UNIT), "after the drain delay");
    // The pauses grow from 100 to 500 ms.
    for pause in [100, 200, 400] {
        let counted = world.now;
        assert_eq!(world.step(Step::Clients(2)), []);
        assert_eq!(world.wait(), [COUNT]);
        assert_eq!(world.now, counted.after(Duration::from_millis(pause)));
    }
    assert_eq!(world.step(Step::Clients(0)), stop_signal());
}

/// An app closes its listening socket when it learns of the drain, or when the hook tells it.
#[test]
fn what_the_app_listens_on_is_found_before_anybody_knows_of_the_drain() {
    let mut world = busy(Settings { node_ipc: true, ..settings() });
    let actions = world.step(Step::Signal(STOP));
    let at = |what: fn(&Action) -> bool| actions.iter().position(what).expect("it is there");
    let found = at(|action| *action == Action::FindPorts);
    assert!(found < at(|action| matches!(action, Action::StartHook { .. })), "{actions:?}");
    assert!(found < at(|action| matches!(action, Action::SayDrain(_))), "{actions:?}");
    world.now = world.now.after(UNIT);
    assert_eq!(world.step(Step::HookEnds), [COUNT], "once a drain");
}

#[test]
fn without_a_connection_it_waits_for_none() {
    let mut world = busy(plain());
    world.step(Step::Signal(STOP));
    world.wait();
    assert_eq!(world.step(Step::Clients(0)), stop_signal());
}

#[test]
fn its_time_is_bounded_and_the_log_says_how_many_were_left() {
    let mut world = busy(plain());
    let begun = world.now;
    world.step(Step::Signal(STOP));
    let mut actions = world.wait();
    while actions == [COUNT] {
        world.step(Step::Clients(3));
        actions = world.wait();
    }
    let left = [Action::Report(Notice::StillConnected { connections: 3 })];
    assert_eq!(actions, [&left[..], &stop_signal()].concat());
    assert_eq!(world.now, begun.after(UNIT * 3));
}

#[test]
fn it_counts_from_the_drain_delay_on_however_long_the_hook_takes() {
    let mut world = busy(settings());
    let begun = world.now;
    world.step(Step::Signal(STOP));
    // The hook is killed at half of four units, and ends half of a unit later.
    world.wait();
    world.now = begun.after(UNIT * 5 / 2);
    assert_eq!(world.step(Step::HookEnds), [COUNT]);
    world.step(Step::Clients(1));
    world.wait_for(&Action::Stop(run(1), STOP));
    assert_eq!(world.now, begun.after(UNIT * 3));
}

#[test]
fn it_never_moves_the_stop_deadline() {
    let mut settings = plain();
    settings.stop.timeout = Some(UNIT * 2);
    let mut world = busy(settings);
    let begun = world.now;
    world.step(Step::Signal(STOP));
    world.wait();
    world.step(Step::Clients(1));
    loop {
        let actions = world.wait();
        if actions.contains(&Action::KillEverything(KillReason::StopTimeout)) {
            break;
        }
        assert_eq!(actions, [COUNT]);
        world.step(Step::Clients(1));
    }
    assert_eq!(world.now, begun.after(UNIT * 2));
}

#[test]
fn a_restart_waits_too_unless_sockets_are_held() {
    let mut world = busy(plain());
    world.step(Step::AskRestart);
    assert_eq!(world.wait(), [COUNT]);
    let mut world = busy(Settings { holds: true, ..plain() });
    assert!(world.step(Step::AskRestart).contains(&Action::Stop(run(1), STOP)));
}

#[test]
fn nobody_counts_when_the_app_has_ended() {
    let mut world = busy(plain());
    world.step(Step::Signal(STOP));
    world.wait();
    world.step(Step::Clients(1));
    world.step(exit(1, 0));
    let actions = world.wait();
    assert!(!actions.contains(&COUNT), "{actions:?}");
}

#[test]
fn a_stop_hastens_the_wait_of_a_restart() {
    let mut settings = plain();
    settings.stop.restart_timeout = UNIT * 20;
    let mut world = busy(settings);
    world.supervisor.settings.stop.drain_idle = UNIT * 10;
    world.step(Step::AskRestart);
    world.wait();
    world.step(Step::Clients(1));
    let asked = world.now;
    world.supervisor.settings.stop.drain_idle = UNIT;
    world.step(Step::Signal(STOP));
    loop {
        let actions = world.wait();
        if actions.contains(&Action::Stop(run(1), STOP)) {
            break;
        }
        assert_eq!(actions, [COUNT]);
        world.step(Step::Clients(1));
    }
    assert_eq!(world.now, asked.after(UNIT * 2));
}
