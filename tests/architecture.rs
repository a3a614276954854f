//! Who imports whom: a breach of the table in docs/design.md fails here.

use std::fs;
use std::path::{Path, PathBuf};

/// Each room, and the rooms that it may name.
const ROOMS: [(&str, &[&str]); 12] = [
    ("main", &["cli", "config", "platform", "report", "runtime", "supervisor", "sys", "text"]),
    ("cli", &["config", "doors", "report", "sys", "text"]),
    ("config", &["platform", "shell", "signal", "text"]),
    ("platform", &[]),
    ("shell", &[]),
    ("signal", &[]),
    ("text", &[]),
    ("supervisor", &["config", "signal"]),
    ("runtime", &["config", "doors", "report", "shell", "signal", "supervisor", "sys", "text"]),
    ("doors", &["config", "signal", "supervisor", "sys", "text"]),
    ("report", &["config", "sys", "text"]),
    // `start` is what the C library's main, which needs `unsafe`, calls.
    ("sys", &["shell", "signal", "start"]),
];

/// What the core may name config for: plain types.
const PLAIN: [(&str, &[&str]); 1] = [("supervisor", &["codes", "{"])];

fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

fn room(source: &Path) -> String {
    let inside = source.strip_prefix("src").expect("below src");
    let first = inside.components().next().expect("a name").as_os_str().to_str().expect("UTF-8");
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn every_room_imports_only_what_it_may() {
    let mut checked = 0;
    for source in sources(Path::new("src")) {
        let room = room(&source);
        let (_, allowed) = ROOMS.iter().find(|(name, _)| *name == room).unwrap_or_else(|| panic!("a new room: {room}"));
        let plain = PLAIN.iter().find(|(name, _)| *name == room).map(|(_, types)| *types);
        let text = fs::read_to_string(&source).expect("a source");
        for import in text.split("crate::").skip(1) {
            let (target, rest) = import.split_at(import.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(0));
            let source = source.display();
            assert!(target == room || allowed.contains(&target), "{source}: {room} may not use {target}");
            if let (Some(plain), "config") = (plain, target) {
                let item = rest.trim_start_matches(':');
                let known = plain.iter().any(|name| item.starts_with(name)) || item.starts_with(char::is_uppercase);
                assert!(known, "{source}: {room} may use plain types of config only, not {item:.20}");
            }
            checked += 1;
        }
    }
    assert!(checked > 50, "imports are found at all");
}

#[test]
fn unsafe_stays_in_sys() {
    for source in sources(Path::new("src")).into_iter().filter(|source| room(source) != "sys") {
        let text = fs::read_to_string(&source).expect("a source");
        assert!(!text.contains("unsafe {") && !text.contains("allow(unsafe_code)"), "{}", source.display());
    }
}
