use super::{Request, app, begun, checked, drains, finishes_requests, serves_again};
use crate::container::Container;
use crate::steps::{address, ended_by_itself, stop};

tests![
    a_crash_leaves_its_port_free,
    term_finishes_requests,
    the_channel_finishes_requests,
    a_crash_of_npm_leaves_its_port_free,
    npm_ends_at_once_and_the_app_finishes_requests,
    the_group_of_npm_finishes_requests,
];

fn node() -> Container {
    checked(app().command(["node", "server.js"]))
}

fn npm(scope: &str) -> Container {
    let settings = app().env("GUARD_SIGNAL_SCOPE", scope).env("GUARD_SUCCESS_CODES", "143");
    checked(settings.command(["npm", "start"]))
}

fn a_crash_leaves_its_port_free() {
    serves_again(node());
}

fn term_finishes_requests() {
    finishes_requests(node(), drains, 0);
}

fn the_channel_finishes_requests() {
    let settings = app().env("GUARD_NODE_IPC", "on").env("GUARD_READY", "notify");
    let mut node = begun(settings.command(["node", "server.js"]));
    let request = Request::begin(&address(&node, 8080));
    node.kill("TERM");
    node.event("shutdown");
    drains(&mut node);
    request.finish();
    ended_by_itself(&mut node, 0);
    assert!(node.said("stop-signal").is_empty(), "{}", node.transcript());
}

fn a_crash_of_npm_leaves_its_port_free() {
    serves_again(npm("process"));
}

fn npm_ends_at_once_and_the_app_finishes_requests() {
    let mut npm = npm("process");
    let request = Request::begin(&address(&npm, 8080));
    stop(&mut npm, "SIGTERM", |npm| {
        assert_eq!(npm.event("exit").get("signal"), Some("SIGTERM"));
        drains(npm);
        request.finish();
    });
    ended_by_itself(&mut npm, 0);
}

fn the_group_of_npm_finishes_requests() {
    finishes_requests(npm("group"), drains, 0);
}
