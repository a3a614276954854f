//! Single paths through the contract, each a sentence of it.

use super::super::{Action, Ending, KillReason, Notice, RunId, Settings, SpawnError};
use super::world::{Leftovers, STOP, Step, UNIT, World, run, settings, signal};
use crate::config::RestartPolicy;
use crate::config::codes::CodeSet;
use crate::signal::Signal;
use std::time::Duration;

/// No drain delay and no hook: a stop request is the stop signal.
pub(super) fn plain() -> Settings {
    let mut settings = settings();
    settings.pre_stop = false;
    settings.stop.drain_delay = Duration::ZERO;
    settings
}

pub(super) fn exit(number: u32, code: u8) -> Step {
    Step::Exit(run(number), Ending::Exited(code), Leftovers::None)
}

pub(super) fn delay_of(actions: &[Action]) -> Duration {
    for action in actions {
        if let Action::Report(Notice::Restarting { delay, .. }) = action {
            return *delay;
        }
    }
    panic!("no restart: {actions:?}")
}

pub(super) fn spawns(actions: &[Action], number: u32) -> bool {
    actions.iter().any(|action| matches!(action, Action::Spawn { run, .. } if *run == self::run(number)))
}

#[test]
fn the_first_restart_is_immediate_and_the_next_doubles_from_the_initial_delay() {
    let mut settings = plain();
    settings.restart.max = None;
    settings.restart.stable_after = Duration::from_secs(100);
    settings.restart.backoff_initial = Duration::from_millis(100);
    settings.restart.backoff_max = Duration::from_secs(1);
    let mut world = World::serving(settings);
    let mut delays = Vec::new();
    for number in 1..=8 {
        let mut actions = world.step(exit(number, 1));
        delays.push(delay_of(&actions));
        while !spawns(&actions, number + 1) {
            actions = world.wait();
        }
        world.step(Step::Spawn(Ok(())));
    }
    assert_eq!(delays[0], Duration::ZERO);
    for (delay, full) in delays[1..].iter().zip([100, 200, 400, 800, 1_000, 1_000, 1_000]) {
        let full = Duration::from_millis(full);
        assert!((full / 2..=full).contains(delay), "{delay:?} is not in the upper half of {full:?}");
    }
}

#[test]
fn no_delay_doubled_is_none() {
    let mut settings = plain();
    settings.restart.max = None;
    (settings.restart.backoff_initial, settings.restart.backoff_max) = (Duration::ZERO, Duration::from_secs(10));
    let mut world = World::serving(settings);
    for number in 1..=40 {
        assert_eq!(delay_of(&world.step(exit(number, 1))), Duration::ZERO);
        world.step(Step::Spawn(Ok(())));
    }
}

#[test]
fn a_stable_run_ends_the_row() {
    let mut world = World::serving(plain());
    world.step(exit(1, 1));
    world.step(Step::Spawn(Ok(())));
    world.step(Step::Advance);
    assert_eq!(delay_of(&world.step(exit(2, 1))), Duration::ZERO);
}

#[test]
fn at_the_limit_guard_gives_up_with_the_last_code() {
    let mut world = World::serving(plain());
    for number in 1..=2 {
        let mut actions = world.step(exit(number, 1));
        while !spawns(&actions, number + 1) {
            actions = world.wait();
        }
        world.step(Step::Spawn(Ok(())));
    }
    let actions = world.step(exit(3, 7));
    assert!(actions.iter().any(|action| matches!(action, Action::Report(Notice::GiveUp { limit: 2, .. }))));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(7));
}

#[test]
fn giving_up_after_a_success_is_a_failure_all_the_same() {
    let mut settings = plain();
    settings.restart.policy = RestartPolicy::Always;
    settings.restart.max = Some(1);
    let mut world = World::serving(settings);
    world.step(exit(1, 0));
    world.step(Step::Spawn(Ok(())));
    world.step(exit(2, 0));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(1));
}

