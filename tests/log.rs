//! The log on stderr: its two forms and its levels. No kind of stderr changes what guard does.

use crate::common::{Event, Guard, Setup, child, everywhere, fixture};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::str::Chars;

/// Runs two restarts and a stop, which work whatever stderr does, and calls `between` after the first restart.
fn works(setup: Setup, between: impl FnOnce()) {
    let mut guard = setup.env("GUARD_BACKOFF_INITIAL", "0").fixture("quit USR1 1 quit TERM 3 serve").start();
    guard.line("ready");
    guard.signal(libc::SIGUSR1);
    guard.line("ready");
    between();
    guard.signal(libc::SIGUSR1);
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    guard.line("got TERM");
    assert_eq!(guard.code(), 3);
}

/// Lines from before the pipe or socket was read are lost. The log begins with the line that counts them, and is complete
/// from there on.
fn assert_lines_were_dropped(log: &str) {
    let events: Vec<Event> = log.lines().map(|line| Event::parse(line).expect("whole lines")).collect();
    assert_eq!(events[0].name(), "dropped", "{log}");
    let lost: usize = events[0].get("lines").expect("how many").parse().unwrap();
    assert!(lost >= 3, "the start, an exit and a restart are lost: {log}");
    let names: Vec<&str> = events.iter().skip(1).map(Event::name).collect();
    // The second run may say that it is ready before guard says that it has started it.
    let names = names.strip_prefix(&["spawn"]).unwrap_or(&names);
    assert_eq!(names, ["exit", "restart", "spawn", "drain", "stop-signal", "exit", "end"]);
}

#[test]
fn a_full_pipe_costs_lines_and_nothing_else() {
    for setup in everywhere() {
        let (reader, writer) = pipe().unwrap();
        let size = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap() as usize;
        let mut writer = File::from(writer);
        writer.write_all(&vec![b'.'; size]).unwrap();
        let mut reader = File::from(reader);
        works(setup.stderr(writer), || reader.read_exact(&mut vec![0; size]).unwrap());
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        assert_lines_were_dropped(&log);
    }
}

#[test]
fn a_full_socket_costs_lines_and_nothing_else() {
    let (mut reader, mut writer) = UnixStream::pair().unwrap();
    // O_NONBLOCK belongs to the description that guard gets, so it is cleared when the socket is full.
    writer.set_nonblocking(true).unwrap();
    let mut filled = 0;
    while let Ok(count) = writer.write(&[b'.'; 64]) {
        filled += count;
    }
    writer.set_nonblocking(false).unwrap();
    works(child().stderr(OwnedFd::from(writer)), || reader.read_exact(&mut vec![0; filled]).unwrap());
    let mut log = String::new();
    reader.read_to_string(&mut log).unwrap();
    assert_lines_were_dropped(&log);
}

#[test]
fn a_socket_takes_the_log() {
    for setup in everywhere() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        works(setup.stderr(OwnedFd::from(writer)), || ());
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        let names: Vec<_> =
            log.lines().map(|line| Event::parse(line).expect("whole lines").name().to_owned()).collect();
        assert_eq!((names.first(), names.last()), (Some(&"start".to_owned()), Some(&"end".to_owned())), "{log}");
    }
}

#[test]
fn a_pipe_without_a_reader_changes_nothing() {
    for setup in everywhere() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        // guard must not forward its own SIGPIPE, which the app would print.
        let mut guard = setup.stderr(writer).fixture("before-run 2 exit 1 quit TERM 3 serve").start();
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 3);
        assert!(!guard.out().contains(&"got PIPE"), "{}", guard.transcript());
    }
}

#[test]
fn a_reader_that_leaves_changes_nothing() {
    let (reader, writer) = pipe().unwrap();
    works(child().stderr(writer), || drop(reader));
    let (reader, writer) = UnixStream::pair().unwrap();
    works(child().stderr(OwnedFd::from(writer)), || drop(reader));
}

