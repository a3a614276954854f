//! The end of a run and of guard in detail: the order of what is done, who gets how much time, and what counts.

use super::super::{Action, Asker, Ending, Failure, KillReason, Notice, RunId, Settings, TimeLimit};
use super::listening::{health, notify, says};
use super::scenarios::{delay_of, exit, plain, spawns};
use super::world::{Leftovers, STOP, Step, UNIT, Words, World, run, settings, signal};
use crate::config::Scale;
use crate::config::{Meaning, RestartPolicy};
use crate::signal::Signal;
use std::time::Duration;

/// The place of the one action that this is true of.
fn place(actions: &[Action], wanted: impl Fn(&Action) -> bool) -> usize {
    let mut places = (0..).zip(actions).filter(|(_, action)| wanted(action)).map(|(place, _)| place);
    let place = places.next().unwrap_or_else(|| panic!("not there: {actions:?}"));
    assert_eq!(places.next(), None, "twice: {actions:?}");
    place
}

fn reported(actions: &[Action], wanted: fn(&Notice) -> bool) -> usize {
    place(actions, |action| matches!(action, Action::Report(notice) if wanted(notice)))
}

/// What tells of a kill may take its time, so it comes after.
#[test]
fn a_kill_comes_before_what_is_told_of_it() {
    let mut world = World::serving(plain());
    world.step(Step::Signal(STOP));
    let actions = world.wait();
    let kill = place(&actions, |action| *action == Action::KillEverything(KillReason::StopTimeout));
    assert!(kill < reported(&actions, |notice| matches!(notice, Notice::KillEverything { .. })));

    let mut world = World::serving(plain());
    world.step(Step::AskRestart);
    let actions = world.wait();
    let kill = place(&actions, |action| *action == Action::Kill(run(1)));
    assert!(
        kill < reported(&actions, |notice| matches!(notice, Notice::KillRun { limit: TimeLimit::StopTimeout, .. }))
    );

    let mut world = World::serving(plain());
    world.step(Step::Exit(run(1), Ending::Exited(1), Leftovers::Stuck));
    let actions = world.wait();
    let kill = place(&actions, |action| *action == Action::Sweep(run(1), Signal::KILL));
    assert!(kill < reported(&actions, |notice| matches!(notice, Notice::KillLeftovers { .. })));

    let mut world = World::serving(settings());
    world.step(Step::Signal(STOP));
    let actions = world.wait();
    let kill = place(&actions, |action| *action == Action::SignalHook(Signal::KILL));
    assert!(kill < reported(&actions, |notice| matches!(notice, Notice::KillHook)));
}

#[test]
fn a_run_is_forgotten_when_nothing_is_left_of_it() {
    let mut world = World::serving(plain());
    world.step(Step::Exit(run(1), Ending::Exited(1), Leftovers::Mortal));
    assert!(world.step(Step::Clear(run(1))).contains(&Action::Forget(run(1))));
    world.step(Step::Spawn(Ok(())));
    let actions = world.step(Step::Exit(run(2), Ending::Exited(1), Leftovers::Stuck));
    assert!(!actions.contains(&Action::Forget(run(2))), "{actions:?}");
    assert!(!world.wait().contains(&Action::Forget(run(2))), "it has got SIGKILL");
    assert!(world.wait().contains(&Action::Forget(run(2))), "it does not die");
}

#[test]
fn a_run_that_fails_is_not_stable_however_long_it_was_ready() {
    for failure in [None, Some(Failure::Health), Some(Failure::Watchdog)] {
        let mut settings = Settings { watchdog: Some(UNIT * 10), ..health(1, Duration::ZERO) };
        settings.restart.backoff_initial = UNIT;
        let mut world = World::serving(settings);
        world.step(exit(1, 1));
        world.step(Step::Spawn(Ok(())));
        world.wait_for(&Action::StartCheck(run(2)));
        world.step(Step::CheckEnds(run(2), true));
        // Longer than GUARD_STABLE_AFTER.
        world.wait_for(&Action::StartCheck(run(2)));
        match failure {
            None | Some(Failure::NotReady) => world.step(Step::CheckEnds(run(2), true)),
            Some(Failure::Health) => world.step(Step::CheckEnds(run(2), false)),
            Some(Failure::Watchdog) => world.step(Step::Says(run(2), Words::Trouble)),
            Some(Failure::Memory) => world.step(Step::Grows(run(2))),
        };
        let delay = delay_of(&world.step(exit(2, 1)));
        assert_eq!(delay.is_zero(), failure.is_none(), "{failure:?}: {delay:?}");
    }
}

