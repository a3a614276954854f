//! GUARD_HOLD: what an app that knows nothing of guard listens on outlives its runs.

use crate::common::processes::{limit_processes, of_another_user};
use crate::common::{self, DEADLINE, Guard, Setup, eventually, everywhere, in_path, pid1, skipped, without_ptrace};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const PYTHON: &str = "/usr/bin/python3";

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
}

/// Guard with an app that may crash as often as it likes.
fn holding(setup: Setup) -> Setup {
    let setup = setup.env("GUARD_HOLD", "on").env("GUARD_MAX_RESTARTS", "unlimited").env("GUARD_STOP_TIMEOUT", "8s");
    setup.env("GUARD_BACKOFF_INITIAL", "1ms").env("GUARD_BACKOFF_MAX", "1ms")
}

/// The old run of a reload and the new one share the port, so a check could be answered by either. The old one had a helper of another
/// user, too, which guard may not look at.
#[test]
fn a_health_check_that_another_run_would_answer_makes_no_run_ready() {
    let helper = format!("fork setuid 65534 listen {} exit 0 .", free_port());
    let with_helper = without_ptrace().into_iter().map(|setup| (setup, helper.as_str()));
    for (setup, helper) in everywhere().into_iter().map(|setup| (setup, "")).chain(with_helper) {
        let port = free_port();
        let setup = holding(setup).env("GUARD_HEALTH_CHECK", format!("tcp://127.0.0.1:{port}"));
        let setup = setup.env("GUARD_READY_TIMEOUT", "1s").env("FIXTURE", common::fixture());
        let app = format!("[ $GUARD_RUN = 1 ] && exec $FIXTURE {helper} listen {port} serve; exec $FIXTURE serve");
        let mut guard = setup.app(["sh", "-c", &app]).start();
        guard.event("ready");
        let answer = guard.ask(&["reload"]);
        assert_eq!(answer.code, 1, "{answer:?}\n{}", guard.transcript());
        let why = guard.event("failing").line;
        assert!(why.contains(&format!("the app does not listen on port {port}")), "{why}");
        TcpStream::connect(("127.0.0.1", port)).expect("the old run serves");
        assert!(guard.ask(&["status"]).out.contains("\n0         1    "), "{}", guard.transcript());
    }
}

/// The pid of the main process, as the tests see it.
fn main_pid(guard: &Guard) -> i32 {
    let status = guard.ask(&["status", "--json"]).out;
    let pid = status.split(r#""run":"#).nth(1).and_then(|rest| rest.split(r#""pid":"#).nth(1)?.split(',').next());
    guard.pid_outside(pid.expect("a pid").parse().expect("a run lives"))
}

/// Kills the app again and again under load. Nobody is refused.
fn survives_kills(mut guard: Guard, port: u16, kills: usize) {
    guard.event("held");
    guard.event("ready");
    let (ends, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let refused = std::thread::scope(|scope| {
        let load = || {
            let mut refused = 0;
            while !ends.load(Ordering::Relaxed) {
                match TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), common::DEADLINE) {
                    Ok(mut stream) => {
                        count.fetch_add(1, Ordering::Relaxed);
                        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
                        let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
                        let _ = stream.read(&mut [0; 64]);
                    }
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            refused
        };
        let load = scope.spawn(load);
        for _ in 0..kills {
            let before = count.load(Ordering::Relaxed);
            eventually("some load", || (count.load(Ordering::Relaxed) > before + 3).then_some(()));
            common::send(main_pid(&guard), libc::SIGKILL);
            guard.event("restart");
            guard.event("ready");
        }
        ends.store(true, Ordering::Relaxed);
        load.join().expect("no other error")
    });
    assert_eq!(refused, 0, "of {}", count.load(Ordering::Relaxed));
    let status = guard.ask(&["status"]).out;
    assert!(status.contains(&format!("{port}, ")) && status.contains("held: "), "{status}");
    guard.signal(libc::SIGTERM);
    guard.code();
    assert_eq!(guard.events().iter().filter(|event| event.name() == "held").count(), 1, "once a port");
    let refused = TcpStream::connect(("127.0.0.1", port)).expect_err("it was let go");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn nobody_is_refused_while_a_python_server_crashes() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let app = [PYTHON, "-m", "http.server", &port.to_string()].map(str::to_owned);
        survives_kills(holding(setup).app(app).start(), port, 5);
    }
}

#[test]
fn nobody_is_refused_while_a_node_server_crashes() {
    let Some(node) = in_path("node") else { return skipped("there is no node") };
    for setup in everywhere() {
        let port = free_port();
        let script = format!("require('http').createServer((q, s) => s.end('hi')).listen({port})");
        let app = [node.as_os_str(), "-e".as_ref(), script.as_ref()].map(std::ffi::OsStr::to_owned);
        survives_kills(holding(setup).app(app).start(), port, 5);
    }
}

#[test]
fn nobody_is_refused_while_redis_crashes() {
    let Some(redis) = in_path("redis-server") else { return skipped("there is no redis-server") };
    for setup in everywhere() {
        let port = free_port();
        let directory = tempfile::tempdir().expect("a directory");
        let words = ["--port", &port.to_string(), "--save", "", "--bind", "127.0.0.1"].map(std::ffi::OsString::from);
        let app = [redis.clone().into_os_string()].into_iter().chain(words);
        survives_kills(holding(setup).env("GUARD_CHDIR", directory.path()).app(app).start(), port, 5);
    }
}

#[test]
fn nobody_is_refused_while_gunicorn_crashes() {
    let Some(gunicorn) = in_path("gunicorn") else { return skipped("there is no gunicorn") };
    for setup in everywhere() {
        let port = free_port();
        let directory = tempfile::tempdir().expect("a directory");
        let app = "def app(environ, start):\n    start('200 OK', [])\n    return [b'hi']\n";
        std::fs::write(directory.path().join("served.py"), app).expect("a file");
        let bind = format!("127.0.0.1:{port}");
        let words = ["--bind", &bind, "--workers", "2", "served:app"].map(std::ffi::OsString::from);
        let app = [gunicorn.clone().into_os_string()].into_iter().chain(words);
        survives_kills(holding(setup).env("GUARD_CHDIR", directory.path()).app(app).start(), port, 3);
    }
}

/// A Python app: `server` binds and listens, `says` prints.
fn python(setup: Setup, script: &str) -> Setup {
    let start = "
import os, signal, socket, sys, threading, time, errno
run = int(os.environ['GUARD_RUN'])
def says(*words): print(*words, flush=True)
def server(family, address, v6=None, backlog=100):
    one = socket.socket(family)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if v6 is not None: one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6)
    one.bind(address)
    one.listen(backlog)
    return one
";
    setup.app([PYTHON, "-c", &format!("{start}{script}")])
}

