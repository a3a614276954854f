//! What guard says of itself and of the app: `guard ready`, `health` and `status`.

use crate::common::operator::{GUARD, alone, beside};
use crate::common::{self, Guard, Setup, eventually, everywhere, fixture, in_path, skipped, spawn};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// A row of the table for each instance, as words; the status comes last and may be several.
fn row(table: &str) -> Vec<&str> {
    table.lines().last().expect("a row").split_whitespace().collect()
}

/// What the table says of how the app is at, as far as its first word.
fn state(guard: &Guard) -> String {
    let table = guard.ask(&["status"]).out;
    row(&table)[3].to_owned()
}

/// A number in a status for programs.
fn number(json: &str, key: &str) -> f64 {
    let (_, rest) = json.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key} in {json}"));
    let end = rest.find([',', '}']).expect("an object ends");
    rest[..end].parse().unwrap_or_else(|_| panic!("{key} is no number in {json}"))
}

/// The first backoff is over at once, the second one never.
fn backing_off(setup: Setup) -> Setup {
    setup.env("GUARD_BACKOFF_INITIAL", "1h").env("GUARD_BACKOFF_MAX", "1h")
}

#[test]
fn ready_and_health_say_what_they_are_for() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_DRAIN_DELAY", "5s").env("GUARD_STOP_TIMEOUT", "20s").env("GUARD_READY", "notify");
        let mut guard = setup.fixture("on USR1 READY=1 serve").start();
        guard.line("ready");
        guard.until_yes(&["health"]).yes("alive");
        guard.ask(&["ready"]).no("not ready: the app has not said yet that it is ready");
        assert_eq!(state(&guard), "starting");
        guard.signal(libc::SIGUSR1);
        guard.event("ready");
        guard.ask(&["ready"]).yes("ready");
        assert_eq!(state(&guard), "ready");
        guard.signal(libc::SIGTERM);
        guard.event("drain");
        guard.ask(&["ready"]).no("not ready: guard is stopping");
        guard.ask(&["health"]).yes("alive");
        let table = guard.ask(&["status"]).out;
        assert!(table.contains("\nstopping, not ready: guard is stopping\n"), "{table}");
        assert_eq!(row(&table)[3], "draining");
    }
}

#[test]
fn between_two_runs_it_is_alive_and_not_ready() {
    for setup in everywhere() {
        let mut guard = backing_off(setup).fixture("exit 1").start();
        guard.event("restart");
        guard.event("restart");
        guard.until_yes(&["health"]).yes("alive");
        guard.ask(&["ready"]).no("not ready: the app is between two runs");
        let table = guard.ask(&["status"]).out;
        assert!(table.contains("backoff, next run in "), "{table}");
        assert!(table.lines().last().is_some_and(|row| row.starts_with("0         -    -    backoff")), "{table}");
        let json = guard.ask(&["status", "--json"]).out;
        assert!(json.contains(r#""run":null,"pid":null,"state":"backoff","ending":null,"uptime":null"#), "{json}");
        let next_in = number(&json, "next_in");
        assert!((1700.0..3600.0).contains(&next_in), "the upper half of an hour, in seconds: {next_in}");
    }
}

#[test]
fn while_leftovers_are_swept_it_is_not_ready() {
    for setup in everywhere() {
        let words = "before-run 3 fork as daemon deaf serve . before-run 3 exit 1 serve";
        let mut guard = backing_off(setup).fixture(words).start();
        guard.event("restart");
        guard.event("leftovers");
        guard.ask(&["ready"]).no("not ready: the app is between two runs");
        guard.ask(&["health"]).yes("alive");
    }
}

#[test]
fn each_step_of_a_stop_has_its_word() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_STOP_TIMEOUT", "20s");
        let mut guard = setup.fixture("fork as daemon deaf serve . quit USR1 0 serve").start();
        guard.line("ready");
        guard.until_yes(&["ready"]);
        guard.signal(libc::SIGTERM);
        guard.line("got TERM");
        assert_eq!(state(&guard), "stopping");
        assert!(guard.ask(&["status"]).out.contains("  stopping (guard stops)  "), "{}", guard.transcript());
        guard.ask(&["ready"]).no("not ready: guard is stopping");
        guard.signal(libc::SIGUSR1);
        guard.event("leftovers");
        assert_eq!(state(&guard), "sweeping");
        guard.ask(&["ready"]).no("not ready: guard is stopping");
        guard.ask(&["health"]).yes("alive");
    }
}

