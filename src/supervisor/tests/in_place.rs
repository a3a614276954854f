//! Restart and reload: what each does, who wins where they meet, and what their operators hear.

use super::super::state::{RunState, Slot};
use super::super::{Action, Asker, Ending, Event, Failure, InPlace, Notice, Outcome, RunId, Settings, SpawnError};
use super::listening::{health, notify, says};
use super::scenarios::{exit, plain, spawns};
use super::world::{Leftovers, STOP, Step, UNIT, Words, World, run, settings, signal};
use crate::config::Meaning;
use crate::signal::Signal;
use std::time::Duration;

/// The outcomes of this request.
fn outcomes(actions: &[Action], wanted: InPlace) -> Vec<Outcome> {
    let outcome = |action: &Action| {
        if let Action::Conclude { request, outcome } = *action { (request == wanted).then_some(outcome) } else { None }
    };
    actions.iter().filter_map(outcome).collect()
}

fn restarts(actions: &[Action]) -> Vec<Outcome> {
    outcomes(actions, InPlace::Restart)
}

fn reloads(actions: &[Action]) -> Vec<Outcome> {
    outcomes(actions, InPlace::Reload)
}

fn counts(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Report(Notice::Restarting { .. })))
}

/// A run that is counted as followed by another, how it ended, and who has asked for the other one.
type Counted = (RunId, Ending, Option<(InPlace, Asker)>);

fn counted(actions: &[Action]) -> Vec<Counted> {
    let count = |action: &Action| {
        if let Action::CountRestart { run, ending, asked } = *action { Some((run, ending, asked)) } else { None }
    };
    actions.iter().filter_map(count).collect()
}

fn of(instance: u32, number: u32) -> RunId {
    RunId { instance, number }
}

fn started() -> Step {
    Step::Spawn(Ok(()))
}

const SPAWN_FAILED: Step = Step::Spawn(Err(SpawnError { code: 127, transient: false, name: "ENOENT" }));

const FAILED: Outcome = Err("the new run failed before it was ready");
const OLD_STAYS: Outcome = Err("the new run failed before it was ready; the old run stays");
const STOPPING: Outcome = Err("guard is stopping");
const UNKILLABLE: Outcome = Err("SIGKILL does not end the old run");

#[test]
fn an_operator_hears_when_the_new_run_is_ready() {
    let mut world = World::serving(notify());
    world.step(says(Words::Ready));
    assert_eq!(restarts(&world.step(Step::AskRestart)), []);
    world.step(exit(1, 0));
    assert_eq!(restarts(&world.step(started())), [], "started is not ready");
    assert_eq!(restarts(&world.step(Step::Says(run(2), Words::Ready))), [Ok(run(2))]);
}

#[test]
fn a_restart_of_several_instances_is_concluded_by_the_last() {
    let mut world = World::serving(Settings { instances: 2, ..plain() });
    world.step(Step::AskRestart);
    world.step(Step::Exit(of(1, 1), Ending::Exited(0), Leftovers::None));
    assert_eq!(restarts(&world.step(started())), []);
    world.step(Step::Exit(of(0, 1), Ending::Exited(0), Leftovers::None));
    assert_eq!(restarts(&world.step(started())), [Ok(of(0, 2))]);
}

#[test]
fn an_operator_hears_when_the_new_run_fails_and_when_guard_stops() {
    for stop in [false, true] {
        let mut world = World::serving(notify());
        world.step(Step::AskRestart);
        world.step(exit(1, 0));
        world.step(started());
        let actions = if stop { world.step(Step::AskStop) } else { world.step(exit(2, 1)) };
        assert_eq!(restarts(&actions), [if stop { STOPPING } else { FAILED }]);
    }
    let mut world = World::serving(notify());
    world.step(Step::AskStop);
    assert_eq!(restarts(&world.step(Step::AskRestart)), [STOPPING]);
    assert_eq!(reloads(&world.step(Step::AskReload)), [STOPPING]);
}

