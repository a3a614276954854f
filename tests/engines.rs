//! `cargo test` leaves the user's container engines alone.

use crate::common::{Answer, begin, program, target};
use std::process::Command;

/// Engines that would answer, and the shell of the scripts that ask them. They write down that they were asked.
#[test]
#[expect(clippy::disallowed_methods, reason = "the environment of the tests")]
fn cargo_test_asks_no_engine() {
    let directory = tempfile::tempdir().expect("a directory");
    let asked = directory.path().join("asked");
    for name in ["docker", "podman", "bash"] {
        program(directory.path(), name, format!("#!/bin/sh\necho {name} \"$@\" >>{}\n", asked.display()), 0o755);
    }
    let path = std::env::var("PATH").expect("a PATH");
    let (target, triple) = target();
    let run = |words: &[&str]| {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["test", "--quiet", "--locked", "--test", "containers", "--target-dir"]).arg(target);
        cargo.args(triple.as_ref().map(|triple| format!("--target={}", triple.display()))).args(words);
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).env("PATH", format!("{}:{path}", directory.path().display()));
        let answer = Answer::of(begin(cargo.env_remove("CONTAINER_TESTS_HOME")));
        assert_eq!(answer.code, 0, "{answer:?}");
        answer
    };
    assert!(run(&["--", "--list"]).out.contains(": test\n"), "as editors ask for the tests");
    let answer = run(&[]);
    let skipped = answer
        .out
        .lines()
        .any(|line| line.starts_with("skipped: containers: ") && line.contains("`bash tests/containers/run`"));
    assert!(skipped && answer.out.contains("\n0 passed, 0 failed, "), "{answer:?}");
    assert!(!asked.exists(), "{:?}", std::fs::read_to_string(asked));
}
