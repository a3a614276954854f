//! The commands of README.md and the guides: each is run by a test, where it says that it works, or stands here with the
//! reason why it cannot be.

use crate::common::blocks::{self, Block, blocks};
use crate::common::{self, Answer, begin, child, in_path, port, skipped};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// How a command of a document is known to work.
enum How {
    /// This test of this file runs it, or checks it where the reason follows.
    By(&'static str, &'static str),
    /// No test can, for this reason.
    Not(&'static str),
}

use How::{By, Not};

const CONTAINERS: &str = "tests/containers/docs.rs";
const SERVERS: &str = "tests/zero_downtime.rs";
const HERE: &str = "tests/docs.rs";

const SUITE: &str = "the tests themselves";

/// A document, words that only commands of this kind have, and how these are known to work.
const COMMANDS: &[(&str, &str, How)] = &[
    ("README.md", "FROM node:20-slim", By(CONTAINERS, "the_readmes_image")),
    ("README.md", "sh examples/demo/run.sh", By(HERE, "the_demo_crashes_restarts_and_drains")),
    ("README.md", "cargo test", Not(SUITE)),
    ("README.md", "docker build -t guard .", By(CONTAINERS, "the_readmes_builds")),
    ("README.md", "docker build -f Dockerfile.example", By(CONTAINERS, "the_readmes_builds")),
    ("README.md", "rustup target add", By(CONTAINERS, "the_static_binary")),
    ("README.md", "cargo build --release", By(CONTAINERS, "the_static_binary")),
    ("CONTRIBUTING.md", "make", By(HERE, "make_has_the_habits")),
    ("docs/apps.md", "\"nginx\"", By(CONTAINERS, "nginx")),
    ("docs/apps.md", "apache2", By(CONTAINERS, "httpd")),
    ("docs/apps.md", "haproxy", By(CONTAINERS, "haproxy")),
    ("docs/apps.md", "php-fpm", By(CONTAINERS, "php_fpm")),
    ("docs/apps.md", "postgres", By(CONTAINERS, "postgresql")),
    ("docs/apps.md", "redis-server", By(CONTAINERS, "redis")),
    ("docs/apps.md", "gunicorn", By(CONTAINERS, "gunicorn")),
    ("docs/apps.md", "uvicorn", By(CONTAINERS, "uvicorn")),
    ("docs/apps.md", "ENV GUARD_NODE_IPC=on", By(CONTAINERS, "node")),
    ("docs/apps.md", "npm", By(CONTAINERS, "npm_start")),
    ("docs/apps.md", "java", By(CONTAINERS, "java")),
    ("docs/apps.md", "docker-entrypoint.sh", By(CONTAINERS, "a_shell")),
    ("docs/apps.md", "cron", By(CONTAINERS, "cron")),
    (
        "docs/benchmarks.md",
        "ROUNDS=1 bash examples/rolling/run.sh",
        By("tests/containers/rolling.rs", "the_drain_delay_is_why_no_request_is_lost"),
    ),
    ("docs/benchmarks.md", "RELOADS=3 bash examples/load/run.sh", By(SERVERS, "nobody_is_refused_or_reset_under_load")),
    ("docs/commands.md", "docker exec NAME", By(CONTAINERS, "what_docker_exec_asks")),
    ("docs/commands.md", "kubectl exec", By(CONTAINERS, "podman_answers_what_kubectl_asks")),
    ("docs/commands.md", "guard status", By(HERE, "the_status_of_the_guide_has_the_columns_of_guards")),
    ("docs/commands.md", "guard scale", By(HERE, "each_scale_of_the_guide_is_done")),
    ("docs/commands.md", "guard probe", By(CONTAINERS, "probes")),
    ("docs/fleet.md", "cargo run --example fleet", By("tests/fleet.rs", "the_guide_has_what_the_simulation_gives")),
    ("docs/docker.md", "FROM node:20-slim", By(CONTAINERS, "an_image_with_a_healthcheck")),
    ("docs/docker.md", "docker build -t guard .", By(CONTAINERS, "the_readmes_builds")),
    (
        "docs/docker.md",
        "docker build --build-arg TARGETARCH=arm64",
        By("tests/containers/own_image.rs", "the_image_for_arm64_runs_under_emulation"),
    ),
    ("docs/docker.md", "docker run -d --restart", By(CONTAINERS, "two_tiers")),
    ("docs/docker.md", "docker logs", By(CONTAINERS, "two_tiers")),
    ("docs/docker.md", "docker run -d -e GUARD_HEALTH_CHECK", By(CONTAINERS, "a_health_check")),
    ("docs/docker.md", "docker exec CONTAINER", By(CONTAINERS, "what_docker_exec_asks")),
    ("docs/docker.md", "docker run --read-only", By(CONTAINERS, "without_privileges")),
    ("docs/docker.md", "FROM gcr.io/distroless", By(CONTAINERS, "a_distroless_image")),
    ("docs/docker.md", "services:", By(CONTAINERS, "the_compose_file_of_the_guide")),
    (
        "docs/docker.md",
        "docker compose -f examples/compose/compose.yaml up",
        By("tests/containers/compose.rs", "a_client_waits_until_the_app_is_healthy"),
    ),
    ("docs/ecs.md", "aws ecs", By("tests/ecs.rs", "the_commands_of_the_guide_make_the_service")),
    ("docs/ecs.md", "\"stopTimeout\"", By(HERE, "excerpts_are_in_the_examples")),
    ("docs/ecs.md", "aws elbv2", By("tests/ecs.rs", "the_hook_of_the_guide_takes_the_task_out")),
    ("docs/apps.md", "puma", By("tests/containers/languages/puma.rs", "it_says_when_it_is_ready_and_pings")),
    ("docs/kubernetes.md", "DB_PASSWORD_FILE", By("tests/on_change.rs", "a_rotated_secret_reaches_the_next_run")),
    ("docs/kubernetes.md", "podFailurePolicy:", By(HERE, "excerpts_are_in_the_examples")),
    ("docs/kubernetes.md", "restartPolicyRules:", By(HERE, "excerpts_are_in_the_examples")),
    ("docs/kubernetes.md", "kubectl", By(CONTAINERS, "podman_answers_what_kubectl_asks")),
    ("docs/metrics.md", "readinessProbe:", By(HERE, "the_http_probes_of_the_guide")),
    ("docs/metrics.md", "examples/grafana/check", By("tests/grafana.rs", "every_query_of_the_dashboard_is_answered")),
    ("docs/migrating.md", "\"tini\"", By(CONTAINERS, "instead_of_tini")),
    ("docs/migrating.md", "\"dumb-init\"", By(CONTAINERS, "instead_of_dumb_init")),
    ("docs/migrating.md", "module.exports", By(HERE, "scripts_can_be_read")),
    ("docs/migrating.md", "FROM node:20-slim", By(CONTAINERS, "instead_of_pm2_runtime")),
    ("docs/migrating.md", "/app/bin/api", By(CONTAINERS, "instead_of_supervisord")),
    ("docs/migrating.md", "\"forever\"", By(CONTAINERS, "instead_of_forever")),
    ("docs/node.md", "FROM node:20-slim", By(CONTAINERS, "a_node_app")),
    ("docs/node.md", "process.send?.('ready')", By(HERE, "scripts_can_be_read")),
    ("docs/node.md", "drainable(", By(HERE, "scripts_can_be_read")),
    ("docs/node.md", "guard -- node examples/node/server.js", By(CONTAINERS, "the_node_example")),
    ("docs/node.md", "guard stop & curl", By(CONTAINERS, "the_node_example")),
    ("docs/node.md", "CMD [\"node\", \"server.js\"]\n", By(CONTAINERS, "node_itself")),
    ("docs/node.md", "GUARD_HEALTH_RETRIES=3", By("tests/guides.rs", "guard_takes_what_the_guides_set")),
    ("docs/node.md", "cluster.disconnect(", By(HERE, "scripts_can_be_read")),
    (
        "docs/zero-downtime.md",
        "GUARD_LISTEN=8080 guard -- gunicorn",
        By(SERVERS, "gunicorn_takes_the_socket_of_the_guide"),
    ),
    ("docs/zero-downtime.md", "server.c", By(SERVERS, "a_static_server_takes_the_socket_of_the_guide")),
    ("docs/zero-downtime.md", "guard -- ./server", By(SERVERS, "a_static_server_takes_the_socket_of_the_guide")),
    ("docs/zero-downtime.md", "GUARD_HOLD=on guard -- gunicorn", By(SERVERS, "gunicorn_binds_itself_as_in_the_guide")),
    ("docs/zero-downtime.md", "GUARD_LISTEN", By(CONTAINERS, "sockets_for_an_app_that_takes_them")),
    ("docs/zero-downtime.md", "GUARD_HOLD", By(CONTAINERS, "sockets_for_an_app_that_knows_nothing_of_it")),
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn each_command_is_run_by_a_test_or_has_a_reason() {
    let mut used = vec![false; COMMANDS.len()];
    let mut wrong = Vec::new();
    for block in blocks() {
        for command in block.commands() {
            // A block without FROM is told from the whole ones by its own words: the first row that has them counts.
            let is_it = |row: &&(usize, &(&str, &str, How))| row.1.0 == block.file && command.contains(row.1.1);
            match COMMANDS.iter().enumerate().collect::<Vec<_>>().iter().find(is_it) {
                Some((index, _)) => used[*index] = true,
                None if matches!(block.language.as_str(), "ini") => {} // another program's
                None => wrong.push(format!("{}:{}: no test runs {command:?}", block.file, block.line)),
            }
        }
    }
    for ((file, words, how), used) in COMMANDS.iter().zip(used) {
        if !used {
            wrong.push(format!("{file} has no command {words:?} any more"));
        }
        match how {
            By(tests, test) if !read(tests).contains(&format!("fn {test}()")) => {
                wrong.push(format!("{file}: {words:?}: there is no test {test} in {tests}"));
            }
            By(..) => {}
            Not(reason) => assert!(!reason.is_empty()),
        }
    }
    assert!(wrong.is_empty(), "tests/docs.rs lists what runs each command:\n{}", wrong.join("\n"));
}

/// In the words of the shell that a reader has, and in a target directory of its own, built quickly: what it shows is not
/// how small guard is.
#[test]
fn the_demo_crashes_restarts_and_drains() {
    let line = blocks::command("README.md", "sh examples/demo/run.sh");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo");
    let mut demo = Command::new("sh");
    demo.args(["-c", &line]).current_dir(env!("CARGO_MANIFEST_DIR")).env("CARGO_TARGET_DIR", target);
    for (name, value) in [("LTO", "off"), ("CODEGEN_UNITS", "16"), ("OPT_LEVEL", "0")] {
        demo.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
    }
    let answer = Answer::of(begin(&mut demo));
    assert_eq!(answer.code, 0, "{answer:?}");
    let said = ["app, run 1: job 2 crashes", "app, run 2: started, restarts so far: 1, last exit: 1", "asked to stop"];
    for line in said.iter().chain(&["is done", "demo: guard exited with 0"]) {
        assert!(answer.out.contains(line), "{line}: {answer:?}");
    }
}

#[test]
fn the_status_of_the_guide_has_the_columns_of_guards() {
    let mut guard = child().fixture("serve").start();
    guard.line("ready");
    let status = guard.until_yes(&["status"]).out;
    let columns = |text: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.starts_with("instance ")).expect("a heading");
        line.split_whitespace().map(str::to_owned).collect()
    };
    let shown = blocks::block("docs/commands.md", "$ guard status").text;
    assert_eq!(columns(&shown), columns(&status));
}