#[test]
fn a_restart_is_forgotten_when_it_left_the_window_and_a_run_since_then_was_stable() {
    let mut settings = plain();
    settings.restart.max = Some(1);
    for (stable_after, forgotten) in [(UNIT, true), (UNIT * 100, false)] {
        settings.restart.stable_after = stable_after;
        let mut world = World::serving(settings.clone());
        world.step(exit(1, 1));
        world.step(Step::Spawn(Ok(())));
        for _ in 0..4 {
            world.step(Step::Advance);
        }
        let actions = world.step(exit(2, 1));
        let within = |action: &Action| {
            if let Action::Report(Notice::GiveUp { within, .. }) = action { Some(*within) } else { None }
        };
        let gave_up = actions.iter().find_map(within);
        // Longer than the window of three units.
        assert_eq!(gave_up, (!forgotten).then_some(UNIT * 4), "stable after {stable_after:?}");
    }
}

#[test]
fn a_stop_before_the_first_spawn_means_that_there_is_none() {
    let mut world = World::new(plain());
    world.step(Step::Signal(STOP));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(143));
}

#[test]
fn the_stop_signal_waits_for_the_delay_and_the_hook() {
    let stops = |actions: &[Action]| actions.contains(&Action::Stop(run(1), STOP));
    let mut world = World::serving(settings());
    assert!(!stops(&world.step(Step::Signal(STOP))));
    assert!(!stops(&world.step(Step::Advance)), "the hook still runs");
    let actions = world.step(Step::HookEnds);
    assert!(stops(&actions) && actions.contains(&Action::Signal(run(1), Signal::CONT)));

    let mut world = World::serving(settings());
    world.step(Step::Signal(STOP));
    assert!(!stops(&world.step(Step::HookEnds)), "the delay is not over");
    assert!(stops(&world.step(Step::Advance)));
}

#[test]
fn asking_again_changes_nothing() {
    let mut world = World::serving(plain());
    world.step(Step::Signal(STOP));
    let before = world.supervisor.clone();
    assert_eq!(world.step(Step::Signal(STOP)), []);
    assert_eq!(world.supervisor, before);
}

#[test]
fn a_second_sigint_kills_at_a_terminal_only() {
    for terminal in [false, true] {
        let mut world = World::serving(Settings { terminal, ..plain() });
        world.step(Step::Signal(Signal::INT));
        let actions = world.step(Step::Signal(Signal::INT));
        assert_eq!(actions.contains(&Action::KillEverything(KillReason::Interrupted)), terminal);
    }
}

#[test]
fn a_deaf_app_is_killed_at_the_stop_timeout() {
    let mut world = World::serving(plain());
    world.step(Step::Signal(STOP));
    let asked = world.now;
    world.wait_for(&Action::KillEverything(KillReason::StopTimeout));
    assert_eq!(world.now.since(asked), UNIT * 4);
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(137));
}

#[test]
fn a_process_that_survives_sigkill_does_not_keep_guard() {
    let mut world = World::serving(plain());
    world.step(Step::Signal(STOP));
    while world.exit.is_none() {
        world.wait();
    }
    assert_eq!(world.exit, Some(137));
}

#[test]
fn a_killed_leftover_changes_no_code() {
    let mut world = World::serving(plain());
    world.step(Step::Signal(STOP));
    world.step(Step::Exit(run(1), Ending::Exited(0), Leftovers::Mortal));
    world.wait_for(&Action::KillEverything(KillReason::StopTimeout));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(0));
}

#[test]
fn leftovers_of_a_crash_have_two_seconds_before_the_next_run() {
    let mut world = World::serving(plain());
    let actions = world.step(Step::Exit(run(1), Ending::Exited(1), Leftovers::Mortal));
    assert!(actions.contains(&Action::Sweep(run(1), STOP)) && !spawns(&actions, 2));
    let ended = world.now;
    let actions = world.wait();
    assert_eq!(world.now.since(ended), Duration::from_secs(2));
    assert!(actions.contains(&Action::Sweep(run(1), Signal::KILL)) && spawns(&actions, 2));
}

