//! What a container runs out of: processes, memory, and somebody who reads what it says.

use crate::common::{Event, eventually, send, status_field};
use crate::container::{Container, Run, docker, podman};
use crate::engine::Engine;
use crate::image::image;
use libtest_mimic::Trial;
use nix::libc::SIGTERM;
use std::fs;
use std::process::{Child, Command, Stdio};

tests![
    an_app_that_takes_all_pids_is_replaced,
    a_run_without_a_pid_is_tried_again_after_a_backoff,
    a_stop_needs_no_new_pid,
    docker_an_app_out_of_memory_is_restarted,
    podman_an_app_out_of_memory_is_restarted,
    out_of_memory_may_be_the_last_word,
    an_app_is_restarted_before_it_is_out_of_memory,
    a_guard_that_is_out_of_memory_leaves_its_last_word,
    nobody_reads_what_the_container_says,
];

/// What an engine has to be able to do, and for which tests.
struct Need {
    engine: Engine,
    /// The options that say so.
    options: &'static [&'static str],
    of: fn(&str) -> bool,
}

const NEEDS: [Need; 5] = [
    Need { engine: Engine::Docker, options: &[], of: |_| true },
    Need { engine: Engine::Podman, options: &[], of: |test| test.contains("podman") },
    Need {
        engine: Engine::Docker,
        options: &["--memory", "64m"],
        of: |test| test.contains("out_of_memory") && !test.contains("podman"),
    },
    Need {
        engine: Engine::Podman,
        options: &["--memory", "64m"],
        of: |test| test.contains("podman") && test.contains("out_of_memory"),
    },
    Need { engine: Engine::Docker, options: &["--pids-limit", "20"], of: |test| test.contains("_pid") },
];

impl Need {
    /// Why this machine cannot do it, tried without guard.
    fn lacking(&self) -> Option<String> {
        let image = image(self.engine, "fixture");
        let line = [&["run", "--rm"], self.options, &["--entrypoint", "true", &image]].concat();
        let answer = self.engine.ask(&line);
        // Docker only warns of a limit that the kernel has not got.
        let lacking = answer.code != 0 || answer.err.contains("imitation discarded");
        let why = answer.err.trim().lines().next_back().unwrap_or_default().to_owned();
        lacking.then(|| format!("`{} {}`: {why}", self.engine.program(), line.join(" ")))
    }
}

/// The tests, of which those that this machine has no means for are skipped; the reason is said once for all of them.
pub(crate) fn without_the_impossible(mut tests: Vec<Trial>) -> Vec<Trial> {
    for need in &NEEDS {
        let of = |test: &Trial| (need.of)(test.name()) && !test.has_ignored_flag();
        let count = tests.iter().filter(|test| of(test)).count();
        let Some(why) = (count > 0).then(|| need.lacking()).flatten() else { continue };
        println!("skipped: {count} tests of containers: {why}");
        let skip = |test: Trial| if of(&test) { test.with_ignored_flag(true) } else { test };
        tests = tests.into_iter().map(skip).collect();
    }
    tests
}

/// A run that forks until it may no more, behind which the next one finds room again.
fn an_app_that_takes_all_pids_is_replaced() {
    let bomb = "[ $GUARD_RUN = 3 ] && exec fixture quit TERM 0 serve; while sleep 1000 & do :; done";
    let run = docker().options("--pids-limit 20").env("GUARD_BACKOFF_INITIAL", "10ms");
    let mut container = run.command(["sh", "-c", bomb]).start();
    container.log_line("the shell's complaint", |line| line.contains("Cannot fork"));
    let leftovers = container.event("leftovers");
    let count: u32 = leftovers.get("count").and_then(|count| count.parse().ok()).expect("a number");
    assert!(count > 10, "{}", leftovers.line);
    container.line("ready");
    container.tell("stop");
    assert_eq!(container.code(), 0);
    assert_eq!(container.said("restart").len(), 2);
    assert!(container.said("spawn-failed").is_empty(), "{}", container.transcript());
}

