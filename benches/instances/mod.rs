//! What many instances cost: memory, the CPU time of simultaneous crashes, and the time until all run again.

use super::{Init, RESTARTING, Running, cpu, median, status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;

const COUNTS: [usize; 3] = [1, 8, 64];
const ROUNDS: usize = 9;

/// Prints a table of its own. Apps are killed at a time, by SIGKILL, and guard starts each again at once.
pub(crate) fn measure(guard: &Init, app: &Path) {
    println!(
        "| instances | resident idle, KiB | CPU of one crash, µs | CPU of all crashing, µs | for each, µs | until all run, µs |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: |");
    for count in COUNTS {
        let mut init = Init {
            environment: guard.environment.clone(),
            command: guard.command.clone(),
            ..Init::new("guard", None, &[])
        };
        init.environment.extend(RESTARTING.map(|(name, value)| (name, value.into())));
        init.environment.push(("GUARD_INSTANCES", count.to_string().into()));
        let mut running = init.start(app, &["idle"]);
        (0..count).for_each(|_| running.until("ready"));
        let pid = running.pid1();
        let resident: f64 = status(pid, "VmRSS").parse().expect("the kernel tells how much memory is used");
        let (one, _) = crash(&mut running, pid, 1);
        let (all, time) = crash(&mut running, pid, count);
        let each = all / count as f64;
        println!("| {count} | {resident:.0} | {one:.0} | {all:.0} | {each:.0} | {time:.0} |");
    }
}

/// Medians of the CPU time that guard uses, and of the time until as many run again, both in microseconds.
fn crash(running: &mut Running, pid: i32, count: usize) -> (f64, f64) {
    let (mut costs, mut times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let apps: Vec<Pid> = children(pid).into_iter().take(count).map(Pid::from_raw).collect();
        assert_eq!(apps.len(), count, "all run");
        let before = cpu(pid).unwrap_or(0);
        let begun = super::app::now();
        for app in apps {
            kill(app, Signal::SIGKILL).expect("it lives");
        }
        (0..count).for_each(|_| running.until("ready"));
        times.push(super::app::now() - begun);
        costs.push(cpu(pid).unwrap_or(0) - before);
    }
    (median(costs) / 1000.0, median(times) / 1000.0)
}

fn children(parent: i32) -> Vec<i32> {
    let text =
        fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).expect("the kernel tells of children");
    text.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
}