#[test]
fn a_crash_in_the_drain_is_an_exit() {
    let mut world = World::serving(plain());
    world.step(Step::Signal(STOP));
    world.step(exit(1, 3));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(3));
}

#[test]
fn a_stop_in_the_backoff_exits_at_once_with_the_last_code() {
    let mut world = World::serving(plain());
    world.step(exit(1, 1));
    world.step(Step::Spawn(Ok(())));
    world.step(exit(2, 5));
    assert!(world.step(Step::Signal(STOP)).contains(&Action::KillEverything(KillReason::AllEnded)));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(5));
}

#[test]
fn success_codes_become_zero_and_no_restart_codes_end_guard() {
    let mut settings = plain();
    settings.restart.success_codes = CodeSet::parse("TERM,3").expect("codes");
    settings.restart.no_restart_codes = CodeSet::parse("7,oom").expect("codes");
    for (ending, code) in [
        (Ending::Exited(3), 0),
        (Ending::Signaled(Signal::TERM), 0),
        (Ending::Exited(143), 0),
        (Ending::Exited(7), 7),
        (Ending::OutOfMemory, 137),
    ] {
        let mut world = World::serving(settings.clone());
        world.step(Step::Exit(run(1), ending, Leftovers::None));
        world.step(Step::Reaped);
        assert_eq!(world.exit, Some(code), "{ending:?}");
    }
}

#[test]
fn a_spawn_error_ends_guard_only_at_the_first_run_and_only_if_it_will_stay() {
    let fails = |code, transient| Step::Spawn(Err(SpawnError { code, transient, name: "ENOENT" }));
    let mut world = World::new(plain());
    world.step(Step::Start);
    world.step(fails(127, false));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(127));

    let mut world = World::new(plain());
    world.step(Step::Start);
    assert!(spawns(&world.step(fails(126, true)), 2), "tried again at once");

    let mut world = World::serving(plain());
    world.step(exit(1, 1));
    let actions = world.step(fails(127, false));
    assert!(delay_of(&actions) > Duration::ZERO, "a failed run with its backoff");
}

#[test]
fn a_drain_does_not_make_do_with_a_hook_on_its_way_out() {
    let mut world = World::serving(Settings { pre_stop: true, ..plain() });
    world.step(Step::Signal(signal("USR1")));
    assert!(world.step(exit(1, 0)).contains(&Action::SignalHook(STOP)));
    world.step(Step::Spawn(Ok(())));
    assert!(world.step(Step::Signal(STOP)).contains(&Action::SignalHook(Signal::KILL)));
    let starts = |action: &Action| matches!(action, Action::StartHook { .. });
    assert!(world.step(Step::HookEnds).iter().any(starts));
    assert!(world.step(Step::HookEnds).contains(&Action::Stop(run(2), STOP)));
}

#[test]
fn a_hook_that_followed_another_serves_the_next_drain_too() {
    let mut world = World::serving(Settings { pre_stop: true, ..plain() });
    world.step(Step::AskRestart);
    world.step(exit(1, 0));
    world.step(Step::Spawn(Ok(())));
    world.step(Step::AskRestart);
    assert!(matches!(world.step(Step::HookEnds)[..], [Action::StartHook { .. }]));
    let actions = world.step(Step::AskStop);
    assert!(!actions.iter().any(|action| matches!(action, Action::SignalHook(_))), "{actions:?}");
    assert!(world.step(Step::HookEnds).contains(&Action::Stop(run(2), STOP)));
}

#[test]
fn a_key_starts_the_hook_though_the_app_has_heard_it() {
    let mut world = World::serving(Settings { terminal: true, ..settings() });
    let actions = world.step(Step::Press(Signal::INT));
    let hook = Action::StartHook { signal: Some(Signal::INT), left: Some(UNIT * 4) };
    assert!(actions.contains(&hook), "{actions:?}");
}

