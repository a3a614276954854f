//! The dashboard and the alerts below examples/grafana: every query is run against a real Prometheus.

use crate::common::{Answer, begin, in_path, skipped};
use std::path::Path;
use std::process::Command;

/// examples/grafana/check says what a query lacks; its guard crashes, is reloaded and drains.
#[test]
fn every_query_of_the_dashboard_is_answered() {
    let needs = [("python3", "python3"), ("prometheus", "prometheus"), ("promtool", "prometheus")];
    if let Some((program, package)) = needs.into_iter().find(|(program, _)| in_path(program).is_none()) {
        return skipped(&format!("there is no {program}; apt-get install {package} brings it"));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let picture = directory.path().join("grafana.svg");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/grafana/check");
    let answer =
        Answer::of(begin(Command::new(script).args(["--guard", env!("CARGO_BIN_EXE_guard"), "--draw"]).arg(&picture)));
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(answer.out.contains("queries and rules were answered"), "{answer:?}");
    assert!(std::fs::read_to_string(picture).is_ok_and(|picture| picture.starts_with("<svg")), "{answer:?}");
}
