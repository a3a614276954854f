//! One socket of a pool (`pool.rs`), and who has it.

use crate::supervisor::{RunId, Timestamp};
use crate::sys::listen;
use std::os::fd::{AsFd, OwnedFd};

/// A socket of guard's own of which apps have duplicates.
pub(super) struct Member {
    pub(super) socket: OwnedFd,
    pub(super) inode: u64,
    /// The runs that live and have it: one, or more where there can be no more sockets.
    pub(super) runs: Vec<RunId>,
    /// It has listened.
    pub(super) has_listened: bool,
    /// What becomes of it then, see the states in `pool.rs`, unless a run listens before.
    pub(super) free_until: Option<Timestamp>,
    /// The instance whose run had it last. Its next run is the one that clients wait for.
    pub(super) left_by: Option<u32>,
    /// Clients that its run has found waiting, while it seems that it has accepted none.
    pub(super) unaccepted: Option<Unaccepted>,
    /// guard does not know its number. All members with this mark have the numbers of their places, in an unknown order.
    pub(super) is_mixed: bool,
    /// Clients that waited at the last check, and how many checks in a row have found no fewer; see [`Pool::has_stuck_queue`].
    pub(super) seen_waiting: u32,
    pub(super) stuck: u8,
}

/// Clients that a run has found waiting, and has not accepted.
#[derive(Clone, Copy)]
pub(super) struct Unaccepted {
    /// The `free_until` from before the run listened.
    pub(super) until: Timestamp,
    /// When it listened.
    pub(super) since: Timestamp,
    /// How many they were at most.
    pub(super) most: u32,
}

impl Member {
    pub(super) fn new(socket: OwnedFd, run: Option<RunId>) -> Member {
        let inode = listen::inode(socket.as_fd()).unwrap_or(0);
        let runs = run.into_iter().collect();
        Member {
            socket,
            inode,
            runs,
            has_listened: false,
            free_until: None,
            left_by: None,
            unaccepted: None,
            is_mixed: false,
            seen_waiting: 0,
            stuck: 0,
        }
    }

    /// No run has it any more, and clients wait in it until then.
    pub(super) fn free(&mut self, until: Timestamp) {
        self.left_by = self.runs.last().map(|run| run.instance);
        self.runs.clear();
        self.free_until = Some(until);
    }

    /// Runs have it, and all of them are meant.
    pub(super) fn is_of(&self, is_meant: &impl Fn(RunId) -> bool) -> bool {
        !self.runs.is_empty() && self.runs.iter().all(|run| is_meant(*run))
    }

    /// A queue that has got shorter has been accepted from.
    pub(super) fn note_accepted(&mut self) {
        if let Some(unaccepted) = self.unaccepted {
            let waiting = self.waiting();
            self.unaccepted = (waiting >= unaccepted.most).then_some(Unaccepted { most: waiting, ..unaccepted });
        }
    }

    pub(super) fn waiting(&self) -> u32 {
        listen::queue(self.socket.as_fd()).map_or(0, |(waiting, _)| waiting)
    }
}
