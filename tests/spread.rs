//! Connections to what several instances listen on: each has its share, and none goes to a run that cannot take it while another
//! can (GUARD_HOLD, GUARD_LISTEN).

mod common;

use common::{Answer, Guard, Setup, begin, child, eventually, everywhere, in_path, skipped};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const PYTHON: &str = "/usr/bin/python3";

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
}

fn several(setup: Setup, instances: u32) -> Setup {
    let setup = setup.env("GUARD_INSTANCES", instances.to_string()).env("GUARD_STOP_TIMEOUT", "8s");
    setup.env("GUARD_MAX_RESTARTS", "unlimited").env("GUARD_BACKOFF_INITIAL", "1ms").env("GUARD_BACKOFF_MAX", "1ms")
}

/// A Python server that answers each client with the numbers of its instance and run. `script` comes before it listens.
fn server(script: &str, socket: &str, rest: &str) -> [String; 3] {
    let start = "
import os, signal, socket, sys, threading, time
instance, run = os.environ['GUARD_INSTANCE'], os.environ['GUARD_RUN']
def says(word): os.write(1, f'{instance}.{run} {word}\\n'.encode())
def notify(word):
    one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = os.environ['NOTIFY_SOCKET']
    one.sendto(word, '\\0' + name[1:] if name[0] == '@' else name)
def bound(port):
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(('127.0.0.1', port))
    one.listen(64)
    return one
def serve(server):
    while True:
        client, _ = server.accept()
        client.recv(64)
        client.sendall((instance + '.' + run).encode())
        client.close()
";
    let serve = "says('serves')\nserve(server)\n";
    let serve = if rest.is_empty() { serve } else { rest };
    [PYTHON.to_owned(), "-c".to_owned(), format!("{start}{script}\nserver = {socket}\n{serve}")]
}

/// Which run has answered a client, which must not be refused or reset.
fn ask(port: u16) -> String {
    let mut answer = String::new();
    let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), common::DEADLINE).expect("not refused");
    stream.set_read_timeout(Some(common::DEADLINE)).expect("a timeout");
    let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    stream.read_to_string(&mut answer).expect("not reset");
    answer.rsplit(['\n', ' ']).next().unwrap_or_default().to_owned()
}

/// So many clients, a few at a time: how many each run has answered.
fn clients(port: u16, count: usize) -> BTreeMap<String, usize> {
    const AT_A_TIME: usize = 4;
    let answered = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                for _ in 0..count / AT_A_TIME {
                    let answer = ask(port);
                    *answered.lock().expect("no panic under it").entry(answer).or_insert(0) += 1;
                }
            });
        }
    });
    answered.into_inner().expect("no panic under it")
}

/// Each of four instances has its share of 2,000 connections.
fn each_has_its_share(answered: &BTreeMap<String, usize>, guard: &Guard) {
    assert_eq!(answered.len(), 4, "{answered:?}\n{}", guard.transcript());
    let (least, most) = (answered.values().min().expect("four"), answered.values().max().expect("four"));
    assert!(2 * most <= 3 * least, "{answered:?}");
}

fn all_serve(guard: &mut Guard, count: usize) {
    for _ in 0..count {
        while !guard.line_after("").ends_with("serves") {}
    }
}

#[test]
fn four_node_instances_have_their_shares() {
    let Some(node) = in_path("node") else { return skipped("there is no node") };
    for setup in everywhere() {
        let port = free_port();
        let script = format!(
            "require('http').createServer((q, s) => s.end(' ' + process.env.GUARD_INSTANCE + '.' + process.env.GUARD_RUN))
                .listen({port}, () => console.log('serves'))"
        );
        let app = [node.as_os_str(), "-e".as_ref(), script.as_ref()].map(std::ffi::OsStr::to_owned);
        let mut guard = several(setup, 4).app(app).start();
        all_serve(&mut guard, 4);
        each_has_its_share(&clients(port, 2_000), &guard);
        guard.signal(libc::SIGTERM);
        guard.code();
    }
}