#[test]
fn stderr_may_be_closed() {
    for setup in everywhere() {
        works(setup.inherits("close 2"), || ());
    }
    let mut guard = child().inherits("close 2").fixture("fds exit 0").start();
    let descriptors = guard.lines_until("end");
    for line in descriptors.iter().filter(|line| line.starts_with("fd 2 ")) {
        assert_eq!(line, "fd 2 /dev/null", "nothing of guard's is the app's stderr");
    }
    assert_eq!(guard.code(), 0);
}

#[test]
fn all_standard_descriptors_may_be_closed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("out");
    let setup = child().inherits("close 0 close 1 close 2");
    let mut guard =
        setup.fixture(&format!("into {} say hello exit 3", file.display())).env("GUARD_RESTART", "never").start();
    assert_eq!(guard.code(), 3);
    assert_eq!(fs::read_to_string(file).unwrap(), "hello\n");
}

#[test]
fn a_full_disk_is_no_obstacle() {
    for setup in everywhere() {
        works(setup.stderr(File::options().write(true).open("/dev/full").unwrap()), || ());
    }
}

#[test]
fn the_apps_stderr_keeps_its_flags() {
    for nonblocking in [false, true] {
        let (reader, writer) = pipe().unwrap();
        if nonblocking {
            fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        }
        let mut guard = child().stderr(writer).fixture("ids quit TERM 0 serve").start();
        let pid: i32 = guard.line_after("pid ").parse().unwrap();
        guard.line("ready");
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/2")).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("proc_pid_fdinfo(5)");
        let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
        assert_eq!(flags & libc::O_NONBLOCK != 0, nonblocking, "{info}");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
        drop(reader);
    }
}

#[test]
fn guard_and_the_app_share_a_file_without_overwriting() {
    for setup in everywhere() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"from before\n").unwrap();
        let script = "echo app $GUARD_RUN >&2; [ $GUARD_RUN = 3 ]";
        let mut guard = setup.env("GUARD_BACKOFF_INITIAL", "0").stderr(file).app(["sh", "-c", script]).start();
        assert_eq!(guard.code(), 0);
        let log = fs::read_to_string(path).unwrap();
        let told = |line: &str| Event::parse(line).map_or(line.to_owned(), |event| event.name().to_owned());
        let lines: Vec<String> = log
            .lines()
            .map(told)
            // The line about the spawn may come before or after the app's.
            .filter(|line| line != "not-restarted" && line != "spawn")
            .collect();
        let expected =
            ["from before", "start", "app 1", "exit", "restart", "app 2", "exit", "restart", "app 3", "exit", "end"];
        assert_eq!(lines, expected, "{log}");
    }
}

/// A command full of text that could break a log line: quotes, control characters, bytes that are not UTF-8.
fn odd_command() -> Vec<OsString> {
    let words: [&[u8]; 8] =
        [b"a\"b", b"c\\d", b"e\nguard time=f", b"\x1b[31mred", b"\xff\xfe", "ü€😀\u{2028}".as_bytes(), b"", b"x=y \t"];
    let words = words.into_iter().map(|word| OsString::from_vec(word.to_vec()));
    [fixture().into(), "exit".into(), "0".into()].into_iter().chain(words).collect()
}

/// Everything on stderr of a guard that runs the odd command.
fn log_of_odd_command(form: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let setup = child().env("GUARD_LOG_FORMAT", form).env("GUARD_LOG", "debug").stderr(File::create(&path).unwrap());
    assert_eq!(setup.app(odd_command()).start().code(), 0);
    String::from_utf8(fs::read(path).unwrap()).expect("the log is UTF-8")
}

#[test]
fn every_line_of_text_is_one_event_whatever_the_command() {
    let log = log_of_odd_command("text");
    let names: Vec<Event> = log.lines().map(|line| Event::parse(line).unwrap_or_else(|| panic!("{line:?}"))).collect();
    assert_eq!(names[0].name(), "start");
    let app = names[0].get("app").expect("the command is told");
    for part in ["a\"b", "c\\d", "e\nguard time=f", "ü€😀"] {
        assert!(app.contains(part), "{app:?}");
    }
    assert!(!log.contains('\x1b'), "no escape sequence reaches the reader's terminal");
}

