use super::{address, cuts_transfers_off, finishes_transfers, server, serves_again};
use crate::container::{Container, Run};

tests![
    a_crash_leaves_its_port_free,
    usr1_finishes_transfers,
    usr1_finishes_transfers_of_a_single_process,
    term_cuts_transfers_off,
    term_kills_a_single_process,
];

/// What is behind it.
fn nginx() -> Container {
    let nginx = server().command(["nginx", "-g", "daemon off;"]).start();
    nginx.until_yes(&["probe", "http://127.0.0.1/"]);
    nginx
}

fn haproxy(run: Run, nginx: &Container, mode: &str) -> Container {
    let run = run.env("BACKEND", &address(nginx, 80)).command(["haproxy", mode, "-f", "/etc/haproxy/haproxy.cfg"]);
    let mut haproxy = run.start();
    haproxy.event("ready");
    haproxy
}

/// A master with workers, which says itself when it is ready.
fn master(run: Run, nginx: &Container) -> Container {
    haproxy(run.env("GUARD_READY", "notify"), nginx, "-Ws")
}

/// One process alone, which does not.
fn single(run: Run, nginx: &Container) -> Container {
    haproxy(run.env("GUARD_HEALTH_CHECK", "tcp://127.0.0.1:80"), nginx, "-db")
}

fn a_crash_leaves_its_port_free() {
    let nginx = nginx();
    serves_again(master(server(), &nginx));
}

fn usr1_finishes_transfers() {
    let nginx = nginx();
    finishes_transfers(|run| master(run.env("GUARD_STOP_SIGNAL", "USR1"), &nginx), "SIGUSR1", 0);
}

fn usr1_finishes_transfers_of_a_single_process() {
    let nginx = nginx();
    finishes_transfers(|run| single(run.env("GUARD_STOP_SIGNAL", "USR1"), &nginx), "SIGUSR1", 0);
}

fn term_cuts_transfers_off() {
    let nginx = nginx();
    cuts_transfers_off(master(server(), &nginx), "SIGTERM", 0);
}

fn term_kills_a_single_process() {
    let nginx = nginx();
    cuts_transfers_off(single(server(), &nginx), "SIGTERM", 143);
}
