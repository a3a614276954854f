//! What follows when a run has lived long, or uses much memory.

use super::super::{Action, Asker, Ending, Event, Failure, InPlace, Notice, RunId, Settings};
use super::listening::{health, notify, says};
use super::scenarios::{exit, plain, spawns};
use super::world::{Leftovers, STOP, Step, UNIT, Words, World, run};
use std::time::Duration;

const LIFETIME: Duration = Duration::from_secs(100);

/// Runs are replaced in place.
fn in_place() -> Settings {
    Settings { lifetime: Some(LIFETIME), ..plain() }
}

/// Runs are replaced by a reload.
fn by_reload() -> Settings {
    Settings { lifetime: Some(LIFETIME), holds: true, ..notify() }
}

fn stops(actions: &[Action], number: u32) -> bool {
    actions.contains(&Action::Stop(run(number), STOP))
}

fn last_of(actions: &[Action]) -> Option<Ending> {
    actions.iter().find_map(|action| if let Action::Spawn { last, .. } = action { *last } else { None })
}

#[test]
fn a_run_is_replaced_when_it_has_had_its_time_more_or_less() {
    let mut ends = Vec::new();
    for seed in [1, 1 << 20, 1 << 40, 1 << 63] {
        let mut world = World::serving(Settings { seed, ..in_place() });
        let actions = world.wait();
        assert!(stops(&actions, 1), "{actions:?}");
        let tenth = LIFETIME / 10;
        assert!((LIFETIME - tenth..=LIFETIME + tenth).contains(&world.now.0), "{:?}", world.now);
        ends.push(world.now);
        let actions = world.step(exit(1, 0));
        assert_eq!(last_of(&actions), Some(Ending::Replaced(Asker::Lifetime, 0)));
        assert!(spawns(&actions, 2), "at once, and a success: {actions:?}");
        assert!(actions.iter().all(|action| !matches!(action, Action::Report(Notice::Restarting { .. }))));
    }
    ends.dedup();
    assert_eq!(ends.len(), 4, "a fleet does not do it at once");
}

#[test]
fn no_lifetime_is_no_deadline() {
    assert_eq!(World::serving(plain()).supervisor.next_deadline(), None);
}

#[test]
fn a_held_run_that_says_when_it_is_ready_is_replaced_by_a_reload() {
    for memory in [false, true] {
        let mut world = World::serving(by_reload());
        world.step(says(Words::Ready));
        world.step(Step::Advance);
        world.step(Step::Advance);
        let actions = if memory { world.step(Step::Grows(run(1))) } else { world.wait() };
        assert!(spawns(&actions, 2) && !stops(&actions, 1), "the new one comes first: {actions:?}");
        world.step(Step::Spawn(Ok(())));
        let actions = world.step(Step::Says(run(2), Words::Ready));
        assert!(!stops(&actions, 1), "new connections are led to the new one first: {actions:?}");
        let asker = if memory { Asker::Memory } else { Asker::Lifetime };
        assert!(actions.contains(&Action::Report(Notice::Reloading { old: run(1), new: run(2), asker })));
        let actions = world.wait();
        assert!(stops(&actions, 1), "{actions:?}");
        let actions = world.step(exit(1, 0));
        assert!(actions.contains(&Action::Conclude { request: InPlace::Reload, outcome: Ok(run(2)) }));
    }
}

