//! What a run that hangs has to say: when it is asked, and that nothing waits for it too long.

use super::super::{Action, Ending, Event, Failure, KillReason, Notice, RunId, Settings};
use super::listening::{health, notify, says};
use super::scenarios::{exit, plain};
use super::world::{Leftovers, STOP, Step, UNIT, Words, World, run};
use crate::signal::Signal;
use std::time::Duration;

const ASK: Action = Action::Diagnose(RunId { instance: 0, number: 1 });

fn asks(settings: Settings) -> Settings {
    Settings { diagnose: Some(UNIT * 2), ..settings }
}

/// A run whose watchdog has failed, and which was asked.
fn hung() -> World {
    let mut world = World::serving(asks(Settings { watchdog: Some(UNIT), ..notify() }));
    world.step(says(Words::Ready));
    let actions = world.wait();
    assert_eq!(actions, [Action::Report(Notice::Failing { run: run(1), failure: Failure::Watchdog }), ASK]);
    world
}

#[test]
fn sigabrt_follows_when_the_time_is_over() {
    let mut world = hung();
    let asked = world.now;
    let actions = world.wait();
    assert_eq!(world.now, asked.after(UNIT * 2));
    let abort = [Action::Signal(run(1), Signal::ABRT), Action::Signal(run(1), Signal::CONT)];
    assert_eq!(actions, [&[Action::EndDiagnosis(run(1))][..], &abort].concat());
}

#[test]
fn it_follows_at_once_when_the_command_has_ended() {
    let mut world = hung();
    let actions = world.step(Step::DiagnosisEnds(run(1)));
    assert_eq!(actions, [Action::Signal(run(1), Signal::ABRT), Action::Signal(run(1), Signal::CONT)]);
}

#[test]
fn a_run_that_ends_of_it_has_failed_as_ever() {
    let mut world = hung();
    let actions = world.step(Step::Exit(run(1), Ending::Signaled(Signal::QUIT), Leftovers::None));
    let failed = Ending::Failed(Failure::Watchdog, 131);
    let is_it =
        |action: &Action| matches!(action, Action::Report(Notice::Restarting { ending, .. }) if *ending == failed);
    assert!(actions.contains(&Action::EndDiagnosis(run(1))) && actions.iter().any(is_it), "{actions:?}");
}

#[test]
fn what_is_unhealthy_or_never_ready_is_asked_before_its_stop_signal() {
    let mut world = World::serving(asks(health(1, Duration::ZERO)));
    world.wait_for(&Action::StartCheck(run(1)));
    let actions = world.step(Step::CheckEnds(run(1), false));
    assert!(actions.contains(&ASK) && !actions.contains(&Action::Stop(run(1), STOP)), "{actions:?}");
    assert!(world.wait().contains(&Action::Stop(run(1), STOP)), "no check comes before it");

    let mut world = World::serving(asks(notify()));
    world.wait_for(&ASK);
    assert!(world.wait().contains(&Action::Stop(run(1), STOP)));
}

#[test]
fn a_stop_asks_before_its_sigkill_and_no_longer_than_a_third() {
    // Two units of twelve, and of six.
    for (timeout, before) in [(12, 2), (6, 2), (3, 1)] {
        let mut settings = asks(plain());
        settings.stop.timeout = Some(UNIT * timeout);
        let mut world = World::serving(settings);
        let begun = world.now;
        world.step(Step::Signal(STOP));
        assert_eq!(world.wait(), [ASK]);
        assert_eq!(world.now, begun.after(UNIT * (timeout - before)));
        let actions = world.wait();
        assert_eq!(world.now, begun.after(UNIT * timeout), "the deadline stays");
        assert!(actions.contains(&Action::KillEverything(KillReason::StopTimeout)), "{actions:?}");
    }
}

#[test]
fn a_stop_during_a_restart_asks_before_the_nearer_sigkill() {
    let mut settings = asks(plain());
    (settings.stop.restart_timeout, settings.stop.timeout) = (UNIT * 20, Some(UNIT * 6));
    let mut world = World::serving(settings);
    world.step(Step::AskRestart);
    let begun = world.now;
    world.step(Step::Signal(STOP));
    assert_eq!(world.wait(), [ASK]);
    assert_eq!(world.now, begun.after(UNIT * 4));
}

#[test]
fn a_restart_asks_too_and_ends_the_command_with_the_run() {
    let mut world = World::serving(asks(plain()));
    world.step(Step::AskRestart);
    world.wait_for(&ASK);
    let actions = world.wait();
    let place = |wanted: &Action| actions.iter().position(|action| action == wanted);
    let (kill, end) = (place(&Action::Kill(run(1))), place(&Action::EndDiagnosis(run(1))));
    assert!(kill.is_some() && kill < end, "{actions:?}");
}

#[test]
fn a_stop_hastens_what_a_failed_run_has_to_say() {
    let mut world = hung();
    let begun = world.now;
    world.supervisor.settings.stop.timeout = Some(UNIT * 3);
    let actions = world.step(Step::Signal(STOP));
    assert!(!actions.contains(&Action::Stop(run(1), STOP)), "{actions:?}");
    assert!(world.wait().contains(&Action::Signal(run(1), Signal::ABRT)));
    assert_eq!(world.now, begun.after(UNIT));
}

#[test]
fn a_restart_and_a_reload_hasten_it_too() {
    for request in [Step::AskRestart, Step::AskReload] {
        let mut world = hung();
        let begun = world.now;
        world.supervisor.settings.stop.restart_timeout = UNIT * 3;
        world.step(request);
        assert!(world.wait().contains(&Action::Signal(run(1), Signal::ABRT)), "{request:?}");
        assert_eq!(world.now, begun.after(UNIT), "{request:?}");
        assert!(world.wait().contains(&Action::Kill(run(1))), "{request:?}");
        assert_eq!(world.now, begun.after(UNIT * 3), "{request:?}");
    }
}

#[test]
fn a_run_is_asked_once() {
    let mut world = World::serving(asks(health(1, Duration::ZERO)));
    world.wait_for(&Action::StartCheck(run(1)));
    world.step(Step::CheckEnds(run(1), false));
    world.step(Step::DiagnosisEnds(run(1)));
    // Its stop does not ask again: the world looks for that.
    let actions = world.wait();
    assert!(actions.contains(&Action::Kill(run(1))), "{actions:?}");
}

#[test]
fn nobody_is_asked_who_does_not_hang() {
    let mut world = World::serving(asks(plain()));
    world.step(Step::AskRestart);
    let actions = world.step(exit(1, 0));
    assert!(!actions.contains(&ASK));
    assert_eq!(world.handle(Event::Diagnosed(run(1))), [], "a late word means nothing");
}

#[test]
fn what_says_that_it_stops_needs_no_signal_any_more() {
    let mut world = hung();
    world.step(says(Words::Stopping));
    let actions = world.wait();
    assert!(actions.contains(&Action::Kill(run(1))), "{actions:?}");
}
