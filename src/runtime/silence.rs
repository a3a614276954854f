//! Why a run may not have said that it is ready (GUARD_READY=notify).

use super::Runtime;
use crate::supervisor::RunId;
use crate::sys::procfs;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

/// Programs that are Node, or start it.
const NODE: [&str; 6] = ["node", "nodejs", "npm", "npx", "yarn", "pnpm"];

impl Runtime<'_> {
    /// Why a run may not have said that it is ready: what guard has not received from it, and what its app may need.
    pub(super) fn why_silent(&self, id: RunId) -> String {
        let run = self.children.get(id);
        let socket = match run.and_then(|run| run.notify.as_ref()) {
            _ if !self.config.notify => None,
            None => Some("guard could not open a notify socket for it"),
            Some(notify) if notify.was_written_to() => Some("what was written to NOTIFY_SOCKET was not READY=1"),
            Some(_) => Some("nobody has written to NOTIFY_SOCKET"),
        };
        let is_node = || {
            let name = run.and_then(|run| procfs::name(run.pid)).unwrap_or_default();
            names_node(&self.config.command) || is_name_of_node(&name)
        };
        let channel = match self.config.node_ipc {
            true => Some("no process.send('ready') has come over Node's channel"),
            false => is_node().then_some("the app is Node, whose process.send('ready') needs GUARD_NODE_IPC=on"),
        };
        let parts: Vec<&str> = socket.into_iter().chain(channel).collect();
        parts.join("; ")
    }
}

/// Whether a command line has the name of a program that is Node, or the path of one, also in a shell's script.
fn names_node(command: &[OsString]) -> bool {
    let mut words = command.iter().flat_map(|word| word.as_bytes().split(|byte| b" \t\n;&|()\"'".contains(byte)));
    words.any(|word| {
        let name = word.rsplit(|&byte| byte == b'/').next();
        name.is_some_and(|name| NODE.iter().any(|node| name == node.as_bytes()))
    })
}

/// Whether a process goes by such a name. npm adds its arguments to it; of Node from version 23 on it is the main thread's.
fn is_name_of_node(name: &str) -> bool {
    name.ends_with("MainThread") || name.split(' ').next().is_some_and(|name| NODE.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_node_is_known_by_its_name() {
        let found = |names: [&str; 4]| names.map(is_name_of_node);
        assert_eq!(found(["node", "npm start", "node-MainThread", "MainThread"]), [true; 4]);
        assert_eq!(found(["node_exporter", "nodetool", "sh", ""]), [false; 4]);
    }

    #[test]
    fn node_is_found_in_a_command_line() {
        let found = |words: &[&str]| names_node(&words.iter().map(OsString::from).collect::<Vec<_>>());
        for words in [
            &["node", "server.js"][..],
            &["/usr/local/bin/node", "server.js"],
            &["docker-entrypoint.sh", "node", "server.js"],
            &["sh", "-c", "migrate && exec node server.js"],
            &["sh", "-c", "cd /app;npm start"],
            &["npm", "start"],
        ] {
            assert!(found(words), "{words:?}");
        }
        for words in [&["nodelike"][..], &["node_exporter"], &["app", "--node=3"], &["cat", "/node/log"]] {
            assert!(!found(words), "{words:?}");
        }
    }
}
