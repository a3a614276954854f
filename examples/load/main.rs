//! A load of HTTP requests, each with a connection of its own, and what became of them.
//!
//! | command | |
//! | --- | --- |
//! | `load crash PORT INSTANCES RATE TIMES PAUSE` | kill the process that answered last, TIMES times, PAUSE ms after the next run's first answer |
//! | `load reload PORT INSTANCES RATE TIMES PAUSE COMMAND...` | run COMMAND as often |
//! | `load spread PORT INSTANCES RATE SECONDS` | count the answers of each instance |
//! | `load speed ROUNDS SECONDS PORT...` | ask each port in turns, as fast as it answers |
//!
//! `crash` and `reload` print the number of requests, of those refused, reset, timed out and lost in flight, and the longest wait
//! for an answer in ms. `spread` prints the answers of the most and of the least busy instance, `speed` for each port the requests a
//! second and the 99th percentile of the latency in ms, medians of the rounds. `run.sh` makes a table of it.
//!
//! The answer is expected to be what `server.js` says: its pid, as its own PID namespace counts, and the time of its start.

#![allow(clippy::disallowed_methods, clippy::disallowed_macros, reason = "nobody supervises a load generator")]
#![allow(clippy::wildcard_enum_match_arm, reason = "the kinds of errors are not ours")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A request that is not answered by then has timed out.
const TIMEOUT: Duration = Duration::from_secs(10);
/// So long the load waits for a process that it has not seen yet. Docker may wait a minute between two starts.
const PATIENCE: Duration = Duration::from_secs(90);
/// Connections at a time, where the load is as fast as the answers.
const AT_A_TIME: usize = 8;

/// The process that answered. Its pid alone does not tell it from the one before, which may have had the same in another container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    pid: u32,
    started: u64,
}

#[derive(Debug)]
enum Outcome {
    Answered(Run),
    Refused,
    /// Or closed before the whole answer had come.
    Reset,
    TimedOut,
    /// Something that has to do with the load itself, or an answer that no server here gives.
    Other(String),
}

#[derive(Debug)]
struct Asked {
    began: Instant,
    ended: Instant,
    outcome: Outcome,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["crash", port, instances, rate, times, pause] => {
            disturb(Load::start(number(port), number(rate)), number(instances), number(times), number(pause), None)
        }
        ["reload", port, instances, rate, times, pause, ref command @ ..] if !command.is_empty() => {
            let load = Load::start(number(port), number(rate));
            disturb(load, number(instances), number(times), number(pause), Some(command))
        }
        ["spread", port, instances, rate, seconds] => {
            spread(Load::start(number(port), number(rate)), number(instances), Duration::from_secs(number(seconds)))
        }
        ["speed", rounds, seconds, ref ports @ ..] => {
            let ports: Vec<u16> = ports.iter().map(|port| number(port)).collect();
            speed(number(rounds), Duration::from_secs(number(seconds)), &ports)
        }
        _ => Err("see the head of main.rs for the words that it takes".to_owned()),
    };
    if let Err(why) = done {
        eprintln!("load: {why}");
        std::process::exit(1);
    }
}

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("{word:?} is no number"))
}

/// One request. Its connection is closed by the server.
fn ask(port: u16) -> Asked {
    let began = Instant::now();
    let outcome = exchange(port).unwrap_or_else(|error| match error.kind() {
        ErrorKind::ConnectionRefused => Outcome::Refused,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => Outcome::Reset,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::TimedOut,
        _ => Outcome::Other(error.to_string()),
    });
    Asked { began, ended: Instant::now(), outcome }
}

fn exchange(port: u16) -> io::Result<Outcome> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let Some((head, body)) = answer.split_once("\r\n\r\n").filter(|(_, body)| body.ends_with('\n')) else {
        return Err(ErrorKind::UnexpectedEof.into());
    };
    let run = body.trim_end().split_once(' ').filter(|_| head.starts_with("HTTP/1.1 200 "));
    let run = run.and_then(|(pid, started)| Some(Run { pid: pid.parse().ok()?, started: started.parse().ok()? }));
    Ok(run.map_or_else(|| Outcome::Other(answer.clone()), Outcome::Answered))
}

/// Waits until a port answers, or for a long time.
fn until_answered(port: u16) {
    let deadline = Instant::now() + PATIENCE;
    while !matches!(ask(port).outcome, Outcome::Answered(_)) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
}

/// Requests at a steady rate, whatever becomes of them.
struct Load {
    asked: Receiver<Asked>,
    /// The processes that have answered.
    seen: BTreeSet<Run>,
    /// All requests so far.
    all: Vec<Asked>,
    ends: Arc<AtomicBool>,
    pace: JoinHandle<()>,
}

impl Load {
    /// Begins when the port answers.
    fn start(port: u16, rate: u32) -> Load {
        until_answered(port);
        let (sender, asked) = channel();
        let ends = Arc::new(AtomicBool::new(false));
        let pace = {
            let ends = Arc::clone(&ends);
            thread::spawn(move || pace(port, Duration::from_secs(1) / rate, &sender, &ends))
        };
        Load { asked, seen: BTreeSet::new(), all: Vec::new(), ends, pace }
    }

    /// Waits until the deadline for a request that has ended.
    fn next(&mut self, deadline: Instant) -> Option<&Outcome> {
        let asked = self.asked.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
        if let Outcome::Answered(run) = asked.outcome {
            self.seen.insert(run);
        }
        self.all.push(asked);
        self.all.last().map(|asked| &asked.outcome)
    }

    fn go_on_for(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while self.next(deadline).is_some() {}
    }

