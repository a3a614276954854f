//! `--timeout` of the subcommands.

use crate::config::duration;
use crate::report::print_error;
use std::time::Duration;

/// Reads its value. One that is valid and may not be what was meant is told.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let timeout = duration::parse(text)?;
    if let Some(doubt) = duration::doubt(text) {
        print_error(&format!("warning: --timeout {text}: {doubt}"));
    }
    Ok(timeout)
}
