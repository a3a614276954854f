//! The commands and the Dockerfiles of README.md and the guides, as they stand there; tests/docs.rs knows which test runs
//! which. The engine is the tests' own, so the names `guard`, `app` and `example/app` are free.

use crate::common::blocks::{block, blocks, command};
use crate::common::inline::inline;
use crate::common::{Answer, begin, eventually, fixture, status_field};
use crate::compose::Project;
use crate::container::{Container, Run, docker, podman};
use crate::engine::Engine;
use crate::image::{base, image, image_of, project, tagged};
use crate::kube::{Pod, manifest};
use crate::steps::crash;
use std::fs;
use std::path::Path;
use std::process::Command;

tests![
    the_readmes_image,
    the_readmes_builds,
    the_static_binary,
    an_image_with_a_healthcheck,
    two_tiers,
    a_health_check,
    what_docker_exec_asks,
    without_privileges,
    the_compose_file_of_the_guide,
    probes,
    podman_answers_what_kubectl_asks,
    the_node_example,
    a_node_app,
    node_itself,
    nginx,
    httpd,
    haproxy,
    php_fpm,
    postgresql,
    redis,
    gunicorn,
    uvicorn,
    node,
    npm_start,
    java,
    a_shell,
    cron,
    instead_of_tini,
    instead_of_dumb_init,
    instead_of_pm2_runtime,
    instead_of_supervisord,
    instead_of_forever,
    sockets_for_an_app_that_takes_them,
    sockets_for_an_app_that_knows_nothing_of_it,
    the_zero_downtime_example_as_nobody,
    a_distroless_image,
    what_the_readme_tries,
    a_job_that_a_pipe_feeds,
    a_signal_that_reloads,
    podman_keeps_health_checks,
];

/// A line in a shell, at the root of the project.
fn shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(project());
    command
}

fn tell(line: &str) -> String {
    let answer = Answer::of(begin(&mut shell(line)));
    assert_eq!(answer.code, 0, "{line}: {answer:?}");
    answer.out.trim_end().to_owned()
}

/// The image `guard`, as the README builds it; other tests build it too, so that Docker has its layers by then.
fn guard() {
    image_of(Engine::Docker, "Dockerfile", "guard");
    tagged("guard", || drop(tell(&command("README.md", "docker build -t guard ."))));
}

/// The image `app`, as the README builds it, and how it then runs it. Docker has its layers too.
fn app() -> String {
    let line = command("README.md", "docker build -f Dockerfile.example");
    let (build, run) = line.split_once(" && ").expect("the image is built and run");
    image_of(Engine::Docker, "Dockerfile.example", "example");
    tagged("app", || drop(tell(build)));
    run.to_owned()
}

/// A container of a `docker run -d` of the guides.
fn detached(line: &str) -> Container {
    app();
    let container = Container::existing(Engine::Docker, &tell(line));
    // By then it has its handlers; before, a signal ends it at once.
    container.until_yes(&["probe", "http://127.0.0.1:8080/"]);
    container.until_yes(&["ready"]);
    container
}

/// A `docker run` of the guides that stays in the foreground; it answers, is stopped and has ended well.
fn in_the_foreground(line: &str, name: &str, probe: impl FnOnce(&Container)) {
    let line = line.replacen("docker run", &format!("docker run --name {name}"), 1);
    let client = begin(&mut shell(&line));
    eventually("the container", || (Engine::Docker.ask(&["inspect", name]).code == 0).then_some(()));
    let container = Container::existing(Engine::Docker, name);
    container.until_yes(&["ready"]);
    container.until_yes(&["probe", "http://127.0.0.1:8080/"]);
    probe(&container);
    container.tell("stop");
    assert_eq!(Answer::of(client).code, 0);
}

fn the_readmes_builds() {
    guard();
    in_the_foreground(&app(), "readme", |_| {
        let mut here = Command::new(env!("CARGO_BIN_EXE_guard"));
        here.args(["probe", "http://127.0.0.1:8080/"]); // the port that it publishes
        assert_eq!(Answer::of(begin(&mut here)).code, 0);
    });
}