/// Lets nobody in the container have a child any more, or again.
fn limit_pids(container: &Container, limit: u32) {
    container.tell(&format!("update --pids-limit {limit}"));
}

fn a_run_without_a_pid_is_tried_again_after_a_backoff() {
    let run =
        docker().options("--pids-limit 20").env("GUARD_MAX_RESTARTS", "unlimited").env("GUARD_BACKOFF_MAX", "500ms");
    let mut container = run.fixture("quit USR1 1 quit TERM 0 serve").start();
    container.line("ready");
    limit_pids(&container, 1);
    container.kill("USR1");
    let failed = container.event("spawn-failed");
    assert!(
        failed
            .get("error")
            .is_some_and(|error| error.contains("is a limit of processes, descriptors or memory reached?")),
        "{}",
        failed.line
    );
    let restart = container.event("restart");
    assert!(restart.get("delay") != Some("0s"), "{}", restart.line);
    container.event("spawn-failed");
    limit_pids(&container, 20);
    container.line("ready");
    container.tell("stop");
    assert_eq!(container.code(), 0);
}

/// The hook cannot be started; all else takes its course.
fn a_stop_needs_no_new_pid() {
    let run = docker().options("--pids-limit 20").env("GUARD_STOP_TIMEOUT", "500ms").env("GUARD_PRE_STOP", "true");
    let mut container = run.fixture("fork setsid deaf as left serve . deaf serve").start();
    container.line("ready");
    limit_pids(&container, 1);
    container.tell("stop");
    assert_eq!(container.code(), 137);
    assert_eq!(container.names(), ["start", "spawn", "drain", "pre-stop-failed", "stop-signal", "kill", "exit", "end"]);
}

/// Reads a line that never ends into memory.
const EAT: &str = "exec tail /dev/zero";

fn docker_an_app_out_of_memory_is_restarted() {
    let container = is_out_of_memory(docker());
    assert_eq!(container.inspect("{{.RestartCount}} {{.State.ExitCode}}"), "0 0");
}

fn podman_an_app_out_of_memory_is_restarted() {
    is_out_of_memory(podman());
}

fn is_out_of_memory(run: Run) -> Container {
    let script = format!("[ $GUARD_RUN = 1 ] && {EAT}; exec fixture env quit TERM 0 serve");
    let mut container = run.options("--memory 64m").command(["sh", "-c", &script]).start();
    let exit = container.event("exit");
    assert_eq!((exit.get("signal"), exit.get("cause")), (Some("SIGKILL"), Some("oom")), "{}", exit.line);
    assert_eq!(container.event("restart").get("last"), Some("oom"));
    container.line("env GUARD_LAST_EXIT=oom");
    container.line("ready");
    container.tell("stop");
    assert_eq!(container.code(), 0);
    container
}

fn out_of_memory_may_be_the_last_word() {
    let run = docker().options("--memory 64m").env("GUARD_NO_RESTART_CODES", "oom");
    let mut container = run.command(["sh", "-c", EAT]).start();
    assert_eq!(container.code(), 137);
    assert_eq!(container.names(), ["start", "spawn", "exit", "not-restarted", "end"]);
    assert_eq!(container.inspect("{{.State.OOMKilled}} {{.State.ExitCode}}"), "true 137");
}

/// The limit is half of the container's, which `docker update` changes.
fn an_app_is_restarted_before_it_is_out_of_memory() {
    let eat = "{ head -c 40000000 /dev/zero; sleep 1000; } | tail -c 40000000";
    let run = docker().options("--memory 64m").env("GUARD_MAX_MEMORY", "50%").env("GUARD_STABLE_AFTER", "0s");
    let mut container = run.env("GUARD_LOG", "debug").command(["sh", "-c", eat]).start();
    assert_eq!(container.event("memory-limit").get("limit"), Some("32.0M"));
    let exit = container.event("exit");
    assert_eq!((exit.get("signal"), exit.get("cause")), (Some("SIGTERM"), Some("memory-limit")), "{}", exit.line);
    container.tell("update --memory 256m --memory-swap 256m");
    // A run that has all that it takes, and may have it.
    let has_all =
        |look: &Event| look.get("memory").is_some_and(|memory| memory.starts_with("4") && memory.ends_with('M'));
    while !Some(container.event("memory")).is_some_and(|look| look.get("limit") == Some("128.0M") && has_all(&look)) {}
    container.tell("stop");
    assert_eq!(container.code(), 143);
    assert!(container.said("exit").iter().all(|exit| exit.get("cause") != Some("oom")), "{}", container.transcript());
}

