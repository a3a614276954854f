//! guard's own image, which others copy from, for both architectures.

use crate::common::{in_path, skipped};
use crate::container::{Run, docker};
use crate::engine::Engine;
use crate::image::{image_for, image_of};
use std::fs;

tests![others_copy_guard_from_its_image, the_image_for_arm64_runs_under_emulation];

/// The size that guard may have, in bytes.
const BUDGET: u64 = 640 * 1024;

fn others_copy_guard_from_its_image() {
    let image = image_of(Engine::Docker, "Dockerfile", "guard");
    let mut container = Run::of(Engine::Docker, image.clone()).command(["--version"]).start();
    assert_eq!((container.code(), container.out()), (0, vec![concat!("guard ", env!("CARGO_PKG_VERSION"))]));
    let size: u64 = Engine::Docker.tell(&["image", "inspect", "--format", "{{.Size}}", &image]).parse().expect("bytes");
    assert!((100_000..BUDGET).contains(&size), "the binary and nothing else: {size}");

    let directory = tempfile::tempdir().expect("a directory");
    let text = format!("FROM {image} AS guard\nFROM scratch\nCOPY --from=guard /guard /\nENTRYPOINT [\"/guard\"]\n");
    fs::write(directory.path().join("Dockerfile"), text).expect("a file");
    let copied = Engine::Docker.tell(&["build", "--quiet", &directory.path().display().to_string()]);
    let mut container = Run::of(Engine::Docker, copied.clone()).command(["--", "/no/such/app"]).start();
    assert_eq!(container.code(), 127);
    drop(container);
    Engine::Docker.tell(&["rmi", &copied]);
}

fn the_image_for_arm64_runs_under_emulation() {
    let image = image_for("arm64", "Dockerfile", "guard-arm64");
    let directory = tempfile::tempdir().expect("a directory");
    let container = Engine::Docker.tell(&["create", &image]);
    let guard = directory.path().join("guard").display().to_string();
    Engine::Docker.tell(&["cp", &format!("{container}:/guard"), &guard]);
    Engine::Docker.tell(&["rm", &container]);
    // The machine that an ELF header names is at its 18th byte (`elf(5)`): EM_AARCH64.
    assert_eq!(fs::read(&guard).expect("a binary")[18], 183);

    let Some(emulator) = in_path("qemu-aarch64-static") else {
        return skipped("there is no qemu-aarch64-static to run the image for arm64");
    };
    let emulator = emulator.display();
    let run = docker().options(&format!("--volume {guard}:/arm64:ro --volume {emulator}:/emulator:ro"));
    let run = run.options("--entrypoint /emulator").env("GUARD_MAX_RESTARTS", "1");
    let mut container = run.command("/arm64 -- fixture before-run 2 exit 4 quit TERM 3 serve".split(' ')).start();
    container.event("restart");
    container.line("ready");
    container.tell("stop");
    container.line("got TERM");
    assert_eq!(container.code(), 3);
    assert_eq!(container.said("start")[0].get("pid"), Some("1"));
}
