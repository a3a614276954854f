use super::{Client, begun, refuses};
use crate::common::eventually;
use crate::container::{Container, Run};
use crate::engine::Engine;
use crate::image::image;
use crate::steps::{address, crash, ended_by_itself, stop};

tests![
    behind_the_defaults_it_hears_of_no_systemd,
    it_says_when_it_is_ready_and_pings,
    it_finishes_requests,
    a_crash_leaves_its_port_free,
    it_takes_held_sockets,
];

const COMMAND: [&str; 6] = ["puma", "--environment", "none", "--bind", "tcp://0.0.0.0:8080", "config.ru"];

fn puma() -> Run {
    Run::of(Engine::Docker, image(Engine::Docker, "puma")).command(COMMAND)
}

/// Puma 6 to 8 have an `SdNotify` of their own, which takes the variable for a path.
fn with_notify() -> Container {
    begun(puma().env("GUARD_READY", "notify").env("GUARD_WATCHDOG", "2s"))
}

fn get(puma: &Container) -> String {
    Client::connect(&address(puma, 8080)).get("/", "pid ")
}

fn says(puma: &Container, words: &str) -> bool {
    puma.out().iter().any(|line| line.contains(words))
}

/// Seconds since guard began.
fn uptime(puma: &Container) -> f64 {
    let status = puma.ask(&["status", "--json"]).out;
    let (_, rest) = status.split_once("\"uptime\":").expect("it is in the status");
    rest.split(',').next().expect("a value").parse().expect("a number")
}

fn behind_the_defaults_it_hears_of_no_systemd() {
    let mut puma = puma().start();
    puma.line("Use Ctrl-C to stop");
    assert!(says(&puma, "Puma version: 8."), "{}", puma.transcript());
    assert!(!says(&puma, "systemd"), "{}", puma.transcript());
    get(&puma);
    stop(&mut puma, "SIGTERM", |_| ());
    ended_by_itself(&mut puma, 143);
}

fn it_says_when_it_is_ready_and_pings() {
    let mut puma = with_notify();
    puma.line("Pinging systemd watchdog every 1.0 sec");
    eventually("more than the watchdog's time", || (uptime(&puma) > 3.0).then_some(()));
    assert!(puma.ask(&["status"]).out.contains("Puma 8."), "{}", puma.transcript());
    stop(&mut puma, "SIGTERM", |_| ());
    ended_by_itself(&mut puma, 143);
    assert!(puma.said("failing").is_empty(), "{}", puma.transcript());
}

fn it_finishes_requests() {
    let mut puma = with_notify();
    let mut request = Client::connect(&address(&puma, 8080));
    request.send("GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n");
    request.hear("begun\n");
    stop(&mut puma, "SIGTERM", |puma| {
        refuses(puma);
        request.send("whole\n");
        request.hear("whole\n");
        request.closed();
    });
    ended_by_itself(&mut puma, 143);
}

fn a_crash_leaves_its_port_free() {
    serves_again(with_notify());
}

/// Puma takes what `LISTEN_FDS` brings for what `--bind` names.
fn it_takes_held_sockets() {
    let mut puma = begun(puma().env("GUARD_READY", "notify").env("GUARD_LISTEN", "0.0.0.0:8080"));
    puma.line("* Activated tcp://0.0.0.0:8080");
    serves_again(puma);
}

fn serves_again(mut puma: Container) {
    get(&puma);
    crash(&mut puma);
    assert_eq!(puma.event("ready").get("run"), Some("2"));
    get(&puma);
}
