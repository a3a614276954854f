//! Reads the times and durations in guard's log.

use crate::common::Event;
use std::time::Duration;

/// When an event was logged, as a time of the day; from its `time=2026-11-21T02:07:06.123Z`.
pub(crate) fn time(event: &Event) -> Duration {
    let time = event.get("time").and_then(|time| time.split('T').nth(1)).expect("an event has a time");
    let parts: Vec<f64> = time.trim_end_matches('Z').split(':').map(|part| part.parse().expect("a number")).collect();
    Duration::from_secs_f64(parts[0] * 3600.0 + parts[1] * 60.0 + parts[2])
}

/// From one event to a later one, to the millisecond; midnight may come between.
pub(crate) fn between(earlier: &Event, later: &Event) -> Duration {
    let day = Duration::from_secs(86_400);
    let (from, to) = (time(earlier), time(later));
    if to >= from { to - from } else { to + day - from }
}

/// A duration as guard shows it: `0s`, `55ms`, `1.271s`, `1m30s`.
pub(crate) fn duration(text: &str) -> Duration {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_alphabetic()).expect("a duration has a unit");
        let letters = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |next| digits + next);
        let scale = match &rest[digits..letters] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            unit => panic!("{text}: what is {unit:?}?"),
        };
        total += Duration::from_secs_f64(rest[..digits].parse::<f64>().expect("a number") * scale);
        rest = &rest[letters..];
    }
    total
}