#[test]
fn a_limit_concerns_one_instance() {
    let mut world = World::serving(Settings { instances: 2, ..by_reload() });
    let of = |instance, number| RunId { instance, number };
    for instance in [0, 1] {
        world.step(Step::Says(of(instance, 1), Words::Ready));
    }
    world.step(Step::Advance);
    world.step(Step::Advance);
    let actions = world.step(Step::Grows(of(1, 1)));
    assert!(matches!(actions.last(), Some(Action::Spawn { run, .. }) if *run == of(1, 2)), "{actions:?}");
    world.step(Step::Spawn(Ok(())));
    assert_eq!(world.step(Step::Grows(of(0, 1))), [], "one after the other");
    world.step(Step::Says(of(1, 2), Words::Ready));
    let actions = world.step(Step::Exit(of(1, 1), Ending::Exited(0), Leftovers::None));
    assert!(actions.contains(&Action::Conclude { request: InPlace::Reload, outcome: Ok(of(1, 2)) }), "{actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::Spawn { .. })), "{actions:?}");
}

#[test]
fn where_the_reload_fails_the_old_run_stays_for_another_lifetime_and_memory_ends_it_in_place() {
    let mut world = World::serving(by_reload());
    world.step(says(Words::Ready));
    assert!(spawns(&world.wait(), 2));
    world.step(Step::Spawn(Ok(())));
    world.step(exit(2, 1));
    let failed = world.now;
    let due = world.supervisor.next_deadline().expect("it will be asked again");
    assert!(due.since(failed) >= LIFETIME - LIFETIME / 10, "{due:?}");
    let actions = world.step(Step::Grows(run(1)));
    assert!(stops(&actions, 1), "{actions:?}");
    let actions = world.step(exit(1, 0));
    assert_eq!(last_of(&actions), Some(Ending::Replaced(Asker::Memory, 0)));
}

#[test]
fn where_a_reload_for_a_lifetime_fails_the_old_run_serves_until_another_one_succeeds() {
    let mut world = World::serving(by_reload());
    world.step(says(Words::Ready));
    for number in 2..=4 {
        let mut actions = world.wait();
        while !spawns(&actions, number) {
            assert!(!stops(&actions, 1), "{actions:?}");
            actions = world.wait();
        }
        world.step(Step::Spawn(Ok(())));
        world.step(exit(number, 1));
    }
    assert_eq!(world.mains, [run(1)]);
}

#[test]
fn beside_an_old_run_that_cannot_be_killed_a_limit_ends_a_run_in_place() {
    let mut world = World::serving(by_reload());
    world.step(says(Words::Ready));
    assert!(spawns(&world.wait(), 2));
    world.step(Step::Spawn(Ok(())));
    world.step(Step::Says(run(2), Words::Ready));
    let outcome = Err("SIGKILL does not end the old run");
    world.wait_for(&Action::Conclude { request: InPlace::Reload, outcome });
    let actions = world.wait();
    assert!(stops(&actions, 2), "{actions:?}");
    assert!(spawns(&world.step(exit(2, 0)), 3));
}

#[test]
fn a_memory_limit_that_trips_at_once_again_and_again_gives_up() {
    let mut world = World::serving(plain());
    for number in 1..=2 {
        let mut actions = world.step(Step::Grows(run(number)));
        assert!(stops(&actions, number), "{actions:?}");
        actions = world.step(exit(number, 0));
        while !spawns(&actions, number + 1) {
            actions = world.wait();
        }
        assert_eq!(last_of(&actions), Some(Ending::Failed(Failure::Memory, 0)));
        world.step(Step::Spawn(Ok(())));
    }
    world.step(Step::Grows(run(3)));
    let actions = world.step(exit(3, 0));
    assert!(actions.iter().any(|action| matches!(action, Action::Report(Notice::GiveUp { .. }))), "{actions:?}");
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(1));
}

#[test]
fn a_run_is_asked_once_what_fills_its_memory_and_serves_meanwhile() {
    for command in [false, true] {
        let mut world = World::serving(Settings { diagnose: Some(UNIT * 3), ..plain() });
        world.step(Step::Advance);
        let actions = world.step(Step::Grows(run(1)));
        assert_eq!(actions, [Action::Diagnose(run(1))]);
        assert_eq!(world.step(Step::Grows(run(1))), [], "once");
        assert_eq!(world.supervisor.readiness(), Ok(()));
        assert_eq!(world.supervisor.why_ended(run(1)), Some("memory-limit"), "if it ends of that");
        let actions = if command { world.step(Step::DiagnosisEnds(run(1))) } else { world.wait() };
        assert!(stops(&actions, 1), "{actions:?}");
        let actions = world.step(exit(1, 0));
        assert_eq!(last_of(&actions), Some(Ending::Replaced(Asker::Memory, 0)));
    }
}