#[test]
fn leftovers_of_a_run_that_was_killed_get_no_time_but_those_of_a_core_file_do() {
    let mut world = World::serving(plain());
    world.step(Step::AskRestart);
    world.wait_for(&Action::Kill(run(1)));
    world.step(Step::Exit(run(1), Ending::Signaled(Signal::KILL), Leftovers::Stuck));
    let ended = world.now;
    while !world.wait().contains(&Action::Forget(run(1))) {}
    assert_eq!(world.now.since(ended), Duration::from_secs(3), "what SIGKILL has to end them");

    for killed in [false, true] {
        let mut world = World::serving(Settings { watchdog: Some(UNIT), ..notify() });
        world.step(says(Words::Ready));
        world.step(says(Words::Trouble));
        while killed && !world.wait().contains(&Action::Kill(run(1))) {}
        world.step(Step::Exit(run(1), Ending::Signaled(signal("ABRT")), Leftovers::Mortal));
        let ended = world.now;
        assert!(world.wait().contains(&Action::Sweep(run(1), Signal::KILL)));
        assert_eq!(world.now.since(ended), Duration::from_secs(2), "killed: {killed}");
    }
}

#[test]
fn the_time_for_a_core_file_is_bounded_by_a_stop() {
    let mut settings = Settings { watchdog: Some(UNIT), ..notify() };
    settings.stop.timeout = Some(UNIT * 4);
    let mut world = World::serving(settings);
    world.step(says(Words::Ready));
    world.step(says(Words::Trouble));
    assert_eq!(world.step(says(Words::Stopping)), [], "it has been told more than that");
    let asked = world.now;
    let actions = world.step(Step::AskStop);
    assert!(!actions.iter().any(|action| matches!(action, Action::Signal(..) | Action::Stop(..))), "{actions:?}");
    assert!(world.wait().contains(&Action::KillEverything(KillReason::StopTimeout)));
    assert_eq!(world.now.since(asked), UNIT * 4);
}

#[test]
fn a_restart_takes_no_longer_than_its_timeout_though_a_core_file_is_being_written() {
    let mut world = World::serving(Settings { watchdog: Some(UNIT), ..notify() });
    world.step(says(Words::Ready));
    world.step(says(Words::Trouble));
    assert_eq!(world.supervisor.next_deadline().map(|at| at.since(world.now)), Some(Duration::from_secs(5)));
    let actions = world.step(Step::AskRestart);
    assert!(
        actions.contains(&Action::Report(Notice::RestartRequested { run: run(1), asker: Asker::Operator })),
        "{actions:?}"
    );
    assert!(world.supervisor.is_stopping(run(1)));
    let actions = world.step(exit(1, 0));
    assert_eq!(
        actions.last(),
        Some(&Action::Spawn { run: run(2), restarts: 0, last: Some(Ending::Replaced(Asker::Operator, 0)) })
    );
}

#[test]
fn a_later_drain_does_not_give_the_hook_more_time() {
    let mut settings = settings();
    settings.stop.restart_timeout = UNIT * 4;
    settings.stop.timeout = Some(UNIT * 20);
    let mut world = World::serving(settings);
    world.step(Step::AskRestart);
    let asked = world.now;
    world.step(Step::Advance);
    world.step(Step::Signal(STOP));
    assert!(world.wait().contains(&Action::SignalHook(Signal::KILL)));
    assert_eq!(world.now.since(asked), UNIT * 2);
}

