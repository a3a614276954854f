//! Sets of exit codes, as GUARD_SUCCESS_CODES and GUARD_NO_RESTART_CODES list them.

use super::list::each;
use crate::signal::{Signal, number};
use std::fmt;

/// Exit codes as a shell shows them (128 + n for a death by signal n), and perhaps the OOM kill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CodeSet {
    codes: [u64; 4],
    /// A death by the kernel's out-of-memory killer is in the set.
    pub oom: bool,
}

impl CodeSet {
    /// Reads a comma-separated list of codes (0 to 255), signal names and `oom`.
    pub fn parse(text: &str) -> Result<CodeSet, String> {
        let mut set = CodeSet::default();
        each(text, &mut |item| {
            if item.eq_ignore_ascii_case("oom") {
                set.oom = true;
            } else if let Some(code) = number(item) {
                set.insert(code);
            } else if item.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(format!("{item:?} is not an exit code"));
            } else {
                set.insert(128 + item.parse::<Signal>()?.number());
            }
            Ok(())
        })?;
        Ok(set)
    }

    fn insert(&mut self, code: u8) {
        self.codes[usize::from(code) / 64] |= 1 << (code % 64);
    }

    /// Whether `code` is in the set.
    pub fn contains(&self, code: u8) -> bool {
        self.codes[usize::from(code) / 64] & 1 << (code % 64) != 0
    }

    /// The first code, or `oom`, that both sets have.
    pub fn common(&self, other: &CodeSet) -> Option<String> {
        let code = (0..=u8::MAX).find(|&code| self.contains(code) && other.contains(code));
        code.map(|code| code.to_string()).or_else(|| (self.oom && other.oom).then(|| "oom".to_owned()))
    }
}

impl fmt::Display for CodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut items: Vec<String> =
            (0..=u8::MAX).filter(|&code| self.contains(code)).map(|code| code.to_string()).collect();
        if self.oom {
            items.push("oom".to_owned());
        }
        f.write_str(if items.is_empty() { "none" } else { "" })?;
        f.write_str(&items.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_signal_name_mean_what_a_shell_shows() {
        let set = CodeSet::parse("3, SIGTERM,oom").expect("valid");
        assert!(set.contains(3) && set.contains(143) && set.oom && !set.contains(15));
        assert_eq!(set.to_string(), "3,143,oom");
    }

    #[test]
    fn what_is_no_code_is_refused() {
        for text in ["", "256", "1,,2", "-1", "+7", "ok", "1;2"] {
            assert!(CodeSet::parse(text).is_err(), "{text}");
        }
    }
}
