//! Apps in several languages, and what is put around them, behind guard: what is left of them after a crash, and whether
//! a request that is in flight is finished. docs/apps.md is what came out.

mod background;
mod cluster;
mod java;
mod node;
mod puma;
mod python;
mod shell;

use crate::common::client::Client;
use crate::common::{children, eventually, send};
use crate::container::{Container, Run};
use crate::engine::Engine;
use crate::image::image;
use crate::steps::{address, crash, ended_by_itself, stop};
use libtest_mimic::Trial;
use std::net::TcpStream;

pub(crate) fn tests() -> Vec<Trial> {
    let languages = [
        background::tests(),
        cluster::tests(),
        java::tests(),
        node::tests(),
        puma::tests(),
        python::tests(),
        shell::tests(),
    ];
    languages.into_iter().flatten().collect()
}

/// An app in its image; its command line and settings are to come.
fn app() -> Run {
    Run::of(Engine::Docker, image(Engine::Docker, "languages"))
}

/// Runs an app that is ready when it answers.
fn checked(run: Run) -> Container {
    begun(run.env("GUARD_HEALTH_CHECK", "http://127.0.0.1:8080/"))
}

/// Runs an app that says itself when it is ready, or answers.
fn begun(run: Run) -> Container {
    let mut app = run.start();
    app.event("ready");
    app
}

/// A request whose response has begun, and which ends when the client sends the rest of it.
struct Request(Client);

impl Request {
    fn begin(address: &str) -> Request {
        let mut client = Client::connect(address);
        client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n");
        client.hear("HTTP/1.1 200");
        client.hear("begun\n");
        Request(client)
    }

    /// The response is whole, up to the last of its chunks.
    fn finish(mut self) {
        self.0.send("whole");
        self.0.hear("whole");
        self.0.hear("\r\n0\r\n\r\n");
    }
}

/// Its main process is killed while a request is in flight. Nothing of it is left when the next run begins, which serves.
fn serves_again(mut app: Container) {
    let address = address(&app, 8080);
    let _in_flight = Request::begin(&address);
    crash(&mut app);
    assert_eq!(app.event("ready").get("run"), Some("2"));
    Request::begin(&address).finish();
}

/// `docker stop` while a request is in flight. It is finished after the app was `told`.
fn finishes_requests(mut app: Container, told: impl FnOnce(&mut Container), code: i32) {
    let address = address(&app, 8080);
    let request = Request::begin(&address);
    stop(&mut app, "SIGTERM", |app| {
        told(app);
        request.finish();
    });
    ended_by_itself(&mut app, code);
}

/// A small app says that it was told to stop, and takes no more connections.
fn drains(app: &mut Container) {
    app.line("draining");
    refuses(app);
}

fn refuses(app: &Container) {
    let address = address(app, 8080);
    eventually("refusal", || TcpStream::connect(&address).is_err().then_some(()));
}

/// A worker is killed: its master starts another one, and guard has nothing to do with it.
fn replaces_a_worker(app: &Container) {
    let guard = app.inspect("{{.State.Pid}}").parse().expect("a pid");
    let main = eventually("one main process", || <[i32; 1]>::try_from(children(guard)).ok())[0];
    let two = || Some(children(main)).filter(|workers| workers.len() == 2);
    let before = eventually("two workers", two);
    send(before[0], nix::libc::SIGKILL);
    eventually("a worker in place of one", || two().filter(|workers| !workers.contains(&before[0])));
    // The one that was killed may have been the only one so far that listened.
    let address = address(app, 8080);
    eventually("a worker that listens", || TcpStream::connect(&address).ok());
    Request::begin(&address).finish();
    assert!(app.said("exit").is_empty(), "{}", app.transcript());
}
