//! Files whose change has a meaning (GUARD_ON_CHANGE).
//!
//! The kernel says that something may have changed. guard then compares fingerprints: a file that differs, and stays as it is for
//! [`QUIET`], has changed. Files with the same meaning change together, so each waits until none of them differs any more, for
//! [`LONGEST_WAIT`] at most. Until then guard does not listen, so a file that is written without a pause, or a neighbour of it, costs
//! four comparisons a second at most. A copy of guard takes the fingerprints, and may wait for ever.

use super::Runtime;
use super::doors::{DoorId, MOST_COPIES};
use crate::supervisor::{Event, Timestamp};
use crate::sys::clock::Deadline;
use crate::sys::watch::{Fingerprint, Found, Scan, Watch};
use crate::sys::{Errno, socket};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

/// Many files, or one in parts, are often written one after the other.
const QUIET: Duration = Duration::from_millis(500);

/// How long a change waits for those of the same meaning, and for a file that is written again and again with what it says.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How often guard compares where the kernel can watch no more files (the limits of `inotify(7)`), or guard may not read a directory.
const WITHOUT_KERNEL: Duration = Duration::from_secs(10);

const CANNOT_WATCH: &str = "the kernel cannot watch all of GUARD_ON_CHANGE; guard looks every 10 s besides";
const CANNOT_LOOK: &str = "guard could not look at GUARD_ON_CHANGE; it tries again in 10 s";

/// How long the first run waits for the first fingerprints.
const FIRST_SCAN: Duration = Duration::from_secs(1);

/// The paths of GUARD_ON_CHANGE, in its order.
#[derive(Default)]
pub(super) struct Changes {
    watch: Option<Watch>,
    scan: Option<Scan>,
    scanned_at: Option<Timestamp>,
    /// What was there when the path last had a meaning, or at the start. Empty before the first scan is over.
    known: Vec<Option<Fingerprint>>,
    /// What was there at the last comparison.
    seen: Vec<Option<Fingerprint>>,
    /// Since when a change has not had its meaning.
    pending_since: Vec<Option<Timestamp>>,
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
        self.changes = Some(Changes::default());
        self.check_files();
        let deadline = Deadline::after(FIRST_SCAN);
        while let Some(scan) = self.changes.as_ref().and_then(|changes| changes.scan.as_ref())
            && !deadline.left().is_zero()
            && socket::wait_readable(&[scan.as_fd()], deadline.left()).is_ok()
        {
            self.check_files();
        }
    }

    /// Begins a scan of the files, since something may have changed or has had time to become quiet; or takes what one has found.
    pub(super) fn check_files(&mut self) {
        let now = self.clock.now();
        let Some(changes) = &mut self.changes else { return };
        let Some(mut scan) = changes.scan.take() else {
            if let Some(watch) = changes.watch.take() {
                self.poll.remove(watch.as_fd());
            }
            changes.check_at = None;
            match self.begin_scan() {
                Ok(scan) => {
                    log::debug!(pid = scan.copy; "scan");
                    if let Some(changes) = &mut self.changes {
                        changes.scan = Some(scan);
                    }
                }
                Err(error) => self.note_unwatched(&error, CANNOT_LOOK, now),
            }
            return;
        };
        if !scan.is_over() {
            changes.scan = Some(scan);
            return;
        }
        self.poll.remove(scan.as_fd());
        match scan.found() {
            Some(found) => self.compare(found, now),
            // It has got guard's last SIGKILL.
            None if self.ending.killing => {}
            None => self.note_unwatched(&Errno::ECHILD.into(), CANNOT_LOOK, now),
        }
    }

    fn begin_scan(&mut self) -> io::Result<Scan> {
        if self.children.copies.len() >= MOST_COPIES {
            return Err(Errno::EAGAIN.into());
        }
        let paths: Vec<&Path> = self.config.on_change.iter().map(|(path, _)| path.as_path()).collect();
        let scan = Scan::begin(&paths)?;
        self.note_copy(scan.copy);
        self.poll.add(scan.as_fd(), DoorId::Changes.token())?;
        Ok(scan)
    }

    fn compare(&mut self, Found { fingerprints, watch, unwatched }: Found, now: Timestamp) {
        let config = self.config;
        let Some(changes) = &mut self.changes else { return };
        if changes.known.is_empty() {
            (changes.known, changes.seen) = (fingerprints.clone(), fingerprints.clone());
            changes.pending_since = vec![None; fingerprints.len()];
        }
        let seen = std::mem::replace(&mut changes.seen, fingerprints.clone());
        let content = |found: Option<Fingerprint>| found.map(|found| found.content);
        let is_same = |index: usize| content(seen[index]) == content(fingerprints[index]);
        let mut changed = Vec::new();
        for (index, ((path, meaning), &found)) in config.on_change.iter().zip(&fingerprints).enumerate() {
            let (known, since) = (&mut changes.known[index], &mut changes.pending_since[index]);
            // A file that is missing is about to be replaced, or removed for good: no run can use it.
            if found.is_none() || content(found) == content(*known) {
                *since = None;
                continue;
            }
            let mut others = config.on_change.iter().enumerate().filter(|(_, (_, other))| other == meaning);
            let is_quiet = if now.since(*since.get_or_insert(now)) < LONGEST_WAIT {
                seen[index] == found && others.all(|(other, _)| is_same(other))
            } else {
                is_same(index)
            };
            if is_quiet {
                (*known, *since) = (found, None);
                changed.push((path, *meaning));
            } else {
                changes.check_at = Some(now.after(QUIET));
            }
        }
        let last = changes.scanned_at.replace(now);
        if changes.check_at.is_none() && last.is_some_and(|last| now.since(last) < QUIET) {
            changes.check_at = Some(now.after(QUIET));
        }
        if changes.check_at.is_none() {
            let mut unwatched = unwatched;
            if let Some(watch) = watch {
                match self.poll.add(watch.as_fd(), DoorId::Changes.token()) {
                    Ok(()) => changes.watch = Some(watch),
                    Err(error) => unwatched = Some(error),
                }
            }
            match unwatched {
                Some(error) => self.note_unwatched(&error.into(), CANNOT_WATCH, now),
                None => changes.failed = false,
            }
        }
        let mut meanings = Vec::new();
        for (path, meaning) in changed {
            log::info!(path:% = path.display(), meaning:%; "changed");
            // A certificate and its key change together.
            if !meanings.contains(&meaning) {
                meanings.push(meaning);
            }
        }
        for meaning in meanings {
            self.dispatch(Event::FileChanged(meaning));
        }
    }

    /// Said once, until guard watches again.
    fn note_unwatched(&mut self, error: &io::Error, msg: &str, now: Timestamp) {
        let Some(changes) = &mut self.changes else { return };
        if !std::mem::replace(&mut changes.failed, true) {
            log::warn!(error:%, msg; "watch");
        }
        changes.check_at = Some(now.after(WITHOUT_KERNEL));
    }
}
