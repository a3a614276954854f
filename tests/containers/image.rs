//! The images that the tests run, each built when it is first asked for.

use crate::common::{self, Answer};
use crate::engine::Engine;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

/// Where the images of the tests are, below this name.
const OURS: &str = "guard-test";

/// Whose image, and its tag.
type Image = (Engine, String);

/// Images that are there, or are being made.
static MADE: Mutex<BTreeMap<Image, Arc<OnceLock<()>>>> = Mutex::new(BTreeMap::new());

/// Begins to make the images that take long, while tests of others run. Where that fails, who asks for them hears why.
pub(crate) fn begin() {
    thread::spawn(|| {
        base("node:20-slim");
        image(Engine::Docker, "servers");
        image(Engine::Docker, "languages");
        image(Engine::Docker, "puma");
    });
    thread::spawn(|| {
        image_of(Engine::Docker, "Dockerfile.example", "example");
        image_of(Engine::Docker, "Dockerfile", "guard");
    });
}

/// An image of images/NAME.Dockerfile, with guard and the fixture beside it.
pub(crate) fn image(engine: Engine, name: &str) -> String {
    let tag = format!("{OURS}/{name}");
    make(engine, &tag, || {
        let here = sources().join("images");
        let file = here.join(format!("{name}.Dockerfile"));
        build(&file, context(), &tag, &[]);
    });
    tag
}

/// The image of a Dockerfile of the project, built as its head comment says.
pub(crate) fn image_of(engine: Engine, dockerfile: &str, name: &str) -> String {
    let tag = format!("{OURS}/{name}");
    make(engine, &tag, || build(&project().join(dockerfile), project(), &tag, &[]));
    tag
}

/// The same for another architecture, as Dockerfiles name them, and Docker.
pub(crate) fn image_for(architecture: &str, dockerfile: &str, name: &str) -> String {
    let tag = format!("{OURS}/{name}");
    let argument = format!("TARGETARCH={architecture}");
    let build = || build(&project().join(dockerfile), project(), &tag, &["--build-arg", &argument]);
    make(Engine::Docker, &tag, build);
    tag
}

/// An image whose name somebody else has chosen.
pub(crate) fn tagged(tag: &str, build: impl FnOnce()) {
    once(Engine::Docker, tag, build);
}

/// Makes an image of the tests with Docker, unless it is there. Podman gets a copy.
fn make(engine: Engine, tag: &str, build: impl FnOnce()) {
    once(Engine::Docker, tag, build);
    if engine == Engine::Podman {
        once(engine, tag, || copy_to_podman(tag));
    }
}

/// Does it unless it has been done; whoever comes meanwhile waits.
fn once(engine: Engine, tag: &str, make: impl FnOnce()) {
    let made = MADE.lock().expect("no panic under it").entry((engine, tag.to_owned())).or_default().clone();
    // Where one test could not, the next tries again.
    made.get_or_init(make);
}

fn build(file: &Path, context: &Path, tag: &str, options: &[&str]) {
    let text = std::fs::read_to_string(file).expect("a Dockerfile");
    let froms = text.lines().filter_map(|line| line.strip_prefix("FROM "));
    let bases = froms.filter_map(|from| from.split_whitespace().find(|word| !word.starts_with("--")));
    // Those of the tests' own were asked for before.
    bases.filter(|name| *name != "scratch" && !name.starts_with(OURS)).for_each(base);
    let (file, context) = (file.display().to_string(), context.display().to_string());
    let line = [&["build", "--quiet", "--file", &file, "--tag", tag], options, &[&context]].concat();
    Engine::Docker.tell(&line);
}

/// Makes a base image.
pub(crate) fn base(name: &str) {
    const DEBIAN: &str = "debian:bookworm-slim";
    once(Engine::Docker, name, || {
        if name != DEBIAN {
            base(DEBIAN);
        }
        let output = Command::new("bash").arg(sources().join("base")).arg(name).output().expect("bash is there");
        assert!(output.status.success(), "base {name}: {}", String::from_utf8_lossy(&output.stderr));
    });
}

fn copy_to_podman(tag: &str) {
    let mut save = Command::new("docker");
    let mut save = save.args(["save", tag]).stdout(Stdio::piped()).spawn().expect("docker is there");
    let image = save.stdout.take().expect("a pipe");
    let mut load = Command::new("podman");
    let load = load.args(["load", "--quiet"]).stdin(image).stdout(Stdio::null()).stderr(Stdio::piped());
    let answer = Answer::of(load.spawn().expect("podman is there"));
    assert!(save.wait().is_ok_and(|status| status.success()) && answer.code == 0, "{tag}: {answer:?}");
}

/// A directory with the static guard and the static fixture, as they are released, and the small apps of `apps`.
pub(crate) fn context() -> &'static Path {
    static CONTEXT: OnceLock<PathBuf> = OnceLock::new();
    CONTEXT.get_or_init(|| {
        let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
        // One after the other, as in the script that runs these tests.
        for what in [["--bin", "guard"], ["--example", "fixture"]] {
            let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
            build.current_dir(project()).args(["build", "--quiet", "--locked", "--release", "--target", &target]);
            assert!(build.args(what).status().is_ok_and(|status| status.success()), "{what:?} cannot be built");
        }
        let (directory, _) = common::target();
        let built = directory.join(target).join("release");
        let context = directory.join("containers");
        std::fs::create_dir_all(&context).expect("a directory in the target directory");
        for (from, to) in [("guard", "guard"), ("examples/fixture", "fixture")] {
            std::fs::copy(built.join(from), context.join(to)).expect("it was built");
        }
        std::fs::create_dir_all(context.join("apps")).expect("a directory in the target directory");
        for app in sources().join("apps").read_dir().expect("the small apps") {
            let app = app.expect("a directory can be read");
            std::fs::copy(app.path(), context.join("apps").join(app.file_name())).expect("a file");
        }
        context
    })
}

pub(crate) fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> PathBuf {
    project().join("tests/containers")
}
