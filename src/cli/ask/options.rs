//! The options of a subcommand that asks the running guard.

use crate::cli::timeout;
use crate::config::Scale;
use crate::config::arguments::{Argument, Arguments};
use crate::config::subcommands::{ClientCommand, Invocation};
use crate::doors::wire::Request;
use crate::sys::Pid;
use crate::text::printable;
use std::ffi::OsString;
use std::time::Duration;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Print the status for programs.
    pub(super) json: bool,
    /// Print the settings in force instead.
    pub(super) settings: bool,
    pub(super) timeout: Option<Duration>,
    /// Which guard to ask, where there are several.
    pub(super) pid: Option<Pid>,
    /// How many instances there are to be.
    pub(super) scale: Option<Scale>,
}

impl Options {
    pub(super) fn parse(command: ClientCommand, words: &[OsString]) -> anyhow::Result<Options> {
        let usage = || Invocation::Ask(command).usage();
        let mut options = Options::default();
        let mut arguments = Arguments::new(words.to_vec());
        while let Some(argument) = arguments.next() {
            options
                .read(command, argument, &mut arguments)
                .map_err(|problem| anyhow::Error::msg(format!("{}; {}", printable(&problem), usage())))?;
        }
        if options.json && options.settings {
            anyhow::bail!("--json and --settings: only one of them; {}", usage());
        }
        if command == ClientCommand::Scale && options.scale.is_none() {
            anyhow::bail!("no number of instances; {}", usage());
        }
        Ok(options)
    }

    /// Reads one option.
    fn read(&mut self, command: ClientCommand, argument: Argument, rest: &mut Arguments) -> Result<(), String> {
        match argument {
            Argument::Option(name, inline) => match name.as_str() {
                "--json" | "--settings" if command == ClientCommand::Status => match inline {
                    None if name == "--json" => self.json = true,
                    None => self.settings = true,
                    Some(_) => return Err(format!("{name}: it takes no value")),
                },
                "--timeout" => self.timeout = Some(timeout::parse(&rest.text(&name, inline)?)?),
                "--pid" => {
                    let text = rest.text(&name, inline)?;
                    let pid = text.parse().ok().filter(|pid| *pid > 0);
                    self.pid = Some(pid.ok_or_else(|| format!("{text:?} is not a pid"))?);
                }
                // `-1` looks like an option.
                step if command == ClientCommand::Scale && inline.is_none() && Scale::parse(step).is_ok() => {
                    self.scale = Scale::parse(step).ok();
                }
                _ => return Err(format!("{name}: no such option")),
            },
            Argument::Word(word) if command == ClientCommand::Scale && self.scale.is_none() => {
                self.scale = Some(Scale::parse(&word.to_string_lossy())?);
            }
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
            ClientCommand::Status if self.settings => Request::Settings,
            ClientCommand::Status if self.json => Request::StatusJson,
            ClientCommand::Status => Request::Status,
            ClientCommand::Stop => Request::Stop,
            ClientCommand::Restart => Request::Restart,
            ClientCommand::Reload => Request::Reload,
            ClientCommand::Scale => Request::Scale(self.scale.unwrap_or(Scale::More(0))),
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
        let all = Options {
            json: true,
            timeout: Some(Duration::from_millis(500)),
            pid: Some(7),
            scale: None,
            settings: false,
        };
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
        let usage = "usage: guard status [--json | --settings] [--timeout DURATION] [--pid N]";
        assert_eq!(parse(ClientCommand::Status, "--json=yes"), Err(format!("--json: it takes no value; {usage}")));
        let both = parse(ClientCommand::Status, "--json --settings");
        assert_eq!(both, Err(format!("--json and --settings: only one of them; {usage}")));
    }

    #[test]
    fn only_a_status_is_for_programs() {
        let json = Options { json: true, ..Options::default() };
        assert_eq!(json.request(ClientCommand::Status), Request::StatusJson);
        assert_eq!(Options::default().request(ClientCommand::Status), Request::Status);
        assert_eq!(Options::default().request(ClientCommand::Restart), Request::Restart);
    }

    #[test]
    fn a_scale_takes_one_number() {
        for (line, scale) in
            [("4", "4"), ("auto", "auto"), ("+1", "+1"), ("-1 --timeout 5s", "-1"), ("--pid 7 -2", "-2")]
        {
            let options = parse(ClientCommand::Scale, line).expect(line);
            assert_eq!(options.request(ClientCommand::Scale), Request::Scale(Scale::parse(scale).expect("a number")));
        }
        for line in ["", "0", "1025", "many", "2 3", "--timeout 5s", "-0", "--"] {
            let problem = parse(ClientCommand::Scale, line).expect_err(line);
            assert!(problem.ends_with("usage: guard scale N|auto|+N|-N [--timeout DURATION] [--pid N]"), "{problem}");
        }
    }
}
