//! Files whose change has a meaning (GUARD_ON_CHANGE).
//!
//! The kernel says that something may have changed. guard then compares fingerprints: a file that differs, and stays as it is for
//! [`QUIET`], has changed. Until then guard does not listen, so a file that is written without a pause costs two comparisons a
//! second.

use super::Runtime;
use super::doors::DoorId;
use crate::supervisor::{Event, Timestamp};
use crate::sys::watch::{Watch, fingerprint};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

/// Many files, or one in parts, are often written one after the other.
const QUIET: Duration = Duration::from_millis(500);

/// How often guard compares where the kernel can watch no more files (the limits of `inotify(7)`).
const WITHOUT_KERNEL: Duration = Duration::from_secs(10);

/// The paths of GUARD_ON_CHANGE, in its order.
pub(super) struct Changes {
    watch: Option<Watch>,
    /// What was there when the path last had a meaning, or at the start.
    known: Vec<Option<u64>>,
    /// What was there at the last comparison.
    seen: Vec<Option<u64>>,
    pub(super) check_at: Option<Timestamp>,
    /// The kernel could not watch, and the log says so.
    failed: bool,
}

impl Runtime<'_> {
    /// Begins to watch, where there is something to watch.
    pub(super) fn watch_files(&mut self) {
        if self.config.on_change.is_empty() {
            return;
        }
        let known: Vec<_> = self.config.on_change.iter().map(|(path, _)| fingerprint(path)).collect();
        self.changes = Some(Changes { watch: None, seen: known.clone(), known, check_at: None, failed: false });
        self.listen_for_changes();
    }

    /// Looks at the files: something may have changed, or has had time to become quiet.
    pub(super) fn check_files(&mut self) {
        let config = self.config;
        let now = self.clock.now();
        let Some(changes) = &mut self.changes else { return };
        if let Some(watch) = changes.watch.take() {
            self.poll.remove(watch.as_fd());
        }
        changes.check_at = None;
        let mut changed = Vec::new();
        for (index, (path, meaning)) in config.on_change.iter().enumerate() {
            let found = fingerprint(path);
            let is_quiet = std::mem::replace(&mut changes.seen[index], found) == found;
            // A file that is missing is about to be replaced, or removed for good: no run can use it.
            if found.is_none() || found == changes.known[index] {
                continue;
            }
            if is_quiet {
                changes.known[index] = found;
                changed.push((path, *meaning));
            } else {
                changes.check_at = Some(now.after(QUIET));
            }
        }
        if changes.check_at.is_none() {
            self.listen_for_changes();
        }
        for (path, meaning) in changed {
            log::info!(path:% = path.display(), meaning:%; "changed");
            self.dispatch(Event::FileChanged(meaning));
        }
    }

    fn listen_for_changes(&mut self) {
        let paths: Vec<&PathBuf> = self.config.on_change.iter().map(|(path, _)| path).collect();
        let watch = Watch::new(paths.iter().map(|path| path.as_path())).and_then(|watch| {
            self.poll.add(watch.as_fd(), DoorId::Changes.token())?;
            Ok(watch)
        });
        let now = self.clock.now();
        let Some(changes) = &mut self.changes else { return };
        match watch {
            Ok(watch) => {
                changes.watch = Some(watch);
                changes.failed = false;
                // Something may have changed before the kernel began to watch.
                let differs = |(path, seen): (&&PathBuf, &Option<u64>)| fingerprint(path) != *seen;
                if paths.iter().zip(&changes.seen).any(differs) {
                    changes.check_at = Some(now);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut changes.failed, true) {
                    let msg = "the kernel cannot watch GUARD_ON_CHANGE; guard looks every 10 s";
                    log::warn!(error = error.desc(), msg; "watch");
                }
                changes.check_at = Some(now.after(WITHOUT_KERNEL));
            }
        }
    }
}
