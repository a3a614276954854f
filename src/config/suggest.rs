//! Suggestions for mistyped names.

/// The known name that takes the fewest edits to become `name`.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    known.min_by_key(|candidate| distance(name, candidate)).unwrap_or_default()
}

/// The hint at the known name that is nearest, if more of it is right than wrong.
pub(super) fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = nearest(name, known);
    let own = name.trim_start_matches("GUARD_").trim_start_matches("--");
    let is_near = distance(name, nearest) * 2 <= own.len();
    if is_near { format!("; the nearest is {nearest}") } else { "; guard --help has them all".to_owned() }
}

/// The known name that `name` becomes by two edits at most.
pub(super) fn slip<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    Some(nearest(name, known)).filter(|found| distance(name, found) <= 2)
}

/// Insertions, deletions and substitutions that turn `a` into `b` (Levenshtein's distance).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
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
        assert_eq!(nearest("GUARD_STOP_TIMOUT", known.into_iter()), "GUARD_STOP_TIMEOUT");
        assert_eq!(nearest("GUARD_RESTARTS_", known.into_iter()), "GUARD_RESTART");
        assert_eq!(hint("GUARD_RESTRAT", known.into_iter()), "; the nearest is GUARD_RESTART");
        assert_eq!(hint("GUARD_FOO", known.into_iter()), "; guard --help has them all");
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
