//! The options of a subcommand that asks the running guard.

use crate::cli::help::usage;
use crate::config::arguments::{Argument, Arguments};
use crate::config::duration;
use crate::config::layers::ClientCommand;
use crate::doors::wire::Request;
use crate::sys::Pid;
use crate::text::printable;
use std::ffi::OsString;
use std::time::Duration;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Print the status for programs.
    pub(super) json: bool,
    pub(super) timeout: Option<Duration>,
    /// Which guard to ask, where there are several.
    pub(super) pid: Option<Pid>,
}

impl Options {
    pub(super) fn parse(command: ClientCommand, words: &[OsString]) -> anyhow::Result<Options> {
        let mut options = Options::default();
        let mut arguments = Arguments::new(words.to_vec());
        while let Some(argument) = arguments.next() {
            options
                .read(command, argument, &mut arguments)
                .map_err(|problem| anyhow::Error::msg(format!("{}; {}", printable(&problem), usage(command.name()))))?;
        }
        Ok(options)
    }

    /// Reads one option.
    fn read(&mut self, command: ClientCommand, argument: Argument, rest: &mut Arguments) -> Result<(), String> {
        match argument {
            Argument::Option(name, inline) => match name.as_str() {
                "--json" if command == ClientCommand::Status => match inline {
                    None => self.json = true,
                    Some(_) => return Err("--json: it takes no value".to_owned()),
                },
                "--timeout" => self.timeout = Some(duration::parse(&rest.text(&name, inline)?)?),
                "--pid" => {
                    let text = rest.text(&name, inline)?;
                    let pid = text.parse().ok().filter(|pid| *pid > 0);
                    self.pid = Some(pid.ok_or_else(|| format!("{text:?} is not a pid"))?);
                }
                _ => return Err(format!("{name}: no such option")),
            },
            Argument::Separator => return Err("--: no such option".to_owned()),
            Argument::Word(word) => return Err(format!("{}: no such option", word.to_string_lossy())),
        }
        Ok(())
    }

    /// The question to send.
    pub(super) fn request(&self, command: ClientCommand) -> Request {
        match command {
            ClientCommand::Ready => Request::Ready,
            ClientCommand::Health => Request::Health,
            ClientCommand::Status if self.json => Request::StatusJson,
            ClientCommand::Status => Request::Status,
            ClientCommand::Stop => Request::Stop,
            ClientCommand::Restart => Request::Restart,
            ClientCommand::Reload => Request::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(command: ClientCommand, line: &str) -> Result<Options, String> {
        let words: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
        Options::parse(command, &words).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read() {
        assert_eq!(parse(ClientCommand::Ready, ""), Ok(Options::default()));
        let all = Options { json: true, timeout: Some(Duration::from_millis(500)), pid: Some(7) };
        assert_eq!(parse(ClientCommand::Status, "--json --timeout 500ms --pid 7"), Ok(all));
        let late = Options { timeout: Some(Duration::from_secs(2)), ..Options::default() };
        assert_eq!(parse(ClientCommand::Stop, "--timeout=1 --timeout=2"), Ok(late));
    }

    #[test]
    fn what_is_wrong_comes_with_the_usage() {
        let usage = "usage: guard ready [--timeout DURATION] [--pid N]";
        for (line, problem) in [
            ("--json", "--json: no such option; "),
            ("--timeot=1", "--timeot: no such option; "),
            ("now", "now: no such option; "),
            ("--", "--: no such option; "),
            ("--timeout", "--timeout: no value; "),
            ("--timeout soon", "\"soon\" is not a duration; "),
            ("--pid 0", "\"0\" is not a pid; "),
            ("--pid=x", "\"x\" is not a pid; "),
        ] {
            assert_eq!(parse(ClientCommand::Ready, line), Err(format!("{problem}{usage}")), "{line}");
        }
        let usage = "usage: guard status [--json] [--timeout DURATION] [--pid N]";
        assert_eq!(parse(ClientCommand::Status, "--json=yes"), Err(format!("--json: it takes no value; {usage}")));
    }

    #[test]
    fn only_a_status_is_for_programs() {
        let json = Options { json: true, ..Options::default() };
        assert_eq!(json.request(ClientCommand::Status), Request::StatusJson);
        assert_eq!(Options::default().request(ClientCommand::Status), Request::Status);
        assert_eq!(Options::default().request(ClientCommand::Restart), Request::Restart);
    }
}