/// Every instance is finished, and the hook of a restart keeps guard.
#[test]
fn where_no_run_will_follow_an_operator_hears_so() {
    let mut world = World::serving(Settings { pre_stop: true, ..plain() });
    world.step(Step::AskRestart);
    world.step(exit(1, 0));
    world.step(started());
    world.step(exit(2, 0));
    let outcome = Err("there is no run, and none will follow");
    assert_eq!(restarts(&world.step(Step::AskRestart)), [outcome]);
    assert_eq!(reloads(&world.step(Step::AskReload)), [outcome]);
}

#[test]
fn a_restart_that_was_asked_for_does_not_count() {
    let mut world = World::serving(plain());
    for number in 1..=5 {
        world.step(Step::Signal(signal("USR1")));
        let actions = world.step(exit(number, 1));
        assert!(spawns(&actions, number + 1) && !counts(&actions), "{actions:?}");
        world.step(started());
    }
}

#[test]
fn a_restart_that_is_asked_for_again_is_the_same_one() {
    let mut world = World::serving(plain());
    world.step(Step::AskRestart);
    let before = world.supervisor.next_deadline();
    world.step(Step::Advance);
    let actions = world.step(Step::AskRestart);
    let ignored = Notice::Ignored { what: "restart", why: "one is under way" };
    assert_eq!(actions, [Action::Report(ignored)]);
    assert_eq!(world.supervisor.next_deadline(), before);
    world.step(exit(1, 0));
    assert_eq!(restarts(&world.step(started())), [Ok(run(2))]);
}

#[test]
fn a_restart_wins_over_a_failure_that_is_under_way() {
    let mut world = World::serving(notify());
    assert!(world.wait().contains(&Action::Report(Notice::Failing { run: run(1), failure: Failure::NotReady })));
    let actions = world.step(Step::AskRestart);
    assert!(!actions.iter().any(|action| matches!(action, Action::Signal(..) | Action::Stop(..))), "asked once");
    let actions = world.step(exit(1, 0));
    let spawn = Action::Spawn { run: run(2), restarts: 0, last: Some(Ending::Replaced(Asker::Operator, 0)) };
    assert!(actions.ends_with(&[spawn]) && !counts(&actions), "{actions:?}");
}

#[test]
fn a_failure_does_not_count_where_a_reload_waits_for_the_next_run() {
    let mut world = World::serving(notify());
    world.wait();
    assert_eq!(reloads(&world.step(Step::AskReload)), []);
    assert!(!counts(&world.step(exit(1, 1))));
    world.step(started());
    assert_eq!(reloads(&world.step(Step::Says(run(2), Words::Ready))), [Ok(run(2))]);
}

#[test]
fn a_stop_wins_over_a_failure_that_is_under_way() {
    let mut world = World::serving(notify());
    world.wait();
    world.step(Step::AskStop);
    world.step(exit(1, 0));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(0), "it was asked to stop, and has");
}

#[test]
fn a_restart_in_place_is_killed_within_a_stop_timeout_of_its_own() {
    let mut settings = plain();
    settings.stop.timeout = None;
    let mut world = World::serving(settings);
    world.step(Step::Signal(signal("USR1")));
    let asked = world.now;
    world.wait_for(&Action::Kill(run(1)));
    assert_eq!(world.now.since(asked), UNIT * 4);
}

#[test]
fn a_restart_in_place_of_what_cannot_be_killed_has_failed_and_its_end_is_waited_for() {
    let mut world = World::serving(plain());
    world.step(Step::Signal(signal("USR1")));
    world.wait_for(&Action::Kill(run(1)));
    let actions = world.wait();
    assert_eq!(restarts(&actions), [UNKILLABLE]);
    assert_eq!(world.supervisor.readiness(), Err("the app is stopping"));
    assert_eq!(restarts(&world.step(Step::AskRestart)), [UNKILLABLE], "nobody waits for it again");
    assert_eq!(reloads(&world.step(Step::AskReload)), [UNKILLABLE]);
    let actions = world.step(exit(1, 1));
    assert!(spawns(&actions, 2) && !counts(&actions), "as if the restart had ended it: {actions:?}");
}

