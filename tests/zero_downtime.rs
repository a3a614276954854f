//! examples/zero-downtime and the commands of its guide: servers that nobody has made for guard are killed and reloaded
//! while clients connect, and no client is refused.

mod common;

use common::{
    Answer, DEADLINE, Guard, Setup, begin, blocks, eventually, everywhere, example, in_path, pid1, send, skipped,
};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/zero-downtime");

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
}

/// Guard with an app that may crash as often as it likes.
fn crashing(setup: Setup) -> Setup {
    let setup = setup.env("GUARD_MAX_RESTARTS", "unlimited").env("GUARD_STOP_TIMEOUT", "8s");
    setup.env("GUARD_DRAIN_DELAY", "200ms").env("GUARD_BACKOFF_INITIAL", "1ms").env("GUARD_BACKOFF_MAX", "1ms")
}

/// The main processes of the instances, as guard sees them.
fn main_pids(guard: &Guard) -> Vec<i32> {
    let status = guard.ask(&["status", "--json"]).out;
    let rows = status.split(r#""run":"#).skip(1);
    rows.filter_map(|row| row.split(r#""pid":"#).nth(1)?.split(',').next()?.parse().ok()).collect()
}

/// What clients saw.
#[derive(Debug, Default)]
struct Seen {
    answered: AtomicUsize,
    refused: AtomicUsize,
    /// Connected, and then reset or closed without an answer, as a killed process does to those it has accepted.
    lost: AtomicUsize,
}

impl Seen {
    fn ask(&self, port: u16) {
        match TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), DEADLINE) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
                let mut text = String::new();
                let asked = stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n");
                let read = asked.and_then(|()| stream.read_to_string(&mut text));
                let whole = read.is_ok() && text.contains(" 200 ");
                if whole { &self.answered } else { &self.lost }.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for more answers.
    fn some_more(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually("answers", || (self.answered.load(Ordering::Relaxed) > before + 3).then_some(()));
    }
}

/// Kills each instance, all at once, and reloads them, while clients connect.
fn refuses_nobody(mut guard: Guard, port: u16) {
    guard.until_yes(&["ready"]);
    let (seen, ends) = (Seen::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    seen.ask(port);
                }
            });
        }
        // Whatever fails ends the clients too.
        let _end = Defer(&ends);
        seen.some_more();
        let all = main_pids(&guard);
        let one_by_one = all.iter().map(|pid| vec![*pid]);
        for victims in one_by_one.chain([Vec::new()]) {
            let victims = if victims.is_empty() { main_pids(&guard) } else { victims };
            for pid in &victims {
                if guard.is_pid1() { guard.signal_inside(*pid, libc::SIGKILL) } else { send(*pid, libc::SIGKILL) }
            }
            eventually("the next runs", || {
                let now = main_pids(&guard);
                (now.len() == all.len() && !victims.iter().any(|pid| now.contains(pid))).then_some(())
            });
            guard.until_yes(&["ready"]);
            seen.some_more();
        }
        for _ in 0..2 {
            let answer = guard.ask(&["reload"]);
            assert_eq!(answer.code, 0, "{answer:?}\n{}", guard.transcript());
            seen.some_more();
        }
    });
    assert_eq!(seen.refused.load(Ordering::Relaxed), 0, "{seen:?}\n{}", guard.transcript());
    guard.signal(libc::SIGTERM);
    guard.code();
}

/// Tells the clients to end.
struct Defer<'a>(&'a AtomicBool);

impl Drop for Defer<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The example's directory with its packages, which npm is asked for once.
fn installed() -> Option<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let Some(npm) = in_path("npm").filter(|_| in_path("node").is_some()) else {
        skipped("there is no node with npm");
        return None;
    };
    let _turn = ONE_AT_A_TIME.lock().expect("no panic under it");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("zero-downtime");
    fs::create_dir_all(&directory).expect("a directory");
    for name in ["package.json", "app.js"] {
        fs::copy(Path::new(EXAMPLE).join(name), directory.join(name)).expect("a file");
    }
    if !directory.join("node_modules/express/package.json").exists() {
        let words = ["install", "--omit=dev", "--no-audit", "--no-fund", "--fetch-retries=0", "--fetch-timeout=20000"];
        let answer = Answer::of(begin(Command::new(npm).args(words).current_dir(&directory)));
        if answer.code != 0 {
            skipped(&format!("npm cannot install Express: {}", answer.err.lines().next().unwrap_or_default()));
            return None;
        }
    }
    Some(directory)
}