/// The app greets a client.
fn is_greeted(port: u16) {
    let mut greeting = [0; 5];
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("a server");
    client.read_exact(&mut greeting).expect("an answer");
    assert_eq!(&greeting, b"hello");
}

#[test]
fn a_socket_is_made_as_the_app_has_made_its_own() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let (first, second, third) = (free_port(), free_port(), free_port());
        let script = format!(
            "
four = server(socket.AF_INET, ('127.0.0.1', {first}))
both = server(socket.AF_INET6, ('::', {second}), 0)
only = server(socket.AF_INET6, ('::', {third}), 1)
says('names', four.getsockname()[:2], both.getsockname()[:2], only.getsockname()[:2])
says('only', both.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), only.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
import fcntl
says('blocks', [fcntl.fcntl(one, fcntl.F_GETFL) & os.O_NONBLOCK for one in (four, both)], 'closes', fcntl.fcntl(four, fcntl.F_GETFD))
swift = socket.socket(socket.AF_INET)
swift.setblocking(False)
swift.set_inheritable(True)
swift.bind(('127.0.0.2', {first}))
says('swift', fcntl.fcntl(swift, fcntl.F_GETFL) & os.O_NONBLOCK != 0, fcntl.fcntl(swift, fcntl.F_GETFD))
quick = socket.socket(socket.AF_INET)
quick.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
quick.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100000)
before = quick.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
quick.bind(('127.0.0.4', {first}))
says('quick', quick.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), quick.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == before)
any = server(socket.AF_INET, ('127.0.0.1', 0))
says('any', any.getsockname()[1] > 0)
path = socket.socket(socket.AF_UNIX)
path.bind('\\0guard-test-%d' % os.getpid())
path.listen()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(('127.0.0.1', {first}))
try: server(socket.AF_INET, ('192.0.2.1', {first}))
except OSError as error: says('error', errno.errorcode[error.errno])
try: socket.socket(socket.AF_INET).bind(('127.0.0.1', 'x'))
except TypeError: pass
if run == 1: sys.exit(1)
says('end')
signal.pause()
"
        );
        let mut guard = python(holding(setup), &script).start();
        for _run in 1..=2 {
            let names = format!("names ('127.0.0.1', {first}) ('::', {second}) ('::', {third})");
            guard.line(&names);
            guard.line("only 0 1");
            guard.line("blocks [0, 0] closes 1");
            guard.line("swift True 0");
            guard.line("quick 1 True");
            guard.line("any True");
            guard.line("error EADDRNOTAVAIL");
        }
        guard.line("end");
        let status = guard.ask(&["status"]).out;
        assert_eq!(status.matches("held: ").count(), 3, "{status}");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// As on a starved CPU: the address lies in memory that comes late (`userfaultfd(2)`), and the copy of guard that reads it ends
