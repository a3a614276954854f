use super::{Request, app, checked, drains, finishes_requests, serves_again};
use crate::container::{Container, Run};
use crate::steps::address;

tests![
    a_crash_leaves_its_port_free,
    term_finishes_requests,
    term_is_no_success_unless_that_is_said,
    quit_is_a_thread_dump,
];

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
