//! HEALTHCHECK with `guard ready`, and what plain Docker does not do with its outcome.

use crate::container::{Run, docker};

tests![
    the_health_status_is_guards_readiness,
    an_unhealthy_app_is_replaced_by_guard_and_not_by_docker,
    guard_health_says_yes_while_the_app_is_not_ready,
];

fn checked(command: &str) -> Run {
    docker().options("--health-interval 200ms --health-retries 1").option("--health-cmd", command)
}

const STATUS: &str = "{{.State.Health.Status}}";

fn the_health_status_is_guards_readiness() {
    let run = checked("guard ready").env("GUARD_READY", "notify");
    let mut container = run.fixture("on USR1 READY=1 before-run 2 quit USR2 1 serve").start();
    container.line("ready");
    container.until(STATUS, "unhealthy");
    container.kill("USR1");
    container.until(STATUS, "healthy");
    container.kill("USR2");
    container.until(STATUS, "unhealthy");
    container.kill("USR1");
    container.until(STATUS, "healthy");
}

fn an_unhealthy_app_is_replaced_by_guard_and_not_by_docker() {
    let run = checked("guard ready").options("--restart always").env("GUARD_HEALTH_CHECK", "exec:test -e /fine");
    let run = run.env("GUARD_HEALTH_INTERVAL", "100ms").env("GUARD_HEALTH_RETRIES", "2");
    let mut container = run.fixture("before-run 2 touch /fine quit TERM 0 serve").start();
    container.until(STATUS, "healthy");
    assert_eq!(container.exec(&["rm", "/fine"]).code, 0);
    container.event("failing");
    container.event("restart");
    container.line("ready");
    assert_eq!(container.exec(&["touch", "/fine"]).code, 0);
    container.event("ready");
    container.until(STATUS, "healthy");
    assert_eq!(container.inspect("{{.RestartCount}}"), "0", "the same container");
}

fn guard_health_says_yes_while_the_app_is_not_ready() {
    let mut container = checked("guard health").env("GUARD_READY", "notify").start();
    container.line("ready");
    container.until(STATUS, "healthy");
    container.ask(&["ready"]).no("not ready: the app has not said yet that it is ready");
}
