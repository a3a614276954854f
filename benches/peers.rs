//! guard side by side with other inits, all measured in one run and in turns: `cargo bench` prints the table of
//! docs/benchmarks.md. It asserts nothing, since times are the machine's; the last row is what to look at.
//!
//! Each init runs as PID 1 of a namespace, with the app of benches/app/app.rs below it.

#![allow(clippy::disallowed_methods, clippy::disallowed_macros, reason = "a program of its own, with its own clock")]

#[path = "app/app.rs"]
mod app;
#[path = "instances/mod.rs"]
mod instances;

use nix::poll::{PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// How often each thing is measured. Rounds go through all inits in turn, so that a busy moment hits all alike.
const STARTS: usize = 200;
const RESTART_ROUNDS: usize = 10;
const RESTARTS_A_ROUND: usize = 50;
const SIGNALS: usize = 500;
const ORPHAN_ROUNDS: usize = 21;
const ORPHANS_A_ROUND: usize = 300;
const IDLE_SECONDS: u64 = 10;

const FIGURES: [Figure; 10] = [
    Figure { title: "binary, KiB", against: "tini-static" },
    Figure { title: "resident idle, KiB", against: "tini-static" },
    Figure { title: "of it anonymous", against: "tini-static" },
    Figure { title: "of it files", against: "tini-static" },
    Figure { title: "wake-ups a second, idle", against: "dumb-init" },
    Figure { title: "start-up added, µs", against: "tini-static" },
    Figure { title: "death to next main, µs", against: BARE_LOOP },
    Figure { title: "CPU an orphan in a stream, µs", against: "dumb-init" },
    Figure { title: "alone, µs", against: "dumb-init" },
    Figure { title: "signal forwarded, µs", against: "tini" },
];
const BARE_LOOP: &str = "waitpid + posix_spawn";

struct Figure {
    title: &'static str,
    /// The row that guard's budget for this figure speaks of.
    against: &'static str,
}

/// A row of the table.
struct Init {
    name: &'static str,
    /// What comes before the app's command; none where it is not installed.
    command: Option<Vec<OsString>>,
    environment: Vec<(&'static str, OsString)>,
    /// In the order of [`FIGURES`].
    values: [Option<f64>; FIGURES.len()],
}

fn main() {
    if std::env::args().nth(1).is_some_and(|word| word == "app") {
        return app::main();
    }
    if !std::env::args().any(|word| word == "--bench") {
        return; // `cargo test --benches` only wants to know that this builds
    }
    let (guard, app) = build();
    let pm2_home = tempfile::tempdir().expect("a temporary directory can be made");
    let mut inits = vec![
        Init::new("guard", Some(guard), &["--"]),
        Init::new("tini", in_path("tini"), &["--"]),
        Init::new("tini-static", in_path("tini-static"), &["--"]),
        // By default dumb-init puts the app into a session of its own. Where no cgroup shares out the CPU, as here, the kernel
        // then shares it between the sessions (autogroup, `sched(7)`): dumb-init waits while orphans gather, and the machine's
        // other work decides what one costs. In a container all processes share one group.
        Init::new("dumb-init", in_path("dumb-init"), &["--single-child", "--"]),
        Init::new("catatonit", in_path("catatonit"), &["--"]),
        Init::new("pm2-runtime", in_path("pm2-runtime"), &["start", "--interpreter", "none"]),
    ];
    inits[5].environment.push(("PM2_HOME", pm2_home.path().into()));

    let at_rest = |init: &&mut Init| init.command.is_some();
    // pm2-runtime puts its own pipes between the app and us, and takes most of a second to start.
    let shims = |init: &&mut Init| init.command.is_some() && init.name != "pm2-runtime";
    let named: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|word| word == name);
    if wanted("binaries") {
        measure_binaries(inits.iter_mut().filter(shims));
    }
    if wanted("idle") {
        measure_idle(&app, inits.iter_mut().filter(at_rest).collect());
    }
    if wanted("start") {
        measure_start(&app, inits.iter_mut().filter(shims).collect());
    }
    if wanted("signals") {
        measure_signals(&app, inits.iter_mut().filter(shims).collect());
    }
    if wanted("orphans") {
        for (word, title) in [("stream", "CPU an orphan in a stream, µs"), ("orphans", "alone, µs")] {
            measure_orphans(&app, inits.iter_mut().filter(shims).collect(), word, title);
        }
    }
    if wanted("restarts") {
        let mut bare = Init::new(BARE_LOOP, None, &[]);
        measure_restarts(&app, &mut inits[0], &mut bare);
        inits.push(bare);
    }
    print_table(&inits);
    if wanted("instances") {
        println!();
        instances::measure(&inits[0], &app);
    }
}

/// guard as it is released, and the app: static binaries where the target for them is installed.
fn build() -> (PathBuf, PathBuf) {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let built = Path::new(env!("CARGO_BIN_EXE_guard"));
    let directory = built.parent().and_then(Path::parent).expect("the binary is in the target directory");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--quiet", "--release", "--bin", "guard", "--target", &target, "--target-dir"]).arg(directory);
    let app = directory.join("bench-app");
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-C", "opt-level=2", "-C", "panic=abort", "-C", "relocation-model=static"]);
    rustc.args(["--target", &target, "benches/app/app.rs", "-o"]).arg(&app);
    let [cargo, rustc] = [cargo, rustc].map(|mut command| {
        let built = command.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::null()).status();
        built.is_ok_and(|status| status.success())
    });
    if !(cargo && rustc) {
        eprintln!("the target {target} is not installed: what follows is about dynamic binaries");
        return (built.to_owned(), std::env::current_exe().expect("a program has a path"));
    }
    (directory.join(target).join("release/guard"), app)
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file())
}

