//! The commands in the text of the documents, outside of blocks, for the tests that run them.

use crate::common::blocks::{documents, root};
use std::fs;

/// Programs whose commands are collected from the text. What the guide for those who come from pm2, einhorn or others has of
/// these is theirs.
const PROGRAMS: [&str; 39] = [
    "apache2",
    "apachectl",
    "apt-get",
    "aws",
    "bash",
    "cargo",
    "curl",
    "docker",
    "dpkg",
    "env",
    "exec",
    "git",
    "guard",
    "gunicorn",
    "haproxy",
    "java",
    "kill",
    "kubectl",
    "make",
    "man",
    "nginx",
    "node",
    "npm",
    "php-fpm8.2",
    "pip",
    "podman",
    "postgres",
    "promtool",
    "puma",
    "python3",
    "redis-server",
    "service",
    "setsid",
    "sh",
    "skopeo",
    "start-stop-daemon",
    "su",
    "tar",
    "uvicorn",
];

/// A command within a line of text, without the variables before it.
#[derive(Clone, Debug)]
pub(crate) struct Inline {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) command: String,
}

/// What a line has between backticks that begins with one of [`PROGRAMS`] and has an argument.
fn commands_of(line: &str) -> Vec<String> {
    let command = |code: &str| {
        let is_variable = |word: &str| {
            word.split_once('=')
                .is_some_and(|(name, _)| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
        };
        // A variable's value may be a command.
        let code = code.split_once("exec:").map_or(code, |(_, command)| command);
        let words: Vec<&str> = code.split_whitespace().skip_while(|word| is_variable(word)).collect();
        let program = words.first()?.rsplit('/').next()?;
        // A line of guard's log has guard's name and no option after it.
        let is_one = words.len() > 1 && PROGRAMS.contains(&program) && !words[1].starts_with("time=");
        is_one.then(|| words.join(" "))
    };
    line.split('`').skip(1).step_by(2).filter_map(command).collect()
}

/// The commands in the text of all documents, tables included.
pub(crate) fn inline() -> Vec<Inline> {
    let mut found = Vec::new();
    for path in documents() {
        let text = fs::read_to_string(&path).expect("a document can be read");
        let file = path.strip_prefix(root()).expect("it is below the root").display().to_string();
        let mut is_block = false;
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                is_block = !is_block;
            } else if !is_block {
                let of = |command| Inline { file: file.clone(), line: number + 1, command };
                found.extend(commands_of(line).into_iter().map(of));
            }
        }
    }
    found
}
