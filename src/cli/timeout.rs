//! `--timeout` of the subcommands.

use crate::config::duration;
use crate::report::print_error;
use std::time::Duration;

/// Reads its value, with a warning on stderr if it is valid and may be a slip.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let timeout = duration::parse(text)?;
    if let Some(doubt) = duration::doubt(text) {
        print_error(&format!("warning: --timeout {text}: {doubt}"));
    }
    Ok(timeout)
}
