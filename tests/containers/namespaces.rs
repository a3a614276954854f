//! guard that is not PID 1: below an init, among the processes of the host or of another container, below a guard.

use crate::common::{Guard, child, eventually, send};
use crate::container::{Container, Run, docker, podman};
use crate::engine::Engine;
use nix::libc::SIGTERM;

tests![
    below_dockers_init,
    below_podmans_init,
    among_the_processes_of_the_host,
    in_the_pid_namespace_of_another_container,
    in_a_podman_pod_that_shares_its_pid_namespace,
    a_guard_in_a_guard,
    an_inner_guard_that_gives_up_is_restarted_by_the_outer,
];

/// The pid that guard has for itself and for `docker exec`.
fn pid(container: &Container) -> u32 {
    let status = container.until_yes(&["status", "--json"]).out;
    let (_, after) = status.split_once(r#""pid":"#).expect("a pid");
    after.split(',').next().and_then(|pid| pid.parse().ok()).expect("a number")
}

/// The parent of a process, in the container's numbers; none if it is gone.
fn parent(container: &Container, pid: &str) -> Option<u32> {
    let answer = container.exec(&["cut", "-d ", "-f4", &format!("/proc/{pid}/stat")]);
    answer.out.trim().parse().ok()
}

fn below_dockers_init() {
    is_below_an_init(docker());
}

fn below_podmans_init() {
    is_below_an_init(podman());
}

fn is_below_an_init(run: Run) {
    let words = "fork fork setsid ids as orphan serve . exit 0 . before-run 2 quit USR1 1 quit TERM 3 serve";
    let mut container = run.options("--init").fixture(words).start();
    let orphan = container.line_after("pid ");
    container.line("ready");
    // /sbin/docker-init, which is tini, or /run/podman-init, which is catatonit.
    let name = container.exec(&["cat", "/proc/1/cmdline"]).out;
    assert!(name.split('\0').next().is_some_and(|init| init.ends_with("-init")), "{name:?}");
    let guard = pid(&container);
    assert_ne!(guard, 1);

    // An orphan is guard's and not the init's, and is reaped.
    eventually("guard as the parent", || (parent(&container, &orphan) == Some(guard)).then_some(()));
    assert_eq!(container.exec(&["sh", "-c", &format!("kill -KILL {orphan}")]).code, 0);
    eventually("the end of the orphan", || parent(&container, &orphan).is_none().then_some(()));

    container.kill("USR1");
    container.line("got USR1");
    container.event("restart");
    container.line("ready");
    container.until_yes(&["ready"]).yes("ready");
    container.tell("stop");
    container.line("got TERM");
    assert_eq!(container.code(), 3);
    assert!(container.said("shell-above").is_empty());
}

/// A process that guard has nothing to do with.
fn sentinel() -> Guard {
    let mut sentinel = child().options(["--restart", "never"]).fixture("quit TERM 0 serve").start();
    sentinel.line("ready");
    sentinel
}

/// The last blow, which PID 1 deals to everybody, is only for guard's own there.
fn among_the_processes_of_the_host() {
    let mut sentinel = sentinel();
    let run = docker().options("--pid host").env("GUARD_STOP_TIMEOUT", "500ms");
    let words = "fork setsid deaf as daemon serve . before-run 2 quit USR1 1 before-run 2 serve deaf serve";
    let mut container = run.fixture(words).start();
    container.line("ready");
    let guard = pid(&container);
    assert_eq!(container.inspect("{{.State.Pid}}"), guard.to_string(), "the host's number");
    container.kill("USR1");
    container.event("leftovers");
    container.event("restart");
    container.line("ready");
    container.until_yes(&["ready"]).yes("ready");
    container.tell("stop");
    assert_eq!(container.code(), 137);
    assert_eq!(container.said("end").len(), 1);
    send(sentinel.pid(), SIGTERM);
    sentinel.line("got TERM");
    assert_eq!(sentinel.code(), 0);
}

fn in_the_pid_namespace_of_another_container() {
    let mut other = docker().fixture("fork setsid as daemon serve . serve").start();
    other.line("ready");
    let run = docker().options(&format!("--pid container:{}", other.name)).env("GUARD_STOP_TIMEOUT", "500ms");
    let mut container =
        run.fixture("fork setsid deaf as left serve . before-run 2 quit USR1 1 before-run 2 serve deaf serve").start();
    container.line("ready");
    assert_eq!(pid(&other), 1);
    assert_ne!(pid(&container), 1);

    container.kill("USR1");
    container.event("restart");
    container.line("ready");
    container.ask(&["restart"]).yes("restarted: run 3 is ready");
    assert!(other.ask(&["status", "--json"]).out.contains(r#""restarts":0"#));
    container.tell("stop");
    assert_eq!(container.code(), 137);

    // Whose namespace it is notices nothing of it.
    other.kill("USR1");
    other.line("got USR1");
    other.tell("stop");
    other.line("daemon got TERM");
    assert_eq!(other.code(), 143);
    assert_eq!(other.names(), ["start", "spawn", "drain", "stop-signal", "exit", "leftovers", "end"]);
}

/// A pod whose pause process is PID 1, as with Kubernetes' shareProcessNamespace.
fn in_a_podman_pod_that_shares_its_pid_namespace() {
    struct Pod(String);
    impl Drop for Pod {
        fn drop(&mut self) {
            Engine::Podman.ask(&["pod", "rm", "--force", "--time", "0", &self.0]);
        }
    }
    let pod = Pod(Engine::Podman.tell(&["pod", "create", "--share", "pid,net,ipc,uts"]));
    let start = |words| podman().options(&format!("--pod {}", pod.0)).fixture(words).start();
    let mut first = start("fork setsid as left serve . before-run 2 quit USR1 1 quit TERM 3 serve");
    let mut second = start("quit TERM 4 serve");
    first.line("ready");
    second.line("ready");
    let pids = (pid(&first), pid(&second));
    assert!(pids.0 != 1 && pids.1 != 1 && pids.0 != pids.1, "{pids:?}");
    assert!(!first.exec(&["cat", "/proc/1/cmdline"]).out.contains("guard"));

    first.kill("USR1");
    first.event("leftovers");
    first.event("restart");
    first.line("ready");
    first.ask(&["ready"]).yes("ready");
    first.tell("stop");
    assert_eq!(first.code(), 3);
    assert!(first.said("shell-above").is_empty());
    second.ask(&["restart"]).yes("restarted: run 2 is ready");
    second.tell("stop");
    assert_eq!(second.code(), 4);
}

fn a_guard_in_a_guard() {
    let words = "guard --max-restarts 1 -- fixture before-run 2 exit 1 quit TERM 7 linger 100 serve";
    let mut container = docker().env("GUARD_RESTART", "never").command(words.split(' ')).start();
    container.event("restart");
    container.line("ready");
    let answer = container.ask(&["status"]);
    assert_eq!(answer.code, 125, "{answer:?}");
    assert!(answer.err.contains("--pid 1  guard --max-restarts 1 -- fixture"), "{answer:?}");
    container.ask(&["ready", "--pid", "1"]).yes("ready");
    let inner = container.said("start")[1].get("pid").expect("a pid").to_owned();
    assert!(container.ask(&["status", "--json", "--pid", &inner]).out.contains(r#""restarts":1"#));
    container.tell("stop");
    container.line("done");
    assert_eq!(container.code(), 7);
    assert_eq!(container.out().iter().filter(|line| **line == "got TERM").count(), 1);
    assert_eq!((container.said("drain").len(), container.said("end").len()), (2, 2));
    assert!(container.said("kill").is_empty() && container.said("leftovers").is_empty());
}

fn an_inner_guard_that_gives_up_is_restarted_by_the_outer() {
    let run = docker().env("GUARD_MAX_RESTARTS", "1");
    let mut container = run.command("guard --max-restarts 2 -- fixture exit 9".split(' ')).start();
    assert_eq!(container.code(), 9);
    assert_eq!((container.said("restart").len(), container.said("give-up").len()), (2 + 1 + 2, 3));
}
