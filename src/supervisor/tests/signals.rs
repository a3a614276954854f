//! What signals and keys mean: who gets them, and when.

use super::super::{Action, Event, Notice, RunId, Settings, SpawnError};
use super::scenarios::{exit, plain, spawns};
use super::world::{STOP, Step, World, run, signal};
use crate::config::Meaning;
use crate::signal::Signal;

#[test]
fn a_signal_from_before_the_first_spawn_reaches_the_first_run() {
    let mut world = World::new(plain());
    assert_eq!(world.step(Step::Signal(signal("HUP"))), []);
    world.step(Step::Start);
    assert_eq!(world.step(Step::Spawn(Ok(()))), [Action::Signal(run(1), signal("HUP"))]);

    let mut world = World::new(plain());
    world.step(Step::Signal(signal("HUP")));
    world.step(Step::Start);
    world.step(Step::Spawn(Err(SpawnError { code: 126, transient: true, name: "ETXTBSY" })));
    assert_eq!(world.step(Step::Spawn(Ok(()))), [Action::Signal(run(2), signal("HUP"))], "the first that lives");

    let mut world = World::new(Settings { instances: 2, ..plain() });
    world.step(Step::Signal(signal("HUP")));
    world.step(Step::Start);
    world.step(Step::Spawn(Ok(())));
    let both = [0, 1].map(|instance| Action::Signal(RunId { instance, number: 1 }, signal("HUP")));
    assert_eq!(world.step(Step::Spawn(Ok(()))), both, "of each instance");
}

#[test]
fn a_signal_in_a_backoff_is_not_kept_for_the_next_run() {
    let mut world = World::serving(plain());
    world.step(exit(1, 1));
    world.step(Step::Spawn(Ok(())));
    world.step(exit(2, 1));
    let hup = signal("HUP");
    assert_eq!(world.step(Step::Signal(hup)), [Action::Report(Notice::NotForwarded { signal: hup })]);
    while !spawns(&world.wait(), 3) {}
    assert_eq!(world.step(Step::Spawn(Ok(()))), []);
}

#[test]
fn a_key_is_what_it_is_mapped_to_and_is_not_forwarded() {
    for meaning in [Meaning::Ignore, Meaning::Forward(Signal::INT)] {
        let mut settings = Settings { terminal: true, ..plain() };
        settings.signal_map = vec![(Signal::INT, meaning)];
        let mut world = World::serving(settings);
        assert_eq!(world.handle(Event::Pressed(Signal::INT)), [], "{meaning:?}");
        assert_eq!(world.handle(Event::Pressed(signal("WINCH"))), []);
    }
    let mut settings = Settings { terminal: true, ..plain() };
    settings.signal_map = vec![(Signal::INT, Meaning::Forward(STOP))];
    let mut world = World::serving(settings);
    assert_eq!(world.handle(Event::Pressed(Signal::INT)), [Action::Signal(run(1), STOP)], "another signal is");
}

#[test]
fn a_key_from_before_the_first_spawn_that_is_mapped_to_its_own_signal_reaches_the_first_run() {
    let mut settings = Settings { terminal: true, ..plain() };
    settings.signal_map = vec![(Signal::INT, Meaning::Forward(Signal::INT))];
    let mut world = World::new(settings);
    assert_eq!(world.handle(Event::Pressed(Signal::INT)), []);
    world.step(Step::Start);
    assert_eq!(world.step(Step::Spawn(Ok(()))), [Action::Signal(run(1), Signal::INT)]);
}

#[test]
fn guard_takes_stop_requests_job_control_and_mapped_signals_and_no_others() {
    let mut settings = plain();
    settings.stop.signal = Some(signal("WINCH"));
    let supervisor = World::serving(settings).supervisor;
    for name in ["TERM", "INT", "WINCH", "TSTP", "TTIN", "TTOU", "USR1"] {
        assert!(supervisor.takes(signal(name)), "{name}");
    }
    for name in ["HUP", "QUIT", "CONT", "RTMIN"] {
        assert!(!supervisor.takes(signal(name)), "{name}");
    }
}

#[test]
fn a_mapped_signal_means_what_it_is_mapped_to() {
    let mut settings = plain();
    let mapped = [("TERM", Meaning::Forward(STOP)), ("HUP", Meaning::Ignore), ("WINCH", Meaning::Stop)];
    settings.signal_map = mapped.map(|(name, meaning)| (signal(name), meaning)).to_vec();
    let mut world = World::serving(settings);
    assert_eq!(world.step(Step::Signal(signal("HUP"))), []);
    assert_eq!(world.handle(Event::Signal(STOP)), [Action::Signal(run(1), STOP)]);
    let actions = world.handle(Event::Signal(signal("WINCH")));
    assert!(actions.contains(&Action::Stop(run(1), signal("WINCH"))), "the signal received is the stop signal");
}

#[test]
fn job_control_ends_at_pid_1_and_is_followed_elsewhere() {
    let mut world = World::serving(Settings { init: true, terminal: true, ..plain() });
    let actions = world.step(Step::Signal(Signal::TSTP));
    assert!(matches!(actions[..], [Action::Report(Notice::Ignored { .. })]), "{actions:?}");
    assert_eq!(world.step(Step::Suspend(run(1))), [Action::Thaw(run(1))]);
    let mut world = World::serving(Settings { init: false, terminal: true, job_control: true, ..plain() });
    assert_eq!(world.step(Step::Signal(Signal::TSTP)), [Action::Signal(run(1), Signal::TSTP), Action::Suspend]);
    assert_eq!(world.step(Step::Suspend(run(1))), [Action::Suspend, Action::Thaw(run(1))]);
    assert_eq!(world.step(Step::Press(Signal::TSTP)), [Action::Suspend, Action::Thaw(run(1))]);
    assert_eq!(world.handle(Event::Pressed(signal("WINCH"))), [], "that is no job control");
}

#[test]
fn guard_stops_with_an_app_that_gets_another_signal_for_job_control() {
    let forwarded = [Action::Signal(run(1), signal("USR1"))];
    for (init, from, expected) in [
        (false, "TSTP", [&forwarded[..], &[Action::Suspend]].concat()),
        (true, "TSTP", forwarded.to_vec()),
        (false, "HUP", forwarded.to_vec()),
    ] {
        let mut settings = Settings { init, ..plain() };
        settings.signal_map = vec![(signal(from), Meaning::Forward(signal("USR1")))];
        let mut world = World::serving(settings);
        assert_eq!(world.step(Step::Signal(signal(from))), expected, "{from} with init {init}");
    }
}
