//! The app that the benchmark runs under guard and its peers, and the bare loop that guard's restarts are compared
//! with. It is a part of the benchmark, and compiled once more by itself: a static binary without any dependency, so
//! that what is measured is the init and not the app's own start.
//!
//! | words | |
//! | --- | --- |
//! | `idle` | print `ready` and sleep for ever |
//! | `once` | print the time at which `main` began, and exit |
//! | `crash` | print the time at which `main` began and the present one, and exit with 1 |
//! | `loop N COMMAND` | run COMMAND again and again, N times, with posix_spawn(3) and waitpid(2) alone |
//! | `signals` | print `ready`, then for each SIGUSR1 the time at which it came |
//! | `orphans N` | leave N orphans behind, one after the other, each when the last was reaped; print `reaped`; sleep |
//! | `stream N` | the same, as fast as can be |
//! | `init COMMAND` | print the time, and execute COMMAND as PID 1 of a new namespace |
//!
//! Times are CLOCK_MONOTONIC's nanoseconds, which all namespaces share.

#![allow(unsafe_code, reason = "system calls, without a crate so that rustc alone can build this")]

use std::ffi::{CString, c_char, c_int, c_long, c_uint, c_void};
use std::os::unix::ffi::OsStringExt;
use std::ptr;

/// `struct timespec`, where long and time_t are 64 bits.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

const CLOCK_MONOTONIC: c_int = 1;
const CLONE_NEWNS: c_int = 0x0002_0000;
const CLONE_NEWUSER: c_int = 0x1000_0000;
const CLONE_NEWPID: c_int = 0x2000_0000;
const MS_REC: u64 = 0x4000;
const MS_PRIVATE: u64 = 0x4_0000;
const PR_SET_PDEATHSIG: c_int = 1;
const SIG_BLOCK: c_int = 0;
const SIGKILL: c_long = 9;
const SIGUSR1: c_int = 10;

unsafe extern "C" {
    static environ: *const *const c_char;
    fn _exit(code: c_int) -> !;
    fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int;
    fn execve(path: *const c_char, words: *const *const c_char, environment: *const *const c_char) -> c_int;
    fn fork() -> c_int;
    fn geteuid() -> c_uint;
    fn getegid() -> c_uint;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: u64,
        data: *const c_void,
    ) -> c_int;
    fn posix_spawn(
        pid: *mut c_int,
        path: *const c_char,
        actions: *const c_void,
        attributes: *const c_void,
        words: *const *const c_char,
        environment: *const *const c_char,
    ) -> c_int;
    fn prctl(option: c_int, ...) -> c_int;
    fn read(fd: c_int, bytes: *mut c_void, length: usize) -> isize;
    fn pipe(ends: *mut c_int) -> c_int;
    fn pause() -> c_int;
    fn sched_yield() -> c_int;
    fn sigprocmask(how: c_int, set: *const [u64; 16], old: *mut [u64; 16]) -> c_int;
    fn sigwait(set: *const [u64; 16], signal: *mut c_int) -> c_int;
    fn unshare(flags: c_int) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn write(fd: c_int, bytes: *const c_void, length: usize) -> isize;
}

/// Does what the words after the program's name say.
pub fn main() {
    let begun = now();
    let words: Vec<CString> = std::env::args_os()
        .skip_while(|word| word != "app") // the benchmark stands in for the static app where that cannot be built
        .skip(1)
        .map(|word| CString::new(word.into_vec()).expect("an argument has no NUL"))
        .collect();
    let count = || words.get(1).and_then(|word| word.to_str().ok()?.parse().ok()).unwrap_or(1);
    match words.first().and_then(|word| word.to_str().ok()) {
        Some("idle") => {
            say("ready");
            sleep_for_ever()
        }
        Some("once") => say(&format!("{begun}")),
        Some("crash") => {
            say(&format!("{begun} {}", now()));
            // SAFETY: ends the process.
            unsafe { _exit(1) }
        }
        Some("loop") => spawn_again_and_again(count(), &words[2..]),
        Some("signals") => print_signal_times(),
        Some("orphans") => leave_orphans(count(), false),
        Some("stream") => leave_orphans(count(), true),
        Some("init") => become_init(&words[1..]),
        _ => panic!("unknown words: {words:?}"),
    }
}