/// In their order, as somebody who tries them types them.
#[test]
fn each_scale_of_the_guide_is_done() {
    let mut guard = child().fixture("serve").start();
    guard.line("ready");
    let blocks = blocks();
    let commands = blocks.iter().filter(|block| block.file == "docs/commands.md").flat_map(Block::commands);
    let scales: Vec<&str> = commands.filter_map(|command| command.strip_prefix("guard ")).collect();
    let scales = scales.into_iter().filter(|words| words.starts_with("scale "));
    let mut count = 0;
    for scale in scales {
        let words: Vec<&str> = scale.split(" #").next().expect("the part before").split_whitespace().collect();
        let answer = guard.ask(&words);
        assert!(answer.code == 0 && answer.out.starts_with("scaled: "), "{words:?}: {answer:?}");
        count += 1;
    }
    assert_eq!(count, 4);
}

/// As a kubelet asks: the paths of the probes, on the port of the variable.
#[test]
fn the_http_probes_of_the_guide() {
    let port = port::Port::reserve().number;
    let mut guard = child().env("GUARD_HTTP", format!("127.0.0.1:{port}")).fixture("serve").start();
    guard.line("ready");
    let block = blocks::block("docs/metrics.md", "readinessProbe:");
    let paths: Vec<&str> =
        block.text.split("path: ").skip(1).filter_map(|rest| rest.split([',', ' ']).next()).collect();
    assert_eq!(paths.len(), 2, "{block:?}");
    for path in paths {
        guard.until_yes(&["ready"]);
        let mut probe = Command::new(env!("CARGO_BIN_EXE_guard"));
        let answer = Answer::of(begin(probe.args(["probe", &format!("http://127.0.0.1:{port}{path}")])));
        assert_eq!(answer.code, 0, "{path}: {answer:?}");
    }
}

