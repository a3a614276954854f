//! TCP connections that nobody has open any more and whose other side has not taken everything (`proc_pid_net(5)`).

use std::fs::File;
use std::io::{BufRead, BufReader};

/// Such a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// Its two addresses, as the kernel prints them.
    pub ends: String,
    /// What the other side has not acknowledged, in bytes; the end of the stream counts as one.
    pub bytes: u64,
}

/// All of them in guard's network namespace; none where there is no /proc.
pub fn unsent() -> Vec<Unsent> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().filter_map(|path| File::open(path).ok());
    let lines = tables.flat_map(|table| BufReader::new(table).lines().map_while(Result::ok));
    lines.filter_map(|line| unsent_in(&line)).collect()
}

/// `sl local remote state sent:received … uid timeout inode …`: without an inode it belongs to no process.
fn unsent_in(line: &str) -> Option<Unsent> {
    const FIN_WAIT1: &str = "04";
    const LAST_ACK: &str = "09";
    const CLOSING: &str = "0B";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, remote, state, queues, _, _, _, _, inode, ..] = fields[..] else { return None };
    if ![FIN_WAIT1, LAST_ACK, CLOSING].contains(&state) || inode != "0" {
        return None;
    }
    let (sent, _) = queues.split_once(':')?;
    Some(Unsent { ends: format!("{local} {remote}"), bytes: u64::from_str_radix(sent, 16).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_connection_with_something_to_send_is_found() {
        let line =
            "   4: 0100007F:1F90 0200007F:D2F0 04 00012345:00000000 01:00000014 00000000     0        0 0 2 ffff";
        let ends = "0100007F:1F90 0200007F:D2F0".to_owned();
        assert_eq!(unsent_in(line), Some(Unsent { ends, bytes: 0x12345 }));
        assert_eq!(unsent_in(&line.replace(" 04 ", " 01 ")), None, "open");
        assert_eq!(unsent_in(&line.replace(" 04 ", " 06 ")), None, "everything was taken");
        assert_eq!(unsent_in(&line.replace("0        0 0 2", "0        0 4711 2")), None, "a process has it");
        assert_eq!(unsent_in("  sl  local_address rem_address   st tx_queue rx_queue tr"), None);
    }
}
