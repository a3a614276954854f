use super::{app, checked, drains, finishes_requests, replaces_a_worker, serves_again};
use crate::container::Container;

tests![a_crash_of_the_primary_leaves_its_port_free, term_finishes_requests, a_killed_worker_is_the_primarys_affair];

/// A primary and two workers.
fn cluster() -> Container {
    checked(app().command(["node", "cluster.js"]))
}

fn a_crash_of_the_primary_leaves_its_port_free() {
    serves_again(cluster());
}

fn term_finishes_requests() {
    finishes_requests(cluster(), drains, 0);
}

fn a_killed_worker_is_the_primarys_affair() {
    replaces_a_worker(&cluster());
}
