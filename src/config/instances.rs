//! How many instances of the app there are.

use super::settings::{Instances, MOST_INSTANCES};
use crate::signal::number;
use std::fmt;

/// A number of instances, or `auto`.
pub fn instances(text: &str) -> Result<Instances, String> {
    if text.eq_ignore_ascii_case("auto") {
        return Ok(Instances::Auto);
    }
    let in_range = number(text).filter(|number| (1..=MOST_INSTANCES).contains(number));
    in_range.map(Instances::Number).ok_or_else(|| "not a number in range".to_owned())
}

/// In the form that the variable takes.
impl fmt::Display for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Instances::Number(number) => number.fmt(f),
            Instances::Auto => f.write_str("auto"),
        }
    }
}
