//! The connections that guard waits for last.
//!
//! A server that has drained closes its connections and exits, and the kernel goes on sending. But a container's network
//! ends with PID 1, and with it what a slow client has not taken yet. The kernel does not say when all is sent.

use super::Runtime;
use crate::supervisor::UnsentData;
use crate::sys::clock::Deadline;
use crate::sys::connections::{self, Connection};
use std::collections::HashSet;
use std::time::Duration;

/// How long guard reads the kernel's tables; a network that many share may have a hundred thousand connections.
const LONGEST_READING: Duration = Duration::from_millis(250);

impl Runtime<'_> {
    /// Finds closed connections that still send. Those that come after the first time do not count.
    pub(super) fn find_unsent(&mut self) -> UnsentData {
        // A container's network waits for PID 1 alone, and the host's waits for nobody.
        if !self.init || connections::is_of_the_host() {
            return UnsentData::default();
        }
        let now = connections::unsent(Deadline::after(LONGEST_READING));
        let left = match self.ending.unsent.take() {
            None => now,
            Some(before) => still_there(now, &before),
        };
        let (connections, bytes) = (left.len(), left.iter().map(|connection| connection.bytes).sum());
        self.ending.unsent = Some(left);
        UnsentData { connections, bytes }
    }
}

/// The connections that were there before. There may be thousands.
fn still_there(now: Vec<Connection>, before: &[Connection]) -> Vec<Connection> {
    let before: HashSet<&str> = before.iter().map(|connection| connection.ends.as_str()).collect();
    now.into_iter().filter(|connection| before.contains(connection.ends.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(numbers: impl Iterator<Item = u32>) -> Vec<Connection> {
        numbers.map(|number| Connection { ends: format!("{number:08X}"), bytes: 1 }).collect()
    }

    #[test]
    fn connections_from_after_the_end_do_not_count() {
        let left = still_there(connections(2..5), &connections(0..3));
        assert_eq!(left, connections(2..3));
    }

    #[test]
    fn tens_of_thousands_are_compared_in_time() {
        let deadline = Deadline::after(Duration::from_secs(5));
        assert_eq!(still_there(connections(0..60_000), &connections(60_000..120_000)), []);
        assert!(!deadline.left().is_zero());
    }
}