/// after a second.
#[test]
fn a_bind_that_guard_could_not_read_in_time_is_looked_at_once_more() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let script = format!(
            "
import ctypes, fcntl, mmap, struct
libc = ctypes.CDLL(None, use_errno=True)
API, REGISTER, COPY = 0xc018aa3f, 0xc020aa00, 0xc028aa03
faults = libc.syscall({number}, os.O_CLOEXEC)
says('faults' if faults >= 0 else 'no faults')
fcntl.ioctl(faults, API, struct.pack('3Q', 0xaa, 0, 0))
page, source = mmap.mmap(-1, 4096), mmap.mmap(-1, 4096)
page_at, source_at = [ctypes.addressof(ctypes.c_char.from_buffer(one)) for one in (page, source)]
fcntl.ioctl(faults, REGISTER, struct.pack('4Q', page_at, 4096, 1, 0))
source.write(struct.pack('=H', socket.AF_INET) + struct.pack('>H4B', {port}, 127, 0, 0, 1))
def answer():
    for _ in range(run): os.read(faults, 32)
    fcntl.ioctl(faults, COPY, struct.pack('5Q', page_at, source_at, 4096, 0, 0))
threading.Thread(target=answer).start()
one = socket.socket()
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if libc.bind(one.fileno(), ctypes.c_void_p(page_at), 16) == 0:
    one.listen()
    says('listens')
    if run < 3: sys.exit(1)
says('error', errno.errorcode[ctypes.get_errno()])
signal.pause()
",
            number = libc::SYS_userfaultfd
        );
        let mut guard = python(holding(setup), &script).start();
        if guard.line_after("") == "no faults" {
            skipped("userfaultfd(2) is not permitted");
            continue;
        }
        // The first run's copy reads it, the second run's second copy, and neither copy of the third run.
        guard.line("listens");
        guard.line("listens");
        // guard has let go of the address, so that the app binds it as ever.
        guard.event("not-held");
        guard.line("listens");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// guard's duplicate would keep the connection open that the app has closed.
#[test]
fn the_connection_of_a_client_that_has_bound_its_end_closes_with_the_app() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let server = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (to, from) = (server.local_addr().expect("an address").port(), free_port());
        let script = format!(
            "
one = socket.socket(socket.AF_INET)
one.bind(('127.0.0.1', {from}))
one.connect(('127.0.0.1', {to}))
one.close()
says('closed')
signal.pause()
"
        );
        let mut guard = python(holding(setup).env("GUARD_READY", "exec"), &script).start();
        let (mut stream, peer) = server.accept().expect("a client");
        assert_eq!(peer.port(), from);
        stream.set_read_timeout(Some(common::DEADLINE)).expect("a timeout");
        assert_eq!(stream.read(&mut [0; 8]).expect("the end"), 0);
        guard.line("closed");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn a_port_that_another_has_is_the_apps_error() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let script = format!(
            "
try: server(socket.AF_INET, ('127.0.0.1', {port}))
except OSError as error: says('error', errno.errorcode[error.errno])
sys.exit(0)
"
        );
        let mut guard = python(holding(setup), &script).start();
        guard.line("error EADDRINUSE");
        assert_eq!(guard.code(), 0);
    }
}

/// As libraries do that look for a free port.
#[test]
fn an_app_that_tries_addresses_and_closes_them_gets_the_one_that_it_serves() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let script = format!(
            "
one, all = [(socket.AF_INET, (host, {port})) for host in ('127.0.0.1', '0.0.0.0')]
both = socket.AF_INET6, ('::', {port})
for address in (one, all, one, both, one): server(*address).close()
kept = server(*all)
def fails(address):
    try: server(*address)
    except OSError as error: says('error', errno.errorcode[error.errno])
fails(one)
child = os.fork()
if child == 0: signal.pause()
kept.close()
fails(one)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
kept = server(*one)
says('serves')
signal.pause()
"
        );
        let mut guard = python(holding(setup), &script).start();
        guard.line("error EADDRINUSE");
        guard.line("error EADDRINUSE");
        guard.line("serves");
        TcpStream::connect(("127.0.0.1", port)).expect("a server");
        let status = guard.ask(&["status"]).out;
        assert_eq!(status.matches("held: ").count(), 1, "{status}");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// A copy of guard reads the address from the app's memory.
#[test]
fn a_bind_waits_where_no_process_can_be_made_and_the_log_says_so() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    let Some((setup, user)) = of_another_user() else { return };
    let port = free_port();
    let script = format!(
        "
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
says('waits')
signal.sigwait([signal.SIGUSR1])
one = server(socket.AF_INET, ('127.0.0.1', {port}))
signal.pause()
"
    );
    let mut guard = python(holding(setup), &script).start();
    guard.line("waits");
    limit_processes(&guard, &user, 1);
    guard.signal(libc::SIGUSR1);
    let told = guard.event("not-held");
    assert!(told.line.contains("is a limit of processes or descriptors reached?"), "{}", told.line);
    limit_processes(&guard, &user, 1000);
    guard.event("held");
    guard.signal(libc::SIGTERM);
    assert_eq!(guard.code(), 143);
}

