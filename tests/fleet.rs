//! docs/fleet.md: its tables and its plot are what the simulation gives.

use crate::common::{Answer, begin, target};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
#[allow(clippy::disallowed_methods, reason = "cargo's own variable")]
fn the_guide_has_what_the_simulation_gives() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let plot = tempfile::NamedTempFile::new().expect("a file");
    let (directory, triple) = target();
    let mut run = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    run.args(["run", "--quiet", "--locked", "--example", "fleet", "--target-dir"]).arg(directory);
    run.args(triple.iter().flat_map(|triple| [OsStr::new("--target"), triple]));
    let answer = Answer::of(begin(run.current_dir(project).arg("--").arg(plot.path())));
    assert_eq!(answer.code, 0, "{}", answer.err);

    let guide = fs::read_to_string(project.join("docs/fleet.md")).expect("the guide");
    let tables = |text: &str| text.lines().filter(|line| line.starts_with('|')).collect::<Vec<_>>().join("\n");
    assert_eq!(tables(&answer.out), tables(&guide), "`cargo run --example fleet` prints the tables");
    let [drawn, shown] = [plot.path(), &project.join("docs/fleet.svg")].map(|path| fs::read(path).expect("a plot"));
    assert!(drawn == shown, "`cargo run --example fleet docs/fleet.svg` draws the plot");
}
