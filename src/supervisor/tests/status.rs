//! What operators, probes and the runtime are told of the state.

use super::super::{Action, Asker, Ending, RunId, Settings};
use super::listening::{notify, says};
use super::scenarios::{exit, plain};
use super::world::{Leftovers, STOP, Step, Words, World, run};
use crate::config::{Config, Scale};

fn of(instance: u32) -> RunId {
    RunId { instance, number: 1 }
}

#[test]
fn the_instances_that_run_and_those_that_are_wanted_are_counted() {
    let mut world = World::serving(Settings { instances: 3, ..plain() });
    assert_eq!((world.supervisor.instance_count(), world.supervisor.desired()), (3, 3));
    world.step(Step::AskScale(Scale::Fewer(1)));
    assert_eq!((world.supervisor.instance_count(), world.supervisor.desired()), (3, 2), "the last one drains");
    assert_eq!(world.supervisor.serving().collect::<Vec<_>>(), [of(0), of(1)]);
    world.step(Step::Exit(of(2), Ending::Exited(0), Leftovers::None));
    assert_eq!((world.supervisor.instance_count(), world.supervisor.desired()), (2, 2));
}

#[test]
fn a_run_serves_from_its_start_to_its_stop() {
    let mut world = World::serving(notify());
    let told = |world: &World| [world.supervisor.starting().count(), world.supervisor.serving().count()];
    assert_eq!(told(&world), [1, 1]);
    world.step(says(Words::Ready));
    assert_eq!(told(&world), [0, 1]);
    world.step(Step::Signal(STOP));
    assert_eq!(told(&world), [0, 0]);
}

#[test]
fn an_instance_that_is_finished_is_no_reason_while_another_is_between_two_runs() {
    let mut world = World::serving(Settings { instances: 2, ..plain() });
    world.step(Step::Exit(of(0), Ending::Exited(0), Leftovers::None));
    assert_eq!(world.supervisor.readiness(), Ok(()));
    let last = world.supervisor.instances().next().and_then(|instance| instance.last);
    assert_eq!(last, Some(Ending::Exited(0)), "how it ended is still told");
    world.step(Step::Exit(of(1), Ending::Exited(1), Leftovers::None));
    world.step(Step::Spawn(Ok(())));
    world.step(Step::Exit(RunId { instance: 1, number: 2 }, Ending::Exited(1), Leftovers::None));
    assert_eq!(world.supervisor.readiness(), Err("the app is between two runs"));
}

#[test]
fn guard_has_given_up_at_the_restart_limit_and_not_before() {
    let mut settings = plain();
    settings.restart.max = Some(1);
    let mut world = World::serving(settings);
    world.step(exit(1, 1));
    world.step(Step::Spawn(Ok(())));
    assert!(!world.supervisor.gave_up());
    world.step(exit(2, 1));
    assert!(world.supervisor.gave_up());
}

#[test]
fn who_ends_a_run_is_told_of_that_run() {
    let mut world = World::serving(Settings { instances: 2, ..notify() });
    world.step(Step::Says(of(1), Words::Ready));
    let told = |world: &World| [0, 1].map(|instance| world.supervisor.why_ended(of(instance)));
    let shown =
        |world: &World| world.supervisor.instances().map(|instance| instance.ending.is_some()).collect::<Vec<_>>();
    assert_eq!((told(&world), shown(&world)), ([None, None], vec![false, false]));
    world.wait_for(&Action::Stop(run(1), STOP));
    assert_eq!((told(&world), shown(&world)), ([Some("not-ready"), None], vec![true, false]));
    world.step(Step::AskRestart);
    assert_eq!(told(&world), [Some(Asker::Operator.word()); 2]);
    world.step(Step::Signal(STOP));
    assert_eq!((told(&world), shown(&world)), ([None, None], vec![true, true]), "by guard's own end");
}

#[test]
fn settings_are_what_the_configuration_says() {
    let of = |line| Settings::of(&Config::of_line(line));
    assert_eq!(["-- app", "--pre-stop leave -- app"].map(|line| of(line).pre_stop), [false, true]);
    let lifetime = |line| of(line).lifetime.is_some();
    assert_eq!(["--max-lifetime 1h -- app", "--max-lifetime 1h --restart never -- app"].map(lifetime), [true, false]);
}
