use super::{cuts_transfers_off, finishes_transfers, server, serves_again};
use crate::container::{Container, Run};

tests![a_crash_leaves_its_port_free, quit_finishes_transfers, term_cuts_transfers_off];

/// It is ready when it answers.
fn nginx(run: Run) -> Container {
    let run = run.env("GUARD_HEALTH_CHECK", "http://127.0.0.1/").command(["nginx", "-g", "daemon off;"]);
    let mut nginx = run.start();
    nginx.event("ready");
    nginx
}

fn a_crash_leaves_its_port_free() {
    serves_again(nginx(server()));
}

fn quit_finishes_transfers() {
    finishes_transfers(|run| nginx(run.env("GUARD_STOP_SIGNAL", "QUIT")), "SIGQUIT", 0);
}

fn term_cuts_transfers_off() {
    cuts_transfers_off(nginx(server()), "SIGTERM", 0);
}
