//! Comma-separated lists, as several variables take them.

/// Reads every item, and returns all problems at once.
pub(super) fn each<'a>(text: &'a str, read: &mut dyn FnMut(&'a str) -> Result<(), String>) -> Result<(), String> {
    let problems: Vec<String> = text.split(',').map(str::trim).map(read).filter_map(Result::err).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems.join(", ")) }
}
