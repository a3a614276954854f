//! Runs guard for a test, as PID 1 of a namespace of its own or as an ordinary child, and waits for what guard and its
//! app say. There are no sleeps: whatever does not come within [`DEADLINE`] fails the test with all that was said.
//!
//! ```ignore
//! for setup in everywhere() {
//!     let mut guard = setup.env("GUARD_RESTART", "never").fixture("quit TERM 3 serve").start();
//!     guard.line("ready");
//!     guard.signal(libc::SIGTERM);
//!     guard.line("got TERM");
//!     assert_eq!(guard.code(), 3);
//! }
//! ```

#![allow(dead_code, reason = "no topic needs all of it")]
#![allow(clippy::disallowed_methods, reason = "the clock and the environment of the tests")]

pub(crate) mod blocks;
pub(crate) mod cgroup;
pub(crate) mod checks;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod inline;
pub(crate) mod notify;
pub(crate) mod operator;
pub(crate) mod pids;
pub(crate) mod port;
pub(crate) mod processes;

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for anything: long, since machines are busy, and never waited out where all is well.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Every signal that can be taken and forwarded: CHLD is guard's own.
pub(crate) fn catchable() -> impl Iterator<Item = i32> {
    (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD].contains(signal))
}

/// Guard as an ordinary child, which becomes a subreaper.
pub(crate) fn child() -> Setup {
    Setup::new(Vec::new())
}

/// Guard as PID 1, or none where no namespace can be made.
pub(crate) fn pid1() -> Option<Setup> {
    static UNSHARE: OnceLock<Option<Vec<OsString>>> = OnceLock::new();
    let unshare = UNSHARE.get_or_init(unshare).clone();
    if unshare.is_none() {
        skipped("guard as PID 1: no PID namespace can be made here, with or without a user namespace");
    }
    unshare.map(Setup::new)
}

/// Both of them, for what holds everywhere.
pub(crate) fn everywhere() -> Vec<Setup> {
    pid1().into_iter().chain([child()]).collect()
}

/// Both, without CAP_SYS_PTRACE, as engines have it: guard may not look at processes of other users. None where the tests may not
/// take it away.
pub(crate) fn without_ptrace() -> Vec<Setup> {
    let Some(setpriv) = in_path("setpriv").filter(|_| nix::unistd::geteuid().is_root()) else {
        skipped("only root can take a capability away, with setpriv");
        return Vec::new();
    };
    let words = ["--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace", env!("CARGO_BIN_EXE_guard")];
    everywhere().into_iter().map(|setup| setup.program(&setpriv).options(words)).collect()
}

/// Says, once, that the test at hand cannot run here, past the capture of output; in CI that is a failure.
pub(crate) fn skipped(why: &str) {
    thread_local!(static SAID: Cell<bool> = const { Cell::new(false) });
    let thread = thread::current();
    // On a line of its own: the tests' runner may be in the middle of one.
    let line = format!("\nskipped: {}: {why}\n", thread.name().unwrap_or("a test"));
    assert!(std::env::var_os("CI").is_none(), "{line}");
    if !SAID.replace(true) {
        // io::stderr() as a writer is not captured, unlike eprintln!.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// The command that makes the namespace: as root without a user namespace, as in a container.
fn unshare() -> Option<Vec<OsString>> {
    let program = in_path("unshare")?;
    let namespace = ["--pid", "--fork", "--mount-proc", "--kill-child"];
    let user: &[&str] = &["--user", "--map-root-user"];
    let ways = if nix::unistd::geteuid().is_root() { vec![&[], user] } else { vec![user] };
    ways.into_iter().find_map(|way| {
        let mut command = Command::new(&program);
        command.args(way).args(namespace).arg("/bin/true").stderr(Stdio::null());
        let status = spawn(&mut command).wait().ok()?;
        let words = way.iter().chain(&namespace).map(OsString::from);
        status.success().then(|| [program.clone().into()].into_iter().chain(words).collect())
    })
}

/// The path of a program, where there is one.
pub(crate) fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// Where cargo has put the binary: target/debug, or target/TRIPLE/debug.
fn profile() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_guard")).parent().expect("the binary is in a directory")
}

/// cargo's target directory, and the triple below it that the tests are built for, if one was named.
pub(crate) fn target() -> (&'static Path, Option<&'static OsStr>) {
    let above = profile().parent().expect("the profile's directory is in the target directory");
    match above.file_name().filter(|_| !above.join(".rustc_info.json").exists()) {
        Some(triple) => (above.parent().expect("the triple's directory is in it too"), Some(triple)),
        None => (above, None),
    }
}

/// The fixture app.
pub(crate) fn fixture() -> &'static Path {
    static FIXTURE: OnceLock<PathBuf> = OnceLock::new();
    FIXTURE.get_or_init(|| example("fixture", &["tests/fixture/app.rs", "tests/fixture/swarm.rs"]))
}

