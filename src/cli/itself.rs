//! `guard -- guard check`: the result of `guard check` behind an ENTRYPOINT that is guard already. The inner guard runs no app,
//! so the outer guard executes it in its own place: it then sees the container's whole environment, and starts once.

use crate::config::layers::Layers;
use crate::sys::itself;
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Executes the command in guard's place if it is guard itself and runs no app. Returns if it is anything else, or where it
/// cannot be executed.
pub fn take_the_place(layers: &Layers) {
    let [_, arguments @ ..] = layers.command.as_slice() else { return };
    if !layers.errors.is_empty() || Layers::runs_an_app(arguments) {
        return;
    }
    let path = layers.environment("PATH");
    let directory = layers.given("GUARD_CHDIR");
    if let Some(file) = itself::find(&layers.command, path, directory.as_deref().map(Path::new)) {
        itself::execute(&file, &words(layers));
    }
}

/// The words of the command. `guard check` gets the outer guard's flags too, since they would be in force for an app; its own
/// come later, and win.
fn words(layers: &Layers) -> Vec<OsString> {
    let mut words = layers.command.clone();
    if words.get(1).is_some_and(|word| word == OsStr::new("check")) {
        words.splice(2..2, layers.flags());
    }
    words
}
