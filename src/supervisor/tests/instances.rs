//! Several instances: what each does for itself, and what they make up together.

use super::super::{Action, Ending, Event, InPlace, KillReason, Notice, RunId, Settings, SpawnError};
use super::listening::notify;
use super::scenarios::plain;
use super::world::{Leftovers, STOP, Step, UNIT, Words, World, settings};
use crate::config::Scale;
use crate::config::codes::CodeSet;
use crate::config::{Instances, RestartPolicy};
use crate::signal::Signal;

fn of(instance: u32, number: u32) -> RunId {
    RunId { instance, number }
}

fn exits(run: RunId, code: u8) -> Step {
    Step::Exit(run, Ending::Exited(code), Leftovers::None)
}

fn several(instances: u32) -> Settings {
    Settings { instances, ..plain() }
}

#[test]
fn guard_exits_with_the_failure_that_came_first() {
    let mut settings = several(3);
    settings.restart.policy = RestartPolicy::Never;
    let mut world = World::serving(settings);
    for (instance, code) in [(1, 0), (2, 5), (0, 3)] {
        assert_eq!(world.supervisor.readiness(), Ok(()), "one still serves");
        world.step(exits(of(instance, 1), code));
    }
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(5));
}

/// The first answer decides whether the command can be executed at all.
#[test]
fn only_the_very_first_spawn_ends_guard() {
    let missing = Step::Spawn(Err(SpawnError { code: 127, transient: false, name: "ENOENT" }));
    let mut world = World::new(several(2));
    world.step(Step::Start);
    world.step(missing);
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(127));
    let mut world = World::new(several(2));
    world.step(Step::Start);
    world.step(Step::Spawn(Ok(())));
    world.step(missing);
    assert!(!world.supervisor.is_ending(), "somebody has replaced the file meanwhile, perhaps");
    world.step(Step::Spawn(Ok(())));
    assert_eq!(world.mains, [of(0, 1), of(1, 2)]);
}

fn to(number: u32) -> Step {
    Step::AskScale(Scale::To(Instances::Number(number)))
}

const UP: Step = Step::AskScale(Scale::More(1));
const DOWN: Step = Step::AskScale(Scale::Fewer(1));
const STARTED: Step = Step::Spawn(Ok(()));

fn scales(actions: &[Action]) -> Vec<Result<u32, &'static str>> {
    let outcome = |action: &Action| if let Action::ConcludeScale(outcome) = *action { Some(outcome) } else { None };
    actions.iter().filter_map(outcome).collect()
}

fn stops(actions: &[Action], run: RunId) -> bool {
    actions.contains(&Action::Stop(run, STOP))
}

fn numbers(world: &World) -> Vec<u32> {
    world.supervisor.instances().map(|instance| instance.number).collect()
}

#[test]
fn more_instances_start_at_once_and_are_waited_for_until_they_are_ready() {
    let mut world = World::serving(notify());
    world.step(Step::Says(of(0, 1), Words::Ready));
    assert_eq!(scales(&world.step(to(3))), []);
    world.step(STARTED);
    world.step(STARTED);
    assert_eq!(world.mains, [of(0, 1), of(1, 1), of(2, 1)]);
    assert_eq!(scales(&world.step(Step::Says(of(2, 1), Words::Ready))), []);
    assert_eq!(scales(&world.step(Step::Says(of(1, 1), Words::Ready))), [Ok(3)]);
}

#[test]
fn fewer_instances_are_the_last_ones_drained_and_waited_for_until_they_are_gone() {
    let mut settings = several(3);
    settings.stop.drain_delay = UNIT;
    let mut world = World::serving(settings);
    let actions = world.step(to(1));
    assert!(scales(&actions).is_empty() && !stops(&actions, of(2, 1)), "the drain delay: {actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::SetDrainFile(_))), "guard itself goes on");
    let actions = world.wait();
    assert!(stops(&actions, of(2, 1)) && stops(&actions, of(1, 1)) && !stops(&actions, of(0, 1)), "{actions:?}");
    assert_eq!(scales(&world.step(exits(of(1, 1), 1))), []);
    assert_eq!(scales(&world.step(Step::Exit(of(2, 1), Ending::Exited(1), Leftovers::Mortal))), []);
    assert_eq!(scales(&world.step(Step::Clear(of(2, 1)))), [Ok(1)]);
    assert_eq!((numbers(&world), &world.mains), (vec![0], &vec![of(0, 1)]));
    world.step(Step::Signal(STOP));
    world.step(exits(of(0, 1), 0));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(0), "how they ended is nobody's failure");
}

