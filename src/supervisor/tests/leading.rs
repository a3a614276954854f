//! New connections are led away from a run that is to stop while others are ready, and it accepts those that wait for it.

use super::super::{Action, Ending, Event, Fitness, RunId, Settings};
use super::listening::notify;
use super::scenarios::plain;
use super::world::{Leftovers, STOP, Step, Words, World, run};
use crate::config::{HealthSettings, Instances, Scale};
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(100);

fn of(instance: u32, number: u32) -> RunId {
    RunId { instance, number }
}

fn held(instances: u32) -> World {
    let mut world = World::serving(Settings { holds: true, instances, ..plain() });
    world.queues = true;
    world
}

fn stops(actions: &[Action], run: RunId) -> bool {
    actions.contains(&Action::Stop(run, STOP))
}

/// The old run has not been told of its end.
#[test]
fn an_old_run_that_is_only_led_away_stays_where_the_new_one_ends() {
    let mut world = World::serving(Settings { holds: true, ..notify() });
    world.step(Step::Says(run(1), Words::Ready));
    world.step(Step::AskReload);
    world.step(Step::Spawn(Ok(())));
    world.step(Step::Says(run(2), Words::Ready));
    let actions = world.step(Step::Exit(run(2), Ending::Exited(3), Leftovers::None));
    assert!(actions.iter().any(|action| matches!(action, Action::Conclude { outcome: Err(_), .. })), "{actions:?}");
    assert_eq!((world.supervisor.fitness(run(1)), &world.mains[..]), (Fitness::Ready, &[run(1)][..]));
    assert!(world.supervisor.readiness().is_ok());
    // It ends as ever, and another reload may come.
    world.step(Step::AskReload);
    world.step(Step::Spawn(Ok(())));
    world.step(Step::Says(run(3), Words::Ready));
    world.wait_for(&Action::Stop(run(1), STOP));
}

/// In a reload the new run is ready, and the old one is only led away.
fn led_away(settings: Settings) -> World {
    let mut world = World::serving(Settings { holds: true, ..settings });
    world.step(Step::Says(run(1), Words::Ready));
    world.step(Step::AskReload);
    world.step(Step::Spawn(Ok(())));
    world.step(Step::Says(run(2), Words::Ready));
    assert_eq!(world.supervisor.fitness(run(1)), Fitness::Draining);
    world
}

#[test]
fn the_old_run_serves_again_though_the_new_one_leaves_processes_behind() {
    let mut world = led_away(notify());
    world.step(Step::Exit(run(2), Ending::Exited(3), Leftovers::Mortal));
    assert_eq!(world.supervisor.fitness(run(1)), Fitness::Ready);
    assert!(!stops(&world.wait_for(&Action::Forget(run(2))), run(1)));
    assert_eq!((world.supervisor.fitness(run(1)), &world.mains[..]), (Fitness::Ready, &[run(1)][..]));
}

#[test]
fn a_reload_that_was_asked_for_meanwhile_follows_the_failed_one() {
    let mut world = led_away(notify());
    world.step(Step::AskReload);
    let failed = world.step(Step::Exit(run(2), Ending::Exited(3), Leftovers::Mortal));
    assert_eq!(failed.iter().filter(|action| matches!(action, Action::Conclude { .. })).count(), 1, "{failed:?}");
    // A third one waits with the second.
    let third = world.step(Step::AskReload);
    assert!(!third.iter().any(|action| matches!(action, Action::Conclude { .. })), "{third:?}");
    let over = world.wait_for(&Action::Forget(run(2)));
    assert!(over.iter().any(|action| matches!(action, Action::Spawn { run: id, .. } if *id == run(3))), "{over:?}");
}

#[test]
fn the_old_run_is_checked_again_where_it_serves_again() {
    let (interval, timeout) = (PAUSE, PAUSE);
    let health = Some(HealthSettings { interval, timeout, retries: 1, start_period: PAUSE });
    let mut world = led_away(Settings { health, ..notify() });
    world.step(Step::Exit(run(2), Ending::Exited(3), Leftovers::None));
    world.wait_for(&Action::StartCheck(run(1)));
}

