//! GUARD_DRAIN_IDLE: how many connections are open to what the app listens on, or guard for it.

use super::Runtime;
use crate::sys::clock::Deadline;
use crate::sys::listeners::ports_of;
use crate::sys::{Pid, connections, process, procfs};
use std::time::Duration;

/// How long guard looks for the ports, and how long a count may take; a stop deadline may be near.
const LONGEST_COUNT: Duration = Duration::from_millis(100);

impl Runtime<'_> {
    /// Finds the ports that the app listens on, or guard for it.
    pub(super) fn find_ports(&mut self) {
        let deadline = Deadline::after(LONGEST_COUNT);
        let below = procfs::descendants(deadline).map_or_else(Vec::new, |seen| seen.processes);
        let pids: Vec<Pid> = std::iter::once(process::id() as Pid).chain(below.iter().map(|seen| seen.pid)).collect();
        let own = self.config.http.map(|address| address.port());
        self.drain_ports = ports_of(&pids, deadline);
        self.drain_ports.retain(|port| Some(*port) != own);
    }

    /// Counts the connections to these ports.
    pub(super) fn count_connections(&self) -> usize {
        connections::established(&self.drain_ports, Deadline::after(LONGEST_COUNT))
    }
}
