//! The contract under real engines. `bash tests/containers/run` starts engines of its own and runs this. `cargo test`
//! says that it was skipped: what runs on the user's engine, and the names of its images, are the user's.
//!
//! Images are made from Debian's packages, since a test machine may have nowhere to pull from; see `base` and `images`.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "the environment, and what the run has to say"
)]

/// The tests of a topic, by name.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
            let topic = module_path!().trim_start_matches("containers::");
            vec![$(crate::trial(format!("{topic}::{}", stringify!($name)), $name)),*]
        }
    };
}

mod bare;
#[path = "../common/mod.rs"]
mod common;
mod compose;
mod container;
mod dockerfile;
mod docs;
mod engine;
mod exec;
mod hardened;
mod healthcheck;
mod hold;
mod image;
mod kube;
mod languages;
mod limits;
mod linger;
mod namespaces;
mod own_image;
mod rolling;
mod sdnotify;
mod servers;
mod steps;
mod stop;
mod terminal;
mod tiers;

use libtest_mimic::{Arguments, Trial};
use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Tests that failed at first.
static TRIED_AGAIN: AtomicUsize = AtomicUsize::new(0);

/// How long each test took, images and second tries included.
static TOOK: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// Notes how long a test took, however it ends.
struct Took(Instant, String);

impl Drop for Took {
    fn drop(&mut self) {
        let took = (self.0.elapsed(), std::mem::take(&mut self.1));
        TOOK.lock().expect("no panic under it").push(took);
    }
}

/// A test. An engine on a busy machine has hiccups of its own, so one that fails is tried once more, and both are told.
fn trial(name: String, test: fn()) -> Trial {
    Trial::test(name.clone(), move || {
        let _took = Took(Instant::now(), name.clone());
        if let Err(panic) = catch_unwind(test) {
            let why = panic.downcast_ref::<String>().map_or("no message", String::as_str);
            println!("{name} failed and is tried again: {why}");
            TRIED_AGAIN.fetch_add(1, Ordering::Relaxed);
            test();
        }
        Ok(())
    })
}

fn topics() -> Vec<Trial> {
    let topics = [
        bare::tests(),
        exec::tests(),
        hardened::tests(),
        healthcheck::tests(),
        hold::tests(),
        limits::tests(),
        namespaces::tests(),
        sdnotify::tests(),
        stop::tests(),
        terminal::tests(),
        tiers::tests(),
        // Their images are slow to make, and are made meanwhile.
        servers::tests(),
        dockerfile::tests(),
        compose::tests(),
        kube::tests(),
        linger::tests(),
        rolling::tests(),
        own_image::tests(),
        languages::tests(),
        docs::tests(),
    ];
    topics.into_iter().flatten().collect()
}

/// Whether the engines are those that tests/containers/run has started: what any other has is not the tests' to touch.
fn own_engines() -> bool {
    let home = std::env::var("CONTAINER_TESTS_HOME");
    home.is_ok_and(|home| std::env::var("DOCKER_HOST") == Ok(format!("unix://{home}/docker.sock")))
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let mut tests = topics();
    if !arguments.list {
        if !own_engines() {
            println!("skipped: containers: they need engines of their own: run `bash tests/containers/run` as root");
            println!("0 passed, 0 failed, {} skipped", tests.len());
            return ExitCode::SUCCESS;
        }
        tests = limits::without_the_impossible(tests);
        if arguments.filter.is_none() {
            image::begin();
        }
    }
    // They wait for engines most of the time.
    arguments.test_threads = arguments.test_threads.or(Some(4));
    let ran = libtest_mimic::run(&arguments, tests);
    if arguments.list {
        return ran.exit_code();
    }
    let mut took = TOOK.lock().expect("no panic under it");
    took.sort();
    let slowest = took.iter().rev().take(10).map(|(time, name)| format!("{name} {:.0}s", time.as_secs_f32()));
    println!("the slowest: {}", slowest.collect::<Vec<_>>().join(", "));
    let again = TRIED_AGAIN.load(Ordering::Relaxed);
    if again > 0 {
        println!("tried again: {again}");
    }
    println!("{} passed, {} failed, {} skipped", ran.num_passed, ran.num_failed, ran.num_ignored);
    let skipped_in_ci = std::env::var_os("CI").is_some() && ran.num_ignored > 0;
    if skipped_in_ci { ExitCode::FAILURE } else { ran.exit_code() }
}