/// The words of YAML or JSON, in whichever of its forms, without comments.
fn words(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| line.split(" #").next().expect("the part before"));
    let lines: Vec<&str> = lines.filter(|line| !line.trim_start().starts_with('#')).collect();
    let plain = lines.join("\n").replace(['[', ']', '{', '}', ',', '"'], " ").replace("- ", " ");
    plain.split_whitespace().map(str::to_owned).collect()
}

fn has(whole: &str, part: &str) -> bool {
    words(whole).windows(words(part).len().max(1)).any(|window| window == words(part))
}

/// What the guides show of the examples, which tests/manifests.rs checks whole.
#[test]
fn excerpts_are_in_the_examples() {
    let job = read("examples/kubernetes/job.yaml");
    for part in ["podFailurePolicy:", "restartPolicyRules:"] {
        let block = blocks::block("docs/kubernetes.md", part);
        assert!(has(&job, &block.text), "examples/kubernetes/job.yaml has not what {block:?} shows");
    }
    let task = read("examples/ecs/task-definition.json");
    for line in blocks::block("docs/ecs.md", "\"stopTimeout\"").text.lines() {
        assert!(words(line).is_empty() || has(&task, line), "examples/ecs/task-definition.json has no {line}");
    }
}

/// Pieces that need more around them, but are whole sentences of their language.
#[test]
fn scripts_can_be_read() {
    let check = |program: &str, arguments: &[&str], block: &Block| {
        let mut command = Command::new(program);
        let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = common::spawn(command);
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(block.text.as_bytes()).expect("it reads");
        drop(stdin);
        let answer = Answer::of(child);
        assert_eq!(answer.code, 0, "{block:?}\n{}", answer.err);
    };
    let blocks = blocks();
    for block in blocks.iter().filter(|block| block.text.starts_with("#!/bin/sh")) {
        check("sh", &["-n"], block);
    }
    if in_path("node").is_none() {
        return skipped("there is no node");
    }
    for block in blocks.iter().filter(|block| block.language == "js") {
        check("node", &["--check", "-"], block);
    }
}

