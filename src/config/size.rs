//! Sizes in bytes: a number with a unit of a power of 1024.

use crate::signal::number;

const UNITS: [(&str, u64); 4] = [("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("T", 1 << 40)];

/// `512M`, `1.5G`, `64K`, `2Gi`, `100MB`, or a number of bytes.
pub fn parse(text: &str) -> Result<u64, String> {
    let upper = text.to_ascii_uppercase();
    let bare = ["IB", "B", "I"].iter().find_map(|tail| upper.strip_suffix(tail)).unwrap_or(&upper);
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((bare.strip_suffix(unit)?, *bytes)));
    let (amount, unit) = unit.unwrap_or((bare, 1));
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || amount.contains('.') && (!digits(fraction) || unit == 1 || fraction.len() > 9) {
        return Err("not a size".to_owned());
    }
    let too_large = || "too large".to_owned();
    let bytes = number::<u64>(whole).and_then(|whole| whole.checked_mul(unit)).ok_or_else(too_large)?;
    let scale = fraction.bytes().fold(1_u64, |scale, _| scale * 10);
    let part = number::<u64>(fraction).unwrap_or(0);
    let part = u128::from(part) * u128::from(unit) / u128::from(scale);
    u64::try_from(part).ok().and_then(|part| bytes.checked_add(part)).ok_or_else(too_large)
}

/// With the greatest unit in which it is a whole number.
pub fn show(bytes: u64) -> String {
    let unit = UNITS.iter().rev().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_the_forms_of_the_contract() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("512M", 512 << 20),
            ("1.5G", 3 << 29),
            ("64k", 64 << 10),
            ("2Gi", 2 << 30),
            ("100MB", 100 << 20),
            ("1MiB", 1 << 20),
            ("1T", 1 << 40),
            ("10B", 10),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in ["", "M", "-1", "1.5", "1.M", ".5M", "1 M", "1X", "1MM", "99999999999999999999", "99999999T", "B"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(bytes in any::<u64>()) {
            prop_assert_eq!(parse(&show(bytes)), Ok(bytes));
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
