use super::{Request, app, begun, checked, drains, finishes_requests, serves_again};
use crate::common::inline::inline;
use crate::container::{Container, Run};
use crate::steps::address;

tests![
    a_crash_leaves_its_port_free,
    term_finishes_requests,
    term_is_no_success_unless_that_is_said,
    quit_is_a_thread_dump,
    the_guides_command_writes_the_heap_of_one_that_hangs,
];

/// The command of docs/diagnosing.md. It finds the JVM among guard's children, and the JVM goes on meanwhile.
fn the_guides_command_writes_the_heap_of_one_that_hangs() {
    let command = inline().into_iter().find(|found| found.command.contains("jcmd")).expect("the guide has it").command;
    let run = app().env("GUARD_DIAGNOSE", &format!("exec:{command}")).env("GUARD_DIAGNOSE_TIMEOUT", "1m");
    let run = run.env("GUARD_HEALTH_CHECK", "exec:sh -c '! test -e /hangs'").env("GUARD_HEALTH_INTERVAL", "200ms");
    let run = run.env("GUARD_HEALTH_RETRIES", "1").env("GUARD_HEALTH_START_PERIOD", "0s");
    let mut java = begun(run.command(["java", "Server"]));
    java.line("listening");
    java.exec(&["sh", "-c", "mkdir /dumps && touch /hangs"]);
    java.line_after("Heap dump file created");
    java.event("diagnose-ended");
    assert_eq!(java.exec(&["sh", "-c", "rm /hangs; ls /dumps"]).out, "1.hprof\n");
    java.event("restart");
}

fn java(run: Run) -> Container {
    checked(run.command(["java", "Server"]))
}

fn a_crash_leaves_its_port_free() {
    serves_again(java(app()));
}

fn term_finishes_requests() {
    finishes_requests(java(app().env("GUARD_SUCCESS_CODES", "143")), drains, 0);
}

fn term_is_no_success_unless_that_is_said() {
    let mut java = java(app());
    java.tell("stop");
    assert_eq!(java.code(), 143, "a JVM exits with it after its hooks");
    assert_eq!(java.said("exit")[0].get("code"), Some("143"));
}

fn quit_is_a_thread_dump() {
    let mut java = java(app());
    java.kill("QUIT");
    java.line_after("Full thread dump");
    Request::begin(&address(&java, 8080)).finish();
    assert!(java.said("exit").is_empty(), "{}", java.transcript());
}
