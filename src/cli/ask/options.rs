//! The words after the verb.

use crate::config::duration;
use crate::config::layers::Verb;
use crate::doors::wire::Request;
use crate::sys::Pid;
use crate::text::printable;
use std::ffi::OsString;
use std::time::Duration;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// For programs, not for people.
    pub(super) json: bool,
    pub(super) timeout: Option<Duration>,
    /// Which guard is meant, where there are several.
    pub(super) pid: Option<Pid>,
}

impl Options {
    pub(super) fn parse(verb: Verb, words: &[OsString]) -> anyhow::Result<Options> {
        let mut options = Options::default();
        let mut words = words.iter().map(|word| word.to_string_lossy());
        while let Some(word) = words.next() {
            options.read(verb, &word, &mut || words.next().map(Into::into)).map_err(|problem| {
                let problem = if problem.is_empty() { problem } else { format!("{}; ", printable(&problem)) };
                anyhow::Error::msg(format!("{problem}{}", usage(verb)))
            })?;
        }
        Ok(options)
    }

    /// Reads one option, and its value from the next word if it has no `=`. The error is empty for a plea for help.
    fn read(&mut self, verb: Verb, word: &str, next: &mut dyn FnMut() -> Option<String>) -> Result<(), String> {
        let (name, inline) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value.to_owned())));
        let mut value = || inline.clone().or_else(&mut *next).ok_or_else(|| format!("{name}: no value"));
        match name {
            "--json" if verb == Verb::Status && inline.is_none() => self.json = true,
            "--timeout" => self.timeout = Some(duration::parse(&value()?)?),
            "--pid" => {
                let text = value()?;
                let pid = text.parse().ok().filter(|pid| *pid > 0);
                self.pid = Some(pid.ok_or_else(|| format!("{text:?} is not a pid"))?);
            }
            "--help" | "-h" => return Err(String::new()),
            _ => return Err(format!("{word}: no such option")),
        }
        Ok(())
    }

    /// What is to be asked.
    pub(super) fn request(&self, verb: Verb) -> Request {
        match verb {
            Verb::Ready => Request::Ready,
            Verb::Health => Request::Health,
            Verb::Status if self.json => Request::StatusJson,
            Verb::Status => Request::Status,
            Verb::Stop => Request::Stop,
            Verb::Restart => Request::Restart,
        }
    }
}

fn usage(verb: Verb) -> String {
    let verb = match verb {
        Verb::Ready => "ready",
        Verb::Health => "health",
        Verb::Status => "status [--json]",
        Verb::Stop => "stop",
        Verb::Restart => "restart",
    };
    format!("usage: guard {verb} [--timeout DURATION] [--pid N]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(verb: Verb, line: &str) -> Result<Options, String> {
        let words: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
        Options::parse(verb, &words).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read() {
        assert_eq!(parse(Verb::Ready, ""), Ok(Options::default()));
        let all = Options { json: true, timeout: Some(Duration::from_millis(500)), pid: Some(7) };
        assert_eq!(parse(Verb::Status, "--json --timeout 500ms --pid 7"), Ok(all));
        let late = Options { timeout: Some(Duration::from_secs(2)), ..Options::default() };
        assert_eq!(parse(Verb::Stop, "--timeout=1 --timeout=2"), Ok(late));
    }

    #[test]
    fn what_is_wrong_comes_with_the_usage() {
        let usage = "usage: guard ready [--timeout DURATION] [--pid N]";
        for (line, problem) in [
            ("--help", ""),
            ("--json", "--json: no such option; "),
            ("--timeot=1", "--timeot=1: no such option; "),
            ("now", "now: no such option; "),
            ("--", "--: no such option; "),
            ("--timeout", "--timeout: no value; "),
            ("--timeout soon", "\"soon\" is not a duration; "),
            ("--pid 0", "\"0\" is not a pid; "),
            ("--pid=x", "\"x\" is not a pid; "),
        ] {
            assert_eq!(parse(Verb::Ready, line), Err(format!("{problem}{usage}")), "{line}");
        }
        assert!(
            parse(Verb::Status, "--json=yes")
                .is_err_and(|error| error.ends_with("guard status [--json] [--timeout DURATION] [--pid N]"))
        );
    }

    #[test]
    fn only_a_status_is_for_programs() {
        let json = Options { json: true, ..Options::default() };
        assert_eq!(json.request(Verb::Status), Request::StatusJson);
        assert_eq!(Options::default().request(Verb::Status), Request::Status);
        assert_eq!(Options::default().request(Verb::Restart), Request::Restart);
    }
}
