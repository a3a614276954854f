//! The guides under docs/: what they say of guard's variables is what guard takes.

use crate::common::child;
use std::fs;
use std::path::Path;

/// The text of each guide, with its name.
fn guides() -> Vec<(String, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let files = fs::read_dir(directory).expect("docs/ is there").map(|entry| entry.expect("a file").path());
    let guide = |path: &Path| {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(path).expect("a guide can be read"))
    };
    files.filter(|path| path.extension().is_some_and(|extension| extension == "md")).map(|path| guide(&path)).collect()
}

/// The code blocks, and the pieces of code within lines.
fn code(text: &str) -> Vec<&str> {
    let (mut blocks, mut lines) = (Vec::new(), Vec::new());
    for (index, part) in text.split("```").enumerate() {
        if index % 2 == 1 {
            blocks.push(part);
        } else {
            lines.extend(part.split('`').skip(1).step_by(2));
        }
    }
    blocks.extend(lines);
    blocks
}

/// Every `GUARD_X=value` of a piece of code, also as ECS has it, `"name": "GUARD_X", "value": "value"`, and Kubernetes,
/// `{ name: GUARD_X, value: value }`.
fn settings(code: &str) -> Vec<(&str, &str)> {
    let plain = code.split_whitespace().filter_map(|word| word.split_once('='));
    let json = code.split("\"name\": \"").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once('"')?;
        Some((name, rest.strip_prefix(", \"value\": \"")?.split_once('"')?.0))
    });
    let yaml = code.split("{ name: ").skip(1).filter_map(|rest| rest.split_once(" }")?.0.split_once(", value: "));
    let yaml = yaml.map(|(name, value)| (name, value.trim_matches('"')));
    plain.chain(json).chain(yaml).filter(|(name, _)| name.starts_with("GUARD_")).collect()
}

#[test]
fn guard_takes_what_the_guides_set() {
    let mut checked = 0;
    for (guide, text) in guides() {
        for code in code(&text) {
            let settings = settings(code);
            if settings.is_empty() || settings.iter().any(|(_, value)| value.contains('…')) {
                continue;
            }
            let mut setup = child().options(["check"]).env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
            // Some of it is what guard sets for apps.
            setup = setup.env("GUARD_ID", "1");
            for (name, value) in &settings {
                // The one value that has to be there: in the image of the guide it is.
                setup = setup.env(name, if *name == "GUARD_CHDIR" { "/" } else { value });
            }
            let mut guard = setup.start();
            assert_eq!(guard.code(), 0, "docs/{guide}: {code}\n{}", guard.transcript());
            let warned = guard.out().iter().any(|line| line.starts_with("warning: "));
            // guard says what it costs to give the key of a terminal away, which is what the guide wants.
            let warned = warned && !settings.contains(&("GUARD_SIGNAL_MAP", "INT=ignore"));
            assert!(!warned, "docs/{guide}: {code}\n{}", guard.transcript());
            checked += 1;
        }
    }
    assert!(checked > 60, "the guides have more settings than {checked}");
}
