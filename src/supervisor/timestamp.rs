//! Time as the core knows it: a point on the monotonic clock that the runtime reads.

use std::time::Duration;

/// Time since guard began, on the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub Duration);

impl Timestamp {
    /// This much later.
    pub fn after(self, delay: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(delay))
    }

    /// The time from `earlier` to this, zero if it is not earlier.
    pub fn since(self, earlier: Timestamp) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The earlier of two deadlines, `None` being never.
pub fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Whether a deadline has passed; `None` never does.
pub fn is_due(deadline: Option<Timestamp>, now: Timestamp) -> bool {
    deadline.is_some_and(|at| at <= now)
}
