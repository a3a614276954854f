//! Docker and Podman, by their command lines.

use crate::common::{Answer, begin};
use std::process::Command;

/// Whose command line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Engine {
    Docker,
    Podman,
}

impl Engine {
    pub(crate) fn program(self) -> &'static str {
        match self {
            Engine::Docker => "docker",
            Engine::Podman => "podman",
        }
    }

    /// What it answers to a line of words; how long that takes is the test's affair.
    pub(crate) fn ask<T: AsRef<str>>(self, words: &[T]) -> Answer {
        let mut command = Command::new(self.program());
        command.args(words.iter().map(AsRef::as_ref));
        Answer::of(begin(&mut command))
    }

    /// What it prints, having done as it was told.
    #[track_caller]
    pub(crate) fn tell<T: AsRef<str>>(self, words: &[T]) -> String {
        let answer = self.ask(words);
        let line: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        assert_eq!(answer.code, 0, "{} {}\n{}{}", self.program(), line.join(" "), answer.out, answer.err);
        answer.out.trim_end().to_owned()
    }
}
