//! How many instances of the app there are, and how many there are to be.

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

/// What `guard scale` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scale {
    To(Instances),
    More(u32),
    Fewer(u32),
}

impl Scale {
    /// Reads `4`, `auto`, `+1` or `-1`.
    pub fn parse(text: &str) -> Result<Scale, String> {
        let step = |digits: &str| number(digits).filter(|step| (1..=MOST_INSTANCES).contains(step));
        let scale = match text.as_bytes() {
            [b'+', ..] => step(&text[1..]).map(Scale::More),
            [b'-', ..] => step(&text[1..]).map(Scale::Fewer),
            _ => instances(text).ok().map(Scale::To),
        };
        scale.ok_or_else(|| {
            format!("{text:?} is no number of instances; it takes a number from 1 to {MOST_INSTANCES}, auto, +N or -N")
        })
    }
}

/// In the form that `guard scale` takes.
impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scale::To(instances) => instances.fmt(f),
            Scale::More(step) => write!(f, "+{step}"),
            Scale::Fewer(step) => write!(f, "-{step}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_reads_back() {
        for text in ["1", "1024", "auto", "+1", "-3"] {
            assert_eq!(Scale::parse(text).map(|scale| scale.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "0", "1025", "+", "-0", "+-1", "two", "+1025", "1.5", "+e"] {
            assert!(Scale::parse(text).is_err(), "{text}");
        }
    }
}
