//! examples/compose, by `docker compose`, or by `docker-compose` where the client has no such plugin.

use crate::common::{Answer, begin, in_path, skipped};
use crate::engine::Engine;
use crate::image::{image_of, project};
use std::path::{Path, PathBuf};
use std::process::Command;

tests![a_client_waits_until_the_app_is_healthy];

/// A project that is taken down when the test is done with it.
pub(crate) struct Project {
    name: String,
    file: PathBuf,
}

impl Project {
    pub(crate) fn new(name: &str, file: &Path) -> Project {
        Project { name: name.to_owned(), file: file.to_owned() }
    }

    pub(crate) fn tell(&self, words: &[&str]) -> Answer {
        let mut command = compose().expect("there is one");
        command.arg("--project-name").arg(&self.name).arg("--file").arg(&self.file).args(words);
        Answer::of(begin(command.env("PORT", "0"))) // on the host: any that is free
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.tell(&["down", "--volumes", "--timeout", "1"]);
    }
}

fn compose() -> Option<Command> {
    if Engine::Docker.ask(&["compose", "version"]).code == 0 {
        let mut command = Command::new("docker");
        command.arg("compose");
        return Some(command);
    }
    in_path("docker-compose").map(Command::new)
}

/// The client asks the app once, which is refused before the app listens.
fn a_client_waits_until_the_app_is_healthy() {
    if compose().is_none() {
        return skipped("there is neither `docker compose` nor `docker-compose`");
    }
    image_of(Engine::Docker, "Dockerfile.example", "example"); // so that it is there to be built from
    let project = Project::new("example", &project().join("examples/compose/compose.yaml"));
    let answer = project.tell(&["up", "--no-color", "--build", "--exit-code-from", "client"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let answered = |line: &str| line.contains("client") && line.ends_with("| run 1");
    assert!(answer.out.lines().any(answered), "what the app answers: {answer:?}");
}