#[test]
fn a_failed_run_that_cannot_be_killed_is_not_ready_and_has_failed_in_the_end() {
    let mut world = World::serving(health(1, Duration::ZERO));
    world.wait_for(&Action::StartCheck(run(1)));
    world.step(Step::CheckEnds(run(1), false));
    world.wait_for(&Action::Kill(run(1)));
    let actions = world.wait();
    assert!(actions.contains(&Action::Report(Notice::Unkillable { run: run(1) })), "{actions:?}");
    assert!(world.supervisor.readiness().is_err());
    let actions = world.step(Step::Exit(run(1), Ending::Signaled(Signal::KILL), Leftovers::None));
    assert_eq!(counted(&actions), [(run(1), Ending::Failed(Failure::Health, 137), None)]);
}

#[test]
fn a_restart_whose_new_run_a_quit_stops_before_it_is_ready_has_failed() {
    let mut world = World::serving(notify());
    world.step(Step::AskRestart);
    world.step(exit(1, 0));
    world.step(started());
    world.step(Step::Signal(Signal::QUIT));
    assert_eq!(restarts(&world.step(exit(2, 0))), [Err("the new run failed before it was ready")]);
}

#[test]
fn a_restart_that_is_asked_for_while_leftovers_are_swept_does_not_count() {
    let mut world = World::serving(plain());
    world.step(Step::Exit(run(1), Ending::Exited(0), Leftovers::Mortal));
    world.step(Step::Signal(signal("USR1")));
    assert!(spawns(&world.step(Step::Clear(run(1))), 2), "even after a success");
}

#[test]
fn a_restart_ends_a_backoff_and_a_reload_too() {
    for request in [InPlace::Restart, InPlace::Reload] {
        let mut world = World::serving(plain());
        world.step(exit(1, 1));
        world.step(started());
        world.step(exit(2, 1));
        let step = if request == InPlace::Restart { Step::AskRestart } else { Step::AskReload };
        assert!(spawns(&world.step(step), 3));
        assert_eq!(outcomes(&world.step(started()), request), [Ok(run(3))]);
    }
}

#[test]
fn a_reload_waits_until_the_new_run_is_ready_and_keeps_the_old_one_if_it_never_is() {
    for ready in [true, false] {
        let mut world = World::serving(notify());
        world.step(says(Words::Ready));
        world.step(Step::AskReload);
        let actions = world.step(started());
        assert!(!actions.contains(&Action::Stop(run(1), STOP)), "the new run is not ready yet");
        assert_eq!(world.supervisor.readiness(), Ok(()), "the old one still serves");
        if ready {
            let actions = world.step(Step::Says(run(2), Words::Ready));
            assert!(actions.contains(&Action::Stop(run(1), STOP)));
            assert_eq!(reloads(&actions), [], "the old one is still there");
            assert_eq!(reloads(&world.step(exit(1, 1))), [Ok(run(2))]);
        } else {
            assert!(world.wait().contains(&Action::Stop(run(2), STOP)));
            assert_eq!(reloads(&world.step(exit(2, 0))), [OLD_STAYS]);
            assert_eq!(world.supervisor.readiness(), Ok(()));
        }
    }
}

#[test]
fn a_reload_stops_the_old_run_when_the_new_one_is_ready() {
    let mut world = World::serving(plain());
    assert!(spawns(&world.step(Step::Signal(signal("USR2"))), 2));
    let actions = world.step(started());
    assert!(actions.contains(&Action::Stop(run(1), STOP)), "{actions:?}");
    world.step(exit(1, 1));
    assert_eq!(world.mains, [run(2)]);
}

#[test]
fn a_reload_whose_new_run_fails_keeps_the_old_one() {
    let mut world = World::serving(plain());
    world.step(Step::AskReload);
    assert_eq!(reloads(&world.step(SPAWN_FAILED)), [OLD_STAYS]);
    assert_eq!(world.mains, [run(1)]);
    assert!(counts(&world.step(exit(1, 1))), "and it is restarted like any other");
}

#[test]
fn an_old_run_that_ends_by_itself_leaves_the_reload_to_the_new_one() {
    for fails in [false, true] {
        let mut world = World::serving(notify());
        world.step(says(Words::Ready));
        world.step(Step::AskReload);
        world.step(started());
        let actions = world.step(exit(1, 1));
        assert!(reloads(&actions).is_empty() && !counts(&actions), "{actions:?}");
        if fails {
            let actions = world.step(exit(2, 1));
            assert_eq!(reloads(&actions), [FAILED]);
            assert!(counts(&actions), "no old run is left to stay");
        } else {
            assert_eq!(reloads(&world.step(Step::Says(run(2), Words::Ready))), [Ok(run(2))]);
        }
    }
}