#[test]
fn the_drain_file_is_there_before_the_hook_starts_and_the_app_is_told() {
    for step in [Step::AskStop, Step::AskRestart] {
        let mut world = World::serving(settings());
        let actions = world.step(step);
        let file = place(&actions, |action| *action == Action::SetDrainFile(true));
        assert!(file < place(&actions, |action| matches!(action, Action::StartHook { .. })), "{actions:?}");
        let mut world = World::serving(plain());
        let actions = world.step(step);
        let file = place(&actions, |action| *action == Action::SetDrainFile(true));
        assert!(file < place(&actions, |action| *action == Action::Stop(run(1), STOP)), "{actions:?}");
    }
}

#[test]
fn an_impatient_person_at_the_terminal_ends_a_drain_and_sockets_are_let_go_first() {
    let mut settings = Settings { holds: true, terminal: true, ..plain() };
    settings.stop.drain_delay = UNIT;
    let mut world = World::serving(settings);
    assert!(!world.step(Step::Signal(Signal::INT)).contains(&Action::Release), "it still serves");
    let actions = world.step(Step::Signal(Signal::INT));
    let kill = place(&actions, |action| *action == Action::KillEverything(KillReason::Interrupted));
    assert!(place(&actions, |action| *action == Action::Release) < kill, "{actions:?}");
}

/// The hook of a restart is on its way out, since its run has ended.
fn with_a_released_hook() -> World {
    let mut world = World::serving(Settings { pre_stop: true, terminal: true, ..plain() });
    world.step(Step::AskRestart);
    assert!(world.step(exit(1, 0)).contains(&Action::SignalHook(Signal::TERM)));
    world.step(Step::Spawn(Ok(())));
    world
}

fn starts_hook(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::StartHook { .. }))
}

#[test]
fn a_stop_has_a_hook_of_its_own_though_another_is_ending_and_the_app_ends_first() {
    for (stop, signal) in [(Step::Press(Signal::INT), Signal::INT), (Step::Signal(STOP), STOP)] {
        let mut world = with_a_released_hook();
        assert!(world.step(stop).contains(&Action::SignalHook(Signal::KILL)));
        world.step(exit(2, 0));
        let hook = Action::StartHook { signal: Some(signal), left: Some(UNIT * 4) };
        assert_eq!(world.step(Step::HookEnds), [hook]);
        assert!(world.step(Step::HookEnds).contains(&Action::KillEverything(KillReason::AllEnded)));
    }
}

#[test]
fn no_hook_follows_another_for_a_run_that_has_ended() {
    let mut world = with_a_released_hook();
    world.step(Step::AskRestart);
    world.step(exit(2, 0));
    world.step(Step::Spawn(Ok(())));
    assert_eq!(world.step(Step::HookEnds), []);
}

#[test]
fn no_hook_starts_when_its_time_is_over() {
    let mut world = with_a_released_hook();
    world.step(Step::Signal(STOP));
    world.wait_for(&Action::Report(Notice::KillHook));
    let actions = world.step(Step::HookEnds);
    assert!(!starts_hook(&actions) && actions.contains(&Action::Stop(run(2), STOP)), "{actions:?}");

    let mut world = with_a_released_hook();
    world.step(Step::Signal(Signal::INT));
    assert!(world.step(Step::Signal(Signal::INT)).contains(&Action::KillEverything(KillReason::Interrupted)));
    assert_eq!(world.step(Step::HookEnds), []);
}

#[test]
fn the_hook_of_a_stop_knows_guards_deadline_and_not_that_of_a_run_that_has_failed() {
    let mut settings = Settings { instances: 2, pre_stop: true, ..notify() };
    (settings.stop.timeout, settings.ready.timeout) = (Some(UNIT * 20), UNIT * 2);
    let mut world = World::serving(settings);
    world.step(Step::Says(RunId { instance: 1, number: 1 }, Words::Ready));
    world.wait_for(&Action::Stop(run(1), STOP));
    let actions = world.step(Step::Signal(STOP));
    let hook = Action::StartHook { signal: Some(STOP), left: Some(UNIT * 20) };
    assert!(actions.contains(&hook), "{actions:?}");
}

