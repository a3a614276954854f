//! The guide's short form of examples/rolling: containers that are replaced behind nginx while requests come.

use crate::common::{Answer, begin, blocks};
use crate::engine::Engine;
use crate::image::{base, image, project};
use std::process::Command;

tests![the_drain_delay_is_why_no_request_is_lost];

/// A row of the script's table.
#[derive(Debug)]
struct Row {
    requests: u32,
    /// GET and POST through nginx as most have it, and both without a second try.
    lost: [u32; 3],
    /// How many containers were replaced, and what they exited with.
    ended: String,
}

/// The rows of the guide's two variants.
fn rows() -> Vec<Row> {
    let guard = image(Engine::Docker, "scratch");
    base("node:20-slim");
    let mut run = Command::new("bash");
    run.args(["-c", &blocks::command("docs/benchmarks.md", "ROUNDS=")]).current_dir(project());
    run.env("GUARD_IMAGE", guard).env("IMAGE", "guard-test/rolling");
    let answer = Answer::of(begin(&mut run));
    assert_eq!(answer.code, 0, "{answer:?}");
    let rows: Vec<Row> = answer.out.lines().filter(|line| line.starts_with("| app")).map(row).collect();
    rows
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    let number = |index: usize| cells[index].parse().unwrap_or_else(|_| panic!("a number in cell {index}: {line}"));
    Row { requests: number(2), lost: [number(3), number(4), number(5)], ended: cells[7].to_owned() }
}

fn the_drain_delay_is_why_no_request_is_lost() {
    let rows = rows();
    let [with, without] = &rows[..] else { panic!("two rows: {rows:?}") };
    assert_eq!((with.lost, with.ended.as_str()), ([0; 3], "2 × 143"), "{rows:?}");
    assert!(with.requests > 300 && without.requests > 200, "{rows:?}");
    // 1.5 s of requests for a container that is gone, which nobody tries again.
    assert!(without.lost[2] > 0 && without.ended == "2 × 143", "{rows:?}");
}