/// The present time in nanoseconds.
pub fn now() -> u64 {
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: fills a structure of ours.
    unsafe { clock_gettime(CLOCK_MONOTONIC, &raw mut time) };
    time.seconds as u64 * 1_000_000_000 + time.nanoseconds as u64
}

/// One line in one write(2).
fn say(text: &str) {
    let line = format!("{text}\n");
    // SAFETY: the line is as long as said.
    unsafe { write(1, line.as_ptr().cast(), line.len()) };
}

fn sleep_for_ever() -> ! {
    loop {
        // SAFETY: waits for a signal.
        unsafe { pause() };
    }
}

fn pointers(words: &[CString]) -> Vec<*const c_char> {
    words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect()
}

fn spawn_again_and_again(times: u32, command: &[CString]) {
    let words = pointers(command);
    for _ in 0..times {
        let mut pid = 0;
        // SAFETY: the words end with a null pointer and outlive the call, as the environment does.
        unsafe {
            posix_spawn(&raw mut pid, words[0], ptr::null(), ptr::null(), words.as_ptr(), environ);
            waitpid(pid, ptr::null_mut(), 0);
        }
    }
}

fn print_signal_times() -> ! {
    let mut set = [0; 16];
    set[0] = 1 << (SIGUSR1 - 1);
    // SAFETY: the set is as large as the C library's.
    unsafe { sigprocmask(SIG_BLOCK, &raw const set, ptr::null_mut()) };
    say("ready");
    loop {
        let mut signal = 0;
        // SAFETY: as above.
        unsafe { sigwait(&raw const set, &raw mut signal) };
        say(&now().to_string());
    }
}

fn leave_orphans(count: u32, in_a_stream: bool) -> ! {
    say("ready");
    let mut ends = [0; 2];
    let mut byte = 0u8;
    // SAFETY: this process has one thread, so that its forks may do anything; the pipe's ends are ours.
    unsafe {
        // Begins when it is told, so that init's start is not counted.
        read(0, (&raw mut byte).cast(), 1);
        pipe(ends.as_mut_ptr());
        let mut left = Vec::with_capacity(count as usize);
        for index in 1..=count {
            let middle = fork();
            if middle == 0 {
                let orphan = fork();
                if orphan > 0 {
                    write(ends[1], (&raw const orphan).cast(), 4);
                }
                _exit(0);
            }
            waitpid(middle, ptr::null_mut(), 0);
            let mut orphan: c_int = 0;
            read(ends[0], (&raw mut orphan).cast(), 4);
            left.push(orphan);
            if in_a_stream && index < count {
                continue;
            }
            // ESRCH comes when it has ended and was reaped.
            while left.last().is_some_and(|&orphan| kill(orphan, 0) == 0) || left.pop().is_some() {
                sched_yield();
            }
        }
    }
    say("reaped");
    sleep_for_ever()
}

/// Waits for the namespace's init and exits with its code; is killed with its own parent, and takes the init along.
fn become_init(command: &[CString]) {
    // SAFETY: integers, constant strings, and words that end with a null pointer; this process has one thread.
    unsafe {
        let (uid, gid) = (geteuid(), getegid());
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        let user = if uid == 0 { 0 } else { CLONE_NEWUSER };
        assert_eq!(unshare(user | CLONE_NEWPID | CLONE_NEWNS), 0, "a namespace can be made");
        if uid != 0 {
            let map = |file: &str, line: String| std::fs::write(format!("/proc/self/{file}"), line);
            let maps = map("setgroups", "deny".into())
                .and_then(|()| map("uid_map", format!("0 {uid} 1")))
                .and_then(|()| map("gid_map", format!("0 {gid} 1")));
            maps.expect("the user can be mapped");
        }
        let init = fork();
        if init == 0 {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            mount(c"none".as_ptr(), c"/".as_ptr(), ptr::null(), MS_REC | MS_PRIVATE, ptr::null());
            mount(c"proc".as_ptr(), c"/proc".as_ptr(), c"proc".as_ptr(), 0, ptr::null());
            let words = pointers(command);
            say(&now().to_string());
            execve(words[0], words.as_ptr(), environ);
            _exit(127);
        }
        let mut status = 0;
        waitpid(init, &raw mut status, 0);
        _exit(if status & 0x7f == 0 { status >> 8 & 0xff } else { 128 + (status & 0x7f) });
    }
}
