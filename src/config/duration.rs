//! Durations as people write them: `500ms`, `10s`, `1m30s`, a bare number of seconds.

use std::time::Duration;

const MILLISECOND: u64 = 1_000_000;
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000 * MILLISECOND),
    ("h", 3_600_000 * MILLISECOND),
    ("m", 60_000 * MILLISECOND),
    ("s", 1_000 * MILLISECOND),
    ("ms", MILLISECOND),
];

/// Longer than any container lives; keeps every sum of a few durations far from overflow.
pub(super) const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Reads a duration; units go from large to small, and any number may have a fraction.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration");
    if let Some(seconds) = nanoseconds(text, 1_000 * MILLISECOND) {
        return bounded(seconds).ok_or_else(|| format!("{text:?} is too long"));
    }
    if text.is_empty() {
        return Err(wrong());
    }
    let mut total: u64 = 0;
    let mut rest = text;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let (_, scale) = units.find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        total = total.saturating_add(nanoseconds(number, *scale).ok_or_else(wrong)?);
        rest = tail;
    }
    bounded(total).ok_or_else(|| format!("{text:?} is too long"))
}

/// What may be wrong with a duration that is valid. pm2 and others count in milliseconds, so a large bare number is a doubt.
pub fn doubt(text: &str) -> Option<String> {
    let is_bare = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = parse(text).ok().filter(|time| is_bare && time.as_secs() >= 1_000)?;
    let milliseconds = parse(&format!("{text}ms")).ok()?;
    Some(format!("{text} seconds ({}); did you mean {text}ms ({})?", show(seconds), show(milliseconds)))
}

fn bounded(nanoseconds: u64) -> Option<Duration> {
    Some(Duration::from_nanos(nanoseconds)).filter(|duration| *duration <= LONGEST)
}

/// `number`, which may have a fraction, times `scale`.
fn nanoseconds(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    // A number too large for its type is too long, not malformed.
    let whole = whole.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(scale);
    let mut place = scale;
    let fraction = fraction.bytes().map(|digit| {
        place /= 10;
        u64::from(digit - b'0') * place
    });
    Some(whole.saturating_add(fraction.sum()))
}

/// The shortest form that reads back as the same duration in milliseconds: `8.3s`, `1m30s`, `250ms`.
pub fn show(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if milliseconds < 1_000 {
        return if milliseconds == 0 { "0s".to_owned() } else { format!("{milliseconds}ms") };
    }
    let (minutes, rest) = (milliseconds / 60_000, milliseconds % 60_000);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    let mut text = String::new();
    if hours > 0 {
        text += &format!("{hours}h");
    }
    if minutes > 0 {
        text += &format!("{minutes}m");
    }
    if rest > 0 {
        text += &format!("{}s", show_seconds(Duration::from_millis(rest)));
    }
    text
}

/// Seconds as a bare number, to the millisecond, without trailing zeros: `8.3`, `25`.
pub fn show_seconds(duration: Duration) -> String {
    let text = format!("{}.{:03}", duration.as_secs(), duration.subsec_millis());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_the_forms_of_the_contract() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("8.3s", 8_300),
            ("2", 2_000),
            ("0.25", 250),
            ("0", 0),
            ("1h", 3_600_000),
            ("1d12h", 129_600_000),
            ("1s500ms", 1_500),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in
            ["", "s", "-1s", "1x", "1s1m", "1s1s", "1 s", "1.s", ".5s", "1..5s", "5s3", "inf", "1e3", "99999999999d"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_shown_reads_back(milliseconds in 0..10_000_000_000_u64) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse(&show(duration)), Ok(duration));
            prop_assert_eq!(parse(&show_seconds(duration)), Ok(duration));
        }
    }
}