#[test]
fn what_a_run_is_asked_about_its_memory_may_keep_it_from_its_watchdog_and_its_checks() {
    let watched = Settings { watchdog: Some(UNIT * 2), ..notify() };
    for (settings, step) in [(watched, says(Words::Ready)), (health(1, UNIT * 9), Step::CheckEnds(run(1), true))] {
        let mut world = World::serving(Settings { diagnose: Some(UNIT * 3), ..settings });
        if let Step::CheckEnds(..) = step {
            world.wait_for(&Action::StartCheck(run(1)));
        }
        world.step(step);
        world.step(Step::Advance);
        let asked = world.now;
        assert_eq!(world.step(Step::Grows(run(1))), [Action::Diagnose(run(1))]);
        assert!(stops(&world.wait(), 1), "{step:?}");
        assert_eq!(world.now, asked.after(UNIT * 3), "{step:?}");
        assert_eq!(last_of(&world.step(exit(1, 0))), Some(Ending::Replaced(Asker::Memory, 0)), "{step:?}");
    }
}

/// As one that begins to hang a moment after it was asked.
#[test]
fn what_a_run_says_while_it_is_asked_does_not_bring_its_watchdog_back_sooner() {
    let mut world = World::serving(Settings { diagnose: Some(UNIT * 5), watchdog: Some(UNIT * 2), ..notify() });
    world.step(says(Words::Ready));
    world.step(Step::Advance);
    let asked = world.now;
    world.step(Step::Grows(run(1)));
    world.step(says(Words::Alive));
    assert!(stops(&world.wait(), 1));
    assert_eq!(world.now, asked.after(UNIT * 5));
}

#[test]
fn a_check_that_ends_while_a_run_is_asked_says_nothing_of_it() {
    let mut world = World::serving(Settings { diagnose: Some(UNIT * 30), ..health(1, UNIT * 9) });
    world.wait_for(&Action::StartCheck(run(1)));
    world.step(Step::CheckEnds(run(1), true));
    world.wait_for(&Action::StartCheck(run(1)));
    let asked = world.now;
    world.step(Step::Grows(run(1)));
    assert_eq!(world.step(Step::CheckEnds(run(1), false)), []);
    assert!(stops(&world.wait(), 1), "and no check comes before");
    assert_eq!(world.now, asked.after(UNIT * 30));
}

/// It is asked once, and lives until the drain delay is over.
#[test]
fn a_stop_leaves_a_run_the_time_of_its_drain_to_say_what_fills_its_memory() {
    let mut settings = Settings { diagnose: Some(UNIT * 3), ..plain() };
    settings.stop.drain_delay = UNIT;
    let mut world = World::serving(settings);
    world.step(Step::Advance);
    assert_eq!(world.step(Step::Grows(run(1))), [Action::Diagnose(run(1))]);
    let mut actions = world.step(Step::Signal(STOP));
    actions.extend(world.wait());
    assert!(stops(&actions, 1), "{actions:?}");
    assert!(!actions.contains(&Action::EndDiagnosis(run(1))), "{actions:?}");
    assert!(world.step(exit(1, 0)).contains(&Action::EndDiagnosis(run(1))));
}

/// The old run serves until the new one is ready, however long that takes.
#[test]
fn a_reload_for_memory_ends_the_command_that_has_had_its_time() {
    let mut world = World::serving(Settings { diagnose: Some(UNIT * 3), ..by_reload() });
    world.step(says(Words::Ready));
    world.step(Step::Advance);
    world.step(Step::Advance);
    let asked = world.now;
    assert_eq!(world.step(Step::Grows(run(1))), [Action::Diagnose(run(1))]);
    let actions = world.wait();
    assert_eq!(world.now, asked.after(UNIT * 3));
    assert!(actions.contains(&Action::EndDiagnosis(run(1))) && spawns(&actions, 2), "{actions:?}");
}