#[test]
fn a_reload_goes_from_instance_to_instance() {
    let mut world = World::serving(Settings { instances: 2, ..plain() });
    world.step(Step::AskReload);
    world.step(started());
    assert_eq!(world.mains, [of(0, 1), of(1, 1), of(0, 2)]);
    let actions = world.step(Step::Exit(of(0, 1), Ending::Exited(0), Leftovers::None));
    let last = Some(Ending::Replaced(Asker::Operator, 0));
    assert!(actions.contains(&Action::Spawn { run: of(1, 2), restarts: 0, last }), "{actions:?}");
    assert_eq!(reloads(&actions), []);
    world.step(started());
    assert_eq!(reloads(&world.step(Step::Exit(of(1, 1), Ending::Exited(0), Leftovers::None))), [Ok(of(1, 2))]);
}

#[test]
fn a_reload_that_fails_leaves_the_other_instances_alone() {
    let mut world = World::serving(Settings { instances: 2, ..plain() });
    world.step(Step::AskReload);
    assert_eq!(reloads(&world.step(SPAWN_FAILED)), [OLD_STAYS]);
    assert_eq!(world.mains, [of(0, 1), of(1, 1)]);
}

#[test]
fn a_crash_of_another_instance_is_no_failure_of_a_reload() {
    let mut world = World::serving(Settings { instances: 2, ..notify() });
    for instance in 0..2 {
        world.step(Step::Says(of(instance, 1), Words::Ready));
    }
    world.step(Step::AskReload);
    world.step(started());
    let actions = world.step(Step::Exit(of(1, 1), Ending::Exited(1), Leftovers::None));
    assert!(reloads(&actions).is_empty() && counts(&actions), "{actions:?}");
}

/// The old run is told to end already.
#[test]
fn a_new_run_that_crashes_before_the_old_one_is_over_is_restarted_and_the_reload_has_failed() {
    let mut world = World::serving(plain());
    world.step(Step::AskReload);
    world.step(started());
    let actions = world.step(exit(2, 1));
    assert!(counts(&actions), "{actions:?}");
    assert!(matches!(reloads(&actions)[..], [Err(why)] if why.starts_with("a new run was ready")), "{actions:?}");
    world.step(started());
    assert_eq!(reloads(&world.step(exit(1, 0))), []);
    assert_eq!(world.mains, [run(3)]);
}

#[test]
fn a_reload_goes_no_further_where_a_new_run_has_crashed() {
    let mut world = World::serving(Settings { instances: 3, ..plain() });
    world.step(Step::AskReload);
    world.step(started());
    world.step(Step::Exit(of(0, 1), Ending::Exited(0), Leftovers::None));
    world.step(started());
    let actions = world.step(Step::Exit(of(0, 2), Ending::Exited(1), Leftovers::None));
    assert!(matches!(reloads(&actions)[..], [Err(why)] if why.starts_with("a new run was ready")), "{actions:?}");
    assert!(world.mains.contains(&of(2, 1)), "{:?}", world.mains);
}

#[test]
fn a_reload_that_has_failed_is_concluded_once() {
    let mut world = World::serving(Settings { instances: 3, ..notify() });
    for instance in 0..3 {
        world.step(Step::Says(of(instance, 1), Words::Ready));
    }
    world.step(Step::AskReload);
    world.step(started());
    world.step(Step::Says(of(0, 2), Words::Ready));
    world.step(Step::Exit(of(0, 1), Ending::Exited(0), Leftovers::None));
    world.step(started());
    let failed = reloads(&world.step(Step::Exit(of(0, 2), Ending::Exited(1), Leftovers::None)));
    assert_eq!(failed.len(), 1);
    world.step(started());
    assert_eq!(reloads(&world.step(Step::Exit(of(1, 2), Ending::Exited(1), Leftovers::None))), []);
    assert!(world.mains.contains(&of(1, 1)), "{:?}", world.mains);
}

