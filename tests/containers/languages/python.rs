use super::{app, begun, checked, finishes_requests, refuses, replaces_a_worker, serves_again};
use crate::container::Container;
use crate::steps::says;

tests![
    a_crash_of_gunicorn_leaves_its_port_free,
    gunicorn_finishes_requests,
    gunicorn_replaces_a_worker,
    a_crash_of_uvicorn_leaves_its_port_free,
    a_crash_of_uvicorn_with_workers_leaves_its_port_free,
    uvicorn_finishes_requests,
    uvicorn_with_workers_finishes_requests,
];

/// With two workers. It says itself when it is ready.
fn gunicorn() -> Container {
    let run = app().env("GUARD_READY", "notify");
    begun(run.command(["gunicorn", "--bind", "0.0.0.0:8080", "--workers", "2", "wsgi:app"]))
}

fn uvicorn(options: &str) -> Container {
    let line = format!("uvicorn --host 0.0.0.0 --port 8080 {options} asgi:app");
    checked(app().command(line.split_whitespace()))
}

fn a_crash_of_gunicorn_leaves_its_port_free() {
    serves_again(gunicorn());
}

fn gunicorn_finishes_requests() {
    // A worker without work is told, and leaves.
    let told = |app: &mut Container| says(app, "Worker exiting");
    finishes_requests(gunicorn(), told, 0);
}

fn gunicorn_replaces_a_worker() {
    replaces_a_worker(&gunicorn());
}

fn a_crash_of_uvicorn_leaves_its_port_free() {
    serves_again(uvicorn(""));
}

fn a_crash_of_uvicorn_with_workers_leaves_its_port_free() {
    serves_again(uvicorn("--workers 2"));
}

fn uvicorn_finishes_requests() {
    let told = |app: &mut Container| {
        shuts_down(app);
        refuses(app);
    };
    finishes_requests(uvicorn(""), told, 0);
}

/// One worker after the other: the last one takes connections until the others have ended.
fn uvicorn_with_workers_finishes_requests() {
    finishes_requests(uvicorn("--workers 2"), shuts_down, 0);
}

fn shuts_down(app: &mut Container) {
    says(app, "Shutting down");
}
