//! A fleet, simulated: a thousand guards whose apps need the same dependency, which is away for two minutes.
//!
//! It drives the supervisor's real core in simulated time, so each guard decides what it would decide in a container. Each app
//! asks the dependency once, 200 ms after its start, and fails where it is away; all of them fail when it goes away. A guard that
//! gives up is started again by an orchestrator, with the kubelet's backoff: 10 s, 20 s, up to 5 minutes.
//!
//! `cargo run --release --example fleet` prints the table of docs/fleet.md; with a path as its argument it also draws the plot.

#![allow(dead_code, unused_imports)]
#![allow(clippy::disallowed_macros, reason = "nobody supervises a simulation")]

#[path = "../../src/config/mod.rs"]
mod config;
#[path = "../../src/platform.rs"]
mod platform;
#[path = "../../src/shell.rs"]
mod shell;
#[path = "../../src/signal.rs"]
mod signal;
#[path = "../../src/supervisor/mod.rs"]
mod supervisor;
#[path = "../../src/text.rs"]
mod text;

mod plot;

use config::layers::Layers;
use config::{Config, RestartSettings};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;
use supervisor::{Action, Ending, Event, RunId, Settings, Supervisor, Timestamp};

const GUARDS: usize = 1_000;
const AWAY_FROM: Duration = Duration::from_secs(60);
/// How long the dependency is away, where nothing else is said.
const AWAY_FOR: Duration = Duration::from_secs(120);
/// What is looked at afterwards.
const AFTERWARDS: Duration = Duration::from_secs(420);
/// From an app's start to its question.
const STARTUP: Duration = Duration::from_millis(200);
/// What an orchestrator needs to start a container.
const CONTAINER_START: Duration = Duration::from_secs(1);

