//! The manifests below examples/: what they say is what Kubernetes, ECS and Compose take, and what guard takes.
//! tests/manifests.py reads them and checks their form; nothing is started but `guard check`.

use crate::common::{Answer, begin, child, skipped};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// A platform: the directory of its manifests, and the variable by which guard knows it.
const PLATFORMS: [(&str, &str); 3] =
    [("kubernetes", "KUBERNETES_SERVICE_HOST"), ("ecs", "ECS_CONTAINER_METADATA_URI_V4"), ("compose", "HOSTNAME")];

const PACKAGES: &str = "import botocore, compose_spec, kubernetes_validate, yaml";

/// guard's own limit for an answer, after which a probe says why there is none.
const ANSWER: Duration = Duration::from_secs(2);

/// tests/manifests.py tells which kinds there are.
#[derive(Debug)]
struct Container {
    file: String,
    container: String,
    kind: String,
    /// What the platform waits between its SIGTERM and its SIGKILL.
    time: Duration,
    /// NAME=value, each.
    environment: Vec<String>,
    platform: &'static str,
}

#[derive(Debug)]
struct Probe {
    file: String,
    container: String,
    kind: String,
    /// What it may take.
    time: Duration,
    command: String,
}

/// The first python3 in PATH that has the packages of tests/manifests.txt.
#[expect(clippy::disallowed_methods, reason = "the environment of the tests")]
fn python() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut pythons = std::env::split_paths(&path).map(|directory| directory.join("python3"));
    pythons.find(|python| python.is_file() && Answer::of(begin(Command::new(python).args(["-c", PACKAGES]))).code == 0)
}

/// All that the manifests hold, once they have passed the checks of tests/manifests.py; nothing without Python's packages.
fn manifests() -> Option<&'static (Vec<Container>, Vec<Probe>)> {
    static MANIFESTS: OnceLock<Option<(Vec<Container>, Vec<Probe>)>> = OnceLock::new();
    let manifests = MANIFESTS.get_or_init(|| python().map(|python| read(&python)));
    if manifests.is_none() {
        skipped("no python3 in PATH has the packages of tests/manifests.txt");
    }
    manifests.as_ref()
}

fn read(python: &Path) -> (Vec<Container>, Vec<Probe>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut containers, mut probes) = (Vec::new(), Vec::new());
    for (directory, platform) in PLATFORMS {
        let mut command = Command::new(python);
        command.arg(root.join("tests/manifests.py")).arg(directory).arg(root.join("examples").join(directory));
        let answer = Answer::of(begin(&mut command));
        assert_eq!(answer.code, 0, "examples/{directory}: {}", answer.err);
        for line in answer.out.lines() {
            let words: Vec<String> = line.split('\t').map(str::to_owned).collect();
            let [what, file, container, kind, seconds, rest @ ..] = &words[..] else { panic!("{line}") };
            let (file, container, kind) = (file.clone(), container.clone(), kind.clone());
            let time = Duration::from_secs_f64(seconds.parse().expect("seconds"));
            let rest = rest.to_vec();
            match what.as_str() {
                "container" => containers.push(Container { file, container, kind, time, environment: rest, platform }),
                "probe" => probes.push(Probe { file, container, kind, time, command: rest.join(" ") }),
                other => panic!("{other}"),
            }
        }
    }
    (containers, probes)
}

impl Container {
    /// What `guard check` says of this container's environment: a table, without a warning.
    fn check(&self) -> Vec<String> {
        let mut setup = child().options(["check"]).env(self.platform, "10.0.0.1");
        for variable in &self.environment {
            let (name, value) = variable.split_once('=').expect("NAME=value");
            setup = setup.env(name, value);
        }
        let mut guard = setup.start();
        assert_eq!(guard.code(), 0, "{self:?}\n{}", guard.transcript());
        let lines: Vec<String> = guard.out().into_iter().map(str::to_owned).collect();
        assert!(!lines.iter().any(|line| line.starts_with("warning: ")), "{self:?}\n{}", guard.transcript());
        lines
    }

    /// A setting in force, given or not.
    fn in_force(&self, variable: &str) -> String {
        let table = self.check();
        let mut rows = table.iter().filter_map(|line| line.split_once(char::is_whitespace));
        let (_, rest) = rows.find(|(name, _)| *name == variable).expect("guard check has all variables");
        rest.split_whitespace().next().expect("a value").to_owned()
    }

    fn stop_timeout(&self) -> Duration {
        duration(&self.in_force("GUARD_STOP_TIMEOUT"))
    }
}

/// A duration as guard shows it: `1m30s`, `8.3s`, `500ms`.
fn duration(text: &str) -> Duration {
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let unit = rest.find(char::is_alphabetic).expect("a unit");
        let end = rest[unit..].find(|c: char| !c.is_alphabetic()).map_or(rest.len(), |length| unit + length);
        let factor = match &rest[unit..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            other => panic!("{text}: {other}"),
        };
        seconds += factor * rest[..unit].parse::<f64>().expect("a number");
        rest = &rest[end..];
    }
    Duration::from_secs_f64(seconds)
}

#[test]
fn guard_takes_what_the_manifests_set() {
    let Some((containers, _)) = manifests() else { return };
    let files = ["deployment.yaml", "init-container.yaml", "job.yaml", "sidecar.yaml", "task-definition.json"];
    for file in files.into_iter().chain(["compose.yaml"]) {
        assert!(containers.iter().any(|container| container.file == file), "nothing runs in {file}");
    }
    for container in containers {
        container.check();
    }
}

#[test]
fn guard_is_done_before_its_platform_kills() {
    let Some((containers, _)) = manifests() else { return };
    for container in containers.iter().filter(|container| container.kind != "sidecar") {
        // A sidecar is stopped when the others have ended, in what is left of the pod's time.
        let after = |other: &&Container| other.file == container.file && other.kind == "sidecar";
        let sidecars: Duration = containers.iter().filter(after).map(Container::stop_timeout).sum();
        let stop = container.stop_timeout() + sidecars;
        assert!(stop < container.time, "guard needs {stop:?}: {container:?}");
    }
}

#[test]
fn the_app_has_most_of_the_time_for_itself() {
    let Some((containers, _)) = manifests() else { return };
    for container in containers {
        let (stop, delay) = (container.stop_timeout(), duration(&container.in_force("GUARD_DRAIN_DELAY")));
        assert!(delay * 2 <= stop, "{delay:?} of {stop:?} are the drain delay's: {container:?}");
    }
}

#[test]
fn what_runs_once_is_not_restarted_by_guard() {
    let Some((containers, _)) = manifests() else { return };
    for container in containers {
        let expected = if container.kind == "once" { "never" } else { "on-failure" };
        assert_eq!(container.in_force("GUARD_RESTART"), expected, "{container:?}");
    }
}

/// A liveness probe that asks for readiness has the kubelet kill what guard is about to restart, or to drain.
#[test]
fn probes_ask_what_they_are_for() {
    let Some((containers, probes)) = manifests() else { return };
    for probe in probes {
        let expected = match probe.kind.as_str() {
            "readiness" | "startup" | "health" => "guard ready",
            "liveness" => "guard health",
            other => panic!("{other}"),
        };
        assert_eq!(probe.command, expected, "{probe:?}");
        assert!(probe.time > ANSWER, "guard could not say why it does not answer: {probe:?}");
    }
    for container in containers.iter().filter(|container| container.kind == "app") {
        let of_it = |probe: &&Probe| probe.file == container.file && probe.container == container.container;
        assert!(probes.iter().any(|probe| of_it(&probe)), "nobody asks whether it is ready: {container:?}");
    }
}