/// Where the kernel kills guard too the whole container ends, as with cgroup v2's memory.oom.group. Here guard is made the
/// one whom the kernel chooses, as cgroup v1 does not know groups. What was written before is all that is left.
fn a_guard_that_is_out_of_memory_leaves_its_last_word() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    fs::write(&log, "").expect("a file");
    let run = docker().options("--memory 64m --restart on-failure:1 --entrypoint sh");
    let run = run.options(&format!("--volume {}:/dev/termination-log", log.display()));
    let app = format!("[ $GUARD_RUN = 1 ] && exit 5; echo 0 >/proc/self/oom_score_adj; tail /dev/zero & {EAT}");
    let script = "echo 1000 >/proc/self/oom_score_adj; exec guard -- sh -c \"$0\"";
    let container = run.command(["-c", script, &app]).start_detached();
    let template = "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}}";
    container.until(template, "1 exited 137 true");
    let word = fs::read_to_string(&log).expect("a file");
    // The kernel may choose the app first, and guard has written that down before its own turn comes.
    let words = ["run 1 exited with code 5", "run 2 was killed for lack of memory"];
    assert!(words.iter().any(|known| word.contains(known)), "{word:?}");
    let mut log = container.log();
    log.status();
    assert!(log.events().iter().all(|event| event.name() != "end"), "guard had no time");
}

/// A client that reads nothing of what the engine gives it, so that in the end nothing can be written in the container.
struct DeafClient(Child);

impl DeafClient {
    fn attach(container: &Container) -> DeafClient {
        let mut command = Command::new(Engine::Docker.program());
        command.args(["attach", "--no-stdin", "--sig-proxy=false", &container.name]);
        let pipes = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        DeafClient(pipes.spawn().expect("docker is there"))
    }
}

impl Drop for DeafClient {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn nobody_reads_what_the_container_says() {
    let flood = "yes >&2 & exec fixture into /said quit USR1 1 quit TERM 3 linger 100 serve";
    let run = docker().options("--log-driver none").env("GUARD_DRAIN_DELAY", "100ms").env("GUARD_STOP_TIMEOUT", "5s");
    let container = run.command(["sh", "-c", flood]).start_detached();
    container.until_yes(&["ready"]);
    let client = DeafClient::attach(&container);
    is_flooded(&container);

    container.kill("USR1");
    let restarted = || container.ask(&["status", "--json"]).out.contains(r#""restarts":1"#);
    eventually("a restart", || restarted().then_some(()));
    container.until_yes(&["ready"]);
    is_flooded(&container);
    container.ask(&["restart"]).yes("restarted: run 3 is ready");
    let said = container.exec(&["cat", "/said"]).out;
    assert_eq!(said, "ready\n");

    // Docker itself waits for its client when the container has ended.
    let guard: i32 = container.inspect("{{.State.Pid}}").parse().expect("a pid");
    send(guard, SIGTERM);
    eventually("the end of guard", || status_field(guard, "State:").is_empty().then_some(()));
    drop(client);
    container.until("{{.State.Status}} {{.State.ExitCode}}", "exited 3");
}

/// Waits until `yes` can write no more.
fn is_flooded(container: &Container) {
    let written = || container.exec(&["sh", "-c", "grep wchar /proc/$(pidof yes)/io"]).out;
    eventually("a full pipe", || {
        let before = written();
        (!before.is_empty() && written() == before).then_some(())
    });
}