#[test]
fn every_line_of_json_is_an_object_whatever_the_command() {
    let log = log_of_odd_command("json");
    let objects: Vec<BTreeMap<String, String>> = log.lines().map(object).collect();
    for object in &objects {
        assert_eq!(object["logger"], "guard", "an app's own JSON has none");
        assert!(["time", "level", "event"].iter().all(|key| object.contains_key(*key)), "{object:?}");
    }
    assert_eq!(objects[0]["event"], "start");
    for part in ["a\"b", "c\\d", "e\nguard time=f", "\x1b[31mred", "ü€😀\u{2028}", "x=y \t"] {
        assert!(objects[0]["app"].contains(part), "{:?}", objects[0]["app"]);
    }
    let exit = objects.iter().find(|object| object["event"] == "exit").expect("an exit is told");
    assert_eq!(exit["code"], "0");
    assert!(log.contains(r#""code":0"#), "numbers are numbers: {log}");
}

/// Reads an object of strings and numbers, and panics at text that RFC 8259 does not allow.
fn object(line: &str) -> BTreeMap<String, String> {
    let mut object = BTreeMap::new();
    let mut rest = line.chars();
    assert_eq!(rest.next(), Some('{'), "{line}");
    loop {
        assert_eq!(rest.next(), Some('"'), "{line}");
        let key = string(&mut rest);
        assert_eq!(rest.next(), Some(':'), "{line}");
        let (value, after) = if let Some(quoted) = rest.as_str().strip_prefix('"') {
            rest = quoted.chars();
            (string(&mut rest), rest.next())
        } else {
            let end = rest.as_str().find([',', '}']).expect("something follows a number");
            let (number, after) = rest.as_str().split_at(end);
            number.parse::<f64>().unwrap_or_else(|_| panic!("{number:?} in {line}"));
            rest = after.chars();
            (number.to_owned(), rest.next())
        };
        assert!(object.insert(key, value).is_none(), "a key twice: {line}");
        match after {
            Some(',') => {}
            Some('}') => break,
            other => panic!("{other:?} in {line}"),
        }
    }
    assert_eq!(rest.as_str(), "");
    object
}

/// Reads the rest of a string after its opening quote.
fn string(rest: &mut Chars) -> String {
    let mut text = String::new();
    loop {
        match rest.next().expect("a string ends") {
            '"' => return text,
            '\\' => text.push(match rest.next().expect("something is escaped") {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'u' => {
                    let digits: String = rest.take(4).collect();
                    char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).expect("no surrogate is needed")
                }
                plain @ ('"' | '\\' | '/') => plain,
                other => panic!("\\{other}"),
            }),
            control if control < ' ' => panic!("{control:?} has to be escaped"),
            plain => text.push(plain),
        }
    }
}

/// Runs a crash, a restart and a stop at this level. The guard that is returned has the whole log.
fn at_level(level: &str) -> Guard {
    let mut guard = child().env("GUARD_LOG", level).fixture("before-run 2 exit 1 quit TERM 0 serve").start();
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 0);
    guard
}

#[test]
fn off_is_silence() {
    assert!(at_level("off").err().is_empty());
    let mut guard = child().env("GUARD_LOG", "off").env("GUARD_MAX_RESTARTS", "0").fixture("die SEGV").start();
    assert_eq!(guard.code(), 139);
    assert!(guard.err().is_empty(), "{}", guard.transcript());
}