/// Its workers wait for the socket that the main process has opened.
#[test]
fn four_prefork_servers_have_their_shares() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let workers = "
for worker in range(3):
    if os.fork() == 0: serve(server)
says('serves')
signal.pause()
";
        let mut guard = several(setup, 4).app(server("", &format!("bound({port})"), workers)).start();
        all_serve(&mut guard, 4);
        each_has_its_share(&clients(port, 2_000), &guard);
        guard.signal(libc::SIGTERM);
        guard.code();
    }
}

#[test]
fn instances_that_are_handed_their_sockets_have_their_shares() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    let user = nix::unistd::geteuid().is_root().then_some("54321");
    for user in [None, user] {
        for setup in everywhere() {
            let port = free_port();
            let setup = several(setup, 4).env("GUARD_LISTEN", format!("127.0.0.1:{port}"));
            let setup = user.into_iter().fold(setup, |setup, user| setup.env("GUARD_USER", user));
            let mut guard = setup.app(server("", "socket.socket(fileno=3)", "")).start();
            all_serve(&mut guard, 4);
            each_has_its_share(&clients(port, 2_000), &guard);
            let status = guard.ask(&["status"]).out;
            assert_eq!(status.matches("held: ").count(), 1, "once a port: {status}");
            guard.signal(libc::SIGTERM);
            assert_eq!(guard.code(), 143);
        }
    }
}

#[test]
fn no_connection_goes_to_an_instance_that_is_not_ready_while_another_is() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for listen in [false, true] {
        for setup in everywhere() {
            let port = free_port();
            let socket = if listen { "socket.socket(fileno=3)".to_owned() } else { format!("bound({port})") };
            let setup = several(setup, 3).env("GUARD_READY", "notify");
            let setup = if listen { setup.env("GUARD_LISTEN", format!("127.0.0.1:{port}")) } else { setup };
            let rest = "
signal.signal(signal.SIGUSR1, lambda *_: notify(b'READY=1'))
if instance == '1': notify(b'READY=1')
says('serves')
serve(server)
";
            let mut guard = setup.app(server("", &socket, rest)).start();
            all_serve(&mut guard, 3);
            guard.event("ready");
            let answered = clients(port, 100);
            assert_eq!(answered, [("1.1".to_owned(), 100)].into(), "{}", guard.transcript());
            guard.signal(libc::SIGUSR1);
            eventually("all of them", || (clients(port, 100).len() == 3).then_some(()));
            guard.signal(libc::SIGTERM);
            assert_eq!(guard.code(), 143);
        }
    }
}

#[test]
fn no_connection_goes_to_a_run_that_drains_while_another_is_ready() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        // It goes on to accept when it was told to stop.
        let script = "
told = []
def stop(*_):
    told.append(True)
    says('was told')
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR1, lambda *_: os._exit(0) if told else None)
";
        let setup = several(setup, 2);
        let mut guard = setup.app(server(script, &format!("bound({port})"), "")).start();
        all_serve(&mut guard, 2);
        let client = begin(&mut guard.client(&["scale", "1"]));
        guard.line("1.1 was told");
        assert_eq!(clients(port, 100), [("0.1".to_owned(), 100)].into());
        guard.signal(libc::SIGUSR1);
        Answer::of(client).yes("scaled: 1 instance");
    }
}

/// A server that closes its listener when it is told to stop, and finishes what it has accepted.
fn graceful(setup: Setup, socket: &str) -> Guard {
    let script = "
def stop(*_):
    server.close()
    says('closed')
    threading.Timer(.05, lambda: os._exit(0)).start()
signal.signal(signal.SIGTERM, stop)
";
    let rest = "
def one(client):
    client.recv(64)
    time.sleep(.002)
    client.sendall((instance + '.' + run).encode())
    client.close()
says('serves')
while True:
    try: client, _ = server.accept()
    except OSError: break
    threading.Thread(target=one, args=(client,)).start()
signal.pause()
";
    setup.app(server(script, socket, rest)).start()
}