#[test]
fn a_guard_that_has_given_up_is_not_well_while_it_ends() {
    for setup in everywhere() {
        // The hook of a restart outlives its run, the next two runs fail, and guard's end waits for the hook.
        let hook = format!("{} as hook deaf serve", fixture().display());
        let setup = setup.env("GUARD_PRE_STOP", hook).env("GUARD_STOP_TIMEOUT", "40s").env("GUARD_MAX_RESTARTS", "1");
        let words = "before-run 2 quit USR1 0 before-run 2 serve exit 1";
        let mut guard = setup.fixture(words).start();
        guard.line("ready");
        guard.until_yes(&["ready"]);
        let restart = common::begin(&mut guard.client(&["restart"]));
        guard.line("hook ready");
        guard.ask(&["health"]).yes("alive");
        guard.signal(libc::SIGUSR1);
        guard.event("give-up");
        guard.ask(&["health"]).no("guard has given up");
        guard.ask(&["ready"]).no("not ready: guard is stopping");
        // As it was spawned it was ready.
        common::Answer::of(restart).yes("restarted: run 2 is ready");
    }
}

/// Kernels before 6.2 may know of none that a small process has.
fn counts_pages_late() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) < (Some(6), Some(2))
}

#[test]
fn the_status_is_a_table_and_json() {
    for setup in everywhere() {
        let is_pid1 = setup.is_pid1();
        let words = "notify STATUS=\u{1b}[31mred\u{9b}1m before-run 2 exit 7 ids serve";
        let mut guard = setup.env("GUARD_NOTIFY", "on").fixture(words).start();
        let pid = guard.line_after("pid ");
        guard.line("ready");
        let table = eventually("the status", || Some(guard.ask(&["status"]).out).filter(|text| text.contains("red")));
        let row = row(&table);
        assert_eq!(row[..4], ["0", "2", &pid, "ready"], "{table}");
        assert_eq!(row[5..7], ["1", "7"], "{table}");
        let memory: f64 = row[7].trim_end_matches('M').parse().expect("mebibytes");
        assert!(memory > 0.0 || counts_pages_late(), "{table}");
        assert!(memory < 100.0, "{table}");
        assert!(table.chars().all(|letter| letter == '\n' || !letter.is_control()), "{table:?}");
        let own = if is_pid1 { 1 } else { guard.pid() };
        assert!(table.starts_with(&format!("guard {}, pid {own}, up ", env!("CARGO_PKG_VERSION"))), "{table}");
        assert!(table.contains(&format!("\napp: {} notify", fixture().display())), "{table}");

        let json = guard.ask(&["status", "--json"]).out;
        for part in [
            &format!(r#""run":2,"pid":{pid},"state":"ready""#),
            r#""ready":true,"why":null,"stopping":false,"refused":0"#,
            r#""restarts":1,"last_exit":"7""#,
            r#""status":"\u001b[31mred\u009b1m""#,
        ] {
            assert!(json.contains(part), "{part} in {json}");
        }
        assert!(number(&json, "memory") / 1024.0 / 1024.0 - memory < 1.0, "in bytes: {json}");
        assert!((0.0..60.0).contains(&number(&json, "uptime")), "in seconds: {json}");
        let Some(python) = in_path("python3") else { return skipped("there is no python3 to read JSON with") };
        let mut reader =
            spawn(Command::new(python).args(["-m", "json.tool"]).stdin(Stdio::piped()).stdout(Stdio::null()));
        reader.stdin.take().expect("a pipe").write_all(json.as_bytes()).expect("a reader");
        assert!(reader.wait().expect("it ends").success(), "{json}");
    }
}

#[test]
fn each_field_of_the_status_is_in_the_guide() {
    let setup = common::child();
    let directory = tempfile::tempdir().expect("a directory");
    let held = format!("unix:{}/socket", directory.path().display());
    let mut guard = setup.env("GUARD_LISTEN", held).fixture("say up serve").start();
    guard.line("up");
    let json = guard.ask(&["status", "--json"]).out;
    let texts: Vec<&str> = json.split('"').collect();
    let fields = texts.windows(2).filter(|pair| pair[1].starts_with(':')).map(|pair| pair[0]);
    let guide =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md")).expect("a guide");
    let (_, table) = guide.split_once("`guard status --json` prints").expect("a paragraph");
    let (table, _) = table.split_once("## guard scale").expect("the next chapter");
    let (known, unknown): (Vec<&str>, Vec<&str>) = fields.partition(|name| table.contains(&format!("`{name}`")));
    assert_eq!(unknown, [""; 0], "{json}");
    assert!(known.contains(&"refusing") && known.contains(&"last_run"), "{json}");
}

#[test]
fn the_name_of_an_app_cannot_change_the_terminal() {
    let Some(setup) = alone() else { return };
    let app = fixture().to_str().expect("UTF-8");
    // Two guards, so that the client lists them.
    let words = [GUARD, "--", app, "say", "\u{1b}[31mred\u{9b}1m\n  --pid 1  forged", "serve"];
    let mut guard = setup.options([GUARD]).app(words).start();
    guard.line("ready");
    let answer = eventually("both", || {
        let answer = beside(&guard, &[GUARD, "status"]);
        (answer.code == 125 && answer.err.contains("more than one")).then_some(answer)
    });
    assert!(answer.err.chars().all(|letter| letter == '\n' || !letter.is_control()), "{answer:?}");
    assert_eq!(answer.err.lines().count(), 3, "a line for each: {answer:?}");
    let pid = guard.pid().to_string();
    let table = beside(&guard, &[GUARD, "status", "--pid", &pid]).out;
    assert!(table.chars().all(|letter| letter == '\n' || !letter.is_control()), "{table:?}");
}

#[test]
fn the_status_says_why_a_run_is_being_ended() {
    for setup in everywhere() {
        let setup = setup.env("GUARD_STOP_TIMEOUT", "60s").env("GUARD_HEALTH_START_PERIOD", "0");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().display();
        // Run 2 gets ill once it serves.
        let check =
            format!("exec:sh -c '[ $GUARD_RUN != 2 ] || {{ until [ -e {path}/serving-2 ]; do :; done; false; }}'");
        let setup = setup.env("GUARD_HEALTH_CHECK", check).env("GUARD_HEALTH_RETRIES", "1");
        let setup = setup.env("GUARD_HEALTH_INTERVAL", "10ms").env("GUARD_SIGNAL_MAP", "USR2=restart");
        let mut guard = setup.fixture(&format!("serving {path} quit USR1 1 serve")).start();
        guard.line("ready");
        guard.event("ready");
        guard.signal(libc::SIGUSR2);
        guard.line("got TERM");
        assert!(guard.ask(&["status"]).out.contains("  stopping (restart)  "), "{}", guard.transcript());
        assert!(guard.ask(&["status", "--json"]).out.contains(r#""state":"stopping","ending":"restart""#));
        guard.signal(libc::SIGUSR1);
        guard.line("ready");
        guard.event("failing");
        guard.line("got TERM");
        assert!(guard.ask(&["status"]).out.contains("  stopping (unhealthy)  "), "{}", guard.transcript());
    }
}

#[test]
fn the_status_has_the_old_run_of_a_reload() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "old").unwrap();
        let setup =
            setup.env("GUARD_STOP_TIMEOUT", "60s").env("GUARD_ON_CHANGE", format!("{}=restart", file.display()));
        let mut guard = setup.env("GUARD_SIGNAL_MAP", "USR2=reload").fixture("quit USR1 0 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGUSR2);
        guard.lines_until("got TERM");
        let status = guard.ask(&["status"]).out;
        assert!(status.contains("  ready; run 1 stopping (reload)  "), "{status}\n{}", guard.transcript());
        let old = r#""old":{"run":1,"state":"stopping","ending":"reload"}"#;
        assert!(guard.ask(&["status", "--json"]).out.contains(old), "{}", guard.transcript());
        std::fs::write(&file, "new").unwrap();
        guard.event("changed");
        let ending = || guard.ask(&["status"]).out.contains("stopping (changed file); run 1 ").then_some(());
        common::eventually("why the new run ends", ending);
    }
}

#[test]
fn the_settings_in_force_are_told_with_where_they_come_from() {
    for setup in everywhere() {
        let long = "x".repeat(20_000);
        let setup = setup.env("GUARD_DRAIN_DELAY", "1s").options(["--restart=always"]);
        let mut guard = setup.env("GUARD_PRE_STOP", format!("true {long}")).fixture("serve").start();
        guard.line("ready");
        guard.until_yes(&["ready"]);
        let answer = guard.ask(&["status", "--settings"]);
        let rows: Vec<Vec<&str>> = answer.out.lines().map(|line| line.split_whitespace().collect()).collect();
        for row in [
            ["GUARD_DRAIN_DELAY", "1s", "environment"],
            ["GUARD_RESTART", "always", "--restart"],
            ["GUARD_BACKOFF_MAX", "10s", "default"],
            ["GUARD_STOP_TIMEOUT", "8.3s", "default"],
        ] {
            assert!(rows.iter().any(|found| found[..] == row), "{row:?} in {}", answer.out);
        }
        assert!(answer.out.contains("GUARD_PRE_STOP") && !answer.out.contains(&long), "a long value is cut");
        guard.ask(&["scale", "2"]).yes("scaled: 2 instances");
        let line = |line: &str| line.split_whitespace().eq(["GUARD_INSTANCES", "2", "scaled"]);
        assert!(guard.ask(&["status", "--settings"]).out.lines().any(line), "{}", guard.transcript());
        assert_eq!(answer.code, 0);
    }
}

#[test]
fn a_status_that_cannot_be_written_is_an_error() {
    let Some(setup) = common::pid1() else { return };
    let mut guard = setup.fixture("serve").start();
    guard.line("ready");
    guard.until_yes(&["ready"]);
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("it is there");
    for (verb, code) in [("status", 125), ("ready", 0)] {
        let mut client = common::spawn(guard.client(&[verb]).stdout(full()).stderr(std::process::Stdio::null()));
        assert_eq!(client.wait().expect("it ends").code(), Some(code), "{verb}");
    }
}