#[test]
fn each_level_adds_to_the_one_above() {
    let names = |level: &str| {
        let events = at_level(level).events();
        events.iter().map(|event| event.name().to_owned()).collect::<Vec<_>>()
    };
    assert!(names("error").is_empty());
    assert_eq!(names("warn"), ["exit", "restart"]);
    let info = ["start", "spawn", "exit", "restart", "spawn", "drain", "stop-signal", "exit", "end"];
    assert_eq!(names("info"), info);
    assert!(names("debug").len() > info.len());
}

#[test]
fn an_exit_is_logged_with_its_times_and_memory() {
    let mut guard = child().env("GUARD_RESTART", "never").fixture("die SEGV").start();
    assert_eq!(guard.code(), 139);
    let exit = guard.event("exit");
    assert_eq!((exit.get("run"), exit.get("signal"), exit.get("code")), (Some("1"), Some("SIGSEGV"), None));
    for key in ["pid", "uptime", "max_rss", "cpu_user", "cpu_sys"] {
        assert!(exit.get(key).is_some_and(|value| value.starts_with(|c: char| c.is_ascii_digit())), "{}", exit.line);
    }
}

#[test]
fn numbers_are_numbers_in_json() {
    let setup = child().env("GUARD_LOG_FORMAT", "json").env("GUARD_MAX_RESTARTS", "3");
    let mut guard = setup.fixture("before-run 2 exit 7 quit TERM 0 serve").start();
    guard
        .log_line("a restart", |line| line.contains(r#""event":"restart""#) && line.contains(r#""count":1,"limit":3"#));
    guard.line("ready");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 0);
    let log = guard.err().join("\n");
    for (event, key) in [
        ("start", "stop_timeout"),
        ("spawn", "run"),
        ("spawn", "pid"),
        ("exit", "uptime"),
        ("exit", "max_rss"),
        ("exit", "cpu_user"),
        ("exit", "cpu_sys"),
        ("exit", "code"),
        ("restart", "last"),
        ("restart", "delay"),
        ("restart", "window"),
        ("drain", "delay"),
        ("drain", "stop_timeout"),
        ("end", "code"),
    ] {
        let line = log.lines().find(|line| line.contains(&format!(r#""event":"{event}""#))).expect(event);
        let (_, value) = line.split_once(&format!(r#""{key}":"#)).unwrap_or_else(|| panic!("{key} in {line}"));
        let value = &value[..value.find([',', '}']).expect("an end")];
        assert!(value.parse::<f64>().is_ok(), "{key}={value} in {line}");
    }
    assert!(log.split('"').all(|text| text.parse::<f64>().is_err()), "no number is in quotes: {log}");
    let seconds = log.contains(r#""window":300,"delay":0}"#) && log.contains(r#""stop_timeout":8.3"#);
    assert!(seconds, "times are in seconds: {log}");
    let (_, rss) = log.split_once(r#""max_rss":"#).expect("an exit");
    assert!(rss[..rss.find(',').expect("more")].parse::<u64>().is_ok_and(|bytes| bytes > 10_000), "in bytes: {log}");
}

#[test]
fn each_run_begins_with_a_line_and_an_operators_restart_is_one() {
    for setup in everywhere() {
        let mut guard = setup.fixture("ids quit TERM 0 serve").start();
        let first = guard.line_after("pid ");
        let spawn = guard.event("spawn");
        assert_eq!(
            (spawn.get("run"), spawn.get("pid"), spawn.get("level")),
            (Some("1"), Some(first.as_str()), Some("info"))
        );
        guard.line("ready");
        guard.until_yes(&["ready"]);
        guard.ask(&["restart"]).yes("restarted: run 2 is ready");
        let second = guard.line_after("pid ");
        let spawn = guard.event("spawn");
        assert_eq!((spawn.get("run"), spawn.get("pid")), (Some("2"), Some(second.as_str())));
        guard.line("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 0);
        let names: Vec<String> = guard.events().iter().map(|event| event.name().to_owned()).collect();
        assert_eq!(
            names,
            ["start", "spawn", "asked", "stop-signal", "exit", "spawn", "drain", "stop-signal", "exit", "end"]
        );
    }
}
