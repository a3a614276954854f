//! Servers as Debian has them, behind guard: how they are told to stay in the foreground, what is left of them after a
//! crash, and which signal lets them finish what they are at. docs/apps.md is what came out.

mod haproxy;
mod httpd;
mod nginx;
mod php_fpm;
mod postgresql;
mod redis;
mod transfer;

use crate::common::eventually;
use crate::container::{Container, Run};
use crate::engine::Engine;
use crate::image::image;
use crate::steps::{address, crash, ended_by_itself, say, stop};
use libtest_mimic::Trial;
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

/// `docker stop` while four transfers are under way: none new begins, and they are whole.
fn finishes_transfers(start: impl FnOnce(Run) -> Container, signal: &str, code: i32) {
    // A container's network ends with it, and so does what was written to a socket and not yet read: so another has it.
    let network = server().command(["tail", "-f", "/dev/null"]).start();
    network.until_yes(&["ready"]);
    // On a busy machine they take longer than the 10 s that Docker gives by default.
    let run = server().env("GUARD_STOP_TIMEOUT", "55s").options("--stop-timeout 60");
    let mut web = start(run.options(&format!("--network container:{}", network.name)));
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
