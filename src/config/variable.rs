//! What a setting is; variables.rs has them all.

use super::settings::Config;

/// One setting: a variable of the environment, and the flag of the same name.
pub struct Variable {
    /// `GUARD_FOO_BAR`; its flag is `--foo-bar`.
    pub name: &'static str,
    /// The default, as `--help` shows it.
    pub default: &'static str,
    /// The values that it takes, as an error names them.
    pub takes: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    /// The value in force, for people.
    pub show: fn(&Config) -> String,
}

impl Variable {
    /// The flag's name, with its dashes.
    pub fn flag(&self) -> String {
        let name = self.name.strip_prefix("GUARD_").unwrap_or(self.name);
        format!("--{}", name.to_ascii_lowercase().replace('_', "-"))
    }

    /// Whether it takes a duration, by the text of `takes`.
    pub(super) fn is_duration(&self) -> bool {
        self.takes.starts_with("a duration")
    }
}