/// An app with two addresses, whose run 2 is ready with the first and listens on the second when it has got a client there. Run 1 closes
/// both at once when it is told to stop, and lives on. Returns guard with a client that waits at the second address.
fn reloaded_between_two_addresses(setup: Setup, second: &str) -> (Guard, TcpStream, u16) {
    let (port, other) = (free_port(), free_port());
    let script = format!(
        "
one = server(socket.AF_INET, ('127.0.0.1', {port}))
if run == 1:
    two = server(socket.AF_INET, ('127.0.0.1', {other}))
    def end(*_):
        one.close()
        two.close()
        says('closed')
    signal.signal(signal.SIGTERM, end)
    while True: signal.pause()
address = '127.0.0.1', {other}
{second}
two.accept()[0].send(b'hello')
signal.pause()
"
    );
    let setup = setup.env("GUARD_STOP_TIMEOUT", "3s").env("GUARD_HOLD_TIMEOUT", "1h");
    let mut guard = python(setup.env("GUARD_SIGNAL_MAP", "HUP=reload"), &script).start();
    (0..2).for_each(|_| _ = guard.event("held"));
    guard.signal(libc::SIGHUP);
    guard.line("closed");
    let client = TcpStream::connect(("127.0.0.1", other)).expect("not refused");
    client.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    (guard, client, port)
}

#[test]
fn clients_of_what_the_old_run_of_a_reload_has_closed_are_served_by_the_new_one() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let listens = "one.accept()\ntwo = server(socket.AF_INET, address)";
        let (mut guard, mut client, port) = reloaded_between_two_addresses(holding(setup), listens);
        TcpStream::connect(("127.0.0.1", port)).expect("a server");
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap_or_else(|error| panic!("{error}: {}", guard.transcript()));
        assert_eq!(&answer, b"hello");
        guard.signal(libc::SIGTERM);
        guard.code();
    }
}

/// No socket can take the clients of another, so they hear at once that nobody will come.
#[test]
fn clients_that_no_run_can_take_are_reset_and_do_not_wait() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let listens = "two = socket.socket()\ntwo.bind(address)\none.accept()\ntwo.listen(64)";
        let (mut guard, mut client, port) = reloaded_between_two_addresses(holding(setup), listens);
        assert_eq!(guard.event("exit").get("run"), Some("1"));
        TcpStream::connect(("127.0.0.1", port)).expect("a server");
        let error = client.read(&mut [0; 5]).expect_err("nobody answers").kind();
        assert_eq!(error, ErrorKind::ConnectionReset, "{}", guard.transcript());
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// As HAProxy and gunicorn do. The socket that a later run gets listens already.
#[test]
fn an_app_that_asks_whether_its_socket_listens_is_ready_and_served_in_each_run() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let script = format!(
            "
one = socket.socket()
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
one.bind(('127.0.0.1', {port}))
if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN): one.listen(64)
signal.sigwait([signal.SIGUSR1])
if run < 3: os._exit(1)
one.accept()[0].send(b'hello')
signal.pause()
"
        );
        let script = format!("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n{script}");
        let mut guard = python(holding(setup).env("GUARD_HOLD_TIMEOUT", "100ms"), &script).start();
        for run in ["1", "2", "3"] {
            assert_eq!(guard.event("ready").get("run"), Some(run));
            guard.signal(libc::SIGUSR1);
        }
        is_greeted(port);
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn to_ask_whether_a_socket_listens_changes_nothing() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let script = format!(
            "
one = server(socket.AF_INET, ('127.0.0.1', {port}))
says('listens', one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
one.shutdown(socket.SHUT_RD)
says('listens', one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
signal.pause()
"
        );
        let mut guard = python(holding(setup), &script).start();
        guard.line("listens 1");
        guard.line("listens 0");
        let refused = TcpStream::connect(("127.0.0.1", port)).expect_err("it was shut down");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// GUARD_HOLD alone is no reason to leave the drain delay out.
#[test]
fn where_nothing_is_held_a_restart_has_its_drain_delay() {
    for setup in everywhere() {
        let setup = holding(setup).env("GUARD_READY", "exec").env("GUARD_DRAIN_DELAY", "7s");
        let mut guard = setup.fixture("serve").start();
        guard.line("ready");
        guard.until_yes(&["ready"]);
        assert_eq!(guard.ask(&["restart", "--timeout", "300ms"]).code, 124);
        eventually("it drains", || guard.ask(&["status"]).out.contains("draining (restart)").then_some(()));
    }
}

/// The runs that end have the address still.
#[test]
fn a_run_that_binds_after_the_stop_signal_gets_its_address() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let script = format!(
            "
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
late = os.environ['GUARD_INSTANCE'] == '1'
one = None if late else server(socket.AF_INET, ('127.0.0.1', {port}))
says('begun')
signal.sigwait([signal.SIGTERM])
if late:
    server(socket.AF_INET, ('127.0.0.1', {port}))
    says('bound')
else:
    signal.pause()
"
        );
        let setup = holding(setup).env("GUARD_INSTANCES", "2").env("GUARD_READY", "exec");
        let mut guard = python(setup.env("GUARD_STOP_TIMEOUT", "3s"), &script).start();
        guard.line("begun");
        guard.line("begun");
        guard.signal(libc::SIGTERM);
        guard.line("bound");
        assert_eq!(guard.code(), 137);
    }
}

