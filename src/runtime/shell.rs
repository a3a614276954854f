//! Whether the app is a shell that somebody types into.

use crate::sys::procfs;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A shell without a script or a command is interactive where its stdin is a terminal (`sh(1p)`).
pub(super) fn is_interactive(command: &[OsString]) -> bool {
    let [shell, arguments @ ..] = command else { return false };
    let name = Path::new(shell).file_name().and_then(|name| name.to_str());
    let is_option = |argument: &OsString| argument.as_bytes().starts_with(b"-");
    name.is_some_and(procfs::is_shell) && arguments.iter().all(is_option)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_or_a_command_is_not_typed() {
        let is_interactive = |line: &str| is_interactive(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in ["sh", "/bin/bash", "bash --login -i", "busybox"] {
            assert!(is_interactive(line), "{line}");
        }
        for line in ["node", "sh -c true", "bash -lc true", "sh script", "shell", "/bin/sh/app"] {
            assert!(!is_interactive(line), "{line}");
        }
    }
}