/// Instances have numbers, which are no places in a list.
#[test]
fn an_instance_keeps_its_number_when_another_has_gone() {
    let mut world = World::serving(Settings { instances: 3, ..plain() });
    world.supervisor.instances.remove(1);
    world.mains.retain(|main| main.instance != 1);
    let actions = world.step(Step::Exit(of(2, 1), Ending::Exited(1), Leftovers::None));
    assert!(matches!(actions.last(), Some(Action::Spawn { run, .. }) if *run == of(2, 2)), "{actions:?}");
    world.step(started());
    let numbers: Vec<u32> = world.supervisor.instances().map(|instance| instance.number).collect();
    assert_eq!(numbers, [0, 2]);
    world.step(Step::AskReload);
    world.step(started());
    let actions = world.step(Step::Exit(of(0, 1), Ending::Exited(0), Leftovers::None));
    assert!(matches!(actions.last(), Some(Action::Spawn { run, .. }) if *run == of(2, 3)), "{actions:?}");
}

#[test]
fn a_reload_that_is_asked_for_again_is_followed_by_one_more() {
    let mut world = World::serving(plain());
    world.step(Step::AskReload);
    world.step(started());
    for _ in 0..3 {
        assert_eq!(reloads(&world.step(Step::AskReload)), []);
    }
    assert_eq!(reloads(&world.step(exit(1, 0))), [Ok(run(2))]);
    assert_eq!(world.mains, [run(2)]);
    let actions = world.step(started());
    assert!(actions.contains(&Action::Stop(run(2), STOP)), "the one that follows: {actions:?}");
    assert!(world.supervisor.is_reloading());
    assert_eq!(reloads(&world.step(exit(2, 0))), [Ok(run(3))]);
    assert!(!world.supervisor.is_reloading(), "one and no more");
}

#[test]
fn a_reload_that_follows_a_failed_one_may_succeed() {
    let mut world = World::serving(plain());
    world.step(Step::AskReload);
    world.step(exit(1, 1));
    let mut world = World::serving(notify());
    world.step(says(Words::Ready));
    world.step(Step::AskReload);
    world.step(started());
    world.step(Step::AskReload);
    let actions = world.step(exit(2, 1));
    assert_eq!(reloads(&actions), [OLD_STAYS]);
    assert!(spawns(&actions, 3), "{actions:?}");
    world.step(started());
    world.step(Step::Says(run(3), Words::Ready));
    assert_eq!(reloads(&world.step(exit(1, 0))), [Ok(run(3))]);
}

#[test]
fn a_stop_concludes_the_reload_and_the_one_after_it() {
    let mut world = World::serving(notify());
    world.step(says(Words::Ready));
    world.step(Step::AskReload);
    world.step(started());
    world.step(Step::AskReload);
    assert_eq!(reloads(&world.step(Step::AskStop)), [STOPPING, STOPPING]);
}

/// A restart of the other instances alone would be none that its operator has asked for.
#[test]
fn a_restart_is_refused_where_a_reload_replaces_a_run() {
    for instances in [1, 2] {
        let mut world = World::serving(Settings { instances, ..notify() });
        (0..instances).for_each(|instance| _ = world.handle(Event::SaidReady(of(instance, 1))));
        world.step(Step::AskReload);
        world.step(started());
        let actions = world.step(Step::AskRestart);
        assert_eq!(restarts(&actions), [Err("a reload is under way")]);
        assert!(!actions.iter().any(|action| matches!(action, Action::Signal(..) | Action::Stop(..))), "{actions:?}");
    }
}

#[test]
fn a_restart_for_a_changed_file_follows_the_reload_that_it_meets() {
    let mut world = World::serving(notify());
    world.step(says(Words::Ready));
    world.step(Step::AskReload);
    world.step(started());
    world.handle(Event::FileChanged(Meaning::Restart));
    world.handle(Event::SaidReady(run(2)));
    world.handle(Event::Exited(run(1), Ending::Exited(0)));
    world.handle(Event::Leftovers(run(1), 0));
    world.handle(Event::Exited(run(2), Ending::Exited(0)));
    world.handle(Event::Leftovers(run(2), 0));
    assert!(spawns(&world.handle(Event::Timeout), 3), "run 2 may have begun before the file changed");
}

