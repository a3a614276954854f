//! Single paths through what the app says of itself, what its health checks say, and what an operator asks.

use super::super::{Action, Ending, Event, Failure, KillReason, Notice, Settings};
use super::world::{Leftovers, STOP, Step, UNIT, Words, World, run, settings, signal};
use crate::config::{HealthSettings, Readiness};
use crate::signal::Signal;
use std::time::Duration;

/// READY=1 is waited for, for one unit; a stop takes four.
pub(super) fn notify() -> Settings {
    let mut settings = settings();
    settings.pre_stop = false;
    settings.stop.drain_delay = Duration::ZERO;
    settings.ready.when = Readiness::Notify;
    settings.ready.timeout = UNIT;
    settings
}

pub(super) fn health(retries: u32, start_period: Duration) -> Settings {
    let mut settings = notify();
    settings.ready.when = Readiness::Health;
    settings.ready.timeout = UNIT * 100;
    settings.health = Some(HealthSettings { interval: UNIT * 2, timeout: UNIT, retries, start_period });
    settings
}

const TIMEOUT: Action = Action::KillEverything(KillReason::StopTimeout);

pub(super) fn says(words: Words) -> Step {
    Step::Says(run(1), words)
}

fn exit(number: u32, ending: Ending) -> Step {
    Step::Exit(run(number), ending, Leftovers::None)
}

fn reports(actions: &[Action], notice: Notice) -> bool {
    actions.contains(&Action::Report(notice))
}

fn failing(failure: Failure) -> Notice {
    Notice::Failing { run: run(1), failure }
}

#[test]
fn a_run_is_ready_when_it_says_so() {
    let mut world = World::serving(notify());
    assert!(world.supervisor.readiness().is_err());
    assert!(reports(&world.step(says(Words::Ready)), Notice::Ready { run: run(1) }));
    assert_eq!(world.supervisor.readiness(), Ok(()));
    assert_eq!(world.step(says(Words::Ready)), [], "once is enough");
}

#[test]
fn a_run_is_ready_when_it_listens_if_guard_waits_for_that() {
    for (when, ready) in [(Readiness::Listen, [true, false]), (Readiness::Notify, [false, true])] {
        let mut settings = notify();
        settings.ready.when = when;
        for (event, ready) in [Event::Listens(run(1)), Event::SaidReady(run(1))].into_iter().zip(ready) {
            let mut world = World::serving(settings.clone());
            assert_eq!(reports(&world.handle(event), Notice::Ready { run: run(1) }), ready, "{when:?}: {event:?}");
        }
    }
}

#[test]
fn a_run_that_is_not_ready_in_time_is_stopped_and_counts_as_a_failure() {
    let mut world = World::serving(notify());
    let actions = world.wait();
    assert!(reports(&actions, failing(Failure::NotReady)));
    assert!(actions.contains(&Action::Stop(run(1), STOP)));
    let actions = world.step(exit(1, Ending::Exited(0)));
    let ending = Ending::Failed(Failure::NotReady, 0);
    assert!(reports(
        &actions,
        Notice::Restarting { next: run(2), ending, count: 1, limit: Some(2), delay: Duration::ZERO }
    ));
    let spawn = Action::Spawn { run: run(2), restarts: 1, last: Some(ending) };
    assert_eq!(actions.last(), Some(&spawn));
}

#[test]
fn a_failed_run_that_ignores_its_signal_is_killed_at_the_stop_timeout() {
    let mut world = World::serving(notify());
    world.wait();
    let told = world.now;
    let actions = world.wait();
    assert!(actions.contains(&Action::Kill(run(1))));
    assert_eq!(world.now, told.after(UNIT * 4));
}

#[test]
fn more_time_moves_the_ready_timeout() {
    let mut world = World::serving(notify());
    world.step(says(Words::More));
    let asked = world.now;
    assert!(reports(&world.wait(), failing(Failure::NotReady)));
    assert_eq!(world.now, asked.after(UNIT * 2));
}