#[test]
fn the_hook_of_a_stop_has_its_time_though_the_app_has_ended() {
    for ends in [true, false] {
        let mut world = World::serving(settings());
        world.step(Step::Signal(STOP));
        let asked = world.now;
        let actions = world.step(exit(1, 0));
        let ended = |action: &Action| matches!(action, Action::SignalHook(_) | Action::KillEverything(_));
        assert!(!actions.iter().any(ended), "{actions:?}");
        if ends {
            assert!(world.step(Step::HookEnds).contains(&Action::KillEverything(KillReason::AllEnded)));
        } else {
            assert!(world.wait().contains(&Action::SignalHook(Signal::KILL)));
            assert_eq!(world.now.since(asked), UNIT * 2);
        }
    }
}

#[test]
fn a_stop_during_a_restart_in_place_does_not_tell_the_app_twice() {
    let mut world = World::serving(plain());
    world.step(Step::Signal(signal("USR1")));
    let actions = world.step(Step::Signal(STOP));
    assert!(!actions.iter().any(|action| matches!(action, Action::Signal(..) | Action::Stop(..))), "{actions:?}");
    world.step(exit(1, 0));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(0));
}

#[test]
fn when_one_instance_gives_up_the_others_are_drained() {
    let mut settings = Settings { instances: 2, ..plain() };
    settings.restart.policy = RestartPolicy::Never;
    settings.restart.no_restart_codes = CodeSet::parse("9").expect("codes");
    let mut world = World::serving(settings);
    let actions = world.step(exit(1, 9));
    let other = RunId { instance: 1, number: 1 };
    assert!(actions.contains(&Action::Stop(other, STOP)), "{actions:?}");
    world.step(Step::Exit(other, Ending::Exited(0), Leftovers::None));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(9));
}

#[test]
fn death_by_ctrl_c_is_a_stop_at_a_terminal_and_a_failure_elsewhere() {
    for (terminal, ending, stops) in [
        (true, Ending::Signaled(Signal::INT), true),
        (true, Ending::Exited(130), true),
        (true, Ending::Exited(1), false),
        (true, Ending::OutOfMemory, false),
        (false, Ending::Signaled(Signal::INT), false),
    ] {
        let mut world = World::serving(Settings { terminal, ..plain() });
        let actions = world.step(Step::Exit(run(1), ending, Leftovers::None));
        assert_eq!(spawns(&actions, 2), !stops, "{actions:?}");
    }
}

#[test]
fn an_app_that_was_told_to_exit_is_not_restarted() {
    for policy in [RestartPolicy::OnFailure, RestartPolicy::Always] {
        let mut settings = Settings { terminal: true, ..plain() };
        settings.restart.policy = policy;
        let mut world = World::serving(settings);
        let actions = world.step(Step::Leave(run(1)));
        assert!(!spawns(&actions, 2) && world.supervisor.is_ending(), "{actions:?}");
    }
}

#[test]
fn a_key_is_a_stop_request_that_the_app_has_heard() {
    for key in [Signal::INT, Signal::QUIT, Signal::HUP] {
        let mut world = World::serving(Settings { terminal: true, ..plain() });
        let actions = world.step(Step::Press(key));
        assert!(actions.contains(&Action::StopUnreached(run(1), key)), "{actions:?}");
        assert!(!actions.iter().any(|action| matches!(action, Action::Stop(..) | Action::Signal(..))), "{actions:?}");
        assert!(world.supervisor.is_stopping(run(1)));
        world.wait_for(&Action::KillEverything(KillReason::StopTimeout));
    }
}

#[test]
fn a_second_ctrl_c_kills() {
    // Ctrl-\ counts as the first.
    for first in [Signal::INT, Signal::QUIT] {
        let mut world = World::serving(Settings { terminal: true, ..plain() });
        world.step(Step::Press(first));
        let actions = world.step(Step::Press(Signal::INT));
        assert!(actions.contains(&Action::KillEverything(KillReason::Interrupted)), "{first}: {actions:?}");
    }
}
