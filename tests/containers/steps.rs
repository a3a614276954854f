//! What is done to an app behind guard, whichever it is.

use crate::common::{Answer, Guard, begin, children, descendants, eventually, send, status_field};
use crate::container::Container;
use std::io::Write;
use std::process::Command;

/// Where a container is reached from here.
pub(crate) fn address(container: &Container, port: u16) -> String {
    format!("{}:{port}", container.inspect("{{.NetworkSettings.IPAddress}}"))
}

/// Kills the main process. When the next run begins, nothing of the last one is left.
pub(crate) fn crash(container: &mut Container) {
    let guard = container.inspect("{{.State.Pid}}").parse().expect("a pid");
    // A health check may run just now.
    let main = eventually("one main process", || <[i32; 1]>::try_from(children(guard)).ok())[0];
    let run: Vec<i32> = descendants(guard);
    send(main, nix::libc::SIGKILL);
    let restart = container.event("restart");
    assert_eq!(restart.get("last"), Some("SIGKILL"), "{}", restart.line);
    // A zombie holds nothing any more; guard is about to reap it.
    let lives = |pid: &i32| !["", "Z"].contains(&status_field(*pid, "State:").split(' ').next().unwrap_or_default());
    let left: Vec<i32> = run.into_iter().filter(lives).collect();
    assert!(left.is_empty(), "{left:?}\n{}", container.transcript());
}

/// `docker stop`, as far as the app's stop signal, while `work` is under way; and to the end, when that is done.
pub(crate) fn stop<T>(container: &mut Container, signal: &str, work: impl FnOnce(&mut Container) -> T) -> T {
    let mut command = Command::new(container.engine.program());
    let stop = begin(command.args(["stop", &container.name]));
    let told = container.event("stop-signal");
    assert_eq!(told.get("signal"), Some(signal), "{}", told.line);
    let done = work(container);
    assert_eq!(Answer::of(stop).code, 0);
    done
}

/// It ended by itself, within its time and with this code.
pub(crate) fn ended_by_itself(container: &mut Container, code: i32) {
    assert_eq!(container.code(), code, "{}", container.transcript());
    assert!(container.said("kill").is_empty(), "{}", container.transcript());
    assert_eq!(container.said("end").len(), 1, "guard had the last word");
}

/// Types a line into a session.
pub(crate) fn say(session: &mut Guard, line: &str) {
    let stdin = session.stdin.as_mut().expect("a pipe");
    writeln!(stdin, "{line}").expect("the session reads");
}

/// Waits for words on stderr. The app may have said them before a line of guard's up to which the test has read.
pub(crate) fn says(container: &mut Container, words: &str) {
    if !container.err().iter().any(|line| line.contains(words)) {
        container.log_line(words, |line| line.contains(words));
    }
}
