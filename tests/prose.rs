//! The commands in the text and the tables of README.md and the guides: each is run by a test, or stands here with the reason
//! why none can. tests/docs.rs has those in blocks.

use crate::common::{child, inline, port, program};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// How commands are known to work.
enum How {
    /// This test of this file runs each, or what each stands for; in a script these words do.
    By(&'static str, &'static str),
    /// No test can, for this reason.
    Not(&'static str),
}

use How::{By, Not};

const HERE: &str = "tests/prose.rs";
const BLOCKS: &str = "tests/docs.rs";
const GUIDES: &str = "tests/containers/docs.rs";
const STOP: &str = "tests/containers/stop.rs";
const EXEC: &str = "tests/containers/exec.rs";
const NAMESPACES: &str = "tests/containers/namespaces.rs";
const SHELL: &str = "tests/containers/languages/shell.rs";
const BACKGROUND: &str = "tests/containers/languages/background.rs";
const RELEASE: &str = "release/check";
const CI: &str = ".ci/run";

/// Commands, wherever in the documents they stand, and how they are known to work.
const COMMANDS: &[(&[&str], How)] = &[
    // Getting it
    (&["docker load --input dist/guard-init-0.1.0-image-amd64.tar"], By(RELEASE, "readme 'docker load '")),
    (&["docker load", "podman load"], By(RELEASE, "$engine load --input")),
    (&["tar -xzf dist/guard-init-0.1.0-linux-amd64.tar.gz"], By(RELEASE, "readme 'tar '")),
    (&["npm install ./dist/guard-init-0.1.0.tgz"], By(RELEASE, "readme 'npm install '")),
    (&["npm install --global /tmp/guard-init-0.1.0.tgz"], By(RELEASE, "guide docs/node.md 'npm install --global'")),
    (&["pip install --no-index --find-links dist guard-init"], By(RELEASE, "readme 'pip install '")),
    (&["dpkg --install dist/guard-init_0.1.0-1_amd64.deb"], By(RELEASE, "readme 'dpkg '")),
    (&["cargo install --locked --path .", "cargo install"], By(RELEASE, "readme 'cargo install '")),
    (&["cargo package"], By("release/build", "cargo package --locked")),
    (
        &["skopeo copy --all oci-archive:dist/guard-init-X-image.tar docker://REGISTRY/guard:X"],
        By(RELEASE, "guide docs/release.md 'skopeo copy '"),
    ),
    // The project's own
    (
        &[
            "make test",
            "make containers",
            "make kernel",
            "make kubernetes",
            "make bench",
            "make mutants",
            "make release",
            "make ci",
        ],
        By(BLOCKS, "make_has_the_habits"),
    ),
    (&["python3 -m venv target/manifests"], By(CI, "-m venv \"$manifests\"")),
    (
        &["target/manifests/bin/pip install --requirement tests/manifests.txt"],
        By(CI, "--requirement tests/manifests.txt"),
    ),
    (&["cargo fmt"], By(CI, "cargo fmt --check")),
    (&["cargo clippy --all-targets -- -D warnings"], By(CI, "--all-targets -- -D warnings")),
    (&["bash tests/containers/run NAME"], By(CI, "bash tests/containers/run")),
    (&["bash tests/kernel/run FILE::NAME"], By(CI, "bash tests/kernel/run")),
    (
        &["cargo test", "cargo test --test contract stop::", "cargo test --test deadline", "bash .ci/run"],
        Not("the tests themselves"),
    ),
    (&["cargo test --bin guard -- --ignored every_state_with_reloads"], Not("it takes half an hour")),
    (&["cargo bench"], By(CI, "cargo bench --locked")),
    (&["man guard", "man 1init guard"], By(RELEASE, "--where 1init guard")),
    (&["promtool test rules"], By("tests/grafana.rs", "every_query_of_the_dashboard_is_answered")),
    // guard's own commands: each is run as it stands there.
    (
        &[
            "guard status",
            "guard status --json",
            "guard ready",
            "guard health",
            "guard stop",
            "guard restart",
            "guard reload",
            "guard scale",
            "guard scale N",
            "guard scale 3",
            "guard scale 4",
            "guard scale +1",
            "guard scale -1",
            "guard scale auto",
            "guard probe",
            "guard probe URL",
            "guard probe http://127.0.0.1:8080/health",
            "guard check",
            "guard check -- COMMAND",
            "guard --",
            "guard --restart never -- app",
        ],
        By(HERE, "each_command_of_guards_is_answered"),
    ),
    // Docker
    (
        &[
            "curl localhost:8080",
            "docker exec CONTAINER guard restart",
            "docker exec CONTAINER sh -c 'kill -SEGV PID'",
            "docker stop CONTAINER",
            "docker run --rm app guard check",
            "docker run IMAGE guard check",
        ],
        By(GUIDES, "what_the_readme_tries"),
    ),
    (
        &["docker exec CONTAINER guard status", "docker exec NAME guard status", "docker exec"],
        By(GUIDES, "what_docker_exec_asks"),
    ),
    (&["docker run", "docker logs"], By(GUIDES, "two_tiers")),
    (&["docker run --stop-timeout 60", "docker run --stop-timeout 25"], By(GUIDES, "two_tiers")),
    (&["docker run IMAGE COMMAND"], By(STOP, "cmd_is_the_app_and_what_follows_the_image_replaces_it")),
    (&["docker run -i"], By(GUIDES, "a_job_that_a_pipe_feeds")),
    (&["docker run -it IMAGE sh"], By("tests/containers/terminal.rs", "a_shell_has_its_jobs_under_docker")),
    (&["docker run -t"], By("tests/containers/servers/httpd.rs", "a_window_that_changes_ends_it_at_a_terminal")),
    (&["docker run --init"], By(NAMESPACES, "below_dockers_init")),
    (&["docker stop"], By(STOP, "docker_stop_is_a_drain")),
    (&["docker stop -t 60", "docker stop -t 5"], By(STOP, "a_shorter_stop_of_dockers_kills_guard")),
    (&["docker restart"], By(STOP, "docker_restart_begins_at_run_1")),
    (&["docker kill"], By(STOP, "docker_kill_ends_everything")),
    (&["docker kill -s HUP"], By(STOP, "docker_kill_sends_a_signal_through")),
    (&["docker kill -s USR1"], By(GUIDES, "a_signal_that_reloads")),
    (&["docker kill -s QUIT"], By("tests/containers/languages/java.rs", "quit_is_a_thread_dump")),
    (&["docker pause"], By(STOP, "a_stop_request_while_paused_is_a_stop_when_thawed")),
    (&["docker exec --user 1234"], By(EXEC, "another_user_is_refused")),
    (&["docker inspect"], By("tests/containers/healthcheck.rs", "the_health_status_is_guards_readiness")),
    (&["docker compose down"], By("tests/containers/compose.rs", "a_client_waits_until_the_app_is_healthy")),
    // Podman
    (&["podman run", "podman start"], By("tests/containers/sdnotify.rs", "podman_passes_on_when_the_app_is_ready")),
    (&["podman kube play", "podman pod stop"], By("tests/containers/kube.rs", "podman_plays_the_deployment")),
    (&["podman kube down"], By("tests/containers/kube.rs", "podman_kube_down_leaves_no_time")),
    (&["podman build --format docker", "podman run --health-cmd"], By(GUIDES, "podman_keeps_health_checks")),
    // Kubernetes and ECS
    (
        &["kubectl exec", "kubectl logs", "kubectl exec POD -- guard status"],
        By(GUIDES, "podman_answers_what_kubectl_asks"),
    ),
    (&["kubectl exec POD -c sidecar -- guard status"], By("tests/containers/kube.rs", "podman_plays_the_sidecar")),
    // Apps
    (&["nginx -g 'daemon off;'"], By("tests/containers/servers/nginx.rs", "quit_finishes_transfers")),
    (
        &["sh -c 'rm -f /run/nginx.sock; exec nginx -g \"daemon off;\"'"],
        By("tests/containers/servers/nginx.rs", "a_socket_file_that_is_left_is_removed_first"),
    ),
    (&["apache2 -DFOREGROUND"], By("tests/containers/servers/httpd.rs", "winch_finishes_transfers")),
    (&["apachectl -DFOREGROUND"], By("tests/containers/servers/httpd.rs", "below_apachectl_nobody_hears_winch")),
    (&["haproxy -Ws -f haproxy.cfg"], By("tests/containers/servers/haproxy.rs", "usr1_finishes_transfers")),
    (
        &["php-fpm8.2 --nodaemonize --force-stderr"],
        By("tests/containers/servers/php_fpm.rs", "quit_finishes_requests_where_it_is_given_time"),
    ),
    (&["postgres -D DIRECTORY"], By("tests/containers/servers/postgresql.rs", "int_ends_sessions_and_shuts_down")),
    (
        &["redis-server --supervised systemd"],
        By("tests/containers/servers/redis.rs", "term_saves_and_cuts_clients_off"),
    ),
    (
        &["gunicorn --bind 0.0.0.0:8080 --workers 2 wsgi:app"],
        By("tests/containers/languages/python.rs", "gunicorn_finishes_requests"),
    ),
    (
        &["uvicorn --host 0.0.0.0 --port 8080 asgi:app"],
        By("tests/containers/languages/python.rs", "uvicorn_finishes_requests"),
    ),
    (&["puma config.ru"], By("tests/containers/languages/puma.rs", "it_says_when_it_is_ready_and_pings")),
    (&["node server.js"], By("tests/containers/languages/node.rs", "term_finishes_requests")),
    (&["node cluster.js"], By("tests/containers/languages/cluster.rs", "term_finishes_requests")),
    (&["npm start"], By("tests/containers/languages/node.rs", "npm_ends_at_once_and_the_app_finishes_requests")),
    (&["npm install"], By(GUIDES, "the_zero_downtime_example_as_nobody")),
    (&["node --report-on-signal"], By("tests/diagnose.rs", "node_writes_a_report")),
    (&["node --max-old-space-size=192"], By("tests/node.rs", "a_heap_that_is_full_costs_a_run_and_not_the_container")),
    (&["java Server"], By("tests/containers/languages/java.rs", "term_finishes_requests")),
    (
        &["sh -c 'jcmd $GUARD_MAIN_PID GC.heap_dump /dumps/$GUARD_RUN.hprof'"],
        By("tests/containers/languages/java.rs", "the_guides_command_writes_the_heap_of_one_that_hangs"),
    ),
    // Shells
    (&["sh -c '…'"], By("tests/diagnose.rs", "a_command_knows_the_main_process_and_what_follows_waits_for_it")),
    (
        &["sh -c 'prepare && exec app'", "sh -c 'migrate && exec node server.js'", "sh -c 'exec app'", "exec app"],
        By(SHELL, "what_a_shell_execs_finishes_requests"),
    ),
    (&["exec \"$@\""], By(SHELL, "what_an_entrypoint_execs_finishes_requests")),
    (
        &["sh -c 'prepare; app'", "sh -c 'node server.js'", "sh -c 'app; …'"],
        By(SHELL, "a_shell_ends_at_once_and_the_app_finishes_requests"),
    ),
    (&["sh -c 'umask 027; exec api'"], By(HERE, "a_shell_sets_the_umask")),
    (&["sh -c 'setsid node server.js &'", "setsid app &"], By(BACKGROUND, "guard_says_so_of_setsid")),
    (&["start-stop-daemon --start --background"], By(BACKGROUND, "guard_says_so_of_start_stop_daemon")),
    (&["env bash", "su -c bash"], By("tests/terminal.rs", "who_leaves_a_shell_has_left_it_however_it_was_started")),
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn each_command_in_the_text_is_run_by_a_test_or_has_a_reason() {
    let inline = inline::inline();
    let mut wrong: Vec<String> = Vec::new();
    let known: Vec<&str> = COMMANDS.iter().flat_map(|(commands, _)| commands.iter().copied()).collect();
    for found in inline.iter().filter(|found| !known.contains(&found.command.as_str())) {
        wrong.push(format!("{}:{}: no test runs `{}`", found.file, found.line, found.command));
    }
    for command in &known {
        if !inline.iter().any(|found| found.command == *command) {
            wrong.push(format!("no document has `{command}` any more"));
        }
        if known.iter().filter(|other| *other == command).count() > 1 {
            wrong.push(format!("`{command}` is here twice"));
        }
    }
    for (commands, how) in COMMANDS {
        match how {
            By(tests, test) => {
                let words = if tests.ends_with(".rs") { format!("fn {test}()") } else { (*test).to_owned() };
                if !read(tests).contains(&words) {
                    wrong.push(format!("{commands:?}: there is no {test} in {tests}"));
                }
            }
            Not(reason) => assert!(!reason.is_empty()),
        }
    }
    assert!(inline.len() > 200, "the documents have more commands than {}", inline.len());
    assert!(wrong.is_empty(), "tests/prose.rs lists what runs each command:\n{}", wrong.join("\n"));
}

/// The files that README.md names are those that `release/build` makes.
#[test]
fn the_readme_names_this_version() {
    let readme = read("README.md");
    let names: Vec<&str> = readme.split("dist/").skip(1).filter_map(|rest| rest.split(['`', ' ']).next()).collect();
    let ours = |name: &&&str| name.starts_with("guard");
    assert!(names.iter().filter(ours).count() >= 4, "{names:?}");
    for name in names.iter().filter(ours) {
        assert!(name.contains(env!("CARGO_PKG_VERSION")), "{name}");
    }
}

/// As they stand in the text, with something in the place of what stands for it there.
#[test]
fn each_command_of_guards_is_answered() {
    let commands: BTreeSet<String> = inline::inline().into_iter().map(|found| found.command).collect();
    let port = port::Port::reserve().number;
    let url = format!("http://127.0.0.1:{port}/livez");
    let mut guard = child().env("GUARD_HTTP", format!("127.0.0.1:{port}")).env("GUARD_INSTANCES", "2");
    guard = guard.env("GUARD_HOLD", "off");
    let mut guard = guard.fixture("serve").start();
    guard.until_yes(&["ready"]);
    let mut count = 0;
    for command in commands.iter().filter_map(|command| command.strip_prefix("guard ")) {
        let line = match command {
            "scale" | "scale N" => "scale 2".to_owned(),
            "probe" | "probe URL" | "probe http://127.0.0.1:8080/health" => format!("probe {url}"),
            "--" => "-- true".to_owned(),
            "stop" => continue, // the last one
            other => other.replace("COMMAND", "true").replace("-- app", "-- true"),
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        if ["check", "probe"].contains(&words[0]) || words.contains(&"--") {
            let mut other = child().options(words).start();
            assert_eq!(other.code(), 0, "{command}: {}", other.transcript());
        } else {
            let answer = guard.until_yes(&words);
            assert_eq!(answer.code, 0, "{command}: {answer:?}\n{}", guard.transcript());
        }
        count += 1;
    }
    assert!(count > 15, "{commands:?}");
    let answer = guard.ask(&["stop"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    guard.code();
}

#[test]
fn a_shell_sets_the_umask() {
    let directory = tempfile::tempdir().expect("a directory");
    program(directory.path(), "api", "#!/bin/sh\numask\n", 0o755);
    let inline = inline::inline();
    let line = inline.iter().find(|found| found.command.contains("umask")).expect("the guide has it");
    let script = line.command.strip_prefix("sh -c '").and_then(|rest| rest.strip_suffix('\'')).expect("a script");
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    let mut guard = child().env("PATH", path).app(["sh", "-c", script]).start();
    guard.line("0027");
    assert_eq!(guard.code(), 0);
}
