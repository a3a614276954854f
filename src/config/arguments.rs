//! The arguments of a command line, one after the other, as guard and its subcommands read them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// `--name`, `--name=value` or `-n`: the name with its dashes, and what follows the first `=`.
    Option(String, Option<OsString>),
    /// `--`.
    Separator,
    /// Anything else, a lone `-` included.
    Word(OsString),
}

/// What is left of a command line.
pub struct Arguments(std::vec::IntoIter<OsString>);

impl Arguments {
    pub fn new(arguments: Vec<OsString>) -> Arguments {
        Arguments(arguments.into_iter())
    }

    /// The next argument as it was given, which stays the next one.
    pub fn peek(&self) -> Option<&OsStr> {
        self.0.as_slice().first().map(OsString::as_os_str)
    }

    /// The value of an option: what followed its `=`, else the next argument, unless that is `--`.
    pub fn value(&mut self, inline: Option<OsString>) -> Option<OsString> {
        inline.or_else(|| if self.peek()? == "--" { None } else { self.0.next() })
    }

    /// The value as text, for options that take nothing else.
    pub fn text(&mut self, name: &str, inline: Option<OsString>) -> Result<String, String> {
        let value = self.value(inline).ok_or_else(|| format!("{name}: no value"))?;
        Ok(value.to_string_lossy().into_owned())
    }

    /// All arguments that are left, as they were given.
    pub fn rest(&mut self) -> Vec<OsString> {
        self.0.by_ref().collect()
    }
}

impl Iterator for Arguments {
    type Item = Argument;

    fn next(&mut self) -> Option<Argument> {
        let argument = self.0.next()?;
        let bytes = argument.as_bytes();
        Some(match bytes {
            b"--" => Argument::Separator,
            [b'-', _, ..] => {
                let mut parts = bytes.splitn(2, |&byte| byte == b'=');
                let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
                Argument::Option(name, parts.next().map(|value| OsStr::from_bytes(value).to_owned()))
            }
            _ => Argument::Word(argument),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_words_and_the_separator_are_told_apart() {
        let line = ["--a", "1", "--b=2=3", "-h", "-", "", "--c=", "--", "--d"].map(OsString::from);
        let mut arguments = Arguments::new(line.to_vec());
        let mut option = |expected: &str| match arguments.next() {
            Some(Argument::Option(name, inline)) if name == expected => arguments.value(inline),
            other => panic!("{other:?}"),
        };
        assert_eq!(["--a", "--b"].map(&mut option), [Some("1".into()), Some("2=3".into())]);
        assert_eq!(arguments.next(), Some(Argument::Option("-h".to_owned(), None)));
        assert_eq!(arguments.next(), Some(Argument::Word("-".into())));
        assert_eq!(arguments.next(), Some(Argument::Word("".into())));
        assert_eq!(arguments.next(), Some(Argument::Option("--c".to_owned(), Some("".into()))));
        assert_eq!(arguments.value(None), None, "the separator is no value");
        assert_eq!(arguments.next(), Some(Argument::Separator));
        assert_eq!(arguments.rest(), ["--d"]);
    }
}