#[test]
fn one_instance_after_the_other_is_replaced_in_place() {
    let mut world = World::serving(Settings { instances: 2, ..plain() });
    world.step(Step::Advance);
    let [zero, one] = [0, 1].map(|instance| RunId { instance, number: 1 });
    assert!(world.step(Step::Grows(zero)).contains(&Action::Stop(zero, STOP)));
    assert_eq!(world.step(Step::Grows(one)), [], "the other one serves");
    world.step(exit(1, 0));
    world.step(Step::Spawn(Ok(())));
    assert!(world.step(Step::Grows(one)).contains(&Action::Stop(one, STOP)));
}

#[test]
fn a_lifetime_waits_for_another_instance_that_is_ready_and_memory_does_not() {
    let [zero, one] = [0, 1].map(|instance| RunId { instance, number: 1 });
    let mut settings = Settings { instances: 2, lifetime: Some(LIFETIME), ..notify() };
    (settings.ready.timeout, settings.restart.stable_after) = (LIFETIME * 3, UNIT);
    let mut world = World::serving(settings);
    world.step(Step::Says(zero, Words::Ready));
    (0..400).for_each(|_| drop(world.step(Step::Advance)));
    assert!(world.now.0 > LIFETIME + LIFETIME / 10, "time goes on: {:?}", world.now);
    let is_ready = |world: &World| world.supervisor.readiness().is_ok();
    assert!(is_ready(&world), "it serves alone");
    assert!(world.step(Step::Grows(zero)).contains(&Action::Stop(zero, STOP)));

    let mut world = World::serving(Settings { instances: 2, lifetime: Some(LIFETIME), ..notify() });
    world.step(Step::Says(zero, Words::Ready));
    world.step(Step::Says(one, Words::Ready));
    let actions = (0..400).flat_map(|_| world.step(Step::Advance)).collect::<Vec<_>>();
    let stops = actions.iter().filter(|action| matches!(action, Action::Stop(..))).count();
    assert_eq!(stops, 1, "{actions:?}");
}

#[test]
fn of_several_instances_whose_time_is_over_one_is_down() {
    for lifetime in [Some(LIFETIME), None] {
        let mut settings = Settings { instances: 3, lifetime, ..plain() };
        settings.stop.restart_timeout = LIFETIME * 3;
        let mut world = World::serving(settings);
        let mut actions: Vec<_> = (0..400).flat_map(|_| world.step(Step::Advance)).collect();
        if lifetime.is_none() {
            let grown = [0, 1, 2].map(|instance| Step::Grows(RunId { instance, number: 1 }));
            actions.extend(grown.into_iter().flat_map(|step| world.step(step)));
        }
        let stops = actions.iter().filter(|action| matches!(action, Action::Stop(..))).count();
        assert_eq!(stops, 1, "{actions:?}");
    }
}

#[test]
fn a_lifetime_that_is_over_during_a_reload_is_looked_at_a_second_later() {
    let mut settings = Settings { instances: 2, ..by_reload() };
    settings.ready.timeout = LIFETIME * 3;
    let mut world = World::serving(settings);
    for instance in [0, 1] {
        world.step(Step::Says(RunId { instance, number: 1 }, Words::Ready));
    }
    world.step(Step::AskReload);
    world.step(Step::Spawn(Ok(())));
    (0..400).for_each(|_| drop(world.step(Step::Advance)));
    assert!(world.now.0 > LIFETIME + LIFETIME / 10, "time goes on: {:?}", world.now);
    let due = world.supervisor.next_deadline().expect("a second later");
    assert!(due > world.now && due.since(world.now) <= Duration::from_secs(1), "{due:?}");
}