/// So many sockets listen at a port.
fn listeners(guard: &Guard, port: u16) -> usize {
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", guard.pid())).expect("guard lives");
    table.matches(&format!(" 0100007F:{port:04X} 00000000:0000 0A ")).count()
}

/// Does something under load, in which nobody is refused or reset.
fn under_load(port: u16, something: impl FnOnce(&dyn Fn())) {
    let (ends, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let load = || {
            while !ends.load(Ordering::Relaxed) {
                assert!(!ask(port).is_empty(), "an answer");
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        let _end = Defer(&ends);
        something(&|| {
            let before = count.load(Ordering::Relaxed);
            eventually("answers", || {
                let fails = clients.iter().any(|client| client.is_finished());
                (fails || count.load(Ordering::Relaxed) > before + 20).then_some(())
            });
        });
    });
}

/// Tells the clients to end.
struct Defer<'a>(&'a AtomicBool);

impl Drop for Defer<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn nobody_is_refused_or_reset_over_reloads() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for (instances, reloads) in [(1, 10), (3, 3)] {
        for setup in everywhere() {
            let port = free_port();
            let setup = several(setup, instances).env("GUARD_HOLD", "on").env("GUARD_HOLD_TIMEOUT", "1s");
            let mut guard = graceful(setup, &format!("bound({port})"));
            all_serve(&mut guard, usize::try_from(instances).expect("a few"));
            under_load(port, |some_more| {
                for _ in 0..reloads {
                    let answer = guard.ask(&["reload"]);
                    assert_eq!(answer.code, 0, "{answer:?}\n{}", guard.transcript());
                    some_more();
                }
            });
            guard.signal(libc::SIGTERM);
            guard.code();
        }
    }
}

/// guard opens the port as root, and may not open it again as the user that it becomes.
#[test]
fn instances_share_a_privileged_port_of_a_guard_that_has_dropped_its_rights() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if !nix::unistd::geteuid().is_root() || first.trim() != "1024" {
        return skipped("only root may become another user, and ports below 1024 are to be root's");
    }
    for setup in everywhere() {
        // Others may look for such a port at the same time.
        let from = 512 + std::process::id() as u16 % 256;
        let port = (from..1024).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a port");
        let setup = several(setup, 3).env("GUARD_LISTEN", format!("127.0.0.1:{port}")).env("GUARD_USER", "54321");
        let mut guard = graceful(setup, "socket.socket(fileno=3)");
        all_serve(&mut guard, 3);
        under_load(port, |some_more| {
            some_more();
            assert_eq!(listeners(&guard, port), 1);
            for words in [&["reload"][..], &["scale", "1"], &["scale", "4"], &["restart"]] {
                let answer = guard.ask(words);
                assert_eq!(answer.code, 0, "{answer:?}\n{}", guard.transcript());
                some_more();
            }
        });
        assert_eq!(listeners(&guard, port), 1);
        guard.signal(libc::SIGTERM);
        guard.code();
    }
}

#[test]
fn nobody_is_refused_or_reset_while_instances_come_and_go() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let setup = several(setup, 4).env("GUARD_HOLD_TIMEOUT", "1s");
        let mut guard = graceful(setup, &format!("bound({port})"));
        all_serve(&mut guard, 4);
        under_load(port, |some_more| {
            for number in ["1", "4", "2", "4", "1"] {
                let answer = guard.ask(&["scale", number]);
                assert_eq!(answer.code, 0, "{answer:?}\n{}", guard.transcript());
                some_more();
            }
        });
        // What is left over is closed, and nothing else is.
        eventually("one socket", || (listeners(&guard, port) == 1).then_some(()));
        assert_eq!(clients(port, 20).len(), 1);
        guard.signal(libc::SIGTERM);
        guard.code();
    }
}

#[test]
fn what_a_crashed_instance_leaves_in_its_queue_the_next_run_serves() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        // The first run of instance 1 accepts nobody, and ends when it is told.
        let rest = "