/// On the machine that they name.
fn the_static_binary() {
    let target = command("README.md", "rustup target add");
    if target.contains(std::env::consts::ARCH) {
        tell(&target);
        tell(&command("README.md", "cargo build --release"));
    }
}

fn two_tiers() {
    let container = detached(&command("docs/docker.md", "docker run -d --restart"));
    let logs = command("docs/docker.md", "docker logs").replace("CONTAINER", &container.name);
    assert!(tell(&logs).lines().all(|line| line.starts_with("guard time=")), "{}", tell(&logs));
    assert_eq!(container.inspect("{{.Config.StopTimeout}}"), "60");
    assert!(container.ask(&["check"]).out.contains("55s"));
    container.tell("stop");
    container.until("{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", "exited 0 0");
}

fn a_health_check() {
    let mut container = detached(&command("docs/docker.md", "docker run -d -e GUARD_HEALTH_CHECK"));
    assert_eq!(container.event("ready").get("run"), Some("1"));
}

/// All of docs/docker.md, and that of docs/commands.md.
fn what_docker_exec_asks() {
    let container = detached("docker run -d app");
    let blocks = blocks();
    let commands = blocks.iter().flat_map(|block| block.commands());
    let mut count = 0;
    for command in commands.filter(|command| command.starts_with("docker exec ")) {
        let command = command.split("  #").next().expect("the part before");
        tell(&command.replace("CONTAINER", &container.name).replace("NAME", &container.name));
        count += 1;
    }
    assert!(count > 3);
}

fn without_privileges() {
    app();
    in_the_foreground(&command("docs/docker.md", "docker run --read-only"), "read-only", |container| {
        let answer = container.exec(&["sh", "-c", "grep CapEff /proc/1/status; id -u; touch /x"]);
        assert!(answer.out.contains("0000000000000000\n65534") && answer.err.contains("Read-only"), "{answer:?}");
    });
}

/// Builds a Dockerfile, with these files beside it.
fn build(dockerfile: &str, files: &[(&str, &Path)], tag: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("Dockerfile"), dockerfile).expect("a file");
    for (name, from) in files {
        fs::copy(from, directory.path().join(name)).expect("a file");
    }
    Engine::Docker.tell(&["build", "--quiet", "--tag", tag, &directory.path().display().to_string()]);
}

