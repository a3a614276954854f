//! The manifests of examples/kubernetes, as `podman kube play` runs them.
//!
//! Podman 4.3 is no cluster: it publishes each containerPort on the host, which two replicas cannot share, and knows
//! neither Jobs nor sidecars. So ports and replicas are left out here, a Job's pod is played without its Job, and a
//! sidecar as an ordinary container. Nothing else is changed but names and the drain delay.

use crate::container::Container;
use crate::engine::Engine;
use crate::image::{image_of, project};
use std::fs;
use tempfile::TempDir;

tests![
    podman_plays_the_deployment,
    podman_kube_down_leaves_no_time,
    podman_restarts_what_guard_gave_up,
    podman_plays_the_init_container,
    podman_plays_the_jobs_pod,
    podman_plays_the_sidecar,
];

/// A pod that is played, until the test is done with it.
pub(crate) struct Pod {
    name: String,
    /// With the manifest as it was played.
    directory: TempDir,
}

impl Drop for Pod {
    fn drop(&mut self) {
        Engine::Podman.ask(&["pod", "rm", "--force", "--time", "0", &self.name]);
    }
}

impl Pod {
    /// Plays a manifest whose first `name` becomes the pod's.
    pub(crate) fn play(manifest: &str, name: &str) -> Pod {
        let image = image_of(Engine::Podman, "Dockerfile.example", "example");
        let own = manifest.lines().find_map(|line| line.strip_prefix("  name: ")).expect("a name");
        let manifest = manifest
            .replacen(&format!("  name: {own}\n"), &format!("  name: {name}\n"), 1)
            .replace("example/app", &format!("localhost/{image}"))
            .replace("value: 10s", "value: 200ms")
            .replace("replicas: 2", "replicas: 1");
        // Podman numbers a deployment's pods.
        let name = if manifest.contains("kind: Deployment") { format!("{name}-pod-0") } else { name.to_owned() };
        let pod = Pod { name, directory: tempfile::tempdir().expect("a directory") };
        fs::write(pod.file(), without_ports(&manifest)).expect("a file");
        Engine::Podman.tell(&["kube", "play", &pod.file()]);
        pod
    }

    fn file(&self) -> String {
        self.directory.path().join("manifest.yaml").display().to_string()
    }

    pub(crate) fn container(&self, name: &str) -> Container {
        Container::existing(Engine::Podman, &format!("{}-{name}", self.name))
    }
}

pub(crate) fn manifest(name: &str) -> String {
    fs::read_to_string(project().join("examples/kubernetes").join(name)).expect("a manifest")
}

/// Leaves out each `ports:` and what is below it.
fn without_ports(manifest: &str) -> String {
    let mut below = None;
    let keep = |line: &&str| {
        let indent = line.len() - line.trim_start().len();
        below = below.filter(|ports| indent > *ports).or((line.trim() == "ports:").then_some(indent));
        below.is_none()
    };
    manifest.lines().filter(keep).map(|line| format!("{line}\n")).collect()
}

fn podman_plays_the_deployment() {
    let pod = Pod::play(&manifest("deployment.yaml"), "deployed");
    let mut app = pod.container("app");
    app.line("listening on http://0.0.0.0:8080");
    app.event("ready");
    app.until_yes(&["ready"]).yes("ready");
    Engine::Podman.tell(&["healthcheck", "run", &app.name]); // the liveness probe
    let restricted = app.exec(&["sh", "-c", "id -u; grep -E 'NoNewPrivs|CapEff|Seccomp:' /proc/1/status; touch /x"]);
    for part in ["65534\n", "NoNewPrivs:\t1", "CapEff:\t0000000000000000", "Seccomp:\t2"] {
        assert!(restricted.out.contains(part), "{part}: {restricted:?}");
    }
    assert!(restricted.err.contains("Read-only"), "{restricted:?}");
    Engine::Podman.tell(&["pod", "stop", &pod.name]);
    app.line("drained");
    app.event("end");
    app.until("{{.State.Status}} {{.State.ExitCode}}", "exited 0");
    let drain = app.said("drain").pop().expect("a drain");
    assert_eq!((drain.get("delay"), drain.get("stop_timeout")), (Some("200ms"), Some("55s")));
}

/// Later versions than Debian's wait for each container's stop timeout.
fn podman_kube_down_leaves_no_time() {
    let pod = Pod::play(&manifest("deployment.yaml"), "downed");
    let mut app = pod.container("app");
    app.event("ready");
    Engine::Podman.tell(&["kube", "down", &pod.file()]);
    let version = Engine::Podman.tell(&["version", "--format", "{{.Client.Version}}"]);
    let is_later = !version.starts_with("4.");
    assert_eq!(app.said("drain").len(), usize::from(is_later), "Podman {version}");
}

/// restartPolicy, Always if nothing is said, is the second tier.
fn podman_restarts_what_guard_gave_up() {
    let manifest = manifest("deployment.yaml").replace("GUARD_HEALTH_CHECK", "GUARD_RESTART");
    let pod = Pod::play(&manifest.replace("http://127.0.0.1:8080/health", "never"), "given-up");
    let app = pod.container("app");
    app.until_yes(&["ready"]);
    let status = app.ask(&["status", "--json"]).out;
    let (_, run) = status.split_once(r#""run":1,"pid":"#).expect("a run and its pid");
    let pid: String = run.chars().take_while(char::is_ascii_digit).collect();
    app.exec(&["sh", "-c", &format!("kill -KILL {pid}")]); // whose own end comes with the container's
    app.until("{{.RestartCount}} {{.State.Status}}", "1 running");
}

fn podman_plays_the_init_container() {
    // With Always, which is the default, Podman starts an init container again when it has ended well.
    let manifest = manifest("init-container.yaml").replacen("\nspec:\n", "\nspec:\n  restartPolicy: OnFailure\n", 1);
    let pod = Pod::play(&manifest, "with-init");
    let mut app = pod.container("app");
    app.event("ready");
    // The init container is gone when the app begins: had it failed, there would be no app.
    app.until_yes(&["ready"]).yes("ready");
}

fn podman_plays_the_jobs_pod() {
    let job = manifest("job.yaml");
    let (_, template) = job.split_once("\n  template:\n").expect("a template");
    let spec: String =
        template.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
    let spec = spec.replacen("metadata:\n", "metadata:\n  name: job\n", 1);
    let pod = Pod::play(&format!("apiVersion: v1\nkind: Pod\n{spec}"), "job");
    let mut job = pod.container("job");
    job.line("done");
    job.event("end");
    job.until("{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", "exited 0 0");
}

fn podman_plays_the_sidecar() {
    let manifest =
        manifest("sidecar.yaml").replace("\n  containers:\n", "\n").replace("initContainers:", "containers:");
    let manifest = manifest.replace("      restartPolicy: Always\n", "");
    let pod = Pod::play(&manifest, "with-sidecar");
    let (mut app, mut sidecar) = (pod.container("app"), pod.container("sidecar"));
    app.line("listening on http://0.0.0.0:8080");
    sidecar.line("listening on http://0.0.0.0:9090");
    // Each is asked by its own name, and the other's app can be reached.
    for container in [&app, &sidecar] {
        container.until_yes(&["ready"]).yes("ready");
        let status = container.ask(&["status", "--json"]).out;
        assert!(status.contains(r#""pid":1,"#), "{status}");
    }
    assert_eq!(app.ask(&["probe", "http://127.0.0.1:9090/"]).code, 0);
    sidecar.ask(&["restart"]).yes("restarted: run 2 is ready");
    assert!(app.ask(&["status", "--json"]).out.contains(r#""restarts":0"#));
}