#[test]
fn a_stop_has_its_hook_whatever_the_run_is_about_and_none_where_no_run_is_left() {
    let settings = || Settings { pre_stop: true, ..notify() };
    let hook = |world: &mut World| starts_hook(&world.step(Step::Signal(STOP)));
    let mut failed = World::serving(settings());
    failed.wait_for(&Action::Stop(run(1), STOP));
    assert!(hook(&mut failed));

    let mut stops_by_itself = World::serving(settings());
    stops_by_itself.step(says(Words::Stopping));
    assert!(hook(&mut stops_by_itself));

    let mut leaves_a_daemon = World::serving(settings());
    let actions = leaves_a_daemon.step(Step::Exit(run(1), Ending::Exited(1), Leftovers::Mortal));
    assert_eq!(actions, [Action::Sweep(run(1), Signal::TERM)], "the next run waits for it");
    assert!(hook(&mut leaves_a_daemon));

    let mut crashes = World::serving(settings());
    crashes.step(exit(1, 1));
    crashes.step(Step::Spawn(Ok(())));
    crashes.step(exit(2, 1));
    assert!(!hook(&mut crashes), "a backoff");
}

#[test]
fn a_stop_hastens_the_signal_that_follows_a_message_on_nodes_channel() {
    let mut settings = Settings { node_ipc: true, ..notify() };
    (settings.stop.restart_timeout, settings.stop.timeout) = (UNIT * 20, Some(UNIT * 4));
    let mut world = World::serving(settings);
    world.step(says(Words::Ready));
    world.step(Step::AskRestart);
    world.step(Step::Signal(STOP));
    let asked = world.now;
    assert!(world.wait().contains(&Action::Stop(run(1), STOP)));
    assert_eq!(world.now.since(asked), UNIT * 2, "half of what is left");
}

#[test]
fn a_run_is_told_of_its_drain_once_and_not_before() {
    let mut settings = Settings { node_ipc: true, ..notify() };
    settings.stop.drain_delay = UNIT;
    let mut world = World::serving(settings.clone());
    let says_drain = |actions: &[Action]| actions.contains(&Action::SayDrain(run(1)));
    assert!(!says_drain(&world.step(says(Words::Ready))));
    assert!(says_drain(&world.step(Step::AskRestart)));
    assert!(!says_drain(&world.step(Step::AskStop)));

    let key = Step::Press(Signal::INT);
    let mut world = World::serving(Settings { terminal: true, ..settings });
    assert!(says_drain(&world.clone().step(key)));
    world.step(Step::AskRestart);
    assert!(!says_drain(&world.step(key)), "the restart has told it");
}

#[test]
fn the_log_tells_of_a_drain_unless_there_is_nothing_to_drain() {
    let drains =
        |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Report(Notice::Draining { .. })));
    let mut settings = Settings { instances: 2, ..plain() };
    settings.restart.max = Some(1);
    for (instances, expected) in [(1, false), (2, true)] {
        let mut world = World::serving(Settings { instances, ..settings.clone() });
        assert!(!drains(&world.step(exit(1, 1))));
        world.step(Step::Spawn(Ok(())));
        assert_eq!(drains(&world.step(exit(2, 1))), expected, "guard gives up, with {instances}");
    }
    let mut world = World::serving(plain());
    world.step(exit(1, 1));
    world.step(Step::Spawn(Ok(())));
    world.step(exit(2, 1));
    assert!(drains(&world.step(Step::Signal(STOP))), "in a backoff: somebody asked");
}

#[test]
fn more_time_moves_the_signal_after_a_message_and_never_the_deadline() {
    let mut settings = Settings { node_ipc: true, ..notify() };
    settings.stop.timeout = Some(UNIT * 3);
    let mut world = World::serving(settings);
    world.step(says(Words::Ready));
    world.step(Step::Signal(STOP));
    let asked = world.now;
    world.step(Step::Advance);
    world.step(says(Words::More));
    world.step(says(Words::More));
    let actions = world.wait();
    assert!(actions.contains(&Action::KillEverything(KillReason::StopTimeout)), "{actions:?}");
    assert_eq!(world.now.since(asked), UNIT * 3);
}