/// guard sees no close(2), only that nobody accepts.
#[test]
fn where_the_app_has_closed_its_listener_clients_are_refused_after_the_hold_timeout() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let script = format!(
            "
one = server(socket.AF_INET, ('127.0.0.1', {port}))
says('serves')
signal.sigwait([signal.SIGUSR1])
one.close()
says('closed')
signal.sigwait([signal.SIGUSR1])
one = server(socket.AF_INET, ('127.0.0.1', {port}))
one.accept()[0].send(b'hello')
signal.pause()
"
        );
        let script = format!("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n{script}");
        let mut guard = python(holding(setup).env("GUARD_HOLD_TIMEOUT", "100ms"), &script).start();
        guard.line("serves");
        let waiting = TcpStream::connect(("127.0.0.1", port)).expect("a server");
        guard.signal(libc::SIGUSR1);
        guard.line("closed");
        guard.event("not-held");
        let refused = TcpStream::connect(("127.0.0.1", port)).expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        drop(waiting);
        guard.signal(libc::SIGUSR1);
        guard.event("held-again");
        is_greeted(port);
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn only_the_ports_that_are_named_are_held() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let (held, other) = (free_port(), free_port());
        let script = format!(
            "
one, two = server(socket.AF_INET, ('127.0.0.1', {held})), server(socket.AF_INET, ('127.0.0.1', {other}))
says('serves')
signal.pause()
"
        );
        let mut guard = python(holding(setup).env("GUARD_HOLD", held.to_string()), &script).start();
        guard.line("serves");
        let status = guard.ask(&["status"]).out;
        assert!(
            status.contains(&format!("held: 127.0.0.1:{held},")) && !status.contains(&other.to_string()),
            "{status}"
        );
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn an_app_that_floods_shuts_down_and_dies_harms_no_later_run() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let script = format!(
            "
flooded = threading.Event()
def flood():
    for number in range(20000, 30000):
        try: socket.socket(socket.AF_INET).bind(('127.0.0.3', number))
        except OSError: pass
        if number == 20100: flooded.set()
if run == 1:
    one = server(socket.AF_INET, ('127.0.0.1', {port}), backlog=1)
    for _ in range(8): threading.Thread(target=flood, daemon=True).start()
    child = os.fork()
    if child == 0:
        flood()
        os._exit(0)
    flooded.wait()
    one.shutdown(socket.SHUT_RDWR)
    os.kill(os.getpid(), signal.SIGKILL)
one = server(socket.AF_INET, ('127.0.0.1', {port}))
says('serves')
one.accept()[0].send(b'hello')
signal.pause()
"
        );
        let mut guard = python(holding(setup), &script).start();
        guard.event("held");
        guard.until_yes(&["ready"]);
        guard.line("serves");
        is_greeted(port);
        let status = guard.ask(&["status"]).out;
        assert_eq!(status.matches("held: ").count(), 1, "what was bound alone is let go: {status}");
        let open = std::fs::read_dir(format!("/proc/{}/fd", guard.pid())).expect("guard lives").count();
        assert!(open < 40, "{open} descriptors");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// guard sees no close(2).
#[test]
fn addresses_that_the_app_has_closed_leave_room_for_others() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let script = format!(
            "
here = ('127.0.0.1', {port})
if run == 1:
    for number in range(1030): server(socket.AF_INET, ('127.1.%d.%d' % divmod(number, 256), {port})).close()
    server(socket.AF_INET, here)
    sys.exit(1)
client = socket.create_connection(here)
server(socket.AF_INET, here).accept()[0].send(b'hello')
says(client.recv(5).decode())
signal.pause()
"
        );
        python(holding(setup), &script).start().line("hello");
    }
}

