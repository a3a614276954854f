//! Which guard a client finds, and whose answers it believes.

use crate::common::operator::{GUARD, alone, beside, beside_as, name};
use crate::common::{self, Answer, Guard, Setup, begin, eventually, fixture, in_path, pid1, skipped};
use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Child, Command, Stdio};

#[test]
fn another_user_is_refused_and_told_so() {
    let Some(setup) = pid1().filter(|_| nix::unistd::geteuid().is_root()) else {
        return skipped("only root can be another user");
    };
    let mut guard = setup.fixture("serve").start();
    guard.line("ready");
    guard.until_yes(&["ready"]);
    let mut command = Command::new(in_path("nsenter").expect("who has unshare has nsenter"));
    command.args(["--target", &guard.pid().to_string(), "--pid", "--mount", "--"]).arg(fixture());
    let answer = Answer::of(begin(command.args(["in", "setuid", "65534", "--", GUARD, "stop"])));
    assert_eq!((answer.code, answer.err.as_str()), (125, "guard: only root may ask this guard\n"));
    guard.event("refused");
    assert!(guard.ask(&["status", "--json"]).out.contains(r#""refused":1"#));
    assert!(guard.ask(&["status"]).out.contains("\n1 datagrams of strangers refused\n"));
}

/// It was started as the user, or has become it.
#[test]
fn a_guard_without_privileges_answers_its_own_user_and_root() {
    let fixture = fixture().to_str().expect("UTF-8");
    for becomes in [false, true] {
        let Some(setup) = alone() else { return };
        let setup = match becomes {
            false => setup.options([fixture, "in", "setuid", "65534", "--", GUARD]),
            true => setup.options([GUARD]).env("GUARD_USER", "65534"),
        };
        let mut guard = setup.fixture("quit TERM 5 serve").start();
        guard.line("ready");
        eventually("guard", || (beside(&guard, &[GUARD, "ready"]).code == 0).then_some(()));
        beside_as(65534, &guard, &["ready"]).yes("ready");
        for verb in ["ready", "health", "status", "stop", "restart"] {
            let answer = beside_as(65533, &guard, &[verb]);
            assert_eq!((answer.code, answer.err.as_str()), (125, "guard: only root or uid 65534 may ask this guard\n"));
        }
        beside_as(65534, &guard, &["restart"]).yes("restarted: run 2 is ready");
        guard.line("ready");
        let answer = beside(&guard, &[GUARD, "stop"]);
        assert!(answer.code == 0 && answer.out.starts_with("stopped: "), "{answer:?}");
        assert_eq!(guard.code(), 5);
    }
}

#[test]
fn from_another_pid_namespace_nobody_is_heard() {
    let Some(setup) = pid1() else { return };
    let mut guard = setup.fixture("serve").start();
    guard.line("ready");
    guard.until_yes(&["ready"]);
    let address = SocketAddr::from_abstract_name(name(guard.pid())).expect("a name");
    let socket = UnixDatagram::unbound().expect("a socket");
    socket.send_to_addr(b"guard 1 stop", &address).expect("guard has a socket of this name");
    guard.event("refused");
    guard.ask(&["ready"]).yes("ready");
}

#[test]
fn without_a_guard_the_message_says_where_it_was_looked_for() {
    if alone().is_none() {
        return;
    }
    // The namespace may have the inode of one whose guard is not quite gone.
    eventually("nobody", || {
        let mut client = alone()?.options([GUARD, "ready"]).start();
        let code = client.code();
        let err = client.err().join("\n");
        (code == 125 && err.contains("guard: no guard is running here: looked for @guard/")).then_some(())
    });
}

#[test]
fn under_another_init_guard_is_found_as_it_is() {
    let Some(setup) = pid1() else { return };
    // As with `docker run --init`: a shell is PID 1, and the client knows no pid.
    let script = r#""$0" -- "$@" & wait $!; echo "ended with $?""#;
    let fixture = fixture().to_str().expect("UTF-8");
    let mut guard =
        setup.program("/bin/sh").options(["-c", script, GUARD, fixture, "quit", "TERM", "6", "serve"]).start();
    guard.line("ready");
    guard.until_yes(&["ready"]).yes("ready");
    let table = guard.ask(&["status"]).out;
    assert!(!table.contains(", pid 1, "), "{table}");
    guard.ask(&["restart"]).yes("restarted: run 2 is ready");
    guard.line("ready");
    let answer = guard.ask(&["stop"]);
    assert!(answer.code == 0 && answer.out.starts_with("stopped: "), "{answer:?}");
    guard.line("ended with 6");
}

#[test]
fn nothing_has_to_be_writable() {
    let Some(setup) = alone() else { return };
    let script = "mount -o remount,bind,ro /; mount -o remount,bind,ro /tmp; mount -o remount,bind,ro /dev/shm
        if touch /writable || touch /tmp/writable || touch /dev/shm/writable; then echo writable; fi
        exec \"$@\"";
    let fixture = fixture().to_str().expect("UTF-8");
    let mut guard = setup.options(["sh", "-c", script, "sh", GUARD]).app([fixture, "serve"]).start();
    guard.line("ready");
    if guard.out().contains(&"writable") {
        return skipped("the root cannot be made read-only");
    }
    eventually("guard", || (beside(&guard, &[GUARD, "ready"]).code == 0).then_some(()));
    beside(&guard, &[GUARD, "restart"]).yes("restarted: run 2 is ready");
    assert!(guard.events().iter().all(|event| event.get("level") != Some("warn")), "{}", guard.transcript());
}

#[test]
fn where_two_guards_answer_the_client_says_so() {
    let Some(setup) = alone() else { return };
    let app = fixture().to_str().expect("UTF-8");
    let mut guard = setup.options([GUARD]).app([GUARD, "--", app, "serve"]).start();
    guard.line("ready");
    let answer = eventually("both", || {
        let answer = beside(&guard, &[GUARD, "status"]);
        (answer.code == 125 && answer.err.contains("more than one")).then_some(answer)
    });
    assert!(answer.err.contains(&format!("--pid {}  ", guard.pid())), "{answer:?}");
    assert!(answer.err.contains(app), "it says which is which: {answer:?}");
    let pid = guard.pid().to_string();
    beside(&guard, &[GUARD, "ready", "--pid", &pid]).yes("ready");
    let answer = beside(&guard, &[GUARD, "ready", "--pid", "1"]);
    assert!(answer.code == 125 && answer.err.contains("no guard here has pid 1; there is"), "{answer:?}");
    // One that stands still may yet answer, though the other one has.
    guard.signal(libc::SIGSTOP);
    let answer = beside(&guard, &[GUARD, "ready", "--pid", &pid, "--timeout", "300ms"]);
    assert_eq!(answer.code, 124, "{answer:?}");
    guard.signal(libc::SIGCONT);
    beside(&guard, &[GUARD, "ready", "--pid", &pid]).yes("ready");
}

#[test]
fn a_squatter_on_the_name_is_no_guard() {
    let Some(setup) = alone() else { return };
    let Some(python) = in_path("python3") else { return skipped("there is no python3") };
    // As another user it takes the name first, and answers everything with yes.
    let squatter = "import os, socket, sys\n\
        name = b'\\0guard/%d' % os.stat('/proc/self/ns/mnt').st_ino\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
        s.bind(name)\n\
        if not os.fork():\n\
        \x20   os.setuid(65534)\n\
        \x20   while True:\n\
        \x20       _, who = s.recvfrom(100)\n\
        \x20       try: s.sendto(b'yes \x1b[31mready', who)\n\
        \x20       except OSError: pass\n\
        os.execv(sys.argv[1], sys.argv[1:])\n";
    let app = fixture().to_str().expect("UTF-8");
    let python = python.to_str().expect("UTF-8");
    let setup = setup.options([python, "-c", squatter, GUARD, "--ready", "notify", "--", app, "serve"]);
    let mut guard = setup.start();
    guard.line("ready");
    let answer = eventually("guard itself", || {
        let answer = beside(&guard, &[GUARD, "ready", "--pid", &guard.pid().to_string()]);
        (answer.code != 125).then_some(answer)
    });
    answer.no("not ready: the app has not said yet that it is ready");
    let answer = beside_as(65533, &guard, &["ready", "--timeout", "500ms"]);
    assert_eq!(answer.code, 125, "another user's yes is not believed: {answer:?}");
    // Another user cannot speak for a guard that hangs.
    guard.signal(libc::SIGSTOP);
    let answer = beside(&guard, &[GUARD, "ready", "--timeout", "500ms"]);
    assert_eq!(answer.code, 124, "{answer:?}");
    guard.signal(libc::SIGCONT);
    // An answer of root's own hides it.
    let answer = beside(&guard, &[GUARD, "ready"]);
    answer.no("not ready: the app has not said yet that it is ready");
}

/// A process of another user that has bound one of the names of a guard's mount namespace.
struct Stranger(Child);

impl Stranger {
    /// What it does with the questions: `silent`, or what it answers.
    fn beside(guard: &Guard, user: u32, number: u32, what: &str) -> Option<Stranger> {
        let script = "import os, socket, sys\n\
            user, number, what = int(sys.argv[1]), sys.argv[2], sys.argv[3]\n\
            s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
            inode = os.stat('/proc/self/ns/mnt').st_ino\n\
            os.setuid(user)\n\
            s.bind(b'\\0guard/%d/%s' % (inode, number.encode()))\n\
            print('bound', flush=True)\n\
            while what == 'silent': input()\n\
            while True:\n\
            \x20   _, who = s.recvfrom(100)\n\
            \x20   try: s.sendto(what.replace('PID', str(os.getpid())).encode(), who)\n\
            \x20   except OSError: pass\n";
        let Some(python) = in_path("python3") else {
            skipped("there is no python3");
            return None;
        };
        let mut command = Command::new(in_path("nsenter").expect("who has unshare has nsenter"));
        command.args(["--target", &guard.pid().to_string(), "--pid", "--mount", "--"]).arg(python);
        command.args(["-c", script, &user.to_string(), &number.to_string(), what]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = common::spawn(&mut command);
        let mut line = [0; 6];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut line).expect("it is bound");
        Some(Stranger(child))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).expect("a pid");
        common::descendants(pid).into_iter().chain([pid]).for_each(|pid| common::send(pid, libc::SIGKILL));
        let _ = self.0.wait();
    }
}

/// How often each is asked: a queue has room for eleven.
const OFTEN: usize = 20;

fn pid1_as_root() -> Option<Setup> {
    let setup = pid1().filter(|_| nix::unistd::geteuid().is_root());
    if setup.is_none() {
        skipped("only root can be another user");
    }
    setup
}

#[test]
fn what_a_stranger_leaves_unread_changes_nothing() {
    let Some(setup) = pid1_as_root() else { return };
    let mut guard = setup.fixture("serve").start();
    guard.line("ready");
    guard.until_yes(&["ready"]);
    let Some(_one) = Stranger::beside(&guard, 65534, 2, "silent") else { return };
    let Some(_two) = Stranger::beside(&guard, 65533, 3, "silent") else { return };
    for _ in 0..OFTEN {
        guard.ask(&["ready"]).yes("ready");
    }
    guard.ask(&["restart"]).yes("restarted: run 2 is ready");
}

#[test]
fn what_a_stranger_answers_changes_nothing_for_root() {
    let Some(setup) = pid1_as_root() else { return };
    let mut guard = setup.fixture("serve").start();
    guard.line("ready");
    guard.until_yes(&["ready"]);
    let Some(_one) = Stranger::beside(&guard, 65534, 2, "yes PID app") else { return };
    let Some(_two) = Stranger::beside(&guard, 65533, 3, "refused for no reason") else { return };
    for _ in 0..OFTEN {
        guard.ask(&["ready"]).yes("ready");
        guard.ask(&["health"]).yes("alive");
    }
    assert_eq!(guard.ask(&["status"]).code, 0);
    let answer = guard.ask(&["stop"]);
    assert!(answer.code == 0 && answer.out.starts_with("stopped: "), "{answer:?}");
}

#[test]
fn nor_where_root_asks_the_guard_of_another_user_that_is_pid_1() {
    let Some(setup) = pid1_as_root() else { return };
    let app = fixture().to_str().expect("UTF-8");
    let setup = setup.program(app).options(["in", "setuid", "65534", "--", GUARD]);
    let mut guard = setup.fixture("serve").start();
    guard.line("ready");
    guard.until_yes(&["ready"]);
    let Some(_silent) = Stranger::beside(&guard, 65533, 2, "silent") else { return };
    let Some(_answers) = Stranger::beside(&guard, 65533, 3, "yes PID app") else { return };
    for _ in 0..OFTEN {
        guard.ask(&["ready"]).yes("ready");
    }
    // Its own user needs no such rule.
    let mut command = guard.client(&["health"]);
    let words: Vec<_> = command.get_args().map(|word| word.to_owned()).collect();
    let (entry, words) = words.split_at(words.len() - 2);
    command = Command::new(command.get_program());
    command.args(entry).args([app, "in", "setuid", "65534", "--"]).args(words);
    Answer::of(begin(&mut command)).yes("alive");
}

#[test]
fn nobody_speaks_for_a_guard_that_hangs() {
    let Some(setup) = pid1_as_root() else { return };
    let mut guard = setup.fixture("serve").start();
    guard.line("ready");
    guard.until_yes(&["ready"]);
    let Some(_yes) = Stranger::beside(&guard, 65534, 2, "yes PID app") else { return };
    let Some(_refuses) = Stranger::beside(&guard, 65534, 3, "refused for no reason") else { return };
    guard.signal(libc::SIGSTOP);
    for _ in 0..OFTEN {
        let answer = guard.ask(&["ready", "--timeout", "50ms"]);
        assert_eq!(answer.code, 124, "{answer:?}");
    }
    guard.signal(libc::SIGCONT);
    guard.until_yes(&["ready"]);
}