#[test]
fn a_freeze_moves_the_start_period_as_well() {
    let mut settings = health(1, UNIT * 2);
    settings.ready.timeout = UNIT * 100;
    let mut world = World::serving(settings);
    assert_eq!(world.wait(), [Action::StartCheck(run(1))]);
    world.step(Step::Freeze);
    // 2.2 units have passed, of which the freeze took two.
    assert_eq!(world.step(Step::CheckEnds(run(1), false)), [], "the start period is not over");
    world.wait_for(&Action::StartCheck(run(1)));
    while world.now.0 < UNIT * 4 {
        world.step(Step::Advance);
    }
    let actions = world.step(Step::CheckEnds(run(1), false));
    assert!(
        actions.contains(&Action::Report(Notice::Failing { run: run(1), failure: Failure::Health })),
        "now it is over: {actions:?}"
    );
}

#[test]
fn a_failure_counts_from_the_very_end_of_the_start_period_on() {
    for (longer, counts) in [(Duration::ZERO, true), (Duration::from_nanos(1), false)] {
        let mut world = World::serving(health(1, Duration::from_millis(600) + longer));
        world.wait_for(&Action::KillCheck(run(1)));
        assert_eq!(world.now.0, Duration::from_millis(600));
        let actions = world.step(Step::CheckEnds(run(1), false));
        let failing = Action::Report(Notice::Failing { run: run(1), failure: Failure::Health });
        assert_eq!(actions.contains(&failing), counts);
    }
}

#[test]
fn the_first_checks_are_close_together_and_then_at_the_interval() {
    let mut settings = health(3, UNIT * 100);
    if let Some(health) = &mut settings.health {
        (health.interval, health.timeout) = (Duration::from_millis(700), UNIT);
    }
    let mut world = World::serving(settings);
    let mut pauses = Vec::new();
    for passes in [false, false, false, false, true, false] {
        let before = world.now;
        world.wait_for(&Action::StartCheck(run(1)));
        pauses.push(world.now.since(before).as_millis());
        world.step(Step::CheckEnds(run(1), passes));
    }
    assert_eq!(pauses, [100, 200, 400, 700, 700, 700]);
}

#[test]
fn a_success_ends_the_close_checks() {
    let mut settings = health(3, UNIT * 100);
    if let Some(health) = &mut settings.health {
        health.interval = UNIT * 4;
    }
    let mut world = World::serving(settings);
    world.wait();
    world.step(Step::CheckEnds(run(1), true));
    assert_eq!(world.supervisor.next_deadline().map(|at| at.since(world.now)), Some(UNIT * 4));
}

#[test]
fn without_a_start_period_the_first_check_waits_for_the_interval() {
    let world = World::serving(health(1, Duration::ZERO));
    assert_eq!(world.supervisor.next_deadline(), Some(world.now.after(UNIT * 2)));
}

#[test]
fn ctrl_c_ends_guard_unless_a_restart_has_ended_the_run() {
    for (step, stops) in [(None, true), (Some(says(Words::Stopping)), true), (Some(Step::AskRestart), false)] {
        let mut world = World::serving(Settings { terminal: true, ..notify() });
        world.step(says(Words::Ready));
        step.map(|step| world.step(step));
        let actions = world.step(Step::Exit(run(1), Ending::Signaled(Signal::INT), Leftovers::None));
        assert_eq!(world.supervisor.is_ending(), stops, "{step:?}: {actions:?}");
    }
}