#[test]
fn the_watchdog_runs_from_ready_on_and_aborts() {
    let mut settings = Settings { watchdog: Some(UNIT), ..notify() };
    settings.ready.timeout = UNIT * 100;
    let mut world = World::serving(settings);
    for _ in 0..3 {
        assert_eq!(world.step(Step::Advance), [], "not before it is ready");
    }
    world.step(says(Words::Ready));
    let ready = world.now;
    let actions = world.wait();
    assert_eq!(world.now, ready.after(UNIT));
    assert!(reports(&actions, failing(Failure::Watchdog)));
    assert!(actions.contains(&Action::Signal(run(1), signal("ABRT"))));
    let aborted = world.now;
    assert!(world.wait().contains(&Action::Kill(run(1))));
    assert_eq!(world.now, aborted.after(Duration::from_secs(5)));
    let actions = world.step(exit(1, Ending::Signaled(Signal::KILL)));
    let spawn = Action::Spawn { run: run(2), restarts: 1, last: Some(Ending::Failed(Failure::Watchdog, 137)) };
    assert_eq!(actions.last(), Some(&spawn));
}

#[test]
fn an_app_that_sends_watchdog_in_time_lives_on() {
    let mut world = World::serving(Settings { watchdog: Some(UNIT * 2), ..notify() });
    world.step(says(Words::Ready));
    for _ in 0..10 {
        assert_eq!(world.step(Step::Advance), []);
        world.step(says(Words::Alive));
    }
    world.step(says(Words::Period(false)));
    for _ in 0..10 {
        assert_eq!(world.step(Step::Advance), [], "it has switched the watchdog off");
    }
    assert!(reports(&world.step(says(Words::Trouble)), failing(Failure::Watchdog)), "it says itself that it is ill");
}

#[test]
fn standing_still_is_no_failure() {
    let mut world = World::serving(Settings { watchdog: Some(UNIT), ..notify() });
    world.step(says(Words::Ready));
    assert_eq!(world.step(Step::Freeze), []);
    assert_eq!(world.supervisor.next_deadline(), Some(world.now.after(UNIT)));
}

#[test]
fn an_app_that_says_it_stops_gets_no_second_signal_and_a_deadline() {
    let mut world = World::serving(notify());
    world.step(says(Words::Ready));
    world.step(says(Words::Stopping));
    assert!(world.supervisor.readiness().is_err());
    let stopping = world.now;
    let actions = world.step(Step::Signal(STOP));
    assert!(!actions.iter().any(|action| matches!(action, Action::Signal(..) | Action::Stop(..))), "{actions:?}");
    assert!(world.wait().contains(&TIMEOUT));
    assert_eq!(world.now, stopping.after(UNIT * 4));
}

#[test]
fn a_run_is_stopping_from_its_stop_signal_on() {
    let mut settings = notify();
    settings.stop.drain_delay = UNIT;
    let mut world = World::serving(settings);
    assert!(!world.supervisor.is_stopping(run(1)));
    world.step(Step::Signal(STOP));
    assert!(!world.supervisor.is_stopping(run(1)), "it was not told yet");
    assert!(world.wait().contains(&Action::Stop(run(1), STOP)));
    assert!(world.supervisor.is_stopping(run(1)));
    world.step(exit(1, Ending::Exited(0)));
    assert!(!world.supervisor.is_stopping(run(1)));
}

#[test]
fn after_an_app_has_stopped_by_itself_the_policy_decides() {
    for (code, restarts) in [(0, false), (3, true)] {
        let mut world = World::serving(notify());
        world.step(says(Words::Ready));
        world.step(says(Words::Stopping));
        let actions = world.step(exit(1, Ending::Exited(code)));
        assert_eq!(matches!(actions.last(), Some(Action::Spawn { .. })), restarts, "code {code}");
    }
}

/// Without a stop timeout guard's own end has no deadline; the end of that run had one already.
#[test]
fn ctrl_c_does_not_take_the_deadline_of_an_app_that_stops() {
    let mut settings = Settings { terminal: true, ..notify() };
    settings.stop.timeout = None;
    let mut world = World::serving(settings);
    world.step(says(Words::Ready));
    world.step(says(Words::Stopping));
    let deadline = world.supervisor.next_deadline();
    world.step(Step::Exit(run(1), Ending::Signaled(Signal::INT), Leftovers::Mortal));
    assert_eq!(world.supervisor.next_deadline(), deadline);
}

