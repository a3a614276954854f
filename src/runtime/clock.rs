//! The monotonic clock, as the core counts time.

use crate::supervisor::Timestamp;
use std::time::Instant;

/// Counts from its creation.
pub(super) struct Clock(Instant);

#[expect(clippy::disallowed_methods, reason = "this is the one clock that the core is driven by")]
impl Clock {
    pub(super) fn start() -> Clock {
        Clock(Instant::now())
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp(Instant::now().duration_since(self.0))
    }
}
