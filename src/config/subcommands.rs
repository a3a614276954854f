//! The table of subcommands. Arguments are read by it, and `--help` and guard(1) are made from it.

use super::layers::USAGE;

/// What guard is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Run an app.
    Run,
    /// Print the configuration.
    Check,
    /// Ask the running guard.
    Ask(ClientCommand),
    /// Probe a server.
    Probe,
    /// Explain guard, or the subcommand of this name.
    Help(Option<&'static str>),
    Version,
}

/// A subcommand that asks the running guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCommand {
    Ready,
    Health,
    Status,
    Stop,
    Restart,
    Reload,
    Scale,
}

/// A row of the table.
pub struct Subcommand {
    pub name: &'static str,
    pub invocation: Invocation,
    /// As a usage line shows them.
    pub arguments: &'static str,
    /// For people, in sentences.
    pub about: &'static str,
}

pub static SUBCOMMANDS: [Subcommand; 9] = [
    Subcommand {
        name: "check",
        invocation: Invocation::Check,
        arguments: "[OPTIONS] [-- COMMAND [ARG]...]",
        about: "Prints the configuration in force and where each value comes from, or every error, and what is in doubt.
The options are those of guard itself: see guard --help.",
    },
    Subcommand {
        name: "ready",
        invocation: Invocation::Ask(ClientCommand::Ready),
        arguments: ASK,
        about: "Exits with 0 if the app can take work: ready, healthy, not draining, not between two runs.",
    },
    Subcommand {
        name: "health",
        invocation: Invocation::Ask(ClientCommand::Health),
        arguments: ASK,
        about: "Exits with 0 if the running guard answers and has not given up, in a backoff and a drain too.",
    },
    Subcommand {
        name: "status",
        invocation: Invocation::Ask(ClientCommand::Status),
        arguments: "[--json | --settings] [--timeout DURATION] [--pid N]",
        about: "Prints what the running guard knows: instances, runs, restarts, memory, CPU, and why a run is being ended.
--json prints it for programs, --settings the settings in force and where each comes from.",
    },
    Subcommand {
        name: "stop",
        invocation: Invocation::Ask(ClientCommand::Stop),
        arguments: ASK,
        about: "Asks the running guard to stop the app and end, and waits until the last run has ended.",
    },
    Subcommand {
        name: "restart",
        invocation: Invocation::Ask(ClientCommand::Restart),
        arguments: ASK,
        about: "Stops the run and starts the next one, and waits until that is ready.",
    },
    Subcommand {
        name: "reload",
        invocation: Invocation::Ask(ClientCommand::Reload),
        arguments: ASK,
        about: "Starts the next run beside the old one, which then ends, and waits until the old run is over.",
    },
    Subcommand {
        name: "scale",
        invocation: Invocation::Ask(ClientCommand::Scale),
        arguments: "N|auto|+N|-N [--timeout DURATION] [--pid N]",
        about: "Says how many instances there are from now on, 1 to 1024, auto for the container's CPU quota, or so many more or
fewer; waits until the new ones are ready, or the others are gone.",
    },
    Subcommand {
        name: "probe",
        invocation: Invocation::Probe,
        arguments: "URL [--timeout DURATION] [--host NAME]",
        about: "Exits with 0 if a server answers within the timeout (1s by default). URL is one of
  http://HOST[:PORT][/PATH]       answers with a status from 200 to 399
  http+unix:///SOCKET[:/PATH]     the same, on a unix socket
  tcp://HOST:PORT                 accepts the connection
--host NAME is the Host that a request names, for servers that insist on theirs.",
    },
];

const ASK: &str = "[--timeout DURATION] [--pid N]";

impl Subcommand {
    /// How the subcommand is typed.
    pub fn usage(&self) -> String {
        format!("usage: guard {} {}", self.name, self.arguments)
    }
}

impl Invocation {
    /// How it is typed; part of the errors about it.
    pub fn usage(self) -> String {
        let known = SUBCOMMANDS.iter().find(|subcommand| subcommand.invocation == self);
        known.map_or_else(|| USAGE.to_owned(), Subcommand::usage)
    }
}
