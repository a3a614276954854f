use super::transfer::{SIZE, Transfer};
use super::{address, finishes_transfers, server, serves_again, stop};
use crate::container::{Container, Run};

tests![
    a_crash_leaves_its_port_free,
    winch_finishes_transfers,
    term_cuts_transfers_off,
    below_apachectl_nobody_hears_winch,
    a_window_that_changes_ends_it_at_a_terminal,
];

/// Debian's httpd takes its paths and its user from a file that a shell has to read; `exec` keeps the shell from staying.
const HTTPD: [&str; 3] = ["sh", "-c", ". /etc/apache2/envvars && exec apache2 -DFOREGROUND"];

fn httpd(run: Run) -> Container {
    is_ready(run.command(HTTPD))
}

fn is_ready(run: Run) -> Container {
    let mut httpd = run.env("GUARD_HEALTH_CHECK", "http://127.0.0.1/").start();
    httpd.event("ready");
    httpd
}

fn a_crash_leaves_its_port_free() {
    serves_again(httpd(server()));
}

fn winch_finishes_transfers() {
    finishes_transfers(|run| httpd(run.env("GUARD_STOP_SIGNAL", "WINCH")), "SIGWINCH", 0);
}

/// A child whose client does not read may stay for 10 s, with guard or without, before httpd itself kills it.
fn term_cuts_transfers_off() {
    let mut httpd = httpd(server().env("GUARD_STOP_TIMEOUT", "1s"));
    let transfer = Transfer::begin(&address(&httpd, 80));
    stop(&mut httpd, "SIGTERM", |_| ());
    assert!([0, 137].contains(&httpd.code()), "{}", httpd.transcript());
    assert!(transfer.arrived() < SIZE);
}

/// Its shell stays and ignores WINCH, which is a signal's default there.
fn below_apachectl_nobody_hears_winch() {
    let run = server().env("GUARD_STOP_SIGNAL", "WINCH").env("GUARD_STOP_TIMEOUT", "1s");
    let mut httpd = is_ready(run.command(["apachectl", "-DFOREGROUND"]));
    stop(&mut httpd, "SIGWINCH", |_| ());
    assert_eq!(httpd.code(), 137);
    let kill = httpd.said("kill").pop().expect("the end of its patience").line;
    assert!(kill.contains("apachectl[") && kill.contains("apache2["), "{kill}");
}

/// `docker run -t`: the kernel sends WINCH to all that is in the terminal's foreground.
fn a_window_that_changes_ends_it_at_a_terminal() {
    let run = server().terminal().env("GUARD_STOP_SIGNAL", "WINCH").env("GUARD_HEALTH_CHECK", "http://127.0.0.1/");
    let mut httpd = run.command(HTTPD).start();
    httpd.until_yes(&["ready"]);
    httpd.resize(42, 102);
    assert_eq!(httpd.code(), 0, "{}", httpd.transcript());
}
