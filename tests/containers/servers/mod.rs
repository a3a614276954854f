//! Servers as Debian has them, behind guard: how they are told to stay in the foreground, what is left of them after a
//! crash, and which signal lets them finish what they are at. docs/apps.md is what came out.

mod haproxy;
mod httpd;
mod nginx;
mod php_fpm;
mod postgresql;
mod redis;
mod transfer;

use crate::common::{Answer, Guard, begin, children, descendants, eventually, send, status_field};
use crate::container::{Container, Run};
use crate::engine::Engine;
use crate::image::image;
use libtest_mimic::Trial;
use std::io::Write;
use std::process::Command;
use transfer::Transfer;

pub(crate) fn tests() -> Vec<Trial> {
    let servers =
        [haproxy::tests(), httpd::tests(), nginx::tests(), php_fpm::tests(), postgresql::tests(), redis::tests()];
    servers.into_iter().flatten().collect()
}

/// A server in its image; its command line and settings are to come.
fn server() -> Run {
    Run::of(Engine::Docker, image(Engine::Docker, "servers"))
}

/// Where a container is reached from here.
fn address(container: &Container, port: u16) -> String {
    format!("{}:{port}", container.inspect("{{.NetworkSettings.IPAddress}}"))
}

/// Kills the main process. When the next run begins, nothing of the last one is left.
fn crash(container: &mut Container) {
    let guard = container.inspect("{{.State.Pid}}").parse().expect("a pid");
    let run: Vec<i32> = descendants(guard);
    let [main] = children(guard)[..] else { panic!("one main process\n{}", container.transcript()) };
    send(main, nix::libc::SIGKILL);
    let restart = container.event("restart");
    assert_eq!(restart.get("last"), Some("SIGKILL"), "{}", restart.line);
    let left: Vec<i32> = run.into_iter().filter(|pid| !status_field(*pid, "State:").is_empty()).collect();
    assert!(left.is_empty(), "{left:?}\n{}", container.transcript());
}

/// `docker stop`, as far as the app's stop signal, while `work` is under way; and to the end, when that is done.
fn stop<T>(container: &mut Container, signal: &str, work: impl FnOnce(&mut Container) -> T) -> T {
    let mut command = Command::new(container.engine.program());
    let stop = begin(command.args(["stop", &container.name]));
    let told = container.event("stop-signal");
    assert_eq!(told.get("signal"), Some(signal), "{}", told.line);
    let done = work(container);
    assert_eq!(Answer::of(stop).code, 0);
    done
}

/// It ended by itself, within its time and with this code.
fn ended_by_itself(container: &mut Container, code: i32) {
    assert_eq!(container.code(), code, "{}", container.transcript());
    assert!(container.said("kill").is_empty(), "{}", container.transcript());
    assert_eq!(container.said("end").len(), 1, "guard had the last word");
}

/// Types a line into a session.
fn say(session: &mut Guard, line: &str) {
    let stdin = session.stdin.as_mut().expect("a pipe");
    writeln!(stdin, "{line}").expect("the session reads");
}

/// `docker stop` while four transfers are under way: none new begins, and they are whole.
fn finishes_transfers(start: impl FnOnce(Run) -> Container, signal: &str, code: i32) {
    // A container's network ends with it, and so does what was written to a socket and not yet read: so another has it.
    let network = server().command(["tail", "-f", "/dev/null"]).start();
    network.until_yes(&["ready"]);
    let mut web = start(server().options(&format!("--network container:{}", network.name)));
    let address = address(&network, 80);
    let transfers: Vec<Transfer> = (0..4).map(|_| Transfer::begin(&address)).collect();
    stop(&mut web, signal, |web| {
        eventually("refusal", || Transfer::is_refused(&address).then_some(()));
        for transfer in transfers {
            assert_eq!(transfer.rest(), transfer::SIZE, "{}", web.transcript());
        }
    });
    ended_by_itself(&mut web, code);
}

/// `docker stop` while a transfer is under way, which is cut off.
fn cuts_transfers_off(mut web: Container, signal: &str, code: i32) {
    let transfer = Transfer::begin(&address(&web, 80));
    stop(&mut web, signal, |_| ());
    ended_by_itself(&mut web, code);
    assert!(transfer.arrived() < transfer::SIZE);
}

/// Its main process is killed while a transfer is under way; the next run has the port.
fn serves_again(mut web: Container) {
    let address = address(&web, 80);
    let _under_way = Transfer::begin(&address);
    crash(&mut web);
    assert_eq!(web.event("ready").get("run"), Some("2"));
    assert_eq!(Transfer::begin(&address).rest(), transfer::SIZE);
}
