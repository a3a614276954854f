//! Suggestions for mistyped names.

/// The hint at the known name that is nearest: by a slip of the finger, by words that both have, or at least half of it.
pub(super) fn hint(name: &str, known: &mut dyn Iterator<Item = &str>) -> String {
    let length = words(name).map(str::len).sum::<usize>();
    // The less the nearer.
    let rank = |candidate: &str| {
        let edits = distance(name, candidate);
        let shared = words(name).filter(|word| words(candidate).any(|other| is_alike(word, other))).count();
        let is_slip = edits <= 2 && edits * 3 <= length;
        let is_far = !is_slip && shared == 0 && edits * 2 > length;
        (is_far, !is_slip, usize::MAX - shared, edits)
    };
    match known.min_by_key(|candidate| rank(candidate)) {
        Some(nearest) if !rank(nearest).0 => format!("; the nearest is {nearest}"),
        Some(_) | None => "; guard --help has them all".to_owned(),
    }
}

/// The words of a variable or an option that tell it from the others.
fn words(name: &str) -> impl Iterator<Item = &str> {
    name.trim_start_matches("GUARD_").split(['_', '-']).filter(|word| !word.is_empty())
}

/// Whether one begins as the other does, which has three letters at least.
fn is_alike(a: &str, b: &str) -> bool {
    let length = a.len().min(b.len());
    length >= 3 && a.as_bytes()[..length].eq_ignore_ascii_case(&b.as_bytes()[..length])
}

/// The known name that `name` becomes by two edits at most.
pub(super) fn slip<'a>(name: &str, known: &mut dyn Iterator<Item = &'a str>) -> Option<&'a str> {
    known.min_by_key(|candidate| distance(name, candidate)).filter(|found| distance(name, found) <= 2)
}

/// Insertions, deletions and substitutions that turn `a` into `b` (Levenshtein's distance), in any case.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(!x.eq_ignore_ascii_case(&y));
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_word() {
        let known = ["GUARD_STOP_TIMEOUT", "GUARD_STOP_SIGNAL", "GUARD_RESTART"];
        let hint = |name| hint(name, &mut known.into_iter());
        assert_eq!(hint("GUARD_STOP_TIMOUT"), "; the nearest is GUARD_STOP_TIMEOUT");
        assert_eq!(slip("GUARD_RESTARTS_", &mut known.into_iter()), Some("GUARD_RESTART"));
        assert_eq!(hint("GUARD_RESTRAT"), "; the nearest is GUARD_RESTART");
        assert_eq!(hint("GUARD_restart"), "; the nearest is GUARD_RESTART");
        assert_eq!(hint("GUARD_timeout"), "; the nearest is GUARD_STOP_TIMEOUT");
        assert_eq!(hint("GUARD_TIMEOUT_STOP"), "; the nearest is GUARD_STOP_TIMEOUT");
        assert_eq!(hint("GUARD_RESTARTS_MAX"), "; the nearest is GUARD_RESTART");
        assert_eq!(hint("GUARD_CATALOG"), "; guard --help has them all");
        assert_eq!(hint("GUARD_RESTART_POLICY"), "; the nearest is GUARD_RESTART");
        assert_eq!(hint("GUARD_FOO"), "; guard --help has them all");
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
