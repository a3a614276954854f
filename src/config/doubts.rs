//! Values that are valid, and may not do what was meant. Each has its way out.

use super::duration::show;
use super::layers::Layers;
use super::settings::{Config, MaxMemory, Meaning, Origin, Warning, WarningKind};
use super::values::show_signal_map;
use super::variables::VARIABLES;
use crate::shell::is_shell;
use crate::signal::Signal;

impl Config {
    /// What the values of this configuration leave in doubt. `layers` has them as they were given.
    pub(super) fn doubts(&self, layers: &Layers) -> Vec<Warning> {
        let mut doubts = Vec::new();
        doubts.extend(self.platform_doubt());
        doubts.extend(self.stop_timeout_note());
        doubts.extend(self.stop_signal_doubt());
        doubts.extend(self.signal_map_doubts());
        doubts.extend(self.shell_doubts(layers));
        doubts.extend(self.health_doubts(layers));
        doubts.extend(self.memory_size_doubt(layers));
        doubts.extend(self.restart_doubts());
        doubts
    }

    /// A platform that gives an app no time to stop.
    fn platform_doubt(&self) -> Option<Warning> {
        let (platform, setting) = (self.platform, self.platform.setting);
        let text = || {
            format!(
                "{} sends SIGKILL at once unless {setting} is a whole number of seconds: set it, to 30 for instance",
                platform.name
            )
        };
        platform.own_timeout.is_zero().then(|| doubt(setting, text()))
    }

    /// A stop timeout that is longer than the platform's own.
    fn stop_timeout_note(&self) -> Option<Warning> {
        let (own, setting) = (self.platform.own_timeout, self.platform.setting);
        let chosen = self.origin("GUARD_STOP_TIMEOUT") != Origin::Default;
        let timeout = self.stop.timeout.filter(|timeout| chosen && *timeout > own && !own.is_zero())?;
        let way_out = if setting.is_empty() {
            "which cannot be raised".to_owned()
        } else {
            format!("unless {setting} is longer still")
        };
        let (timeout, own, name) = (show(timeout), show(own), self.platform.name);
        let text = format!("GUARD_STOP_TIMEOUT={timeout}: longer than the {own} of {name}, {way_out}");
        Some(Warning { kind: WarningKind::Note, ..doubt("GUARD_STOP_TIMEOUT", text) })
    }

    /// A stop signal that no app can handle (`signal(7)`).
    fn stop_signal_doubt(&self) -> Option<Warning> {
        let signal = self.stop.signal?;
        let problem = match signal {
            Signal::KILL => "the app has no time to finish",
            Signal::STOP => "the app does not hear of the stop, and SIGKILL ends it",
            _ => return None,
        };
        let text = format!("GUARD_STOP_SIGNAL={signal}: {problem}; leave it out, and the app gets SIGTERM");
        Some(doubt("GUARD_STOP_SIGNAL", text))
    }

    /// Stop requests that the signal map takes away.
    fn signal_map_doubts(&self) -> impl Iterator<Item = Warning> {
        let is_stop_request =
            |signal| [Signal::TERM, Signal::INT].contains(&signal) || self.stop.signal == Some(signal);
        let taken = self.signal_map.iter().filter(move |(signal, to)| is_stop_request(*signal) && *to != Meaning::Stop);
        taken.map(|entry| {
            let (signal, entry) = (entry.0, show_signal_map(&vec![*entry]));
            let text = format!(
                "GUARD_SIGNAL_MAP={entry}: {signal} is no stop request any more, so who stops guard with it must kill it; \
                 leave it out, or write {signal}=stop"
            );
            doubt("GUARD_SIGNAL_MAP", text)
        })
    }

    /// Commands that only a shell would understand.
    fn shell_doubts(&self, layers: &Layers) -> impl Iterator<Item = Warning> {
        self.commands().filter_map(|(name, words)| {
            let given = layers.given(name).unwrap_or_default();
            let program = |word: &String| word.rsplit('/').next().is_some_and(is_shell);
            let syntax = shell_syntax(&given, !words.iter().any(program))?;
            let scheme = if name == "GUARD_PRE_STOP" { "" } else { "exec:" };
            let text = format!("{name}={given}: {syntax} needs a shell, and guard runs none; write {scheme}sh -c '…'");
            Some(doubt(name, text))
        })
    }

    /// Settings of health checks where there is none. GUARD_HEALTH_CHECK=none may have been chosen.
    fn health_doubts(&self, layers: &Layers) -> impl Iterator<Item = Warning> {
        let of_checks = VARIABLES.iter().filter(|variable| {
            let name = variable.name;
            name.starts_with("GUARD_HEALTH_") && name != "GUARD_HEALTH_CHECK" && self.origin(name) != Origin::Default
        });
        of_checks.filter(|_| self.health_check.is_none()).map(|variable| {
            let (name, value) = (variable.name, layers.given(variable.name).unwrap_or_default());
            let text = format!("{name}={value}: does nothing without a health check; set GUARD_HEALTH_CHECK too");
            doubt(name, text)
        })
    }