    /// Waits until so many processes have answered.
    fn until_seen(&mut self, count: usize) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while self.seen.len() < count {
            self.next(deadline).ok_or_else(|| "no other process answers".to_owned())?;
        }
        Ok(())
    }

    /// The process that has answered last.
    fn busy(&mut self) -> Result<Run, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.next(deadline) {
                Some(Outcome::Answered(run)) => return Ok(*run),
                Some(_) => {}
                None => return Err("no process answers".to_owned()),
            }
        }
    }

    /// Ends the load, and waits for what is under way.
    fn end(mut self) -> Vec<Asked> {
        self.ends.store(true, Ordering::Relaxed);
        self.pace.join().expect("it only counts time");
        self.all.extend(self.asked);
        self.all
    }
}

fn pace(port: u16, interval: Duration, sender: &Sender<Asked>, ends: &AtomicBool) {
    let mut due = Instant::now();
    while !ends.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += interval;
        let sender = sender.clone();
        // Nobody receives it where the load has failed.
        let request = move || drop(sender.send(ask(port)));
        thread::Builder::new().stack_size(128 << 10).spawn(request).expect("a thread");
    }
}

/// Kills a process, or runs the command, again and again, and prints what became of the requests.
fn disturb(mut load: Load, instances: usize, times: usize, pause: u64, command: Option<&[&str]>) -> Result<(), String> {
    load.until_seen(instances)?;
    let mut kills = Vec::new();
    for _ in 0..times {
        load.go_on_for(Duration::from_millis(pause));
        match command {
            None => kills.push(crash(load.busy()?.pid)?),
            Some(command) => run(command)?,
        }
        let count = load.seen.len() + 1;
        load.until_seen(count)?;
    }
    load.go_on_for(Duration::from_millis(pause));
    report(&load.end(), &kills)
}

/// Kills the process that has this pid in its own PID namespace, and returns when that was: between these two.
fn crash(pid: u32) -> Result<Range<Instant>, String> {
    let inside = |status: &str| {
        let pids: Vec<u32> =
            status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().map(number).collect();
        (pids.len() > 1 && pids.last() == Some(&pid)).then(|| pids[0])
    };
    let processes = fs::read_dir("/proc").map_err(|error| error.to_string())?.flatten();
    let status = processes.filter_map(|entry| fs::read_to_string(entry.path().join("status")).ok());
    let [found] = status.filter_map(|status| inside(&status)).collect::<Vec<_>>()[..] else {
        return Err(format!("there is not one process {pid} in the namespaces below this one"));
    };
    let pid = Pid::from_raw(i32::try_from(found).expect("a pid"));
    let before = Instant::now();
    kill(pid, Signal::SIGKILL).map_err(|error| format!("{pid}: {error}"))?;
    Ok(before..Instant::now())
}

fn run(command: &[&str]) -> Result<(), String> {
    let mut line = Command::new(command[0]);
    let done = line.args(&command[1..]).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if done.status.success() { Ok(()) } else { Err(format!("{command:?}: {done:?}")) }
}

fn report(all: &[Asked], kills: &[Range<Instant>]) -> Result<(), String> {
    let (mut refused, mut reset, mut timed_out, mut in_flight, mut longest) = (0, 0, 0, 0, Duration::ZERO);
    for Asked { began, ended, outcome } in all {
        match outcome {
            Outcome::Answered(_) => longest = longest.max(*ended - *began),
            Outcome::Refused => refused += 1,
            // A process that is killed takes along what it has accepted.
            Outcome::Reset if kills.iter().any(|kill| *began < kill.end && kill.start < *ended) => in_flight += 1,
            Outcome::Reset => reset += 1,
            Outcome::TimedOut => timed_out += 1,
            Outcome::Other(what) => return Err(format!("a request failed: {what}")),
        }
    }
    println!("{} {refused} {reset} {timed_out} {in_flight} {:.0}", all.len(), millis(longest));
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn spread(mut load: Load, instances: usize, time: Duration) -> Result<(), String> {
    load.until_seen(instances)?;
    let warm = load.all.len();
    load.go_on_for(time);
    let mut answers: BTreeMap<Run, usize> = load.seen.iter().map(|run| (*run, 0)).collect();
    for asked in &load.end()[warm..] {
        let Outcome::Answered(run) = asked.outcome else { return Err(format!("{asked:?}")) };
        *answers.entry(run).or_default() += 1;
    }
    let (most, least) = (answers.values().max(), answers.values().min());
    println!("{} {}", most.expect("an instance"), least.expect("an instance"));
    Ok(())
}

fn speed(rounds: usize, time: Duration, ports: &[u16]) -> Result<(), String> {
    ports.iter().for_each(|port| until_answered(*port));
    let mut figures: Vec<(Vec<f64>, Vec<f64>)> = ports.iter().map(|_| Default::default()).collect();
    for round in 0..=rounds {
        for (port, (rates, slowest)) in ports.iter().zip(&mut figures) {
            let mut latencies = as_fast_as_it_answers(*port, time)?;
            if round == 0 {
                continue; // that was to warm up
            }
            latencies.sort_unstable();
            rates.push(latencies.len() as f64 / time.as_secs_f64());
            slowest.push(millis(latencies[latencies.len() * 99 / 100]));
        }
    }
    for (rates, slowest) in figures {
        println!("{:.0} {:.2}", median(rates), median(slowest));
    }
    Ok(())
}

fn as_fast_as_it_answers(port: u16, time: Duration) -> Result<Vec<Duration>, String> {
    let deadline = Instant::now() + time;
    let one = || {
        let mut latencies = Vec::new();
        while Instant::now() < deadline {
            let asked = ask(port);
            let Outcome::Answered(_) = asked.outcome else { return Err(format!("port {port}: {asked:?}")) };
            latencies.push(asked.ended - asked.began);
        }
        Ok(latencies)
    };
    let all: Vec<Result<Vec<Duration>, String>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    Ok(all.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
