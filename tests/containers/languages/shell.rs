use super::{Request, app, checked, drains, finishes_requests, serves_again};
use crate::container::{Container, Run};
use crate::steps::{address, ended_by_itself, stop};

tests![
    what_a_shell_execs_finishes_requests,
    what_an_entrypoint_execs_finishes_requests,
    a_crash_of_a_shell_leaves_its_port_free,
    a_shell_ends_at_once_and_the_app_finishes_requests,
    the_group_of_a_shell_finishes_requests,
    a_shell_that_traps_finishes_requests,
];

fn shell(run: Run, script: &str) -> Container {
    checked(run.command(["sh", "-c", script]))
}

/// A shell that stays above the app.
const STAYS: &str = "echo prepared; node server.js; echo over";

fn what_a_shell_execs_finishes_requests() {
    finishes_requests(shell(app(), "echo prepared && exec node server.js"), drains, 0);
}

fn what_an_entrypoint_execs_finishes_requests() {
    let mut app = checked(app().command(["./entrypoint.sh", "node", "server.js"]));
    app.line("prepared");
    finishes_requests(app, drains, 0);
}

fn a_crash_of_a_shell_leaves_its_port_free() {
    serves_again(shell(app(), STAYS));
}

fn a_shell_ends_at_once_and_the_app_finishes_requests() {
    let mut shell = shell(app(), STAYS);
    let request = Request::begin(&address(&shell, 8080));
    stop(&mut shell, "SIGTERM", |shell| {
        assert_eq!(shell.event("exit").get("signal"), Some("SIGTERM"));
        drains(shell);
        request.finish();
    });
    ended_by_itself(&mut shell, 143);
}

/// The app has a handler for the first SIGTERM alone, and is to get no second one.
fn the_group_of_a_shell_finishes_requests() {
    let run = app().env("GUARD_SIGNAL_SCOPE", "group").env("GUARD_SUCCESS_CODES", "143");
    finishes_requests(shell(run, STAYS), drains, 0);
}

fn a_shell_that_traps_finishes_requests() {
    let traps = "trap 'kill -TERM $app' TERM; node server.js & app=$!; wait $app; wait $app";
    finishes_requests(shell(app(), traps), drains, 0);
}