#[test]
fn after_ctrl_c_leftovers_have_the_whole_stop_timeout() {
    let mut settings = Settings { terminal: true, ..plain() };
    settings.stop.timeout = Some(Duration::from_secs(10));
    let mut world = World::serving(settings);
    world.step(Step::Exit(run(1), Ending::Signaled(Signal::INT), Leftovers::Mortal));
    let ended = world.now;
    world.wait_for(&Action::KillEverything(KillReason::StopTimeout));
    assert_eq!(world.now.since(ended), Duration::from_secs(10));
}

#[test]
fn an_app_that_says_it_stops_is_not_in_the_background() {
    for says_so in [false, true] {
        let mut world = World::serving(notify());
        if says_so {
            world.step(says(Words::Stopping));
        }
        let actions = world.step(Step::Exit(run(1), Ending::Exited(0), Leftovers::Mortal));
        assert_eq!(actions.contains(&Action::Report(Notice::Background { run: run(1) })), !says_so);
    }
}

#[test]
fn an_instance_counts_its_own_restarts() {
    let mut settings = Settings { instances: 2, ..plain() };
    settings.restart.max = Some(1);
    let mut world = World::serving(settings);
    for instance in 0..2 {
        let run = RunId { instance, number: 1 };
        let actions = world.step(Step::Exit(run, Ending::Exited(1), Leftovers::None));
        assert_eq!(delay_of(&actions), Duration::ZERO);
        world.step(Step::Spawn(Ok(())));
    }
    let actions = world.step(Step::Exit(RunId { instance: 1, number: 2 }, Ending::Exited(1), Leftovers::None));
    let gave_up = |action: &Action| matches!(action, Action::Report(Notice::GiveUp { run, .. }) if run.instance == 1);
    assert!(actions.iter().any(gave_up), "{actions:?}");
}

fn quit() -> Step {
    Step::Signal(Signal::QUIT)
}

#[test]
fn an_end_within_the_stop_timeout_after_a_forwarded_quit_is_a_stop() {
    for (ending, code) in [
        (Ending::Exited(0), 0),
        (Ending::Exited(3), 3),
        (Ending::Signaled(Signal::QUIT), 131),
        (Ending::Signaled(signal("SEGV")), 139),
    ] {
        for units in 0..=5 {
            let mut settings = plain();
            settings.restart.policy = RestartPolicy::Always;
            let mut world = World::serving(settings);
            world.step(quit());
            (0..units).for_each(|_| drop(world.step(Step::Advance)));
            let actions = world.step(Step::Exit(run(1), ending, Leftovers::None));
            let told = actions.contains(&Action::Report(Notice::StoppedByQuit { run: run(1), ending }));
            assert_eq!(told, units < 4, "{ending:?} after {units} of 4 units: {actions:?}");
            assert_eq!(spawns(&actions, 2), units >= 4);
            assert_eq!(world.exit, None, "what SIGKILL went to is to be reaped");
            if told {
                assert_eq!(world.step(Step::Reaped).last(), Some(&Action::Exit { code }));
            }
        }
    }
}

#[test]
fn a_second_quit_starts_the_time_anew_and_a_mapped_one_has_none() {
    let mut settings = plain();
    let mut world = World::serving(settings.clone());
    world.step(quit());
    (0..3).for_each(|_| drop(world.step(Step::Advance)));
    world.step(quit());
    (0..3).for_each(|_| drop(world.step(Step::Advance)));
    assert!(!spawns(&world.step(exit(1, 1)), 2));

    settings.signal_map.push((Signal::QUIT, Meaning::Forward(Signal::QUIT)));
    let mut world = World::serving(settings);
    assert_eq!(world.step(quit()), [Action::Signal(run(1), Signal::QUIT)]);
    assert!(spawns(&world.step(exit(1, 1)), 2), "the user has said that it is no stop");
}

#[test]
fn leftovers_of_a_run_that_a_quit_has_stopped_have_the_rest_of_the_stop_timeout() {
    let mut settings = plain();
    settings.stop.restart_timeout = UNIT * 20;
    let mut world = World::serving(settings);
    world.step(quit());
    let asked = world.now;
    world.step(Step::Advance);
    let actions = world.step(Step::Exit(run(1), Ending::Exited(0), Leftovers::Mortal));
    assert!(!actions.contains(&Action::Report(Notice::Background { run: run(1) })), "{actions:?}");
    world.wait_for(&Action::Sweep(run(1), Signal::KILL));
    assert_eq!(world.now.since(asked), UNIT * 20);
}