/// A program of the project's own, built if cargo has not done so: `cargo test --test NAME` leaves examples out.
pub(crate) fn example(name: &str, sources: &[&str]) -> PathBuf {
    let profile = profile();
    let program = profile.join("examples").join(name);
    let sources = sources.iter().map(|source| Path::new(env!("CARGO_MANIFEST_DIR")).join(source));
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    if sources.into_iter().any(|source| modified(&program) < modified(&source)) {
        let (target, triple) = target();
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        build.args(["build", "--quiet", "--example", name, "--target-dir"]).arg(target);
        build.args(triple.iter().flat_map(|triple| [OsStr::new("--target"), triple]));
        build.args((profile.file_name() == Some(OsStr::new("release"))).then_some("--release"));
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(spawn(&mut build).wait().is_ok_and(|status| status.success()), "{name} cannot be built");
    }
    program
}

/// Held while a process begins and while a program is written: a child that inherits a program's descriptor before it
/// executes its own would make the program busy (`execve(2)`, ETXTBSY).
static FORKING: Mutex<()> = Mutex::new(());

pub(crate) fn spawn(command: &mut Command) -> Child {
    let _alone = FORKING.lock();
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Writes a file that may be executed, or as its mode says.
pub(crate) fn program(directory: &Path, name: &str, content: impl AsRef<[u8]>, mode: u32) -> PathBuf {
    let path = directory.join(name);
    let _alone = FORKING.lock();
    fs::write(&path, content).expect("a temporary file can be written");
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its owner may set the mode");
    path
}

/// A copy of the fixture.
pub(crate) fn fixture_at(directory: &Path, name: &str) -> PathBuf {
    program(directory, name, fs::read(fixture()).expect("the fixture can be read"), 0o755)
}

/// How guard is to be started. Its environment holds PATH and what [`Setup::env`] adds.
pub(crate) struct Setup {
    unshare: Vec<OsString>,
    program: OsString,
    inherits: Vec<OsString>,
    options: Vec<OsString>,
    command: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    stdin: Stdio,
    stderr: Option<Stdio>,
    terminal: bool,
}

impl Setup {
    fn new(unshare: Vec<OsString>) -> Setup {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Setup {
            unshare,
            program: env!("CARGO_BIN_EXE_guard").into(),
            inherits: Vec::new(),
            options: Vec::new(),
            command: Vec::new(),
            environment: vec![("PATH".into(), path)],
            directory: None,
            stdin: Stdio::null(),
            stderr: None,
            terminal: false,
        }
    }

    pub(crate) fn is_pid1(&self) -> bool {
        !self.unshare.is_empty()
    }

    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Setup {
        self = self.without_env(name.as_ref());
        self.environment.push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    pub(crate) fn without_env(mut self, name: impl AsRef<OsStr>) -> Setup {
        self.environment.retain(|(known, _)| known != name.as_ref());
        self
    }

    /// Guard's own arguments, before the `--`.
    pub(crate) fn options<T: Into<OsString>>(mut self, options: impl IntoIterator<Item = T>) -> Setup {
        self.options.extend(options.into_iter().map(Into::into));
        self
    }

    /// The command after the `--`; without one there is no `--` either.
    pub(crate) fn app<T: Into<OsString>>(mut self, command: impl IntoIterator<Item = T>) -> Setup {
        self.command = command.into_iter().map(Into::into).collect();
        self
    }

    /// The fixture as the app, with words divided by spaces; tests/fixture/app.rs lists them.
    pub(crate) fn fixture(self, words: &str) -> Setup {
        let command = [fixture().into()].into_iter().chain(words.split_whitespace().map(OsString::from));
        self.app(command)
    }

    /// State that guard starts with, in words that the fixture's `in` knows: `ignore CHLD block USR1 close 2`. Without
    /// them signals are at their defaults, none is blocked, and descriptors 0, 1 and 2 are open.
    pub(crate) fn inherits(mut self, words: &str) -> Setup {
        self.inherits.extend(words.split_whitespace().map(OsString::from));
        self
    }

    /// Guard's working directory.
    pub(crate) fn directory(mut self, path: impl Into<PathBuf>) -> Setup {
        self.directory = Some(path.into());
        self
    }

    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Setup {
        self.stdin = stdin.into();
        self
    }

    /// Instead of a pipe that the test reads: events cannot be waited for then.
    pub(crate) fn stderr(mut self, stderr: impl Into<Stdio>) -> Setup {
        self.stderr = Some(stderr.into());
        self
    }

    /// Stdin and stdout are a terminal without echo, which controls guard's session, as under `docker run -it`.
    pub(crate) fn terminal(mut self) -> Setup {
        self.terminal = true;
        self.inherits("tty")
    }

    /// Another binary in guard's place.
    pub(crate) fn program(mut self, path: impl Into<OsString>) -> Setup {
        self.program = path.into();
        self
    }

    pub(crate) fn start(self) -> Guard {
        let mut line: Vec<OsString> = self.unshare.clone();
        line.extend([fixture().into(), "in".into()]);
        line.extend(self.inherits);
        line.extend(["--".into(), self.program]);
        line.extend(self.options);
        if !self.command.is_empty() {
            line.push("--".into());
            line.extend(self.command);
        }
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).env_clear().envs(self.environment);
        command.stdin(self.stdin).stdout(Stdio::piped()).stderr(self.stderr.unwrap_or_else(Stdio::piped));
        if let Some(directory) = self.directory {
            command.current_dir(directory);
        }
        let keyboard = self.terminal.then(|| {
            let terminal = nix::pty::openpty(None, None).expect("a terminal can be opened");
            let mut modes = tcgetattr(&terminal.slave).expect("a terminal has modes");
            modes.local_flags.remove(LocalFlags::ECHO); // keys would come between the lines
            tcsetattr(&terminal.slave, SetArg::TCSANOW, &modes).expect("a terminal takes modes");
            let copy = |fd: &OwnedFd| fd.try_clone().expect("a descriptor can be copied");
            command.stdin(copy(&terminal.slave)).stdout(terminal.slave);
            File::from(terminal.master)
        });
        let mut child = spawn(&mut command);
        drop(command); // and with it this process's ends of the terminal and of pipes that the test gave

        let (sender, heard) = channel();
        let screen = keyboard.as_ref().map(|master| master.try_clone().expect("a descriptor can be copied"));
        if let Some(screen) = screen {
            listen(Stream::Out, screen, sender.clone());
        } else if let Some(stdout) = child.stdout.take() {
            listen(Stream::Out, stdout, sender.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            listen(Stream::Err, stderr, sender.clone());
        }
        let id = Pid::from_raw(child.id() as i32);
        thread::spawn(move || {
            // Reaped later by the owner, so that the pid cannot become another's meanwhile. The status of a real-time
            // signal is an error to nix, and an end all the same.
            let _ = waitid(Id::Pid(id), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
            let _ = sender.send(Heard::Ended);
        });
        Guard {
            stdin: child.stdin.take(),
            child,
            is_pid1: !self.unshare.is_empty(),
            user_namespace: self.unshare.iter().any(|word| word == "--user"),
            keyboard,
            heard,
            lines: Vec::new(),
            read: [0, 0],
            ended: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stream {
    Out,
    Err,
}

enum Heard {
    Line(Stream, String),
    Ended,
}

fn listen(stream: Stream, from: impl Read + Send + 'static, to: Sender<Heard>) {
    thread::spawn(move || {
        // A terminal's end is EIO, an error here like the end of a pipe.
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if to.send(Heard::Line(stream, line)).is_err() {
                return;
            }
        }
    });
}

/// A guard that was started. It and all below it are killed when it is dropped.
pub(crate) struct Guard {
    child: Child,
    is_pid1: bool,
    user_namespace: bool,
    /// Where it was asked for with `stdin(Stdio::piped())`.
    pub(crate) stdin: Option<std::process::ChildStdin>,
    keyboard: Option<File>,
    heard: Receiver<Heard>,
    lines: Vec<(Stream, String)>,
    /// Up to where `line` and `event` have looked.
    read: [usize; 2],
    ended: Option<ExitStatus>,
}

impl Guard {
    /// Waits for a line of the app's, after those that were waited for before.
    pub(crate) fn line(&mut self, want: &str) {
        self.find(Stream::Out, want, |line| (line == want).then_some(()));
    }

    /// Waits for all of these lines, in any order: two processes write as the kernel lets them.
    pub(crate) fn lines(&mut self, wanted: &[&str]) {
        let mut missing = wanted.to_vec();
        while !missing.is_empty() {
            let found =
                self.find(Stream::Out, &missing.join(", "), |line| missing.iter().position(|want| *want == line));
            missing.swap_remove(found);
        }
    }

    /// Waits for a line of the app's that begins so, and gives the rest of it.
    pub(crate) fn line_after(&mut self, prefix: &str) -> String {
        self.find(Stream::Out, prefix, |line| line.strip_prefix(prefix).map(str::to_owned))
    }

    /// The lines of the app's up to one that is waited for.
    pub(crate) fn lines_until(&mut self, want: &str) -> Vec<String> {
        let from = self.read[Stream::Out as usize];
        self.line(want);
        let to = self.read[Stream::Out as usize];
        let lines = self.lines[from..to].iter().filter(|(stream, line)| *stream == Stream::Out && line != want);
        lines.map(|(_, line)| line.clone()).collect()
    }

    /// Waits for an event in guard's log, after those that were waited for before.
    pub(crate) fn event(&mut self, name: &str) -> Event {
        self.find(Stream::Err, name, |line| Event::parse(line).filter(|event| event.name() == name))
    }

    /// Waits for a line on stderr, after those that were waited for before.
    pub(crate) fn log_line(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        self.find(Stream::Err, what, |line| is_it(line).then(|| line.to_owned()))
    }

    fn find<T>(&mut self, stream: Stream, what: &str, look: impl Fn(&str) -> Option<T>) -> T {
        self.wait(what, |guard| {
            while let Some((from, line)) = guard.lines.get(guard.read[stream as usize]) {
                guard.read[stream as usize] += 1;
                if let Some(found) = Some(line).filter(|_| *from == stream).and_then(|line| look(line)) {
                    return Some(found);
                }
            }
            None
        })
    }

    fn wait<T>(&mut self, what: &str, mut look: impl FnMut(&mut Guard) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            match self.heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(heard) => self.note(heard),
                Err(why) => panic!("no {what:?}: {why}\n{}", self.transcript()),
            }
        }
    }

    fn note(&mut self, heard: Heard) {
        match heard {
            Heard::Line(stream, line) => self.lines.push((stream, line)),
            Heard::Ended => self.ended = self.child.wait().ok(),
        }
    }

    /// All that was said so far, for the message of a failed test.
    pub(crate) fn transcript(&self) -> String {
        let place = if self.is_pid1 { "as PID 1" } else { "as a child" };
        let ended = self.ended.map_or("still running".to_owned(), |status| status.to_string());
        let lines = self.lines.iter().map(|(stream, line)| match stream {
            Stream::Out => format!("  out: {line}\n"),
            Stream::Err => format!("  err: {line}\n"),
        });
        format!("guard {place}, {ended}, said:\n{}", lines.collect::<String>())
    }

    /// Waits until guard has ended, and nothing of it holds stdout or stderr any more: whoever outlived it would. Then
    /// everything was said, and [`Guard::out`] and [`Guard::err`] are complete.
    pub(crate) fn status(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.heard.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(heard) => self.note(heard),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(why) if self.ended.is_some() => panic!("someone outlived guard: {why}\n{}", self.transcript()),
                Err(why) => panic!("guard has not ended: {why}\n{}", self.transcript()),
            }
        }
        self.ended.expect("the end was heard of before its channel was closed")
    }

    /// The exit code, from [`Guard::status`].
    pub(crate) fn code(&mut self) -> i32 {
        let status = self.status();
        status.code().unwrap_or_else(|| panic!("guard was killed: {status}\n{}", self.transcript()))
    }

    /// All lines of the app's so far.
    pub(crate) fn out(&self) -> Vec<&str> {
        self.said(Stream::Out)
    }

    /// All lines on stderr so far.
    pub(crate) fn err(&self) -> Vec<&str> {
        self.said(Stream::Err)
    }

    /// All events of guard's log so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.err().into_iter().filter_map(Event::parse).collect()
    }

    fn said(&self, stream: Stream) -> Vec<&str> {
        self.lines.iter().filter(|(from, _)| *from == stream).map(|(_, line)| line.as_str()).collect()
    }

    /// Asks guard as an operator would, with a subcommand: in its namespaces, as `docker exec` does, or beside it.
    pub(crate) fn ask(&self, words: &[&str]) -> Answer {
        Answer::of(begin(&mut self.client(words)))
    }

    /// The command that asks.
    pub(crate) fn client(&self, words: &[&str]) -> Command {
        let pid = self.pid().to_string();
        if self.is_pid1 {
            let mut command = Command::new(in_path("nsenter").expect("who has unshare has nsenter"));
            // Who is not root may enter the others only from the user namespace that owns them.
            let user: &[&str] = if self.user_namespace { &["--user", "--preserve-credentials"] } else { &[] };
            command
                .args(["--target", &pid])
                .args(user)
                .args(["--pid", "--mount", "--"])
                .arg(env!("CARGO_BIN_EXE_guard"))
                .args(words);
            return command;
        }
        // Others may run in this mount namespace.
        let mut command = Command::new(env!("CARGO_BIN_EXE_guard"));
        command.args(words).args(["--pid", &pid]);
        command
    }

    /// Asks until the answer is yes.
    pub(crate) fn until_yes(&self, words: &[&str]) -> Answer {
        eventually(&format!("yes to {words:?}"), || Some(self.ask(words)).filter(|answer| answer.code == 0))
    }

    /// Guard's pid as the tests see it.
    pub(crate) fn pid(&self) -> i32 {
        let id = self.child.id() as i32;
        if !self.is_pid1 {
            return id;
        }
        // unshare forks once, some time after it was started.
        eventually("unshare's child", || children(id).first().copied())
    }

    pub(crate) fn is_pid1(&self) -> bool {
        self.is_pid1
    }

    pub(crate) fn signal(&self, signal: i32) {
        send(self.pid(), signal);
    }

    /// Sends a signal to a process of guard's by the pid that it has itself.
    pub(crate) fn signal_inside(&self, pid: i32, signal: i32) {
        send(self.pid_outside(pid), signal);
    }

    /// The pid that the tests see of a process that knows itself by another.
    pub(crate) fn pid_outside(&self, pid: i32) -> i32 {
        let own = |outside: &i32| status_field(*outside, "NSpid:").split_whitespace().last() == Some(&pid.to_string());
        // An orphan that is changing parents can escape a look.
        eventually(&format!("process {pid}"), || descendants(self.child.id() as i32).into_iter().find(own))
    }

    /// Presses keys at the terminal.
    pub(crate) fn press(&mut self, keys: &str) {
        let mut keyboard = self.keyboard.as_ref().expect("the test asked for a terminal");
        keyboard.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Gives the terminal another size, and whoever is in its foreground SIGWINCH (`ioctl_tty(2)`).
    #[allow(unsafe_code, reason = "nix has no call for a terminal's size")]
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let keyboard = self.keyboard.as_ref().expect("the test asked for a terminal");
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the structure lives until the call is over.
        let result = unsafe { libc::ioctl(keyboard.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(result, 0, "the terminal takes a size");
    }
}

/// Starts a client, whose answer is for later.
pub(crate) fn begin(client: &mut Command) -> Child {
    spawn(client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// What a client said, and its exit code.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Answer {
    /// Waits for the client's end, which is to be its own.
    pub(crate) fn of(client: Child) -> Answer {
        let output = client.wait_with_output().expect("it can be waited for");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or_else(|| panic!("the client was killed: {}", output.status));
        Answer { code, out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// It is yes, and says so in these words.
    #[track_caller]
    pub(crate) fn yes(&self, text: &str) {
        assert_eq!((self.code, self.out.trim_end()), (0, text), "{self:?}");
    }

    /// It is no, for this reason.
    #[track_caller]
    pub(crate) fn no(&self, why: &str) {
        assert_eq!((self.code, self.out.trim_end()), (1, why), "{self:?}");
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        while let Ok(heard) = self.heard.try_recv() {
            self.note(heard);
        }
        if self.ended.is_none() {
            let id = self.child.id() as i32;
            for pid in [id].into_iter().chain(descendants(id)) {
                send(pid, libc::SIGKILL);
            }
            let _ = self.child.wait();
        }
    }
}

/// One line of guard's log in its text form.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) line: String,
    fields: Vec<(String, String)>,
}

impl Event {
    /// Reads `guard time=… level=… event=… key=value key="quoted value"`; a line that is anything else is none.
    pub(crate) fn parse(line: &str) -> Option<Event> {
        let mut rest = line.strip_prefix("guard time=").map(|_| &line["guard ".len()..])?;
        let mut fields = Vec::new();
        while let Some((key, after)) = rest.split_once('=') {
            let (value, after) = match after.strip_prefix('"') {
                Some(quoted) => unquote(quoted),
                None => {
                    let end = after.find(' ').unwrap_or(after.len());
                    (after[..end].to_owned(), &after[end..])
                }
            };
            fields.push((key.to_owned(), value));
            rest = after.trim_start_matches(' ');
        }
        Some(Event { line: line.to_owned(), fields })
    }

    pub(crate) fn name(&self) -> &str {
        self.get("event").unwrap_or_default()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }
}

/// The text up to the closing quote, and what follows that.
fn unquote(quoted: &str) -> (String, &str) {
    let mut text = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (text, &quoted[index + 1..]),
            '\\' => match characters.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, other)) => text.push(other),
                None => {}
            },
            _ => text.push(character),
        }
    }
    (text, "")
}