/// The words of a line of the Dockerfile's, such as ENTRYPOINT.
fn words_of(dockerfile: &str, instruction: &str) -> Vec<String> {
    let line = dockerfile.lines().find_map(|line| line.strip_prefix(instruction)).expect("the instruction");
    line.split(['[', ']', ',', '"', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[test]
fn an_express_app_as_it_comes_is_killed_and_reloaded_and_refuses_nobody() {
    let Some(directory) = installed() else { return };
    let dockerfile = fs::read_to_string(Path::new(EXAMPLE).join("Dockerfile")).expect("a Dockerfile");
    assert_eq!(words_of(&dockerfile, "ENTRYPOINT"), ["guard", "--"]);
    let variables = words_of(&dockerfile, "ENV GUARD_");
    assert_eq!(variables, ["HOLD=on", "GUARD_INSTANCES=2"], "two variables, and the line's first has its name cut");
    let app = fs::read_to_string(Path::new(EXAMPLE).join("app.js")).expect("an app");
    assert!(!app.to_lowercase().contains("guard") && !app.contains("SIGTERM"), "no line of it is for guard");
    for setup in everywhere() {
        let port = free_port();
        let setup = crashing(setup).env("GUARD_HOLD", "on").env("GUARD_INSTANCES", "2").env("NODE_ENV", "production");
        let setup = setup.env("PORT", port.to_string()).env("GUARD_CHDIR", &directory);
        let mut command = words_of(&dockerfile, "CMD");
        command[0] = in_path(&command[0]).expect("node").display().to_string();
        refuses_nobody(setup.app(command).start(), port);
    }
}

/// Runs a line of the guide, `VARIABLE=value guard -- app`, in this directory, at another port than its 8080.
fn as_the_guide_has_it(words: &str, program: &Path, directory: &Path) {
    let line = blocks::command("docs/zero-downtime.md", words);
    for setup in everywhere() {
        let port = free_port();
        let line = line.replace("8080", &port.to_string());
        let (variable, app) = line.split_once(" guard -- ").expect("a variable and an app");
        let (name, value) = variable.split_once('=').expect("a value");
        let app = [program.display().to_string()].into_iter().chain(app.split(' ').skip(1).map(str::to_owned));
        refuses_nobody(crashing(setup).env(name, value).env("GUARD_CHDIR", directory).app(app).start(), port);
    }
}

fn gunicorn(words: &str) {
    let Some(gunicorn) = in_path("gunicorn") else { return skipped("there is no gunicorn") };
    let directory = tempfile::tempdir().expect("a directory");
    let app = "def app(environ, start):\n    start('200 OK', [])\n    return [b'hi']\n";
    fs::write(directory.path().join("wsgi.py"), app).expect("a file");
    as_the_guide_has_it(words, &gunicorn, directory.path());
}

#[test]
fn gunicorn_takes_the_socket_of_the_guide() {
    gunicorn("GUARD_LISTEN=8080 guard -- gunicorn");
}

#[test]
fn gunicorn_binds_itself_as_in_the_guide() {
    gunicorn("GUARD_HOLD=on guard -- gunicorn");
}

#[test]
fn a_static_server_takes_the_socket_of_the_guide() {
    if in_path("cc").is_none() {
        return skipped("there is no cc");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let line = blocks::command("docs/zero-downtime.md", "cc ");
    let server = directory.path().join("server");
    let line = line.replace("-o server", &format!("-Wall -Wextra -Werror -o {}", server.display()));
    let answer = Answer::of(begin(Command::new("sh").args(["-c", &line]).current_dir(env!("CARGO_MANIFEST_DIR"))));
    assert_eq!(answer.code, 0, "{answer:?}");
    as_the_guide_has_it("GUARD_LISTEN=8080 guard -- ./server", &server, directory.path());
}

/// The guide's short form of examples/load. What was accepted by a process that is killed is lost with it, and is counted apart.
#[test]
fn nobody_is_refused_or_reset_under_load() {
    if let Some(missing) = ["bash", "ip", "node", "nsenter"].into_iter().find(|program| in_path(program).is_none()) {
        return skipped(&format!("there is no {missing}"));
    }
    if pid1().is_none() {
        return;
    }
    let line = blocks::command("docs/benchmarks.md", "CRASHES=");
    let rows = line.split_whitespace().filter(|word| word.contains("-hold")).count();
    let mut run = Command::new("bash");
    run.args(["-c", &line]).current_dir(env!("CARGO_MANIFEST_DIR"));
    run.env("GUARD", env!("CARGO_BIN_EXE_guard")).env("LOAD", example("load", &["examples/load/main.rs"]));
    // A busy machine may take long to start a Node.
    run.env("GUARD_HOLD_TIMEOUT", "60s");
    let answer = Answer::of(begin(&mut run));
    assert_eq!(answer.code, 0, "{answer:?}");
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let shown: Vec<Vec<String>> = answer.out.lines().filter(|line| line.starts_with("| guard")).map(cells).collect();
    assert!(rows == 4 && shown.len() == rows, "{answer:?}");
    for row in shown {
        assert!(row[3].parse::<u32>().is_ok_and(|requests| requests > 100), "{answer:?}");
        assert_eq!(row[4..6], ["0", "0"], "refused and reset: {answer:?}");
    }
}
