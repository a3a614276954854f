//! Whether processes listen, as /proc tells it (`proc_pid_net(5)`).

use super::Pid;
use super::clock::Deadline;
use std::collections::HashSet;
use std::fs::{File, read_dir, read_link};
use std::io::{BufRead, BufReader, Read};

/// No more than so many bytes of a table are read.
const LONGEST_TABLE: u64 = 8 * 1024 * 1024;

/// Whether one of these processes has a TCP or unix stream socket open that listens, as far as can be seen by the deadline.
pub fn any_listens(pids: &[Pid], deadline: Deadline) -> bool {
    // They share a network, as a rule.
    let Some(first) = pids.first() else { return false };
    let tables = [("tcp", of_tcp as fn(&str) -> Option<u64>), ("tcp6", of_tcp), ("unix", of_unix)];
    let inodes: HashSet<u64> = tables
        .into_iter()
        .filter_map(|(name, read)| Some((File::open(format!("/proc/{first}/net/{name}")).ok()?, read)))
        .flat_map(|(table, read)| {
            let lines = BufReader::new(table.take(LONGEST_TABLE)).lines().map_while(Result::ok);
            lines.take_while(|_| !deadline.left().is_zero()).filter_map(move |line| read(&line))
        })
        .collect();
    let is_one = |path: std::path::PathBuf| {
        let target = read_link(path).ok();
        let inode = target.as_ref().and_then(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.and_then(|inode| inode.parse().ok()).is_some_and(|inode| inodes.contains(&inode))
    };
    !inodes.is_empty()
        && pids.iter().any(|pid| {
            let entries = read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().map_while(Result::ok);
            entries.take_while(|_| !deadline.left().is_zero()).any(|entry| is_one(entry.path()))
        })
}

/// `sl local remote state sent:received … uid timeout inode …`
fn of_tcp(line: &str) -> Option<u64> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    (fields.nth(3)? == LISTEN).then(|| fields.nth(5)?.parse().ok())?
}

/// `number references protocol flags type state inode path`
fn of_unix(line: &str) -> Option<u64> {
    /// __SO_ACCEPTCON, <linux/net.h>
    const ACCEPTS: &str = "00010000";
    const STREAM: &str = "0001";
    let mut fields = line.split_ascii_whitespace().skip(3);
    (fields.next()? == ACCEPTS && fields.next()? == STREAM).then(|| fields.nth(1)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sockets_that_listen_are_found_in_the_tables() {
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 ffff";
        assert_eq!(of_tcp(line), Some(4711));
        assert_eq!(of_tcp(&line.replace(" 0A ", " 01 ")), None, "a connection");
        assert_eq!(of_tcp("  sl  local_address rem_address   st tx_queue rx_queue tr"), None);
        let line = "ffff8880: 00000002 00000000 00010000 0001 01 4711 /run/app.sock";
        assert_eq!(of_unix(line), Some(4711));
        assert_eq!(of_unix(&line.replace("00010000 0001", "00010000 0005")), None, "of packets");
        assert_eq!(of_unix(&line.replace("00010000 0001 01", "00000000 0001 03")), None, "a connection");
        assert_eq!(of_unix("Num       RefCount Protocol Flags    Type St Inode Path"), None);
    }

    #[test]
    fn a_process_that_listens_is_found() {
        let deadline = || Deadline::after(Duration::from_secs(10));
        let _listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
        assert!(any_listens(&[std::process::id() as Pid], deadline()));
        assert!(!any_listens(&[], deadline()));
    }
}
