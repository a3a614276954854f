//! Suggestions for mistyped names.

/// The hint at the known name that is nearest: by a slip of the finger, by a word that both have, or at least half of it.
pub(super) fn hint(name: &str, known: &mut dyn Iterator<Item = &str>) -> String {
    const FAR: u8 = 3;
    let own = own_part(name);
    let rank = |candidate: &str| {
        let edits = distance(name, candidate);
        let shares = || own.len() > 2 && (candidate.contains(own) || own.contains(own_part(candidate)));
        let rank = match edits {
            _ if edits * 3 <= own.len() => 0,
            _ if shares() => 1,
            _ if edits * 2 <= own.len() => 2,
            _ => FAR,
        };
        (rank, edits)
    };
    match known.min_by_key(|candidate| rank(candidate)) {
        Some(nearest) if rank(nearest).0 < FAR => format!("; the nearest is {nearest}"),
        Some(_) | None => "; guard --help has them all".to_owned(),
    }
}

/// What tells a variable or an option from the others.
fn own_part(name: &str) -> &str {
    name.trim_start_matches("GUARD_").trim_start_matches("--")
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
        assert_eq!(hint("GUARD_TIMEOUT"), "; the nearest is GUARD_STOP_TIMEOUT");
        assert_eq!(hint("GUARD_RESTART_POLICY"), "; the nearest is GUARD_RESTART");
        assert_eq!(hint("GUARD_FOO"), "; guard --help has them all");
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