fn main() {
    let defaults = RestartSettings::default();
    let with = |initial: u64, max: u64, limit: Option<u32>| RestartSettings {
        backoff_initial: Duration::from_millis(initial),
        backoff_max: Duration::from_secs(max),
        max: limit,
        ..defaults.clone()
    };
    let (initial, max) = (as_millis(defaults.backoff_initial), defaults.backoff_max.as_secs());
    let cases = [
        ("the defaults", with(initial, max, defaults.max), true),
        ("the defaults, all with the same jitter", with(initial, max, defaults.max), false),
        ("no limit of restarts", with(initial, max, None), true),
        ("no limit, all with the same jitter", with(initial, max, None), false),
        ("GUARD_BACKOFF_INITIAL=10ms", with(10, max, defaults.max), true),
        ("GUARD_BACKOFF_INITIAL=1s", with(1_000, max, defaults.max), true),
        ("GUARD_BACKOFF_MAX=2s", with(initial, 2, defaults.max), true),
        ("GUARD_BACKOFF_MAX=30s", with(initial, 30, defaults.max), true),
        ("GUARD_MAX_RESTARTS=0, the orchestrator alone", with(initial, max, Some(0)), true),
    ];
    println!(
        "| settings | asked while away | most in 100 ms while away | most in 100 ms afterwards | half are back after | 95 % | all |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let mut drawn = Vec::new();
    for (name, restart, jitter) in cases {
        let result = Fleet::new(&restart, jitter, AWAY_FOR).run();
        drawn.push((name, result.per_second()));
        println!("{}", result.row(name));
    }
    println!("\n| away for | the defaults | no limit of restarts | the orchestrator alone |");
    println!("| --- | --- | --- | --- |");
    for seconds in [1, 5, 15, 30, 60, 120, 300, 600] {
        let away = Duration::from_secs(seconds);
        let limits = [defaults.max, None, Some(0)];
        let back = limits.map(|limit| Fleet::new(&with(initial, max, limit), true, away).run().back_after(95));
        println!("| {seconds} s | {} |", back.join(" | "));
    }
    if let Some(path) = std::env::args().nth(1) {
        drawn.truncate(2);
        std::fs::write(&path, plot::draw(&drawn, AWAY_FROM, AWAY_FROM + AWAY_FOR)).expect("the plot can be written");
    }
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What happens to a guard, or to its app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// The orchestrator has started the container.
    ContainerStarts,
    /// The core's deadline.
    Deadline,
    /// The app of this run asks the dependency.
    Asks(u32),
    /// The dependency goes away under the app of this run.
    Loses(u32),
}

struct Container {
    core: Supervisor,
    /// The run that lives, by its number.
    run: Option<u32>,
    /// Which guard of the container this is; what was planned for an earlier one means nothing.
    life: u32,
    is_up: bool,
    /// Restarts by the orchestrator so far.
    restarts: u32,
}

struct Fleet {
    settings: Settings,
    jitter: bool,
    away_until: Duration,
    containers: Vec<Container>,
    queue: BinaryHeap<Reverse<(Duration, usize, u32, Moment)>>,
    result: Outcome,
}

struct Outcome {
    away_until: Duration,
    /// When the dependency was asked.
    asked: Vec<Duration>,
    /// When each app came back.
    back: Vec<Duration>,
}

impl Fleet {
    fn new(restart: &RestartSettings, jitter: bool, away: Duration) -> Fleet {
        let away_until = AWAY_FROM + away;
        let settings = settings(restart);
        let container = |index| Container {
            core: Supervisor::new(with_seed(&settings, index, 0, jitter)),
            run: None,
            life: 0,
            is_up: false,
            restarts: 0,
        };
        let containers: Vec<Container> = (0..GUARDS).map(container).collect();
        // They were not all started at once.
        let queue = (0..GUARDS).map(|index| {
            Reverse((Duration::from_millis(random(index, 1) % 30_000), index, 0, Moment::ContainerStarts))
        });
        let result = Outcome { away_until, asked: Vec::new(), back: Vec::new() };
        Fleet { queue: queue.collect(), settings, jitter, away_until, containers, result }
    }

    fn run(mut self) -> Outcome {
        while let Some(Reverse((now, index, life, moment))) = self.queue.pop() {
            if now > self.away_until + AFTERWARDS {
                break;
            }
            if self.containers[index].life == life {
                self.happen(now, index, moment);
            }
        }
        self.result
    }

    fn happen(&mut self, now: Duration, index: usize, moment: Moment) {
        let is_away = (AWAY_FROM..self.away_until).contains(&now);
        let container = &mut self.containers[index];
        match moment {
            Moment::ContainerStarts => self.give(now, index, Event::Start),
            Moment::Deadline => {
                if container.core.next_deadline().is_some_and(|at| at.0 <= now) {
                    self.give(now, index, Event::Timeout);
                }
            }
            Moment::Asks(run) if container.run == Some(run) => {
                self.result.asked.push(now);
                if is_away {
                    return self.fail(now, index, run);
                }
                container.is_up = true;
                if now >= self.away_until {
                    self.result.back.push(now);
                }
                if now < AWAY_FROM {
                    // Not all of them notice in the same moment.
                    let notices = AWAY_FROM + Duration::from_millis(random(index, 2) % 50);
                    self.plan(notices, index, Moment::Loses(run));
                }
            }
            Moment::Loses(run) if container.run == Some(run) => self.fail(now, index, run),
            Moment::Asks(_) | Moment::Loses(_) => {}
        }
    }

    fn fail(&mut self, now: Duration, index: usize, run: u32) {
        let container = &mut self.containers[index];
        (container.run, container.is_up) = (None, false);
        self.give(now, index, Event::Exited(RunId { instance: 0, number: run }, Ending::Exited(1)));
    }

    fn plan(&mut self, at: Duration, index: usize, moment: Moment) {
        self.queue.push(Reverse((at, index, self.containers[index].life, moment)));
    }

    /// Gives an event to a guard's core, and does what it says.
    fn give(&mut self, now: Duration, index: usize, event: Event) {
        let mut actions = Vec::new();
        self.containers[index].core.handle(Timestamp(now), event, &mut actions);
        for action in actions {
            let answer = match action {
                Action::Spawn { run, .. } => {
                    self.containers[index].run = Some(run.number);
                    self.plan(now + STARTUP, index, Moment::Asks(run.number));
                    Event::Spawned(run)
                }
                Action::Sweep(run, _) => Event::Leftovers(run, 0),
                Action::SweepUnmarked => Event::UnmarkedCounted(0),
                Action::KillEverything(_) => Event::NothingLeft,
                Action::CountUnsent => Event::UnsentCounted(supervisor::UnsentData::default()),
                Action::Exit { .. } => return self.restart_container(now, index),
                // None of these is answered where nothing but the restarts is configured and nobody asks for anything.
                Action::Signal(..) | Action::Stop(..) | Action::StopUnreached(..) | Action::Freeze(_) => continue,
                Action::Thaw(_) | Action::Suspend | Action::Forget(_) | Action::SetDrainFile(_) => continue,
                Action::StartHook { .. } | Action::SignalHook(_) | Action::StartCheck(_) => continue,
                Action::KillCheck(_) | Action::SayDrain(_) | Action::SayShutdown(_) => continue,
                Action::Diagnose(_) | Action::EndDiagnosis(_) => continue,
                Action::Release | Action::Conclude { .. } | Action::ConcludeScale(_) | Action::CountCpus => continue,
                Action::Report(_)
                | Action::CountRestart { .. }
                | Action::CountConnections
                | Action::CountQueue(_)
                | Action::FindPorts
                | Action::Kill(_) => continue,
            };
            self.give(now, index, answer);
        }
        if let Some(at) = self.containers[index].core.next_deadline() {
            self.plan(at.0.max(now), index, Moment::Deadline);
        }
    }

    /// As the kubelet does it: 10 s, doubled up to 5 minutes.
    fn restart_container(&mut self, now: Duration, index: usize) {
        let container = &mut self.containers[index];
        let delay = Duration::from_secs(10) * (1 << container.restarts.min(5));
        container.restarts += 1;
        container.life += 1;
        container.run = None;
        container.core = Supervisor::new(with_seed(&self.settings, index, container.life, self.jitter));
        self.plan(now + delay.min(Duration::from_secs(300)) + CONTAINER_START, index, Moment::ContainerStarts);
    }
}

/// The core's settings where nothing but the restarts is configured.
fn settings(restart: &RestartSettings) -> Settings {
    let config = Config::resolve(Layers::default()).expect("the defaults are valid");
    Settings { restart: restart.clone(), ..Settings::of(&config) }
}

fn with_seed(settings: &Settings, index: usize, life: u32, jitter: bool) -> Settings {
    let seed = if jitter { random(index, 3 + u64::from(life)) } else { 1 };
    Settings { seed, ..settings.clone() }
}

/// A number that is the same in each simulation (splitmix64).
fn random(index: usize, what: u64) -> u64 {
    let mut z =
        (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(what.wrapping_mul(0xD1B5_4A32_D192_ED03));
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

impl Outcome {
    fn per_second(&self) -> Vec<usize> {
        let mut counts = vec![0; usize::try_from((self.away_until + AFTERWARDS).as_secs()).unwrap_or(0) + 1];
        for at in &self.asked {
            counts[usize::try_from(at.as_secs()).unwrap_or(0)] += 1;
        }
        counts
    }

    /// The most questions in any tenth of a second of this time.
    fn peak(&self, from: Duration, until: Duration) -> usize {
        let mut asked: Vec<Duration> = self.asked.iter().copied().filter(|at| (from..until).contains(at)).collect();
        asked.sort_unstable();
        let window = Duration::from_millis(100);
        let within =
            |(index, at): (usize, &Duration)| asked[index..].iter().take_while(|next| **next < *at + window).count();
        asked.iter().enumerate().map(within).max().unwrap_or(0)
    }

    /// How long after its return so many percent of the apps are back.
    fn back_after(&self, percent: usize) -> String {
        let mut back = self.back.clone();
        back.sort_unstable();
        let at = back.get((GUARDS * percent / 100).saturating_sub(1));
        at.map_or("later".to_owned(), |at| format!("{:.1} s", (*at - self.away_until).as_secs_f64()))
    }

    fn row(&self, name: &str) -> String {
        let away = self.asked.iter().filter(|at| (AWAY_FROM..self.away_until).contains(*at)).count();
        // All fail, and are started again at once, in the moment when the dependency goes away.
        let while_away = self.peak(AWAY_FROM + Duration::from_secs(1), self.away_until);
        let afterwards = self.peak(self.away_until, self.away_until + AFTERWARDS);
        let [half, most, all] = [50, 95, 100].map(|percent| self.back_after(percent));
        format!("| {name} | {away} | {while_away} | {afterwards} | {half} | {most} | {all} |")
    }
}