impl Init {
    fn new(name: &'static str, program: Option<PathBuf>, options: &[&str]) -> Init {
        let command =
            program.map(|program| [program.into()].into_iter().chain(options.iter().map(OsString::from)).collect());
        Init { name, command, environment: Vec::new(), values: [None; FIGURES.len()] }
    }

    fn set(&mut self, title: &str, value: f64) {
        let index = FIGURES.iter().position(|figure| figure.title == title).expect("the figure has a column");
        self.values[index] = Some(value);
    }

    /// Starts it as PID 1, with the app below it.
    fn start(&self, app: &Path, words: &[&str]) -> Running {
        let command = self.command.as_ref().expect("only what is installed is started");
        let mut below = vec![OsString::from(app)];
        if self.name == "pm2-runtime" {
            below.push("--".into());
        }
        below.push("app".into());
        below.extend(words.iter().map(OsString::from));
        Running::start(app, command.iter().cloned().chain(below), &self.environment)
    }
}

/// A namespace, in which an init or the app alone is PID 1. Dropping it kills all.
struct Running {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// When PID 1 was executed.
    begun: u64,
}

impl Running {
    fn start(
        app: &Path,
        command: impl IntoIterator<Item = OsString>,
        environment: &[(&'static str, OsString)],
    ) -> Running {
        let mut line = Command::new(app);
        line.args(["app", "init"]).args(command).envs(environment.iter().cloned());
        line.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = line.spawn().expect("the app can be started");
        let stdin = child.stdin.take().expect("it was asked for");
        let stdout = BufReader::new(child.stdout.take().expect("it was asked for"));
        let mut running = Running { child, stdin, stdout, begun: 0 };
        running.begun = running.numbers()[0];
        running
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the app's output can be read");
        assert!(!line.is_empty(), "the app has ended");
        line.trim_end().to_owned()
    }

    fn numbers(&mut self) -> Vec<u64> {
        let line = self.line();
        line.split(' ').map(|word| word.parse().unwrap_or_else(|_| panic!("{line:?} is no time"))).collect()
    }

    fn until(&mut self, want: &str) {
        while self.line() != want {}
    }

    /// PID 1, as it is called outside.
    fn pid1(&self) -> i32 {
        child_of(self.child.id() as i32)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The only child of a process.
fn child_of(parent: i32) -> i32 {
    let parent = parent.to_string();
    let processes = fs::read_dir("/proc").expect("/proc is there");
    let mut pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.find(|pid| status(*pid, "PPid") == parent).expect("it has a child")
}

/// A field of proc_pid_status(5).
fn status(pid: i32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.and_then(|value| value.split_whitespace().next()).unwrap_or_default().to_owned()
}

/// How often all threads of a process went to sleep, which is how often they woke up.
fn sleeps(pid: i32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process lives");
    let threads = threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    threads.map(|thread| status(thread, "voluntary_ctxt_switches").parse::<u64>().unwrap_or(0)).sum()
}

/// The CPU time of a process's main thread in nanoseconds; none where the kernel does not keep it.
fn cpu(pid: i32) -> Option<u64> {
    fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?.split(' ').next()?.parse().ok()
}

fn measure_binaries<'a>(inits: impl Iterator<Item = &'a mut Init>) {
    for init in inits {
        let program = init.command.as_ref().map(|command| PathBuf::from(&command[0]));
        if let Some(metadata) = program.and_then(|program| program.metadata().ok()) {
            init.set("binary, KiB", metadata.len() as f64 / 1024.0);
        }
    }
}

/// All at once: idle processes do not disturb each other.
fn measure_idle(app: &Path, inits: Vec<&mut Init>) {
    let mut all: Vec<(&mut Init, Running)> = inits
        .into_iter()
        .map(|init| {
            let running = init.start(app, &["idle"]);
            (init, running)
        })
        .collect();
    for (_, running) in &mut all {
        running.until("ready");
    }
    let wait = |seconds: u64| {
        // A stretch of time is what is measured, so it has to pass.
        let milliseconds = PollTimeout::try_from(seconds * 1000).expect("it is short");
        poll(&mut [], milliseconds).expect("poll can wait");
    };
    wait(2); // what is done at the start is over then
    let before: Vec<u64> = all.iter().map(|(_, running)| sleeps(running.pid1())).collect();
    wait(IDLE_SECONDS);
    for ((init, running), before) in all.iter_mut().zip(before) {
        let pid = running.pid1();
        init.set("wake-ups a second, idle", (sleeps(pid) - before) as f64 / IDLE_SECONDS as f64);
        for (key, title) in
            [("VmRSS", "resident idle, KiB"), ("RssAnon", "of it anonymous"), ("RssFile", "of it files")]
        {
            init.set(title, status(pid, key).parse().expect("the kernel tells how much memory is used"));
        }
    }
}

fn measure_start(app: &Path, inits: Vec<&mut Init>) {
    let mut alone = Vec::new();
    let mut below: Vec<Vec<u64>> = inits.iter().map(|_| Vec::new()).collect();
    for _ in 0..STARTS {
        let mut running = Running::start(app, [app.into(), "app".into(), "once".into()], &[]);
        alone.push(running.numbers()[0] - running.begun);
        for (init, times) in inits.iter().zip(&mut below) {
            let mut running = init.start(app, &["once"]);
            times.push(running.numbers()[0] - running.begun);
        }
    }
    let alone = median(alone);
    for (init, times) in inits.into_iter().zip(below) {
        init.set("start-up added, µs", (median(times) - alone) / 1000.0);
    }
}

/// From just before kill(2) to just after the app's sigwait(3). The init has a CPU to itself: else the scheduler, which places
/// the three of them as it likes, is what is measured.
fn measure_signals(app: &Path, inits: Vec<&mut Init>) {
    let everywhere = sched_getaffinity(Pid::from_raw(0)).expect("the kernel tells");
    stay_on(0, 0);
    let mut all: Vec<(Running, i32, Vec<u64>)> = Vec::new();
    for init in &inits {
        let mut running = init.start(app, &["signals"]);
        running.until("ready");
        let pid = running.pid1();
        stay_on(pid, 1);
        stay_on(child_of(pid), 0);
        all.push((running, pid, Vec::new()));
    }
    for _ in 0..SIGNALS {
        for (running, pid, times) in &mut all {
            let sent = app::now();
            kill(Pid::from_raw(*pid), Signal::SIGUSR1).expect("the init lives");
            times.push(running.numbers()[0] - sent);
        }
    }
    for (init, (_, _, times)) in inits.into_iter().zip(all) {
        init.set("signal forwarded, µs", median(times) / 1000.0);
    }
    sched_setaffinity(Pid::from_raw(0), &everywhere).expect("as it was");
}

/// Keeps a process, 0 being this one, on one CPU, where there is more than one.
fn stay_on(pid: i32, cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a small number");
    if let Err(error) = sched_setaffinity(Pid::from_raw(pid), &set) {
        eprintln!("CPU {cpu} cannot be had: {error}");
    }
}

fn measure_orphans(app: &Path, inits: Vec<&mut Init>, word: &str, title: &str) {
    let mut costs: Vec<Vec<u64>> = inits.iter().map(|_| Vec::new()).collect();
    for _ in 0..ORPHAN_ROUNDS {
        for (init, costs) in inits.iter().zip(&mut costs) {
            let mut running = init.start(app, &[word, &ORPHANS_A_ROUND.to_string()]);
            running.until("ready");
            let pid = running.pid1();
            let Some(before) = cpu(pid) else { return };
            running.stdin.write_all(b"!").expect("the app reads its stdin");
            running.until("reaped");
            costs.push(cpu(pid).map_or(0, |after| after - before) / ORPHANS_A_ROUND as u64);
        }
    }
    for (init, costs) in inits.into_iter().zip(costs) {
        init.set(title, median(costs) / 1000.0);
    }
}

/// Restarts follow at once, without an end, though stdin is a pipe.
const RESTARTING: [(&str, &str); 4] = [
    ("GUARD_RESTART", "on-failure"),
    ("GUARD_MAX_RESTARTS", "unlimited"),
    ("GUARD_BACKOFF_INITIAL", "0"),
    ("GUARD_BACKOFF_MAX", "0"),
];

/// From the last moment of a run that fails to the first of the next one's `main`.
fn measure_restarts(app: &Path, guard: &mut Init, bare: &mut Init) {
    // Immediately and for ever, or there would be little to measure.
    guard.environment.extend(RESTARTING.map(|(name, value)| (name, value.into())));
    let runs = RESTARTS_A_ROUND + 1;
    let again: Vec<OsString> = [app.into(), "app".into(), "loop".into(), runs.to_string().into()]
        .into_iter()
        .chain([app.into(), "app".into(), "crash".into()])
        .collect();
    let gaps = |mut running: Running| {
        let times: Vec<Vec<u64>> = (0..runs).map(|_| running.numbers()).collect();
        times.windows(2).map(|pair| pair[1][0] - pair[0][1]).collect::<Vec<u64>>()
    };
    let (mut under_guard, mut under_loop) = (Vec::new(), Vec::new());
    for _ in 0..RESTART_ROUNDS {
        under_guard.extend(gaps(guard.start(app, &["crash"])));
        under_loop.extend(gaps(Running::start(app, again.clone(), &[])));
    }
    guard.set("death to next main, µs", median(under_guard) / 1000.0);
    bare.set("death to next main, µs", median(under_loop) / 1000.0);
}

fn median(mut values: Vec<u64>) -> f64 {
    values.sort_unstable();
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] as f64 } else { (values[middle - 1] + values[middle]) as f64 / 2.0 }
}

fn print_table(inits: &[Init]) {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    println!("Medians of one run, in turns; Linux {}, {}, {cpus} CPUs.\n", kernel.trim(), std::env::consts::ARCH);
    println!("| | {} |", FIGURES.map(|figure| figure.title).join(" | "));
    println!("| --- |{}", " ---: |".repeat(FIGURES.len()));
    for init in inits {
        let cells = init.values.map(|value| value.map_or(String::new(), number));
        let installed = init.command.is_some() || init.name == BARE_LOOP;
        let name = if installed { init.name.to_owned() } else { format!("{} (not installed)", init.name) };
        println!("| {name} | {} |", cells.join(" | "));
    }
    let ratios = FIGURES.iter().enumerate().map(|(index, figure)| {
        let value = |name: &str| inits.iter().find(|init| init.name == name).and_then(|init| init.values[index]);
        match (value("guard"), value(figure.against)) {
            (Some(guard), Some(other)) if other > 0.0 => format!("{:.2} × {}", guard / other, figure.against),
            _ => String::new(),
        }
    });
    println!("| **guard is** | {} |", ratios.collect::<Vec<_>>().join(" | "));
}

fn number(value: f64) -> String {
    if value == 0.0 || value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}
