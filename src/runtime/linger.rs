//! What guard does last: it stays until the app's connections have sent what was written to them.
//!
//! A server that has drained closes its connections and exits, and the kernel goes on sending. But a container's network
//! ends with PID 1, and with it what a slow client has not taken yet.

use super::Runtime;
use crate::supervisor::Timestamp;
use crate::sys::connections::{self, Unsent, unsent};
use crate::sys::socket;
use std::collections::HashSet;
use std::time::Duration;

/// How often to look; the kernel does not tell.
const LOOK: Duration = Duration::from_millis(10);

/// Whoever takes nothing for so long is given up.
const STALLED: Duration = Duration::from_secs(1);

impl Runtime<'_> {
    /// Waits for connections that are closed now, as long as they get on and no longer than until then.
    pub(super) fn linger(&self, until: Timestamp) {
        // Who is not PID 1 is not the one that the network waits for, and the host's waits for nobody.
        if !self.init || connections::is_of_the_host() {
            return;
        }
        let mut left = unsent();
        let mut give_up_at = self.clock.now().after(STALLED).min(until);
        while !left.is_empty() && self.clock.now() < give_up_at {
            let _ = socket::wait_readable(&[], LOOK);
            let next = still_there(unsent(), &left);
            if bytes(&next) < bytes(&left) {
                give_up_at = self.clock.now().after(STALLED).min(until);
            }
            left = next;
        }
        if !left.is_empty() {
            log::warn!(
                connections = left.len(), bytes = bytes(&left),
                msg = "closed by the app, and not taken by the other side: lost with the container's network";
                "unsent"
            );
        }
    }
}

/// Those that were there before. There may be thousands.
fn still_there(now: Vec<Unsent>, before: &[Unsent]) -> Vec<Unsent> {
    let before: HashSet<&str> = before.iter().map(|connection| connection.ends.as_str()).collect();
    now.into_iter().filter(|connection| before.contains(connection.ends.as_str())).collect()
}

fn bytes(connections: &[Unsent]) -> u64 {
    connections.iter().map(|connection| connection.bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::Deadline;

    fn connections(numbers: impl Iterator<Item = u32>) -> Vec<Unsent> {
        numbers.map(|number| Unsent { ends: format!("{number:08X}"), bytes: 1 }).collect()
    }

    #[test]
    fn connections_from_after_the_end_do_not_count() {
        let left = still_there(connections(2..5), &connections(0..3));
        assert_eq!(left, connections(2..3));
    }

    #[test]
    fn tens_of_thousands_take_no_longer_than_a_look_may() {
        let deadline = Deadline::after(Duration::from_secs(5));
        assert_eq!(still_there(connections(0..60_000), &connections(60_000..120_000)), []);
        assert!(!deadline.left().is_zero());
    }
}