signal.signal(signal.SIGUSR1, lambda *_: os._exit(1) if (instance, run) == ('1', '1') else None)
says('serves')
while (instance, run) == ('1', '1'): signal.pause()
serve(server)
";
        let mut guard = several(setup, 2).app(server("", &format!("bound({port})"), rest)).start();
        all_serve(&mut guard, 2);
        let mut waiting: Vec<TcpStream> =
            (0..20).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("not refused")).collect();
        waiting.iter_mut().for_each(|stream| stream.write_all(b"hello").expect("it is open"));
        guard.signal(libc::SIGUSR1);
        let mut answers = BTreeMap::new();
        for stream in &mut waiting {
            let mut answer = String::new();
            stream.set_read_timeout(Some(common::DEADLINE)).expect("a timeout");
            stream.read_to_string(&mut answer).expect("an answer");
            *answers.entry(answer).or_insert(0) += 1;
        }
        let runs: Vec<&str> = answers.keys().map(String::as_str).collect();
        assert_eq!(runs, ["0.1", "1.2"], "{}", guard.transcript());
        guard.signal(libc::SIGTERM);
        guard.code();
    }
}

/// What is done while a run stops that no other follows, and the run that ends then.
struct WhileStopping {
    instances: u32,
    /// What has some runs stop, and what the last of them says.
    commands: Vec<(&'static [&'static str], &'static [&'static str])>,
    ends: (&'static str, &'static str),
    serves: (&'static str, &'static str),
}

#[test]
fn clients_wait_for_the_next_run_and_not_for_one_that_nobody_follows() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    let reload: (&'static [_], &'static [_]) = (&["reload"], &["0.2 serves", "0.1 was told"]);
    let cases = [
        // The new run of a reload crashes.
        WhileStopping { instances: 1, commands: vec![reload], ends: ("0", "2"), serves: ("0", "3") },
        // It is restarted.
        WhileStopping {
            instances: 1,
            commands: vec![reload, (&["restart"], &["0.2 was told"])],
            ends: ("0", "2"),
            serves: ("0", "3"),
        },
        // An instance leaves.
        WhileStopping {
            instances: 2,
            commands: vec![(&["scale", "1"], &["1.1 was told"]), (&["restart"], &["0.1 was told"])],
            ends: ("0", "1"),
            serves: ("0", "2"),
        },
    ];
    for case in cases {
        let (port, ends, serves) = (free_port(), case.ends, case.serves);
        let rest = format!(
            "
signal.signal(signal.SIGTERM, lambda *_: says('was told'))
signal.signal(signal.SIGUSR1, lambda *_: os._exit(1) if (instance, run) == {ends:?} else None)
signal.signal(signal.SIGUSR2, lambda *_: os._exit(0))
says('serves')
while (instance, run) != {serves:?}: signal.pause()
serve(server)
"
        );
        for socket in ["handed", "bound"] {
            let setup = several(child(), case.instances).env("GUARD_READY", "listen").env("GUARD_HOLD", "on");
            let (setup, socket) = match socket {
                "handed" => (
                    setup
                        .env("GUARD_LISTEN", format!("127.0.0.1:{port}"))
                        .env("GUARD_HOLD", "off")
                        .env("GUARD_READY", "exec"),
                    "socket.socket(fileno=3)".to_owned(),
                ),
                _ => (setup, format!("bound({port})")),
            };
            let mut guard = setup.app(server("", &socket, &rest)).start();
            all_serve(&mut guard, case.instances.try_into().expect("a few"));
            let mut asking = Vec::new();
            for (command, said) in &case.commands {
                asking.push(begin(&mut guard.client(command)));
                guard.lines(said);
            }
            let mut waiting: Vec<TcpStream> =
                (0..8).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("not refused")).collect();
            waiting.iter_mut().for_each(|stream| stream.write_all(b"hello").expect("it is open"));
            guard.signal(libc::SIGUSR1);
            for stream in &mut waiting {
                let mut answer = String::new();
                stream.set_read_timeout(Some(common::DEADLINE)).expect("a timeout");
                stream.read_to_string(&mut answer).expect("not reset");
                assert_eq!(answer, format!("{}.{}", serves.0, serves.1), "{}", guard.transcript());
            }
            guard.signal(libc::SIGUSR2);
            guard.code();
            asking.into_iter().for_each(|client| _ = Answer::of(client));
        }
    }
}