#[test]
fn what_guard_or_an_operator_ends_is_followed_though_a_quit_has_come() {
    let mut world = World::serving(plain());
    world.step(quit());
    world.step(Step::AskRestart);
    assert!(spawns(&world.step(exit(1, 1)), 2), "an operator");

    let mut world = World::serving(plain());
    world.step(quit());
    world.step(Step::Exit(run(1), Ending::Exited(1), Leftovers::Mortal));
    world.step(Step::AskRestart);
    assert!(spawns(&world.step(Step::Clear(run(1))), 2), "an operator, while leftovers are swept");

    let mut world = World::serving(notify());
    world.step(quit());
    assert!(world.wait().contains(&Action::Stop(run(1), STOP)), "it is not ready in time");
    assert!(spawns(&world.step(exit(1, 1)), 2), "guard");

    let mut world = World::serving(notify());
    world.step(says(Words::Ready));
    world.step(quit());
    world.step(says(Words::Stopping));
    assert!(!spawns(&world.step(exit(1, 1)), 2), "an app that says so is stopped by it all the same");
}

#[test]
fn instances_that_a_quit_has_stopped_end_one_by_one_without_a_second_signal() {
    let mut world = World::serving(Settings { instances: 2, ..plain() });
    world.step(quit());
    let of = |instance| RunId { instance, number: 1 };
    let actions = world.step(Step::Exit(of(0), Ending::Exited(5), Leftovers::None));
    assert!(!actions.iter().any(|action| matches!(action, Action::Signal(..) | Action::Stop(..))), "{actions:?}");
    world.step(Step::Exit(of(1), Ending::Exited(0), Leftovers::None));
    assert_eq!(world.step(Step::Reaped).last(), Some(&Action::Exit { code: 5 }));
}

/// As where an engine stops an image with STOPSIGNAL QUIT while one of the instances crashes again and again.
#[test]
fn when_a_quit_has_stopped_the_last_run_what_was_in_a_backoff_is_stopped_too() {
    for starts in [false, true] {
        let mut world = World::serving(Settings { instances: 2, ..plain() });
        let exits =
            |instance, number, code| Step::Exit(RunId { instance, number }, Ending::Exited(code), Leftovers::None);
        let mut actions = world.step(exits(0, 1, 1));
        while !spawns(&actions, 2) {
            actions = world.wait();
        }
        world.step(Step::Spawn(Ok(())));
        world.step(exits(0, 2, 1));
        world.step(quit());
        if starts {
            assert!(spawns(&world.wait(), 3), "the backoff is over first");
            world.step(Step::Spawn(Ok(())));
        }
        let actions = world.step(exits(1, 1, 0));
        if starts {
            let stop = Action::Stop(RunId { instance: 0, number: 3 }, Signal::QUIT);
            assert!(actions.contains(&stop), "{actions:?}");
            world.step(exits(0, 3, 1));
        }
        assert_eq!(world.step(Step::Reaped).last(), Some(&Action::Exit { code: 1 }));
    }
}

#[test]
fn a_failed_run_has_ten_seconds_or_the_stop_timeout_whichever_is_shorter() {
    let ten = Duration::from_secs(10);
    for (timeout, expected, limit) in [
        (None, ten, TimeLimit::Failure(ten)),
        (Some(Duration::from_secs(120)), ten, TimeLimit::Failure(ten)),
        (Some(ten), ten, TimeLimit::StopTimeout),
        (Some(UNIT), UNIT, TimeLimit::StopTimeout),
    ] {
        // What somebody asks for meanwhile, with a later deadline, leaves it as it is.
        let all = [None, Some(Step::AskRestart), Some(Step::Signal(STOP))];
        for asked in &all[..if limit == TimeLimit::StopTimeout { 1 } else { 3 }] {
            let mut settings = notify();
            (settings.stop.timeout, settings.stop.restart_timeout) = (timeout, timeout.unwrap_or(ten * 2));
            let mut world = World::serving(settings);
            world.wait_for(&Action::Stop(run(1), STOP));
            let failed = world.now;
            asked.iter().for_each(|step| _ = world.step(*step));
            let actions = world.wait_for(&Action::Kill(run(1)));
            assert_eq!(world.now.since(failed), expected);
            assert!(actions.contains(&Action::Report(Notice::KillRun { run: run(1), limit })), "{actions:?}");
        }
    }
}

