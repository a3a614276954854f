use super::{cuts_transfers_off, finishes_transfers, server, serves_again};
use crate::common::eventually;
use crate::common::inline::inline;
use crate::container::{Container, Run};
use crate::engine::Engine;
use crate::image::image;
use crate::steps::crash;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

tests![
    a_crash_leaves_its_port_free,
    quit_finishes_transfers,
    term_cuts_transfers_off,
    a_socket_file_that_is_left_is_removed_first,
    a_certificate_that_is_rotated_is_served_by_the_same_run,
];

/// It is ready when it answers.
fn nginx(run: Run) -> Container {
    let run = run.env("GUARD_HEALTH_CHECK", "http://127.0.0.1/").command(["nginx", "-g", "daemon off;"]);
    let mut nginx = run.start();
    nginx.event("ready");
    nginx
}

fn a_crash_leaves_its_port_free() {
    serves_again(nginx(server()));
}

fn quit_finishes_transfers() {
    finishes_transfers(|run| nginx(run.env("GUARD_STOP_SIGNAL", "QUIT")), "SIGQUIT", 0);
}

fn term_cuts_transfers_off() {
    cuts_transfers_off(nginx(server()), "SIGTERM", 0);
}

/// A key and a certificate of this name, in a directory of their own.
fn certify(volume: &Path, directory: &str, name: &str) {
    fs::create_dir(volume.join(directory)).expect("ours");
    let (mount, image) = (format!("{}:/tls", volume.join(directory).display()), image(Engine::Docker, "servers"));
    let subject = format!("/CN={name}");
    Engine::Docker.tell(
        &[
            &["run", "--rm", "--volume", &mount, "--entrypoint", "openssl", &image, "req", "-x509", "-nodes"][..],
            &["-newkey", "rsa:2048", "-subj", &subject, "-keyout", "/tls/tls.key", "-out", "/tls/tls.crt"],
        ]
        .concat(),
    );
}

/// As the kubelet swaps the content of a Secret that is mounted.
fn a_certificate_that_is_rotated_is_served_by_the_same_run() {
    const SERVER: &str = "server { listen 443 ssl; ssl_certificate /tls/tls.crt; ssl_certificate_key /tls/tls.key; }";
    let directory = tempfile::tempdir().expect("a directory");
    let (volume, config) = (directory.path().join("tls"), directory.path().join("tls.conf"));
    fs::create_dir(&volume).expect("ours");
    fs::write(&config, SERVER).expect("ours");
    certify(&volume, "..1", "first.example");
    symlink("..1", volume.join("..data")).expect("ours");
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), volume.join(name)).expect("ours");
    }
    let run = server().option("--volume", &format!("{}:/tls:ro", volume.display()));
    let run = run.option("--volume", &format!("{}:/etc/nginx/conf.d/tls.conf:ro", config.display()));
    let mut nginx = nginx(run.env("GUARD_ON_CHANGE", "/tls=HUP"));
    let serves = |nginx: &Container, name: &str| {
        let ask = "openssl s_client -connect 127.0.0.1:443 </dev/null 2>/dev/null | openssl x509 -noout -subject";
        eventually(name, || nginx.exec(&["sh", "-c", ask]).out.contains(name).then_some(()));
    };
    serves(&nginx, "first.example");

    certify(directory.path(), "..2", "second.example");
    fs::rename(directory.path().join("..2"), volume.join("..2")).expect("ours");
    symlink("..2", volume.join("..data_tmp")).expect("ours");
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("ours");
    fs::remove_dir_all(volume.join("..1")).expect("ours");
    let changed = nginx.event("changed");
    assert_eq!((changed.get("path"), changed.get("meaning")), (Some("/tls"), Some("SIGHUP")), "{}", changed.line);
    serves(&nginx, "second.example");
    assert_eq!((nginx.said("changed").len(), nginx.said("exit").len()), (1, 0), "{}", nginx.transcript());
}

/// nginx leaves its socket file behind when it is killed, and does not start where there is one: in the words of the guide.
fn a_socket_file_that_is_left_is_removed_first() {
    let inline = inline();
    let line = inline.iter().find(|found| found.command.contains("/run/nginx.sock")).expect("the guide has it");
    let script = line.command.strip_prefix("sh -c '").and_then(|rest| rest.strip_suffix('\'')).expect("a script");
    let site = "echo 'server { listen unix:/run/nginx.sock; }' >/etc/nginx/sites-enabled/default";
    let with_a_socket = |script: &str| {
        let run = server().env("GUARD_MAX_RESTARTS", "3").env("GUARD_BACKOFF_INITIAL", "10ms");
        let run = run.env("GUARD_HEALTH_CHECK", "http+unix:///run/nginx.sock:/");
        run.command(["sh", "-c", &format!("{site}; {script}")]).start()
    };
    let mut nginx = with_a_socket(script);
    nginx.event("ready");
    crash(&mut nginx);
    nginx.event("ready");
    nginx.tell("stop");
    nginx.code();
    let mut without = with_a_socket("exec nginx -g \"daemon off;\"");
    without.event("ready");
    crash(&mut without);
    without.event("give-up");
    assert_ne!(without.code(), 0);
}
