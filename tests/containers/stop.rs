//! How containers end: `docker stop`, `docker kill`, `docker restart`.

use crate::container::{docker, podman};

tests![docker_stop_is_a_drain, podman_stop_is_a_drain];

fn docker_stop_is_a_drain() {
    is_a_drain(docker());
}

fn podman_stop_is_a_drain() {
    is_a_drain(podman());
}

fn is_a_drain(run: crate::container::Run) {
    let mut container = run.fixture("quit TERM 3 linger 100 serve").start();
    container.line("ready");
    container.tell("stop");
    container.line("got TERM");
    container.line("done");
    assert_eq!(container.code(), 3);
    assert_eq!(container.said("killing").len(), 0);
}