#[test]
fn the_first_check_that_passes_is_readiness_and_ends_the_start_period() {
    let mut world = World::serving(health(2, UNIT * 100));
    assert_eq!(world.wait(), [Action::StartCheck(run(1))]);
    assert_eq!(world.step(Step::CheckEnds(run(1), false)), [], "the start period is lenient");
    world.wait();
    assert!(reports(&world.step(Step::CheckEnds(run(1), true)), Notice::Ready { run: run(1) }));
    for count in 1..=2 {
        world.wait();
        let actions = world.step(Step::CheckEnds(run(1), false));
        assert!(reports(&actions, Notice::CheckFailed { run: run(1), count, limit: 2 }));
        assert_eq!(reports(&actions, failing(Failure::Health)), count == 2);
    }
    let actions = world.step(exit(1, Ending::Signaled(STOP)));
    let spawn = Action::Spawn { run: run(2), restarts: 1, last: Some(Ending::Failed(Failure::Health, 143)) };
    assert_eq!(actions.last(), Some(&spawn));
}

#[test]
fn failures_count_only_in_a_row() {
    let mut world = World::serving(health(2, Duration::ZERO));
    for _ in 0..5 {
        for passed in [false, true] {
            world.wait();
            let actions = world.step(Step::CheckEnds(run(1), passed));
            assert!(!reports(&actions, failing(Failure::Health)));
        }
    }
}

#[test]
fn a_success_after_failures_is_told_once() {
    let mut world = World::serving(health(3, Duration::ZERO));
    for (passed, recovered) in [(true, false), (false, false), (false, false), (true, true), (true, false)] {
        world.wait();
        let actions = world.step(Step::CheckEnds(run(1), passed));
        assert_eq!(reports(&actions, Notice::Recovered { run: run(1) }), recovered);
    }
}

#[test]
fn a_check_that_takes_too_long_is_killed_and_has_failed() {
    let mut world = World::serving(health(1, Duration::ZERO));
    world.wait();
    assert_eq!(world.wait(), [Action::KillCheck(run(1))]);
    assert!(reports(&world.step(Step::CheckEnds(run(1), false)), failing(Failure::Health)));
}

#[test]
fn a_drain_ends_a_check_and_what_it_says_means_nothing() {
    let mut world = World::serving(health(1, Duration::ZERO));
    world.wait();
    assert!(world.step(Step::Signal(STOP)).contains(&Action::KillCheck(run(1))));
    assert_eq!(world.step(Step::CheckEnds(run(1), false)), []);
}

#[test]
fn on_nodes_channel_the_signal_comes_after_half_of_what_is_left() {
    let mut settings = Settings { node_ipc: true, ..notify() };
    settings.stop.drain_delay = UNIT;
    let mut world = World::serving(settings);
    world.step(says(Words::Ready));
    let asked = world.now;
    let actions = world.step(Step::Signal(STOP));
    assert!(actions.contains(&Action::SayDrain(run(1))) && !actions.contains(&Action::SayShutdown(run(1))));
    let actions = world.wait();
    assert!(actions.contains(&Action::SayShutdown(run(1))) && !actions.contains(&Action::Stop(run(1), STOP)));
    assert_eq!(world.now, asked.after(UNIT));
    assert!(world.wait().contains(&Action::Stop(run(1), STOP)));
    assert_eq!(world.now, asked.after(UNIT + UNIT * 3 / 2));
}

#[test]
fn an_app_that_says_it_stops_gets_no_signal_after_the_message() {
    let mut world = World::serving(Settings { node_ipc: true, ..notify() });
    world.step(Step::Signal(STOP));
    assert_eq!(world.step(says(Words::Stopping)), []);
    assert!(world.wait().contains(&TIMEOUT), "and gets no signal before the last one");
}

#[test]
fn a_closed_channel_means_the_signal_at_once() {
    let mut world = World::serving(Settings { node_ipc: true, ..notify() });
    world.step(Step::Signal(STOP));
    assert!(world.step(Step::Undelivered(run(1))).contains(&Action::Stop(run(1), STOP)));
    assert_eq!(world.step(Step::Undelivered(run(1))), [], "once");
}