fn the_compose_file_of_the_guide() {
    app();
    Engine::Docker.tell(&["tag", "app", "example/app"]);
    let client = "fetch(\"http://app:8080/\").then((response) => response.text()).then(console.log)";
    let client = format!("FROM example/app\nENV GUARD_RESTART=never\nCMD [\"node\", \"-e\", {client:?}]\n");
    build(&client, &[], "example/client");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("compose.yaml");
    fs::write(&file, block("docs/docker.md", "services:").text).expect("a file");
    let project = Project::new("guide", &file);
    let answer = project.tell(&["up", "--no-color", "--exit-code-from", "client"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(answer.out.lines().any(|line| line.contains("client") && line.ends_with("| run 1")), "{answer:?}");
}

/// In a container that serves what they ask for, on both of its loopback addresses.
fn probes() {
    let loopback = "--sysctl net.ipv6.conf.all.disable_ipv6=0 --sysctl net.ipv6.conf.lo.disable_ipv6=0";
    let container = detached(&format!("docker run -d {loopback} app"));
    let listen = "require('node:net').createServer().listen(5432, '::1'); \
                  require('node:http').createServer((_, answer) => answer.end()).listen('/run/app.sock')";
    Engine::Docker.tell(&["exec", "--detach", &container.name, "node", "-e", listen]);
    let blocks = blocks();
    let probes = blocks.iter().flat_map(|block| block.commands()).filter(|command| command.starts_with("guard probe"));
    let mut count = 0;
    for probe in probes {
        eventually(probe, || (container.exec(&["sh", "-c", probe]).code == 0).then_some(()));
        count += 1;
    }
    assert_eq!(count, 4);
}

/// What a cluster does, Podman does: it plays the deployment, and runs what follows the two dashes in its container.
fn podman_answers_what_kubectl_asks() {
    let pod = Pod::play(&manifest("deployment.yaml"), "asked");
    let app = pod.container("app");
    app.until_yes(&["ready"]);
    let blocks = blocks();
    let mut count = 0;
    for command in blocks.iter().flat_map(|block| block.commands()).filter(|command| command.starts_with("kubectl")) {
        let command = command.split("  #").next().expect("the part before").replace("-c CONTAINER ", "");
        let command = command.replace("kubectl exec POD --", &format!("podman exec {}", app.name));
        let command = command.replace("kubectl logs POD", &format!("podman logs {} 2>&1", app.name));
        assert!(command.starts_with("podman"), "{command}");
        tell(&command);
        count += 1;
    }
    assert!(count > 5);
}

/// Two lines in two terminals.
fn the_node_example() {
    let tag = "guard-test/node-example";
    let languages = image(Engine::Docker, "languages");
    let files =
        ["drain.js", "server.js", "websocket.js"].map(|name| (name, project().join("examples/node").join(name)));
    let files = files.each_ref().map(|(name, path)| (*name, path.as_path()));
    build(&format!("FROM {languages}\nCOPY *.js /examples/node/\nWORKDIR /\n"), &files, tag);
    let container = Run::of(Engine::Docker, tag.to_owned()).options("--init --entrypoint sleep").command(["1000"]);
    let container = container.start_detached();
    let line = |words| command("docs/node.md", words);
    let mut first = container.session(&["sh", "-c", &line("GUARD_NODE_IPC=on")]);
    first.event("ready");
    // curl may be quicker than the stop, as it may be in another terminal.
    let asked = || container.exec(&["sh", "-c", &line("guard stop & curl")]).out;
    eventually("503 while it drains", || asked().contains("503").then_some(()));
    assert_eq!(first.code(), 0);
}

/// A Dockerfile of the guides, whole or behind `FROM BASE` and what it takes for granted.
struct Guide {
    file: &'static str,
    words: &'static str,
    base: &'static str,
    before: &'static str,
    options: &'static str,
    /// In place of its own, or where it has none.
    command: &'static str,
    code: i32,
}

/// A fragment, for an image of the tests.
fn fragment(file: &'static str, words: &'static str, base: &'static str) -> Guide {
    Guide { file, words, base, before: "", options: "", command: "", code: 0 }
}

/// An app in Node, which stands in the directory of the Dockerfile.
fn whole(file: &'static str) -> Guide {
    fragment(file, "FROM node:20-slim", "")
}

const LOCK: &str = r#"{ "lockfileVersion": 3, "requires": true, "packages": { "": {} } }"#;

impl Guide {
    fn built(&self) -> String {
        let text = block(self.file, self.words).text;
        let name: String = self.words.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        let tag = format!("guard-test/{}-{name}", self.file.to_lowercase().replace(['/', '.'], "-"));
        let apps = project().join("tests/containers/apps");
        let lock = tempfile::NamedTempFile::new().expect("a file");
        fs::write(lock.path(), LOCK).expect("a file");
        let (server, package) = (apps.join("server.js"), apps.join("package.json"));
        let files = [("server.js", server.as_path()), ("package.json", &package), ("package-lock.json", lock.path())];
        let dockerfile = if text.starts_with("FROM ") {
            guard();
            base("node:20-slim");
            text
        } else {
            format!("FROM {}\n{}\n{text}", image(Engine::Docker, self.base), self.before)
        };
        build(&dockerfile, &files, &tag);
        tag
    }

    fn started(&self) -> Container {
        let run = Run::of(Engine::Docker, self.built()).options(self.options);
        run.command(self.command.split_whitespace()).start()
    }

    /// It gets ready, stays so, and ends at `docker stop` with its code and by itself.
    #[track_caller]
    fn works(self) {
        let mut container = self.started();
        // What these say when they have their handlers; before, a signal ends them at once.
        if self.command.starts_with("fixture") {
            container.line("ready");
        } else if block(self.file, self.words).text.contains("server.js\"") {
            container.line("listening");
        }
        container.until_yes(&["ready"]);
        assert!(container.said("restart").is_empty(), "{}", container.transcript());
        container.tell("stop");
        assert_eq!(container.code(), self.code, "{}", container.transcript());
        assert!(container.said("kill").is_empty(), "{}", container.transcript());
    }
}

fn the_readmes_image() {
    whole("README.md").works();
}

fn an_image_with_a_healthcheck() {
    let container = whole("docs/docker.md").started();
    container.until("{{.State.Health.Status}}", "healthy");
}

fn a_node_app() {
    whole("docs/node.md").works();
}

fn node_itself() {
    fragment("docs/node.md", "CMD [\"node\"", "languages").works();
}

const APPS: &str = "docs/apps.md";

fn nginx() {
    fragment(APPS, "\"nginx\"", "servers").works();
}

fn httpd() {
    fragment(APPS, "apache2 -DFOREGROUND", "servers").works();
}

fn haproxy() {
    Guide { options: "--env BACKEND=127.0.0.1:8080", ..fragment(APPS, "\"haproxy\"", "servers") }.works();
}

fn php_fpm() {
    Guide { options: "--volume /run/php", ..fragment(APPS, "\"php-fpm8.2\"", "servers") }.works();
}

fn postgresql() {
    fragment(APPS, "USER postgres", "servers").works();
}

fn redis() {
    Guide { options: "--volume /data", ..fragment(APPS, "\"redis-server\"", "servers") }.works();
}

fn gunicorn() {
    fragment(APPS, "\"gunicorn\"", "languages").works();
}

fn uvicorn() {
    fragment(APPS, "\"uvicorn\"", "languages").works();
}

fn node() {
    fragment(APPS, "ENV GUARD_NODE_IPC=on", "languages").works();
}

fn npm_start() {
    fragment(APPS, "\"npm\"", "languages").works();
}

fn java() {
    let before = "RUN jar --create --file app.jar --main-class Server *.class";
    Guide { before, ..fragment(APPS, "\"app.jar\"", "languages") }.works();
}

fn a_shell() {
    let before = "RUN install entrypoint.sh /usr/local/bin/docker-entrypoint.sh";
    Guide { before, ..fragment(APPS, "\"docker-entrypoint.sh\"", "languages") }.works();
}

fn cron() {
    let before = "RUN echo '* * * * * root true' >/app/crontab";
    Guide { before, code: 143, ..fragment(APPS, "exec cron -f", "languages") }.works();
}

const MIGRATING: &str = "docs/migrating.md";

fn instead_of_tini() {
    Guide { command: "fixture quit TERM 143 serve", ..fragment(MIGRATING, "\"tini\"", "fixture") }.works();
}

fn instead_of_dumb_init() {
    Guide { command: "fixture quit QUIT 0 serve", ..fragment(MIGRATING, "\"dumb-init\"", "fixture") }.works();
}

fn instead_of_pm2_runtime() {
    whole(MIGRATING).works();
}

fn instead_of_supervisord() {
    let before = "RUN useradd app && mkdir -p /app/bin && echo 'exec fixture quit QUIT 0 serve' >/app/bin/api \
        && chmod +x /app/bin/api";
    let guide = fragment(MIGRATING, "CMD [\"/app/bin/api\"", "fixture");
    let mut container = Guide { before, ..guide }.started();
    container.line("ready");
    container.tell("stop");
    container.line("got QUIT");
    assert_eq!(container.code(), 0);
}

fn instead_of_forever() {
    fragment(MIGRATING, "\"forever\"", "languages").works();
}

const ZERO_DOWNTIME: &str = "docs/zero-downtime.md";

/// The app is killed, and who asks before the next run listens is not refused. The next run is late, so that there is time.
fn refuses_nobody(guide: Guide) {
    const ASK: [&str; 4] = ["probe", "http://127.0.0.1:8080/", "--timeout", "20s"];
    let mut container = Guide { options: "--env GUARD_BACKOFF_INITIAL=2s", ..guide }.started();
    container.until_yes(&ASK);
    crash(&mut container);
    let answer = container.ask(&ASK);
    assert_eq!(answer.code, 0, "{answer:?}\n{}", container.transcript());
    container.tell("stop");
    container.code();
    assert!(container.said("kill").is_empty(), "{}", container.transcript());
}

fn sockets_for_an_app_that_takes_them() {
    let before = "RUN printf '%s\\n' '#!/bin/sh' 'exec gunicorn wsgi:app' >/usr/local/bin/app \
        && chmod +x /usr/local/bin/app";
    refuses_nobody(Guide { before, ..fragment(ZERO_DOWNTIME, "ENV GUARD_LISTEN=8080", "languages") });
}

fn sockets_for_an_app_that_knows_nothing_of_it() {
    refuses_nobody(fragment(ZERO_DOWNTIME, "ENV GUARD_HOLD=on", "languages"));
}

/// As its head comment builds it, and by a user without privileges. All its runs are killed at once, and nobody is refused.
fn the_zero_downtime_example_as_nobody() {
    const ASK: [&str; 4] = ["probe", "http://127.0.0.1:8080/", "--timeout", "20s"];
    guard();
    base("node:20-slim");
    let tag = "guard-test/zero-downtime";
    let example = project().join("examples/zero-downtime").display().to_string();
    Engine::Docker.tell(&["build", "--quiet", "--tag", tag, &example]);
    let run = Run::of(Engine::Docker, tag.to_owned()).env("GUARD_MAX_RESTARTS", "unlimited");
    let mut container = run.options("--user 65534 --cap-drop ALL --security-opt no-new-privileges").start();
    container.until_yes(&["ready"]);
    container.until_yes(&ASK);
    let pids = |container: &Container| -> Vec<String> {
        let status = container.ask(&["status"]).out;
        let rows = status.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
        let pids = rows.filter_map(|row| row.split_whitespace().nth(2).map(str::to_owned));
        pids.filter(|pid| pid.bytes().all(|byte| byte.is_ascii_digit())).collect()
    };
    for _ in 0..5 {
        let living = eventually("two runs", || Some(pids(&container)).filter(|pids| pids.len() == 2));
        container.exec(&["sh", "-c", &format!("kill -KILL {}", living.join(" "))]);
        let answer = container.ask(&ASK);
        assert_eq!(answer.code, 0, "{answer:?}\n{}", container.transcript());
    }
    eventually("two runs", || (pids(&container).len() == 2).then_some(()));
    container.until_yes(&["reload"]);
    assert_eq!(container.ask(&ASK).code, 0, "{}", container.transcript());
    container.tell("stop");
    // Node without a handler.
    assert_eq!(container.code(), 143, "{}", container.transcript());
}

/// Made from Debian's packages as the real one is: the C library and no shell. The app is linked dynamically.
fn a_distroless_image() {
    guard();
    base("gcr.io/distroless/cc-debian12:nonroot");
    let tag = "guard-test/distroless";
    build(&block("docs/docker.md", "FROM gcr.io/distroless").text, &[("app", fixture())], tag);
    let run = Run::of(Engine::Docker, tag.to_owned()).env("GUARD_PRE_STOP", "/app say hook exit 0");
    let run = run.options("--read-only --cap-drop ALL --security-opt no-new-privileges");
    let words = "before-run 2 exit 1 listen 8080 fork setsid as left serve . quit TERM 3 serve";
    let mut container = run.command(words.split(' ')).start();
    container.event("restart");
    container.line("ready");
    container.ask(&["ready"]).yes("ready");
    assert_eq!(container.ask(&["probe", "tcp://127.0.0.1:8080"]).code, 0);
    assert!(container.ask(&["status"]).out.contains("app: /app before-run"));
    for missing in ["sh", "/bin/sh", "ls", "bash"] {
        assert_ne!(container.exec(&[missing]).code, 0, "{missing} is there");
    }
    let guard = container.inspect("{{.State.Pid}}").parse().expect("a pid");
    assert_eq!(status_field(guard, "Uid:").split_whitespace().next(), Some("65532"));
    container.tell("stop");
    container.line("hook");
    container.line("got TERM");
    container.line("left got TERM");
    assert_eq!(container.code(), 3, "{}", container.transcript());
}

/// What the README has beside the commands in its blocks, in its order.
fn what_the_readme_tries() {
    let here: Vec<String> =
        inline().into_iter().filter(|found| found.file == "README.md").map(|found| found.command).collect();
    let one = |words: &str| here.iter().find(|command| command.contains(words)).expect(words).clone();
    in_the_foreground(&app(), "tried", |container| {
        assert!(tell(&format!("{} --silent --show-error", one("curl "))).contains("run 1"));
        let inside = |line: &str| tell(&line.replace("CONTAINER", &container.name));
        let status = inside(&one("guard status"));
        assert!(status.contains("server.js"), "{status}");
        inside(&one("guard restart"));
        let status = inside(&one("guard status"));
        let row = status.lines().find(|line| line.starts_with("0 ")).expect("an instance");
        let pid = row.split_whitespace().nth(2).expect("its pid");
        let mut log = container.log();
        inside(&one("kill -SEGV").replace("PID", pid));
        while log.event("restart").get("last") != Some("SIGSEGV") {}
        container.until_yes(&["probe", "http://127.0.0.1:8080/"]);
        container.until_yes(&["ready"]);
        let checked = tell(&one("guard check"));
        assert!(checked.contains("GUARD_STOP_TIMEOUT") && !checked.contains("event="), "{checked}");
        // `docker stop` follows.
        assert_eq!(one("docker stop"), "docker stop CONTAINER");
    });
}

/// `docker run -i`: the app fails when it has read the pipe, and is not run again.
fn a_job_that_a_pipe_feeds() {
    let image = image(Engine::Docker, "fixture");
    let line = format!("echo 'echo working; exit 3' | docker run --rm -i {image} sh");
    let answer = Answer::of(begin(&mut shell(&line)));
    assert_eq!((answer.code, answer.out.as_str()), (3, "working\n"), "{answer:?}");
    assert!(answer.err.contains("GUARD_RESTART"), "{answer:?}");
}

/// As docs/migrating.md has it for those who had `pm2 reload`.
fn a_signal_that_reloads() {
    let mut container = docker().env("GUARD_SIGNAL_MAP", "USR1=reload").fixture("quit TERM 0 serve").start();
    container.line("ready");
    container.tell("kill -s USR1");
    container.line("ready");
    container.event("reloaded");
    container.tell("stop");
    assert_eq!(container.code(), 0);
}

/// One in the image, and one that is given when it is run. There is no systemd whose timers Podman could use.
fn podman_keeps_health_checks() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = format!("FROM {}\nHEALTHCHECK CMD [\"guard\", \"ready\"]\n", image(Engine::Podman, "fixture"));
    fs::write(directory.path().join("Dockerfile"), text).expect("a file");
    let tag = "localhost/guard-test/healthcheck";
    let context = directory.path().display().to_string();
    Engine::Podman.tell(&["build", "--format", "docker", "--tag", tag, &context]);
    for run in [Run::of(Engine::Podman, tag.to_owned()), podman().option("--health-cmd", "guard ready")] {
        let container = run.client_env("DISABLE_HC_SYSTEMD", "true").start();
        container.until_yes(&["ready"]);
        let answer = Engine::Podman.ask(&["healthcheck", "run", &container.name]);
        assert_eq!(answer.code, 0, "{answer:?}");
    }
}
