use super::{address, crash, ended_by_itself, server, stop};
use crate::common::client::Client;
use crate::container::Container;

tests![a_crash_loses_nothing_that_is_in_the_file, term_saves_and_cuts_clients_off];

/// It says itself when it is ready.
fn redis(options: &str) -> Container {
    let command = "redis-server --protected-mode no --dir /var/lib/redis --supervised systemd";
    let words: Vec<&str> = command.split_whitespace().chain(options.split_whitespace()).collect();
    let mut redis = server().env("GUARD_READY", "notify").command(words).start();
    redis.event("ready");
    redis
}

fn client(redis: &Container) -> Client {
    Client::connect(&address(redis, 6379))
}

fn ask(redis: &Container, words: &[&str]) -> String {
    redis.exec(&[&["redis-cli"], words].concat()).out.trim_end().to_owned()
}

fn a_crash_loses_nothing_that_is_in_the_file() {
    let mut redis = redis("--appendonly yes");
    assert_eq!(ask(&redis, &["set", "key", "value"]), "OK");
    crash(&mut redis);
    assert_eq!(redis.event("ready").get("run"), Some("2"));
    assert_eq!(ask(&redis, &["get", "key"]), "value");
}

fn term_saves_and_cuts_clients_off() {
    let mut redis = redis("--save 3600 1");
    let mut waiting = client(&redis);
    waiting.send("SET key value\r\n");
    waiting.hear("+OK\r\n");
    waiting.send("BLPOP list 0\r\n");
    stop(&mut redis, "SIGTERM", |_| waiting.closed());
    ended_by_itself(&mut redis, 0);
    assert!(redis.out().iter().any(|line| line.ends_with("DB saved on disk")), "{}", redis.transcript());
    redis.tell("start");
    redis.until_yes(&["ready"]);
    assert_eq!(ask(&redis, &["get", "key"]), "value");
}