/// New connections were led away from the old run of a reload, which has not been told to stop yet. The new one ends, and the next one
/// serves whoever waits.
#[test]
fn clients_of_a_new_run_that_is_restarted_at_once_are_served_by_the_next() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for is_handed in [false, true] {
        let port = free_port();
        let (setup, socket) = if is_handed {
            let setup = several(child(), 1).env("GUARD_LISTEN", format!("127.0.0.1:{port}"));
            (setup.env("GUARD_READY", "exec"), "socket.socket(fileno=3)".to_owned())
        } else {
            (several(child(), 1).env("GUARD_HOLD", "on").env("GUARD_READY", "listen"), format!("bound({port})"))
        };
        let rest = "
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
says('serves')
while run != '3': signal.pause()
serve(server)
";
        let setup = setup.env("GUARD_SIGNAL_MAP", "USR1=reload,USR2=restart");
        let mut guard = setup.app(server("", &socket, rest)).start();
        all_serve(&mut guard, 1);
        guard.signal(libc::SIGUSR1);
        guard.event("reload");
        let mut waiting: Vec<TcpStream> =
            (0..8).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("not refused")).collect();
        waiting.iter_mut().for_each(|stream| stream.write_all(b"hello").expect("it is open"));
        guard.signal(libc::SIGUSR2);
        for stream in &mut waiting {
            let mut answer = String::new();
            stream.set_read_timeout(Some(common::DEADLINE)).expect("a timeout");
            stream.read_to_string(&mut answer).expect("not reset");
            assert_eq!(answer, "0.3", "{}", guard.transcript());
        }
        guard.signal(libc::SIGTERM);
        guard.code();
    }
}

#[test]
fn a_run_that_shuts_its_listener_down_harms_nobody_else() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        // Those of instance 0 stand first in the group. Instance 2 is not ready.
        let rest = "
is_first = (instance, run) == ('0', '1')
def shut(*_):
    server.shutdown(socket.SHUT_RDWR)
    says('shut')
signal.signal(signal.SIGUSR1, shut if is_first else signal.SIG_IGN)
signal.signal(signal.SIGUSR2, (lambda *_: os._exit(1)) if is_first else signal.SIG_IGN)
says('serves')
if instance != '2': notify(b'READY=1')
while is_first: signal.pause()
serve(server)
";
        let setup = several(setup, 3).env("GUARD_READY", "notify");
        let mut guard = setup.app(server("", &format!("bound({port})"), rest)).start();
        all_serve(&mut guard, 3);
        guard.event("ready");
        guard.event("ready");
        guard.signal(libc::SIGUSR1);
        guard.line("0.1 shut");
        // guard hears of it a moment later.
        eventually("the right numbers", || (clients(port, 100) == [("1.1".to_owned(), 100)].into()).then_some(()));
        // The next run has a socket that listens.
        guard.signal(libc::SIGUSR2);
        guard.event("ready");
        eventually("both of them", || {
            let answered = clients(port, 40);
            assert!(!answered.contains_key("2.1"), "{answered:?}");
            (answered.len() == 2).then_some(())
        });
        guard.signal(libc::SIGTERM);
        guard.code();
    }
}

/// guard stands still meanwhile, so it hears of both at once.
#[test]
fn a_run_that_shuts_its_listener_down_and_ends_harms_nobody_else() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let rest = "
def end(*_):
    server.shutdown(socket.SHUT_RDWR)
    os._exit(1)