#[test]
fn after_the_hold_timeout_clients_are_refused_until_a_run_listens() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let script = format!(
            "
one = server(socket.AF_INET, ('127.0.0.1', {port}))
says('serves')
if run <= 2: sys.exit(1)
signal.pause()
"
        );
        let setup = holding(setup).env("GUARD_HOLD_TIMEOUT", "100ms").env("GUARD_BACKOFF_INITIAL", "10m");
        let mut guard = python(setup.env("GUARD_BACKOFF_MAX", "10m"), &script).start();
        guard.event("not-held");
        let refused = TcpStream::connect(("127.0.0.1", port)).expect_err("no run for too long");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err(), "the port is still guard's");
        assert_eq!(guard.ask(&["restart"]).code, 0);
        guard.event("held-again");
        TcpStream::connect(("127.0.0.1", port)).expect("a run listens");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn a_guard_below_a_guard_says_that_it_cannot_hold() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let script = format!(
            "import signal, socket; one = socket.create_server(('127.0.0.1', {port})); print('serves', flush=True); signal.pause()"
        );
        let inner =
            ["env", "GUARD_HOLD=on", "GUARD_READY=exec", env!("CARGO_BIN_EXE_guard"), "--", PYTHON, "-c", &script];
        let mut guard = holding(setup).app(inner).start();
        let event = guard.event("not-held");
        assert!(event.get("msg").is_some_and(|msg| msg.contains("another filter")), "the inner one says why");
        guard.line("serves");
        guard.event("held");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn an_app_that_listens_is_ready_with_the_filter_and_without() {
    for hold in ["on", "off"] {
        for setup in everywhere() {
            let port = free_port().to_string();
            let setup = setup.env("GUARD_HOLD", hold).env("GUARD_READY", "listen").env("GUARD_READY_TIMEOUT", "20s");
            let words = format!("fork listen {port} serve . serve");
            let mut guard = setup.fixture(&words).start();
            guard.line("listening");
            guard.event("ready");
            guard.until_yes(&["ready"]);
            guard.signal(libc::SIGTERM);
            assert_eq!(guard.code(), 143);
        }
    }
}

#[test]
fn an_app_that_does_not_listen_is_not_ready() {
    for hold in ["on", "off"] {
        for setup in everywhere() {
            let setup = setup.env("GUARD_HOLD", hold).env("GUARD_READY", "listen").env("GUARD_READY_TIMEOUT", "1s");
            let mut guard = setup.env("GUARD_RESTART", "never").fixture("serve").start();
            guard.line("ready");
            let answer = guard.ask(&["ready"]);
            assert!(answer.code == 1 && answer.out.contains("the app does not listen yet"), "{answer:?}");
            guard.event("failing");
            assert_ne!(guard.code(), 0);
        }
    }
}