#[test]
fn a_changed_file_brings_a_reload_only_where_sockets_are_held_and_a_run_says_when_it_is_ready() {
    for (settings, holds, reloads) in
        [(plain(), false, false), (plain(), true, false), (notify(), false, false), (notify(), true, true)]
    {
        let mut world = World::serving(settings);
        if holds {
            world.handle(Event::Holds);
        }
        world.handle(Event::SaidReady(run(1)));
        let mut actions = world.handle(Event::FileChanged(Meaning::Reload));
        actions.extend(world.handle(Event::Timeout));
        let is_stopped = actions.iter().any(|action| matches!(action, Action::Stop(..) | Action::Signal(..)));
        assert_eq!((spawns(&actions, 2), is_stopped), (reloads, !reloads), "{actions:?}");
    }
}

#[test]
fn a_reload_that_is_asked_for_during_a_restart_gets_its_new_run() {
    let mut world = World::serving(plain());
    world.step(Step::AskRestart);
    world.step(Step::AskReload);
    world.step(exit(1, 0));
    let actions = world.step(started());
    assert_eq!((restarts(&actions), reloads(&actions)), (vec![Ok(run(2))], vec![Ok(run(2))]));
    assert_eq!(world.mains, [run(2)]);
}

/// The restart's new run is not ready yet when the reload puts another one beside it.
#[test]
fn a_restart_hears_of_its_run_though_a_reload_fails_to_replace_it() {
    let mut world = World::serving(notify());
    world.step(Step::AskRestart);
    world.step(exit(1, 0));
    world.step(started());
    world.step(Step::AskReload);
    world.step(started());
    assert_eq!(restarts(&world.step(Step::Says(run(2), Words::Ready))), [], "it may be replaced");
    let actions = world.step(exit(3, 1));
    assert_eq!((restarts(&actions), reloads(&actions)), (vec![Ok(run(2))], vec![OLD_STAYS]));
}

#[test]
fn the_restart_after_a_failed_reload_is_told_with_the_number_of_the_run_that_follows() {
    let mut world = World::serving(notify());
    world.step(Step::Says(run(1), Words::Ready));
    world.step(Step::AskReload);
    world.step(started());
    assert_eq!(reloads(&world.step(exit(2, 1))), [OLD_STAYS]);
    let actions = world.step(exit(1, 1));
    let is_third =
        |action: &Action| matches!(action, Action::Report(Notice::Restarting { next, .. }) if *next == run(3));
    assert!(actions.iter().any(is_third) && spawns(&actions, 3), "{actions:?}");
}

#[test]
fn a_reload_of_a_run_that_is_being_swept_gets_the_next_one_at_once() {
    let mut world = World::serving(plain());
    world.step(Step::Exit(run(1), Ending::Exited(0), Leftovers::Mortal));
    let actions = world.step(Step::AskReload);
    assert!(reloads(&actions).is_empty() && !actions.contains(&Action::SetDrainFile(true)), "{actions:?}");
    let actions = world.step(Step::Clear(run(1)));
    assert!(spawns(&actions, 2) && !counts(&actions), "even after a success: {actions:?}");
    assert_eq!(reloads(&world.step(started())), [Ok(run(2))]);
}

#[test]
fn a_reload_whose_old_run_cannot_be_killed_has_failed_and_the_new_run_serves() {
    let mut world = World::serving(plain());
    world.step(Step::AskReload);
    world.step(started());
    world.wait_for(&Action::Kill(run(1)));
    assert_eq!(reloads(&world.wait()), [UNKILLABLE]);
    assert_eq!(world.supervisor.next_deadline(), None, "guard waits for it no longer");
    assert_eq!(reloads(&world.step(Step::AskReload)), [Err("an old run has not ended yet")]);
    assert!(counts(&world.step(exit(2, 1))), "the old one does not come back in its place");
    world.step(started());
    world.step(exit(1, 0));
    assert_eq!(world.mains, [run(3)]);
    assert!(spawns(&world.step(Step::AskReload), 4), "and now there is room for a reload");
}