#[test]
fn a_restart_in_the_middle_of_a_reload_starts_another_run() {
    let mut world = led_away(notify());
    world.step(Step::AskRestart);
    let actions = world.step(Step::Exit(run(2), Ending::Exited(0), Leftovers::None));
    assert!(
        actions.iter().any(|action| matches!(action, Action::Spawn { run: id, .. } if *id == run(3))),
        "{actions:?}"
    );
}

#[test]
fn in_a_reload_the_old_run_accepts_what_waits_for_it() {
    let mut world = World::serving(Settings { holds: true, ..notify() });
    world.queues = true;
    world.step(Step::Says(run(1), Words::Ready));
    world.step(Step::AskReload);
    world.step(Step::Spawn(Ok(())));
    assert_eq!([1, 2].map(|number| world.supervisor.fitness(run(number))), [Fitness::Ready, Fitness::Starting]);
    let begun = world.now;
    let actions = world.step(Step::Says(run(2), Words::Ready));
    assert!(!stops(&actions, run(1)), "{actions:?}");
    assert_eq!([1, 2].map(|number| world.supervisor.fitness(run(number))), [Fitness::Draining, Fitness::Ready]);
    for looks in 2..4 {
        assert_eq!(world.wait(), [Action::CountQueue(run(1))]);
        assert_eq!(world.now, begun.after(PAUSE * looks));
        assert_eq!(world.step(Step::Queue(run(1), 1)), []);
    }
    assert_eq!(world.wait(), [Action::CountQueue(run(1))]);
    assert!(stops(&world.step(Step::Queue(run(1), 0)), run(1)));
}

#[test]
fn a_run_that_accepts_nothing_is_not_waited_for_for_long() {
    let mut world = held(2);
    let begun = world.now;
    world.step(Step::AskScale(Scale::To(Instances::Number(1))));
    let mut looks = 0;
    while world.wait() == [Action::CountQueue(of(1, 1))] {
        world.step(Step::Queue(of(1, 1), 3));
        looks += 1;
    }
    // A quarter of two seconds.
    assert_eq!((looks, world.now), (3, begun.after(Duration::from_millis(500))));
    assert_eq!(world.supervisor.fitness(of(1, 1)), Fitness::Leaving, "it has got its stop signal");
}

#[test]
fn a_stop_request_ends_the_wait() {
    let mut world = held(2);
    world.step(Step::AskScale(Scale::To(Instances::Number(1))));
    let actions = world.step(Step::Signal(STOP));
    assert!(stops(&actions, of(0, 1)) && stops(&actions, of(1, 1)), "{actions:?}");
}

#[test]
fn nobody_waits_where_no_other_run_is_ready_or_nothing_is_held() {
    let mut world = held(1);
    assert!(stops(&world.step(Step::AskRestart), run(1)));
    let mut world = World::serving(Settings { instances: 2, ..plain() });
    assert!(stops(&world.step(Step::AskScale(Scale::Fewer(1))), of(1, 1)));
}

#[test]
fn a_restart_of_one_instance_leads_to_the_others() {
    let mut world = World::serving(Settings { lifetime: Some(Duration::from_secs(60)), ..held(2).supervisor.settings });
    world.now = world.now.after(Duration::from_secs(5));
    let actions = world.step(Step::Grows(of(1, 1)));
    assert!(!stops(&actions, of(1, 1)), "{actions:?}");
    assert_eq!(world.supervisor.fitness(of(1, 1)), Fitness::Draining);
    assert!(stops(&world.wait(), of(1, 1)));
}

#[test]
fn a_count_that_nobody_waits_for_changes_nothing() {
    let mut world = held(2);
    assert_eq!(world.handle(Event::QueueCounted(of(0, 1), 0)), []);
    assert_eq!(world.supervisor.fitness(of(0, 1)), Fitness::Ready);
    assert_eq!(world.supervisor.fitness(of(7, 1)), Fitness::Leaving);
}