/// guard cannot hold its sockets, and hears all the same that it listens.
#[test]
fn an_app_that_guard_may_not_look_at_binds_as_ever_and_is_ready() {
    for setup in without_ptrace() {
        let port = free_port();
        let mut guard = holding(setup).fixture(&format!("setuid 65534 listen {port} serve")).start();
        let event = guard.event("not-held");
        assert!(event.get("msg").is_some_and(|msg| msg.contains("cannot look")), "{event:?}");
        guard.event("ready");
        guard.line("listening");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// As gosu in an entrypoint makes it, in a container that has no CAP_SYS_PTRACE.
#[test]
fn an_app_of_another_user_is_ready_when_it_listens() {
    for setup in without_ptrace() {
        let port = free_port();
        let setup = setup.env("GUARD_READY", "listen");
        let mut guard = setup.fixture(&format!("setuid 65534 listen {port} serve")).start();
        guard.line("listening");
        guard.event("ready");
    }
}

/// guard may not see whose socket the old run's is. The user is no other test's, whose sockets would count too.
#[test]
fn a_new_run_of_another_user_is_not_ready_by_the_old_ones_socket() {
    for setup in without_ptrace() {
        let port = free_port();
        let setup = setup.env("GUARD_READY", "listen").env("GUARD_READY_TIMEOUT", "1s");
        let setup = setup.env("FIXTURE", common::fixture());
        let app = format!(
            "[ $GUARD_RUN = 1 ] && exec $FIXTURE setuid 54398 listen {port} serve; exec $FIXTURE setuid 54398 serve"
        );
        let mut guard = setup.app(["sh", "-c", &app]).start();
        guard.event("ready");
        guard.ask(&["reload"]).no("not reloaded: the new run failed before it was ready; the old run stays");
    }
}

/// As where a master binds and its workers listen, later. guard's socket, which the new run gets, listens all the time.
#[test]
fn a_run_is_ready_when_it_listens_itself_and_not_when_it_binds_what_is_held() {
    for setup in everywhere() {
        let port = free_port();
        let script = format!(
            "
one = socket.socket()
one.bind(('127.0.0.1', {port}))
if run == 1: one.listen(100)
signal.pause()
"
        );
        let mut guard = python(holding(setup).env("GUARD_READY_TIMEOUT", "2s"), &script).start();
        guard.event("ready");
        guard.ask(&["restart"]).no("not restarted: the new run failed before it was ready");
    }
}

#[test]
fn without_a_proc_the_app_binds_as_ever_and_is_ready() {
    let Some(setup) = pid1() else { return };
    let port = free_port();
    let setup = holding(setup).inherits("hide /proc").env("GUARD_INSTANCES", "1");
    let mut guard = setup.fixture(&format!("listen {port} serve")).start();
    let event = guard.event("not-held");
    assert!(event.get("msg").is_some_and(|msg| msg.contains("no /proc")), "{event:?}");
    guard.line("listening");
    guard.event("ready");
}

/// A run that somebody has killed before it was executed says nothing of the next; one after the other does.
#[test]
fn runs_that_die_before_they_have_the_filter_turn_it_off_at_the_third_time() {
    for setup in everywhere() {
        let port = free_port();
        let setup = holding(setup).inherits("forbid seccomp");
        let mut guard = setup.fixture(&format!("listen {port} serve")).start();
        for msg in ["this run", "this run", "the filter cannot be had"] {
            let event = guard.event("not-held");
            assert!(event.get("msg").is_some_and(|text| text.contains(msg)), "{event:?}");
        }
        guard.line("listening");
        guard.event("ready");
    }
}

/// All of them bind at once, and guard makes no more than a few copies of itself at a time.
#[test]
fn a_hundred_instances_that_bind_at_once_share_a_port() {
    for setup in everywhere() {
        let port = free_port();
        let setup = holding(setup).env("GUARD_INSTANCES", "100").env("GUARD_RESTART", "never");
        let mut guard = setup.fixture(&format!("listen {port} serve")).start();
        for _ in 0..100 {
            guard.line("ready");
        }
        guard.signal(libc::SIGTERM);
        guard.code();
        let held = guard.events().iter().filter(|event| event.name() == "held").count();
        assert_eq!(held, 1, "{}", guard.transcript());
    }
}

/// Each takes several of guard's. guard raises its own limit, and its children have the one that it was started with.
#[test]
fn a_low_limit_of_descriptors_is_no_obstacle_to_many_instances() {
    const SOFT: u32 = 40;
    const COUNT: usize = 20;
    for scales in [false, true] {
        for setup in everywhere() {
            let port = free_port();
            let directory = tempfile::tempdir().expect("a directory");
            let of_hook = directory.path().join("limit");
            let script = format!("echo limit $(ulimit -Sn); exec {} listen {port} serve", common::fixture().display());
            let hook = format!("sh -c 'ulimit -Sn >{}'", of_hook.display());
            let setup = holding(setup).inherits(&format!("nofile {SOFT}")).env("GUARD_PRE_STOP", hook);
            let setup = setup.env("GUARD_INSTANCES", if scales { 1 } else { COUNT }.to_string());
            let mut guard = setup.app(["sh", "-c", &script]).start();
            if scales {
                guard.line(&format!("limit {SOFT}"));
                guard.line("ready");
                guard.ask(&["scale", &COUNT.to_string()]).yes(&format!("scaled: {COUNT} instances"));
            }
            for _ in usize::from(scales)..COUNT {
                guard.event("ready");
            }
            let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", guard.pid())).expect("guard lives");
            let address = format!(" 0100007F:{port:04X} 00000000:0000 0A ");
            assert_eq!(table.matches(&address).count(), COUNT, "each has a socket\n{}", guard.transcript());
            guard.signal(libc::SIGTERM);
            guard.code();
            let limits: Vec<&str> = guard.out().into_iter().filter(|line| line.starts_with("limit ")).collect();
            assert_eq!(limits, vec![format!("limit {SOFT}"); COUNT]);
            assert_eq!(std::fs::read_to_string(&of_hook).expect("the hook has run").trim(), SOFT.to_string());
            let events = guard.events();
            assert!(events.iter().all(|event| event.name() != "not-held"), "{}", guard.transcript());
        }
    }
}

/// guard has some of them for its own ends, and none for the app's socket where there are too few.
#[test]
fn whether_a_socket_is_held_is_told_however_few_descriptors_there_are() {
    let mut was_held = true;
    for limit in (14..=40).rev().step_by(2) {
        if !was_held {
            return;
        }
        let port = free_port();
        let limited = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        let setup = holding(common::child()).program("/bin/sh").options(["-c", &limited, env!("CARGO_BIN_EXE_guard")]);
        let mut guard = setup.fixture(&format!("listen {port} serve")).start();
        guard.event("ready");
        let events: Vec<String> = guard.events().iter().map(|event| event.name().to_owned()).collect();
        let is_held = events.contains(&"held".to_owned());
        assert_ne!(is_held, events.contains(&"not-held".to_owned()), "{limit}: {}", guard.transcript());
        assert!(is_held || limit < 40, "{}", guard.transcript());
        was_held = is_held;
        guard.signal(libc::SIGTERM);
        guard.code();
    }
    panic!("there is a limit that is too low");
}

/// As Netty's own transport does it. The kernel forgets what was registered when another socket takes the place.
#[test]
fn an_app_that_polls_a_socket_before_it_binds_it_is_served_as_ever() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let script = format!(
            "
import select
one = socket.socket()
poll = select.epoll()
poll.register(one.fileno(), 0)
one.bind(('127.0.0.1', {port}))
one.listen(5)
poll.modify(one.fileno(), select.EPOLLIN)
says('listens')
poll.poll()
one.accept()
says('accepted')
signal.pause()
"
        );
        let mut guard = python(holding(setup), &script).start();
        guard.line("listens");
        let _client = TcpStream::connect(("127.0.0.1", port)).expect("the app listens");
        guard.line("accepted");
        guard.event("not-held");
    }
}