#[test]
fn a_number_is_free_again_when_its_instance_has_gone_and_its_runs_are_numbered_on() {
    let mut world = World::serving(several(2));
    world.step(DOWN);
    world.step(UP);
    world.step(STARTED);
    assert_eq!(numbers(&world), [0, 1, 2], "the other one has not gone yet");
    assert_eq!(scales(&world.step(exits(of(1, 1), 0))), [Ok(2)]);
    world.step(UP);
    assert_eq!(scales(&world.step(STARTED)), [Ok(3)]);
    assert_eq!(world.mains, [of(0, 1), of(2, 1), of(1, 2)]);
}

#[test]
fn an_instance_that_was_scaled_down_is_not_restarted_whatever_it_waits_for() {
    // In a backoff.
    let mut world = World::serving(several(2));
    world.step(exits(of(1, 1), 1));
    world.step(STARTED);
    world.step(exits(of(1, 2), 1));
    assert_eq!(scales(&world.step(DOWN)), [Ok(1)]);
    // Asked to restart, and to be reloaded.
    for ask in [Step::AskRestart, Step::AskReload] {
        let mut world = World::serving(several(2));
        world.step(ask);
        world.step(DOWN);
        if ask == Step::AskReload {
            world.step(STARTED);
        }
        world.step(exits(of(1, 1), 1));
        assert_eq!(numbers(&world), [0], "{ask:?}");
    }
}

#[test]
fn a_new_instance_that_fails_before_it_is_ready_has_the_scale_fail() {
    let mut world = World::serving(plain());
    world.step(to(2));
    let actions = world.step(Step::Spawn(Err(SpawnError { code: 127, transient: false, name: "ENOENT" })));
    assert_eq!(scales(&actions), [Err("the new run failed before it was ready")]);
    let again = |action: &Action| matches!(action, Action::Spawn { run, .. } if *run == of(1, 2));
    assert!(actions.iter().any(again), "it is tried again: {actions:?}");
}

#[test]
fn a_scale_that_is_asked_for_again_waits_for_what_is_not_ready_yet() {
    let mut world = World::serving(notify());
    world.step(Step::Says(of(0, 1), Words::Ready));
    world.step(to(3));
    world.step(STARTED);
    world.step(STARTED);
    assert_eq!(scales(&world.step(exits(of(1, 1), 1))), [Err("the new run failed before it was ready")]);
    world.step(STARTED);
    assert_eq!(scales(&world.step(to(3))), []);
    assert_eq!(scales(&world.step(Step::Says(of(2, 1), Words::Ready))), []);
    assert_eq!(scales(&world.step(Step::Says(of(1, 2), Words::Ready))), [Ok(3)]);
}

#[test]
fn a_stop_wins_over_a_scale() {
    let mut world = World::serving(several(2));
    world.step(DOWN);
    assert_eq!(scales(&world.step(Step::AskStop)), [Err("guard is stopping")]);
    assert_eq!(scales(&world.step(UP)), [Err("guard is stopping")]);
    let mut world = World::serving(plain());
    world.prompt = false;
    world.step(UP);
    assert_eq!(scales(&world.step(Step::Signal(STOP))), [Err("guard is stopping")]);
    world.step(exits(of(0, 1), 0));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(0), "an instance that was never started has not failed");
}

#[test]
fn there_is_one_instance_at_least() {
    let mut world = World::serving(plain());
    assert_eq!(scales(&world.step(DOWN)), []);
    assert_eq!(world.mains, [of(0, 1)]);
    assert!(world.supervisor.scale_target(Scale::Fewer(1)).is_err());
    assert_eq!(world.supervisor.scale_target(Scale::More(1)), Ok((1, Some(2))));
    assert!(world.supervisor.scale_target(Scale::More(1024)).is_err());
}

#[test]
fn a_finished_instance_is_not_counted_and_gives_its_number_away() {
    let mut world = World::serving(several(2));
    world.step(exits(of(0, 1), 0));
    world.step(to(2));
    assert_eq!(scales(&world.step(STARTED)), [Ok(2)]);
    assert_eq!(world.mains, [of(1, 1), of(0, 2)]);
}

#[test]
fn a_restart_does_not_wait_for_instances_that_leave() {
    let mut world = World::serving(several(2));
    world.step(Step::AskRestart);
    world.step(exits(of(0, 1), 0));
    world.step(STARTED);
    let actions = world.step(DOWN);
    let outcome = Ok(of(0, 2));
    assert!(actions.contains(&Action::Conclude { request: InPlace::Restart, outcome }), "{actions:?}");
}