/// Looks again and again, for what no event tells of.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what}");
        thread::yield_now();
    }
}

/// Sends a signal, to whoever it may be: a process that is gone is none.
#[allow(unsafe_code, reason = "nix's kill knows no real-time signals")]
pub(crate) fn send(pid: i32, signal: i32) {
    // SAFETY: kill(2) takes integers.
    unsafe { libc::kill(pid, signal) };
}

/// The pids whose parent this is, in no order.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    processes().filter(|child| status_field(*child, "PPid:") == pid.to_string()).collect()
}

/// All below a process.
pub(crate) fn descendants(pid: i32) -> Vec<i32> {
    let children = children(pid);
    let below = children.iter().flat_map(|child| descendants(*child));
    children.iter().copied().chain(below).collect()
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").expect("/proc is there");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// How often a process has gone to sleep so far, once it sleeps: its state says so a moment before it is counted.
pub(crate) fn sleeps_at_rest(pid: i32) -> String {
    let sleeps = || status_field(pid, "voluntary_ctxt_switches:");
    eventually("a process at rest", || {
        let before = sleeps();
        // To look at all of them takes far longer than to fall asleep.
        let asleep = processes().count() > 0 && status_field(pid, "State:").starts_with('S');
        (asleep && sleeps() == before).then_some(before)
    })
}

/// A field of /proc/PID/status such as `PPid:`; empty where the process is gone.
pub(crate) fn status_field(pid: i32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned()
}