    /// A number of bytes that was meant for mebibytes.
    fn memory_size_doubt(&self, layers: &Layers) -> Option<Warning> {
        let given = layers.given("GUARD_MAX_MEMORY").unwrap_or_default();
        let is_meant_otherwise =
            matches!(self.max_memory, Some(MaxMemory::Bytes(bytes)) if bytes < 1 << 20 && given == bytes.to_string());
        let text = || format!("GUARD_MAX_MEMORY={given}: {given} bytes; did you mean {given}M?");
        is_meant_otherwise.then(|| doubt("GUARD_MAX_MEMORY", text()))
    }

    /// Limits that replace a run, where nothing may follow it.
    fn restart_doubts(&self) -> impl Iterator<Item = Warning> {
        let limits =
            [("GUARD_MAX_MEMORY", self.max_memory.is_some()), ("GUARD_MAX_LIFETIME", self.max_lifetime.is_some())];
        limits.into_iter().filter(|(_, is_set)| *is_set && !self.restart.may_restart()).map(|(name, _)| {
            let text = format!("{name}: does nothing where no run follows another; set GUARD_RESTART=on-failure too");
            doubt(name, text)
        })
    }
}

fn doubt(variable: &str, text: String) -> Warning {
    Warning { kind: WarningKind::Doubt, variable: variable.to_owned(), text }
}

/// The first part of a command that only a shell would understand (POSIX, Shell Command Language). Variables count where no
/// shell in the command could expand them.
fn shell_syntax(text: &str, variables: bool) -> Option<String> {
    let mut quote = None;
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let tail = &rest[character.len_utf8()..];
        let is_last = tail.chars().next().is_none_or(char::is_whitespace);
        let before = &text[..text.len() - rest.len()];
        let is_first = before.is_empty() || before.ends_with(char::is_whitespace);
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '\'' | '"') => quote = Some(character),
            (None | Some('"'), '\\') => {
                rest = tail.get(tail.chars().next().map_or(0, char::len_utf8)..)?;
                continue;
            }
            (None, '|' | '&') if tail.starts_with(character) => return Some(format!("{character}{character}")),
            (None, '|' | '<' | '>' | '`') => return Some(character.to_string()),
            (None, '~') if is_first && (is_last || tail.starts_with('/')) => return Some(character.to_string()),
            (None, ';' | '&') if is_last => return Some(character.to_string()),
            (None, ';' | '*') if !is_in_url(before) => return Some(character.to_string()),
            (None | Some('"'), '$')
                if variables && tail.starts_with(|c: char| c.is_ascii_alphabetic() || "_{(".contains(c)) =>
            {
                let end =
                    tail[1..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(tail.len(), |end| end + 1);
                return Some(format!("${}", &tail[..end]));
            }
            _ => {}
        }
        rest = tail;
    }
    None
}

/// Whether the text ends within the address of a web page, of which some have such characters.
fn is_in_url(text: &str) -> bool {
    text.rsplit(char::is_whitespace)
        .next()
        .is_some_and(|word| word.split(':').skip(1).any(|rest| rest.starts_with("//")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_shell_understands_is_found() {
        for (text, found) in [
            ("a && b", "&&"),
            ("a||b", "||"),
            ("a | b", "|"),
            ("a >/tmp/x", ">"),
            ("a 2>&1", ">"),
            ("a; b", ";"),
            ("a;b", ";"),
            ("a /tmp/*.pid", "*"),
            ("a &", "&"),
            ("a `b`", "`"),
            ("a http://x:$PORT/", "$PORT"),
            ("a \"$B c\"", "$B"),
            ("a ${B}", "${"),
            ("a $(b)", "$("),
            ("a ~/b", "~"),
            ("a ~", "~"),
            ("~/a b", "~"),
        ] {
            let syntax = shell_syntax(text, true);
            assert!(syntax.as_ref().is_some_and(|syntax| syntax.starts_with(found)), "{text}: {syntax:?}");
        }
        for text in [
            "a 'b && $C'",
            "a \"b | c\"",
            "a \\| b",
            "awk '{print $1}'",
            "a $1 $",
            "a http://x/?b=1&c=2;d",
            "a ä",
            "a b~/c",
            "a ~b",
        ] {
            assert_eq!(shell_syntax(text, true), None, "{text}");
        }
        assert_eq!(shell_syntax("sh -c \"echo $HOME\"", false), None);
        assert_eq!(shell_syntax("sh -c echo && true", false).as_deref(), Some("&&"));
    }
}