#[test]
fn a_reload_goes_on_without_an_instance_that_leaves() {
    let mut world = World::serving(several(2));
    world.step(Step::AskReload);
    world.step(STARTED);
    world.step(exits(of(0, 1), 0));
    // The new run of instance 1 is there, and the old one is being stopped.
    world.step(STARTED);
    let actions = world.step(DOWN);
    let outcome = Ok(of(1, 2));
    assert!(actions.contains(&Action::Conclude { request: InPlace::Reload, outcome }), "{actions:?}");
    world.step(exits(of(1, 1), 0));
    assert_eq!(scales(&world.step(exits(of(1, 2), 0))), [Ok(1)]);
}

#[test]
fn what_not_even_sigkill_ends_has_the_scale_fail_and_holds_up_no_other() {
    let mut world = World::serving(several(2));
    world.step(DOWN);
    world.wait_for(&Action::Kill(of(1, 1)));
    assert_eq!(scales(&world.wait()), [Err("SIGKILL does not end the old run")]);
    world.step(UP);
    assert_eq!(scales(&world.step(STARTED)), [Ok(2)]);
    assert_eq!(world.mains, [of(0, 1), of(1, 1), of(2, 1)]);
    assert!(!world.step(Step::AskRestart).iter().any(|action| stops(std::slice::from_ref(action), of(1, 1))));
}

#[test]
fn the_quota_is_read_again_at_each_restart_reload_and_scale() {
    let settings = Settings { auto: true, ..plain() };
    for step in [exits(of(0, 1), 1), Step::AskRestart, Step::AskReload, Step::AskScale(Scale::To(Instances::Auto))] {
        let mut world = World::serving(settings.clone());
        world.cpus = 2;
        assert!(world.step(step).contains(&Action::CountCpus), "{step:?}");
        world.step(STARTED);
        if step == Step::AskReload || matches!(step, Step::Exit(..)) {
            world.step(STARTED);
        }
        assert!(world.mains.contains(&of(1, 1)), "{step:?}: {:?}", world.mains);
    }
    let mut world = World::serving(settings);
    world.step(to(1));
    world.cpus = 2;
    assert!(!world.step(Step::AskRestart).contains(&Action::CountCpus), "a number was asked for");
}

#[test]
fn a_scale_by_the_quota_has_no_outcome_before_the_quota_is_known() {
    let mut world = World::serving(plain());
    let asked = Event::ScaleRequested(Scale::To(Instances::Auto));
    assert_eq!(world.handle(asked), [Action::CountCpus]);
    assert!(world.handle(Event::CpusCounted(1)).contains(&Action::ConcludeScale(Ok(1))));
}

/// Nobody has asked for this end, so no orchestrator would end it.
#[test]
fn an_end_that_nobody_has_asked_for_has_a_deadline_also_without_a_stop_timeout() {
    let mut settings = several(2);
    settings.stop.timeout = None;
    settings.restart.no_restart_codes = CodeSet::parse("3").expect("a code");
    let mut world = World::serving(settings);
    let begun = world.now;
    let actions = world.step(exits(of(0, 1), 3));
    assert!(stops(&actions, of(1, 1)), "{actions:?}");
    world.wait_for(&Action::KillEverything(KillReason::StopTimeout));
    assert_eq!(world.now.since(begun), UNIT * 4, "as long as a restart takes at most");
}

/// The drain file and the hook say that the container leaves.
#[test]
fn a_limit_of_one_instance_is_no_drain_of_the_container_while_another_serves() {
    for instances in [1, 2] {
        let mut world = World::serving(Settings { instances, lifetime: Some(UNIT * 1_000), ..settings() });
        let mut actions = world.wait();
        let has_begun = |action: &Action| matches!(action, Action::Report(Notice::RestartRequested { .. }));
        while !actions.iter().any(has_begun) {
            actions = world.wait();
        }
        let announces = |action: &Action| matches!(action, Action::SetDrainFile(true) | Action::StartHook { .. });
        assert_eq!(actions.iter().any(announces), instances == 1, "{actions:?}");
    }
}

/// The code of a run that was to be replaced is the app's, where no other follows; guard's own SIGKILL is no success.
#[test]
fn a_stop_while_a_restart_ends_a_run_leaves_the_codes_their_meaning() {
    let mut settings = plain();
    settings.restart.success_codes = CodeSet::parse("143,137").expect("codes");
    let mut world = World::serving(settings.clone());
    world.step(Step::AskRestart);
    world.step(Step::Exit(of(0, 1), Ending::Exited(143), Leftovers::Mortal));
    world.step(Step::Signal(STOP));
    world.step(Step::Clear(of(0, 1)));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(0));

    let mut world = World::serving(settings);
    world.step(Step::AskRestart);
    world.wait_for(&Action::Kill(of(0, 1)));
    world.step(Step::Signal(STOP));
    world.step(Step::Exit(of(0, 1), Ending::Signaled(Signal::KILL), Leftovers::None));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(137));
}