#[test]
fn daemons_of_no_run_have_the_time_of_leftovers_at_guards_end() {
    let killed = Action::KillEverything(KillReason::AllEnded);
    let asked = |actions: &[Action]| actions.contains(&Action::SweepUnmarked);
    let serving = || {
        let mut world = World::serving(plain());
        world.unmarked = true;
        world
    };
    let mut world = serving();
    assert!(!asked(&world.step(exit(1, 1))), "guard goes on");
    world.step(Step::Spawn(Ok(())));
    assert!(!asked(&world.step(Step::Signal(STOP))), "the app may need them");
    let stop = world.now;
    let actions = world.step(Step::Exit(run(2), Ending::Exited(0), Leftovers::Mortal));
    assert!(asked(&actions), "beside the leftovers: {actions:?}");
    assert!(!world.step(Step::Clear(run(2))).contains(&killed));
    assert!(world.clone().step(Step::UnmarkedEnds).contains(&killed));
    assert!(world.wait().contains(&Action::KillEverything(KillReason::StopTimeout)));
    assert_eq!(world.now.since(stop), UNIT * 4);

    let mut world = serving();
    let actions = world.step(exit(1, 0));
    assert!(asked(&actions) && !actions.contains(&killed), "{actions:?}");
    let ended = world.now;
    assert!(world.wait().contains(&killed));
    assert_eq!(world.now.since(ended), Duration::from_secs(2), "where nobody has asked for the end");

    // The lingering goes on: nobody wakes a guard whose app has ended.
    let mut world = serving();
    world.step(exit(1, 0));
    let outcome = Err("the app has ended");
    assert!(world.step(Step::AskScale(Scale::More(1))).contains(&Action::ConcludeScale(outcome)));
    assert!(world.wait().contains(&killed));

    let mut world = World::serving(Settings { init: false, ..plain() });
    assert!(!asked(&world.step(Step::Signal(STOP))) && !asked(&world.step(exit(1, 0))));

    // The child of a leftover is guard's when the leftover has ended.
    let mut world = World::serving(plain());
    world.adopted = true;
    world.step(Step::Signal(STOP));
    assert!(asked(&world.step(Step::Exit(run(1), Ending::Exited(0), Leftovers::Mortal))));
    let actions = world.step(Step::Clear(run(1)));
    assert!(asked(&actions) && !actions.contains(&killed), "{actions:?}");
    assert!(world.step(Step::UnmarkedEnds).contains(&killed));
}

/// Who sends requests learns of a stop when it begins, and not when a restart has begun before.
#[test]
fn a_stop_during_the_drain_of_a_restart_has_a_drain_delay_of_its_own() {
    // As long as half of what is left until the run's deadline: of twenty units, and of four.
    for (timeout, expected) in [(20, UNIT * 3), (5, UNIT * 2)] {
        let mut settings = plain();
        (settings.stop.drain_delay, settings.stop.restart_timeout) = (UNIT * 3, UNIT * timeout);
        settings.stop.timeout = Some(UNIT * timeout);
        let mut world = World::serving(settings);
        world.step(Step::AskRestart);
        world.now = world.now.after(UNIT);
        let begun = world.now;
        world.step(Step::Signal(STOP));
        world.wait_for(&Action::Stop(run(1), STOP));
        assert_eq!(world.now, begun.after(expected), "{timeout}");
    }
}
