//! Which programs are shells, and which command lines start one that a person types into.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether a program of this name is a shell.
pub fn is_shell(name: &str) -> bool {
    ["sh", "bash", "dash", "ash", "busybox", "zsh", "ksh"].contains(&name)
}

/// Whether this command is a shell that is interactive if its stdin is a terminal: one without a script and without a
/// command (`sh(1p)`).
pub fn is_interactive(command: &[OsString]) -> bool {
    let [program, arguments @ ..] = command else { return false };
    match Path::new(program).file_name().and_then(|name| name.to_str()) {
        // Its first argument names the program that it is.
        Some("busybox") => is_interactive(arguments),
        name => name.is_some_and(is_shell) && reads_stdin(arguments),
    }
}

/// Whether these arguments of a shell name neither a script nor a command.
fn reads_stdin(arguments: &[OsString]) -> bool {
    let mut arguments = arguments.iter().map(|argument| argument.as_bytes());
    while let Some(argument) = arguments.next() {
        match argument {
            b"-" | b"--" => return arguments.next().is_none(),
            // Their value is the next argument.
            b"--rcfile" | b"--init-file" | b"-o" | b"+o" | b"-O" | b"+O" => {
                arguments.next();
            }
            [b'-', b'-', ..] | [b'+', ..] => {}
            [b'-', letters @ ..] if letters.contains(&b'c') => return false,
            [b'-', letters @ ..] if letters.contains(&b's') => return true,
            [b'-', ..] => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_or_a_command_is_not_typed() {
        let is_interactive = |line: &str| is_interactive(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        let options = ["bash --rcfile /etc/rc -i", "bash -o vi +O extglob", "sh -es one two", "sh -"];
        for line in ["sh", "/bin/bash", "bash --login -i", "busybox sh", "busybox ash -l"].iter().chain(&options) {
            assert!(is_interactive(line), "{line}");
        }
        for line in [
            "node",
            "sh -c true",
            "bash -lc true",
            "sh script",
            "shell",
            "/bin/sh/app",
            "busybox httpd",
            "busybox",
            "sh -o vi script",
            "sh -- script",
            "busybox sh script",
        ] {
            assert!(!is_interactive(line), "{line}");
        }
    }
}