/// The next run first binds another port in a way that guard leaves alone. A client waits meanwhile.
#[test]
fn what_guard_cannot_hold_takes_no_clients_from_other_ports() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    let polled = "
import select
poll = select.epoll()
poll.register(other.fileno(), 0)
other.bind(there)";
    let of_another_user = "
if os.fork() == 0:
    os.setuid(65534)
    other.bind(there)
    os._exit(0)
os.wait()";
    let by_one_that_dies = "
def bind():
    while True: socket.socket(socket.AF_INET).bind(there)
for _ in range(100):
    if os.fork() == 0:
        threading.Thread(target=bind, daemon=True).start()
        os.sched_yield()
        os.kill(os.getpid(), signal.SIGKILL)
    os.wait()";
    let mut cases: Vec<_> = everywhere().into_iter().map(|setup| (setup, polled)).collect();
    cases.extend(without_ptrace().into_iter().map(|setup| (setup, of_another_user)));
    cases.extend(everywhere().into_iter().map(|setup| (setup, by_one_that_dies)));
    for (setup, bind) in cases {
        let (port, there) = (free_port(), free_port());
        let script = format!(
            "
here, there = ('127.0.0.1', {port}), ('127.0.0.1', {there})
if run == 1:
    server(socket.AF_INET, here)
    sys.exit(1)
client = socket.create_connection(here)
other = socket.socket(socket.AF_INET){bind}
server(socket.AF_INET, here).accept()[0].send(b'hello')
says(client.recv(5).decode())
signal.pause()
"
        );
        let mut guard = python(holding(setup), &script).start();
        guard.line("hello");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// An epoll keeps what was registered by a number that another file has by now.
#[test]
fn a_number_that_an_epoll_remembers_is_no_socket_that_it_polls() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let script = format!(
            "
import select
poll = select.epoll()
reader, writer = os.pipe()
other = os.dup(reader)
poll.register(reader)
os.close(reader)
one = socket.socket()
assert one.fileno() == reader
one.bind(('127.0.0.1', {port}))
one.listen(5)
signal.pause()
"
        );
        let mut guard = python(holding(setup), &script).start();
        guard.event("held");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

/// Through the entry for 32-bit programs, which the filter lets through.
#[cfg(target_arch = "x86_64")]
#[test]
fn an_app_that_listens_in_a_way_that_guard_does_not_see_is_ready() {
    if !Path::new(PYTHON).exists() {
        return skipped("there is no python3");
    }
    for setup in everywhere() {
        let port = free_port();
        let script = format!(
            "
import ctypes, mmap
# push rbx; mov eax, 363 (listen); mov ebx, edi; mov ecx, esi; int 0x80; pop rbx; ret
code = bytes.fromhex('53 b86b010000 89fb 89f1 cd80 5b c3')
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(code)
at = ctypes.addressof(ctypes.c_char.from_buffer(page))
listen = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(at)
child = os.fork()
if child == 0: os._exit(0 if listen(-1, 5) == -errno.EBADF else 1)
says('entry', os.waitpid(child, 0)[1])
one = socket.socket()
one.bind(('127.0.0.1', {port}))
listen(one.fileno(), 5)
signal.pause()
"
        );
        let mut guard = python(holding(setup).env("GUARD_READY_TIMEOUT", "5s"), &script).start();
        if guard.line_after("entry ") != "0" {
            skipped("the kernel has no entry for 32-bit programs");
            continue;
        }
        let told = guard.event("not-held").line;
        assert!(told.contains("a way that guard does not see"), "{told}");
        guard.event("ready");
        guard.signal(libc::SIGTERM);
        assert_eq!(guard.code(), 143);
    }
}

#[test]
fn a_worker_of_another_user_gets_no_share_of_the_apps_socket() {
    if !Path::new(PYTHON).exists() || !nix::unistd::geteuid().is_root() {
        return skipped("there is no python3, or no root");
    }
    for setup in everywhere() {
        let port = free_port();
        let script = format!(
            "
server(socket.AF_INET, ('127.0.0.1', {port}))
if os.fork() == 0:
    os.setuid(65534)
    try: server(socket.AF_INET, ('127.0.0.1', {port}))
    except OSError as error: says(errno.errorcode[error.errno])
    else: says('stolen')
signal.pause()
"
        );
        let mut guard = python(holding(setup), &script).start();
        guard.line("EADDRINUSE");
    }
}