signal.signal(signal.SIGUSR1, end)
os.write(1, f'{os.getpid()} is {instance}.{run}\\n'.encode())
if instance != '2': notify(b'READY=1')
serve(server)
";
        let setup = several(setup, 3).env("GUARD_READY", "notify");
        let mut guard = setup.app(server("", &format!("bound({port})"), rest)).start();
        let mut of_first = 0;
        for _ in 0..3 {
            let line = guard.line_after("");
            let (pid, name) = line.split_once(" is ").expect("both");
            if name == "0.1" {
                of_first = pid.parse().expect("a pid");
            }
        }
        guard.event("ready");
        guard.event("ready");
        let pid = guard.pid_outside(of_first);
        guard.signal(libc::SIGSTOP);
        guard.signal_inside(of_first, libc::SIGUSR1);
        let status = format!("/proc/{pid}/stat");
        eventually("its end", || std::fs::read_to_string(&status).ok()?.contains(") Z ").then_some(()));
        guard.signal(libc::SIGCONT);
        guard.event("ready");
        // The socket of instance 0 is the last of the group now, that of instance 2 the first.
        let answered = clients(port, 120);
        assert_eq!(answered.keys().collect::<Vec<_>>(), ["0.2", "1.1"], "{answered:?}");
        guard.signal(libc::SIGTERM);
        guard.code();
    }
}

/// guard stands still meanwhile, so nothing tells it who was the first. The kernel has put the last two sockets in the places of the
/// two that were shut down.
#[test]
fn two_runs_that_shut_their_listeners_down_at_once_harm_nobody_else() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for order in [["0.1", "1.1"], ["1.1", "0.1"]] {
        for setup in everywhere() {
            let port = free_port();
            let rest = "
def shut(*_):
    server.shutdown(socket.SHUT_RDWR)
    says('shut')
is_shut = int(instance) < 2 and run == '1'
signal.signal(signal.SIGUSR1, shut if is_shut else lambda *_: notify(b'READY=1'))
says(f'is {os.getpid()}')
if instance != '3': notify(b'READY=1')
while is_shut: signal.pause()
serve(server)
";
            let setup = several(setup, 5).env("GUARD_LISTEN", format!("127.0.0.1:{port}"));
            let setup = setup.env("GUARD_READY", "notify");
            let mut guard = setup.app(server("", "socket.socket(fileno=3)", rest)).start();
            let pids: BTreeMap<String, i32> = (0..5)
                .map(|_| {
                    let line = guard.line_after("");
                    let (name, pid) = line.split_once(" is ").expect("both");
                    (name.to_owned(), pid.parse().expect("a pid"))
                })
                .collect();
            for _ in 0..4 {
                guard.event("ready");
            }
            let shut = order.map(|name| (name, guard.pid_outside(pids[name])));
            guard.signal(libc::SIGSTOP);
            for (name, pid) in shut {
                common::send(pid, libc::SIGUSR1);
                guard.line(&format!("{name} shut"));
            }
            guard.signal(libc::SIGCONT);
            // An answer tells that guard has heard of it.
            assert_eq!(guard.ask(&["health"]).code, 0);
            let answered = clients(port, 100);
            assert!(!answered.contains_key("3.1"), "not ready: {order:?}, {answered:?}");
            // All of them are ready now.
            guard.signal_inside(pids["3.1"], libc::SIGUSR1);
            guard.event("ready");
            assert_eq!(clients(port, 100).into_keys().collect::<Vec<_>>(), ["2.1", "3.1", "4.1"]);
            for (_, pid) in shut {
                common::send(pid, libc::SIGKILL);
            }
            guard.event("ready");
            guard.event("ready");
            let answered = clients(port, 200).into_keys().collect::<Vec<_>>();
            assert_eq!(answered, ["0.2", "1.2", "2.1", "3.1", "4.1"]);
            guard.signal(libc::SIGTERM);
            guard.code();
        }
    }
}