#[test]
fn a_reload_waits_for_the_old_run_of_one_that_has_failed() {
    let mut world = World::serving(plain());
    world.step(Step::AskReload);
    world.step(started());
    let failed = Err("a new run was ready, and has ended; runs that were not replaced yet stay");
    assert_eq!(reloads(&world.step(exit(2, 1))), [failed], "and the old one has been told to end");
    world.step(started());
    assert_eq!(reloads(&world.step(Step::AskReload)), []);
    assert!(spawns(&world.step(exit(1, 0)), 4));
    world.step(started());
    assert_eq!(reloads(&world.step(exit(3, 0))), [Ok(run(4))]);
}

#[test]
fn a_reload_does_not_wait_beside_a_new_run_that_cannot_be_killed() {
    let mut world = World::serving(notify());
    world.step(Step::Says(run(1), Words::Ready));
    world.step(Step::AskReload);
    world.step(started());
    world.wait_for(&Action::Kill(run(2)));
    assert_eq!(reloads(&world.wait()), [UNKILLABLE]);
    assert_eq!(reloads(&world.step(Step::AskReload)), [Err("an old run has not ended yet")]);
}

#[test]
fn a_stop_before_the_new_run_of_a_reload_leaves_the_old_ones_code() {
    let mut settings = plain();
    settings.signal_map = vec![(signal("HUP"), Meaning::Reload)];
    let mut world = World::serving(settings);
    world.prompt = false;
    world.step(Step::Signal(signal("HUP")));
    assert!(world.step(Step::Signal(STOP)).contains(&Action::Stop(run(1), STOP)));
    world.step(exit(1, 7));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(7));
}

#[test]
fn a_stop_that_comes_while_a_restart_kills_is_no_second_signal() {
    let mut world = World::serving(plain());
    world.step(Step::AskRestart);
    world.wait_for(&Action::Kill(run(1)));
    let actions = world.step(Step::AskStop);
    assert!(!actions.iter().any(|action| matches!(action, Action::Signal(..) | Action::Stop(..))), "{actions:?}");
    world.step(Step::Exit(run(1), Ending::Signaled(Signal::KILL), Leftovers::None));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(137));
}

#[test]
fn a_stop_of_what_a_restart_could_not_kill_waits_for_its_own_deadline() {
    let mut world = World::serving(plain());
    world.step(Step::AskRestart);
    world.wait_for(&Action::Kill(run(1)));
    world.step(Step::AskStop);
    let asked = world.now;
    world.wait();
    assert_eq!(world.supervisor.readiness(), Err("guard is stopping"));
    let Slot::Live(stuck) = &world.supervisor.instances[0].slot else { panic!("it lives") };
    assert_eq!(stuck.state, RunState::Killing { give_up_at: None });
    world.wait();
    assert_eq!(world.now.since(asked), UNIT * 4);
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(137));
}

#[test]
fn a_restart_during_the_start_period_is_concluded_by_the_first_check_of_the_new_run() {
    let mut world = World::serving(health(1, UNIT * 10));
    world.step(Step::AskRestart);
    world.step(exit(1, 0));
    world.step(started());
    world.wait_for(&Action::StartCheck(run(2)));
    assert_eq!(restarts(&world.step(Step::CheckEnds(run(2), true))), [Ok(run(2))]);
}

#[test]
fn a_restart_drains_as_a_stop_does() {
    let mut world = World::serving(settings());
    let actions = world.step(Step::AskRestart);
    assert!(actions.contains(&Action::SetDrainFile(true)), "{actions:?}");
    let left = Some(UNIT * 4);
    assert!(actions.contains(&Action::StartHook { signal: None, left }), "{actions:?}");
    world.step(Step::HookEnds);
    assert_eq!(world.supervisor.next_deadline(), Some(world.now.after(UNIT)), "the drain delay");
    assert!(world.step(Step::Advance).contains(&Action::Stop(run(1), STOP)));
    assert_eq!(world.supervisor.next_deadline().map(|at| at.since(world.now)), Some(UNIT * 3));
    assert!(world.step(exit(1, 0)).contains(&Action::SetDrainFile(false)));
    assert_eq!(world.now.0, Duration::from_millis(500));
}