/// Each command that CONTRIBUTING.md shows is a target, which `make --dry-run` can tell the steps of.
#[test]
fn make_has_the_habits() {
    if in_path("make").is_none() {
        return skipped("there is no make");
    }
    let blocks = blocks();
    let commands = blocks.iter().filter(|block| block.file == "CONTRIBUTING.md").flat_map(Block::commands);
    let mut count = 0;
    for command in commands {
        let words = command.split(" #").next().expect("the part before").trim();
        let line = words.strip_prefix("make").expect("the habits of the project are targets of make").trim();
        let mut make = Command::new("make");
        make.arg("--dry-run").args(line.split_whitespace()).current_dir(env!("CARGO_MANIFEST_DIR"));
        let answer = Answer::of(begin(&mut make));
        assert_eq!(answer.code, 0, "{command}: {answer:?}");
        count += 1;
    }
    assert!(count >= 6, "build, test, containers, bench, mutants, release");
}

/// The log's macros end with the event's name.
#[test]
fn each_event_of_the_log_is_in_the_guide() {
    fn sources(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
        let read = |path: std::path::PathBuf| match path.is_dir() {
            true => sources(&path),
            false => vec![fs::read_to_string(path).expect("a source")],
        };
        entries.flat_map(read).collect()
    }
    let guide =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).expect("the guide");
    let (_, log) = guide.split_once("## The log").expect("a chapter");
    let is_known = |name: &str| log.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).any(|word| word == name);
    let mut unknown = Vec::new();
    for source in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        // What follows the keys, up to the end of the macro.
        let ends =
            source.split("; \"").skip(1).filter_map(|rest| rest.split_once("\")").map(|(name, _)| name.to_owned()));
        unknown.extend(
            ends.filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') && !is_known(name)),
        );
    }
    assert_eq!(unknown, [""; 0]);
}