/// All of them have bound before any of them listens. Instance 1 accepts nobody.
#[test]
fn where_the_kernel_takes_no_program_instances_share_a_socket() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let script = "
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(('127.0.0.1', PORT))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
says('has bound')
signal.sigwait([signal.SIGUSR1])
server.listen(64)
says('listens')
";
        let rest = "
while instance == '1': signal.pause()
serve(server)
";
        let setup = several(setup, 2).inherits("forbid lead").env("GUARD_HOLD", "on");
        let mut guard = setup.app(server(&script.replace("PORT", &port.to_string()), "server", rest)).start();
        guard.lines(&["0.1 has bound", "1.1 has bound"]);
        guard.signal(libc::SIGUSR1);
        guard.lines(&["0.1 listens", "1.1 listens"]);
        assert_eq!(clients(port, 40), [("0.1".to_owned(), 40)].into());
        guard.signal(libc::SIGTERM);
        guard.code();
    }
}

/// Nobody knows whose next run comes first.
#[test]
fn clients_that_come_when_all_are_down_are_served_by_the_first_run_that_listens() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let script = "
if run == '2':
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    says('waits')
    while instance == '1': signal.pause()
    signal.sigwait([signal.SIGUSR1])
";
        let setup = several(setup, 2).env("GUARD_HOLD", "on");
        let mut guard = setup.app(server(script, &format!("bound({port})"), "")).start();
        all_serve(&mut guard, 2);
        guard.signal(libc::SIGUSR1);
        guard.lines(&["0.2 waits", "1.2 waits"]);
        let (waiting, all) = (AtomicUsize::new(0), 20);
        std::thread::scope(|scope| {
            for _ in 0..all {
                scope.spawn(|| {
                    let address = ([127, 0, 0, 1], port).into();
                    let mut stream = TcpStream::connect_timeout(&address, common::DEADLINE).expect("not refused");
                    waiting.fetch_add(1, Ordering::SeqCst);
                    stream.set_read_timeout(Some(common::DEADLINE)).expect("a timeout");
                    let mut answer = String::new();
                    stream.write_all(b"hello").expect("not reset");
                    stream.read_to_string(&mut answer).expect("not reset");
                    assert_eq!(answer, "0.2");
                });
            }
            eventually("all wait", || (waiting.load(Ordering::SeqCst) == all).then_some(()));
            guard.signal(libc::SIGUSR1);
        });
        guard.signal(libc::SIGTERM);
        guard.code();
    }
}

/// The process lives on, and guard cannot see that it has closed its socket, only that clients wait there.
#[test]
fn an_instance_that_has_closed_its_listener_gets_no_connection_for_long() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let rest = "
if instance == '0':
    server.close()
    says('serves')
    while True: signal.pause()
says('serves')
serve(server)
";
        let setup = several(setup, 2).env("GUARD_HOLD", "on");
        let mut guard = setup.app(server("", &format!("bound({port})"), rest)).start();
        all_serve(&mut guard, 2);
        let client = || {
            let mut client = TcpStream::connect(("127.0.0.1", port)).expect("not refused");
            client.write_all(b"hello").expect("not reset");
            client
        };
        let queue = || guard.ask(&["status"]).out;
        let mut waiting = Vec::new();
        eventually("clients wait in vain", || {
            waiting.push(client());
            (!queue().contains("queue 0 ")).then_some(())
        });
        let all_are_answered = || {
            let clients: Vec<TcpStream> = (0..20).map(|_| client()).collect();
            clients.into_iter().all(|mut client| {
                let mut answer = String::new();
                client.set_read_timeout(Some(std::time::Duration::from_millis(300))).expect("a timeout");
                client.read_to_string(&mut answer).is_ok()
            })
        };
        eventually("guard leads past the closed one", || all_are_answered().then_some(()));
        guard.signal(libc::SIGTERM);
        guard.code();
    }
}

