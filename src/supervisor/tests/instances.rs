//! Several instances: what each does for itself, and what they make up together.

use super::super::{Ending, RunId, Settings, SpawnError};
use super::scenarios::plain;
use super::world::{Leftovers, Step, World};
use crate::config::RestartPolicy;

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
    let missing = Step::Spawn(Err(SpawnError { code: 127, transient: false }));
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