#[test]
fn held_sockets_are_let_go_before_the_stop_signal_and_need_no_drain_delay_in_a_restart() {
    let settings = Settings { holds: true, pre_stop: false, ..settings() };
    let mut world = World::serving(settings.clone());
    let actions = world.step(Step::Signal(signal("USR1")));
    assert!(actions.contains(&Action::Stop(run(1), STOP)), "nobody is refused meanwhile: {actions:?}");
    assert!(!actions.contains(&Action::Release));

    let mut world = World::serving(settings.clone());
    assert!(!world.step(Step::Signal(STOP)).contains(&Action::Release), "it serves until the drain delay is over");
    let actions = world.wait();
    let at = |wanted: Action| actions.iter().position(|action| *action == wanted).expect("both");
    assert!(at(Action::Release) < at(Action::Stop(run(1), STOP)));

    let mut world = World::serving(settings);
    world.step(Step::Signal(signal("USR1")));
    assert!(world.step(Step::Signal(STOP)).contains(&Action::Release), "the only run has its stop signal already");
}

#[test]
fn a_run_that_crashes_while_the_new_run_of_a_reload_starts_is_counted() {
    let mut world = World::serving(notify());
    world.step(says(Words::Ready));
    world.step(Step::AskReload);
    world.step(started());
    assert_eq!(counted(&world.step(exit(1, 3))), [(run(1), Ending::Exited(3), None)]);
    let actions = world.step(Step::Says(run(2), Words::Ready));
    assert_eq!((reloads(&actions), counted(&actions)), (vec![Ok(run(2))], vec![]));
}

#[test]
fn a_run_that_has_crashed_before_its_turn_in_a_reload_is_counted_as_the_crash() {
    let asked = Some((InPlace::Reload, Asker::Operator));
    let mut world = World::serving(Settings { instances: 2, ..plain() });
    world.step(Step::AskReload);
    world.step(started());
    // Its leftovers are swept while the first instance has its turn, and when its own comes.
    world.step(Step::Exit(of(1, 1), Ending::Exited(3), Leftovers::Mortal));
    let actions = world.step(Step::Exit(of(0, 1), Ending::Exited(0), Leftovers::None));
    assert_eq!(counted(&actions), [(of(0, 1), Ending::Replaced(Asker::Operator, 0), asked)]);
    let actions = world.step(Step::Clear(of(1, 1)));
    assert_eq!(counted(&actions), [(of(1, 1), Ending::Exited(3), asked)]);
    let actions = world.step(started());
    assert_eq!((reloads(&actions), counted(&actions)), (vec![Ok(of(1, 2))], vec![]));
}

#[test]
fn a_run_is_counted_once_however_often_its_end_was_asked_for() {
    let mut world = World::serving(plain());
    assert_eq!(counted(&world.handle(Event::FileChanged(Meaning::Restart))), []);
    assert_eq!(counted(&world.handle(Event::RestartRequested)), []);
    let actions = world.handle(Event::Exited(run(1), Ending::Exited(0)));
    assert_eq!(counted(&actions), []);
    let asked = Some((InPlace::Restart, Asker::Operator));
    let actions = world.handle(Event::Leftovers(run(1), 0));
    assert_eq!(counted(&actions), [(run(1), Ending::Replaced(Asker::Operator, 0), asked)]);
}

#[test]
fn a_run_that_no_other_follows_is_not_counted() {
    // It survives SIGKILL.
    let mut world = World::serving(plain());
    world.step(Step::AskRestart);
    let actions = world.wait_for(&Action::Conclude { request: InPlace::Restart, outcome: UNKILLABLE });
    assert_eq!(counted(&actions), []);
    // guard stops meanwhile.
    let mut world = World::serving(plain());
    world.step(Step::AskRestart);
    world.step(Step::Signal(STOP));
    assert_eq!(counted(&world.step(exit(1, 0))), []);
    // The old run stays.
    let mut world = World::serving(plain());
    world.step(Step::AskReload);
    assert_eq!(counted(&world.step(SPAWN_FAILED)), []);
    assert_eq!(counted(&world.step(exit(1, 1))), [(run(1), Ending::Exited(1), None)]);
}