/// The address of an earlier run is no obstacle.
#[test]
fn a_run_may_listen_on_an_address_that_overlaps_with_the_last_ones() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let listens = "
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(('127.0.0.1' if run == '1' else '0.0.0.0', PORT))
server.listen(64)
";
        let listens = listens.replace("PORT", &port.to_string());
        let setup = several(setup, 1).env("GUARD_HOLD", "on");
        let mut guard = setup.app(server(&listens, "server", "")).start();
        guard.line("0.1 serves");
        guard.ask(&["restart"]).yes("restarted: run 2 is ready");
        assert_eq!(clients(port, 4), [("0.2".to_owned(), 4)].into());
        guard.signal(libc::SIGTERM);
        guard.code();
    }
}

#[test]
fn a_single_run_that_shuts_its_listener_down_is_replaced_by_a_reload() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let rest = "
def shut(*_):
    server.shutdown(socket.SHUT_RDWR)
    says('shut')
signal.signal(signal.SIGUSR1, shut if run == '1' else signal.SIG_IGN)
says('serves')
if run == '1':
    while True: signal.pause()
serve(server)
";
        let setup = several(setup, 1).env("GUARD_HOLD", "on");
        let mut guard = setup.app(server("", &format!("bound({port})"), rest)).start();
        all_serve(&mut guard, 1);
        guard.signal(libc::SIGUSR1);
        guard.line("0.1 shut");
        for run in 2..5 {
            guard.ask(&["reload"]).yes(&format!("reloaded: run {run} is ready"));
            assert_eq!(clients(port, 40), [(format!("0.{run}"), 40)].into(), "{}", guard.transcript());
        }
        guard.signal(libc::SIGTERM);
        guard.code();
    }
}

#[test]
fn a_port_of_which_another_shares_the_address_is_in_use() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let other = format!(
            "import socket, sys; one = socket.socket(); one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
one.bind(('127.0.0.1', {port})); one.listen(); print('listens', flush=True); sys.stdin.read()"
        );
        let mut command = std::process::Command::new(PYTHON);
        let mut other = common::spawn(command.args(["-c", &other]).stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut line = [0; 8];
        other.stdout.as_mut().expect("a pipe").read_exact(&mut line).expect("it listens");
        let setup = setup.env("GUARD_LISTEN", format!("127.0.0.1:{port}")).env("GUARD_INSTANCES", "2");
        let mut guard = setup.fixture("serve").start();
        assert_eq!(guard.code(), 125);
        assert!(guard.err().iter().any(|line| line.contains("another process has this port")), "{:?}", guard.err());
        drop(other.stdin.take());
        other.wait().expect("it ends");
    }
}

#[test]
fn when_all_instances_are_down_clients_wait_and_then_are_refused_and_then_served() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let script =
            "if run != '1' and int(run) < 3: sys.exit(1)\nsignal.signal(signal.SIGUSR1, lambda *_: os._exit(1))";
        let setup = several(setup, 2).env("GUARD_HOLD_TIMEOUT", "300ms");
        let setup = setup.env("GUARD_BACKOFF_INITIAL", "10m").env("GUARD_BACKOFF_MAX", "10m");
        let mut guard = setup.app(server(script, &format!("bound({port})"), "")).start();
        all_serve(&mut guard, 2);
        guard.signal(libc::SIGUSR1);
        guard.event("not-held");
        let refused = TcpStream::connect(("127.0.0.1", port)).expect_err("no run for too long");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err(), "the port is still guard's");
        assert_eq!(guard.ask(&["restart"]).code, 0);
        guard.event("held-again");
        all_serve(&mut guard, 2);
        let answered = eventually("both of them", || Some(clients(port, 40)).filter(|answered| answered.len() == 2));
        assert_eq!(answered.values().sum::<usize>(), 40);
        guard.signal(libc::SIGTERM);
        guard.code();
        let refused = TcpStream::connect(("127.0.0.1", port)).expect_err("it was let go");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let told: Vec<_> = guard.events().into_iter().filter(|event| event.name() == "held").collect();
        assert!(told.len() == 1 && told[0].get("instance").is_some(), "once a port: {}", guard.transcript());
    }
}
