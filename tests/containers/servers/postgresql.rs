use super::{crash, ended_by_itself, say, server, stop};
use crate::common::Guard;
use crate::container::{Container, Run};
use crate::steps::says;

tests![
    a_crash_leaves_its_shared_memory_free,
    int_ends_sessions_and_shuts_down,
    term_waits_for_sessions,
    term_waits_for_idle_sessions_too,
];

/// It says itself when it is ready.
fn postgresql(run: Run) -> Container {
    let run = run.options("--user postgres").env("GUARD_READY", "notify").command([
        "/usr/lib/postgresql/15/bin/postgres",
        "-D",
        "/var/lib/postgresql/15/main",
        "-c",
        "config_file=/etc/postgresql/15/main/postgresql.conf",
    ]);
    let mut postgresql = run.start();
    postgresql.event("ready");
    postgresql
}

/// A session in which a row is committed, and another one is not.
fn session(postgresql: &Container) -> Guard {
    let mut session = postgresql.session(&["psql", "--quiet", "--no-align", "--tuples-only"]);
    say(&mut session, "create table t (x int); insert into t values (1);");
    say(&mut session, "begin; insert into t values (2); select 'two';");
    session.line("two");
    session
}

/// How many rows there are.
fn rows(postgresql: &Container) -> String {
    let query = ["psql", "--no-align", "--tuples-only", "--command", "select count(*) from t"];
    postgresql.exec(&query).out.trim_end().to_owned()
}

/// Starts the container again, and waits for what it then says of its data.
fn begins_with(postgresql: &Container, what: &str) {
    postgresql.tell("start");
    postgresql.until_yes(&["ready"]);
    let mut log = postgresql.log();
    log.log_line("the last start", |line| line.contains("event=end"));
    log.log_line(what, |line| line.contains(what));
}

fn a_crash_leaves_its_shared_memory_free() {
    let mut postgresql = postgresql(server());
    let _under_way = session(&postgresql);
    crash(&mut postgresql);
    says(&mut postgresql, "automatic recovery in progress");
    assert_eq!(postgresql.event("ready").get("run"), Some("2"));
    assert_eq!(rows(&postgresql), "1");
}

fn int_ends_sessions_and_shuts_down() {
    let mut postgresql = postgresql(server().env("GUARD_STOP_SIGNAL", "INT"));
    let _under_way = session(&postgresql);
    stop(&mut postgresql, "SIGINT", |postgresql| {
        says(postgresql, "terminating connection due to administrator command");
        says(postgresql, "database system is shut down");
    });
    ended_by_itself(&mut postgresql, 0);
    begins_with(&postgresql, "database system was shut down at");
    assert_eq!(rows(&postgresql), "1");
}

fn term_waits_for_sessions() {
    let mut postgresql = postgresql(server());
    let mut under_way = session(&postgresql);
    stop(&mut postgresql, "SIGTERM", |postgresql| {
        says(postgresql, "received smart shutdown request");
        say(&mut under_way, "commit; select 'committed';");
        under_way.line("committed");
        say(&mut under_way, "\\quit");
        assert_eq!(under_way.code(), 0);
        says(postgresql, "database system is shut down");
    });
    ended_by_itself(&mut postgresql, 0);
    begins_with(&postgresql, "database system was shut down at");
    assert_eq!(rows(&postgresql), "2");
}

fn term_waits_for_idle_sessions_too() {
    let mut postgresql = postgresql(server().env("GUARD_STOP_TIMEOUT", "1s"));
    let _idle = session(&postgresql);
    stop(&mut postgresql, "SIGTERM", |_| ());
    assert_eq!(postgresql.code(), 137);
    assert_eq!(postgresql.said("kill").len(), 1);
    begins_with(&postgresql, "automatic recovery in progress");
    assert_eq!(rows(&postgresql), "1");
}