#[test]
fn a_run_that_ends_of_being_asked_is_replaced_for_its_memory() {
    let mut world = World::serving(Settings { diagnose: Some(UNIT * 3), ..plain() });
    world.step(Step::Advance);
    world.step(Step::Grows(run(1)));
    // Once more than the restart limit, and a success that would be the end.
    for number in 1..=4 {
        let actions = world.step(exit(number, 0));
        assert_eq!(last_of(&actions), Some(Ending::Replaced(Asker::Memory, 0)), "{actions:?}");
        assert!(spawns(&actions, number + 1), "{actions:?}");
        world.step(Step::Spawn(Ok(())));
        world.step(Step::Advance);
        world.step(Step::Advance);
        world.step(Step::Grows(run(number + 1)));
    }
}

#[test]
fn a_run_that_a_reload_has_replaced_is_the_last_one() {
    let mut world = World::serving(by_reload());
    world.step(says(Words::Ready));
    world.step(Step::Advance);
    world.step(Step::AskReload);
    world.step(Step::Spawn(Ok(())));
    world.step(Step::Says(run(2), Words::Ready));
    world.wait();
    world.step(exit(1, 3));
    let mut actions = world.step(exit(2, 1));
    while !spawns(&actions, 3) {
        actions = world.wait();
    }
    assert_eq!(last_of(&actions), Some(Ending::Exited(1)), "a later one counts more");
    let mut world = World::serving(by_reload());
    world.step(says(Words::Ready));
    world.step(Step::Advance);
    for number in 1..=2 {
        let actions = world.step(Step::AskReload);
        assert_eq!(last_of(&actions), Some(Ending::Replaced(Asker::Operator, 0)), "the one that it replaces");
        world.step(Step::Spawn(Ok(())));
        world.step(Step::Says(run(number + 1), Words::Ready));
        world.wait();
        world.step(exit(number, 3));
    }
}

#[test]
fn a_stop_wins_over_a_limit() {
    let mut world = World::serving(in_place());
    world.wait();
    world.step(Step::Signal(STOP));
    world.step(exit(1, 3));
    world.step(Step::Reaped);
    assert_eq!(world.exit, Some(3));
    let mut world = World::serving(in_place());
    world.step(Step::Signal(STOP));
    assert_eq!(world.handle(Event::MemoryExceeded(run(1))), []);
}

#[test]
fn what_an_operator_or_a_file_has_asked_for_and_what_was_killed_is_told() {
    for (step, asker) in
        [(Event::RestartRequested, Asker::Operator), (Event::FileChanged(crate::config::Meaning::Restart), Asker::File)]
    {
        let mut world = World::serving(plain());
        if asker == Asker::Operator {
            world.step(Step::AskRestart);
        } else {
            world.handle(step);
        }
        let mut actions = world.handle(Event::Exited(run(1), Ending::Exited(7)));
        actions.extend(world.handle(Event::Leftovers(run(1), 0)));
        actions.extend(world.handle(Event::Timeout));
        assert_eq!(last_of(&actions), Some(Ending::Replaced(asker, 7)));
    }
    // One that says STOPPING=1 and goes on is killed too, by nobody but guard.
    for step in [Step::AskRestart, says(Words::Stopping)] {
        let mut world = World::serving(Settings { ready: notify().ready, ..plain() });
        world.step(says(Words::Ready));
        world.step(step);
        world.wait_for(&Action::Kill(run(1)));
        let killed = Ending::Signaled(crate::signal::Signal::KILL);
        world.step(Step::Exit(run(1), killed, Leftovers::None));
        let ended = world.supervisor.instances().next().and_then(|instance| instance.last);
        assert_eq!(ended, Some(Ending::Killed), "{step:?}");
    }
    assert_eq!(UNIT * 4, plain().stop.restart_timeout);
}
