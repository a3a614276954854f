//! TCP connections (`proc_pid_net(5)`): those that no process has open any more and whose other side has not taken everything, and
//! those to a server.

use super::clock::Deadline;
use super::file::read_text;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// No more than so many bytes of a table are read, which has 150 for each connection.
const LONGEST_TABLE: u64 = 32 * 1024 * 1024;

/// A connection that still sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its two addresses, as the kernel prints them.
    pub ends: String,
    /// What the other side has not acknowledged, in bytes.
    pub bytes: u64,
}

/// The tables of TCP, and where the kernel counts what is in them.
const TABLES: [(&str, &str, &str); 2] = [("tcp", "sockstat", "TCP: inuse "), ("tcp6", "sockstat6", "TCP6: inuse ")];

/// Whether this is the host's own network, which stays when guard has exited. The kernel shows settings of the whole machine
/// only there.
pub fn is_of_the_host() -> bool {
    Path::new("/proc/sys/net/core/dev_weight").exists()
}

/// Those in guard's network namespace, as far as the tables can be read by the deadline; none where there is no /proc.
pub fn unsent(deadline: Deadline) -> Vec<Connection> {
    lines(deadline).filter_map(|line| unsent_in(&line)).collect()
}

/// How many connections are open to these ports; at least one where the tables cannot be read by the deadline. One of IPv4 to a
/// socket of IPv6 is in the second table alone.
pub fn established(ports: &[u16], deadline: Deadline) -> usize {
    if ports.is_empty() {
        return 0;
    }
    let count = lines(deadline).filter(|line| established_in(line).is_some_and(|port| ports.contains(&port))).count();
    count.max(usize::from(deadline.left().is_zero()))
}

fn lines(deadline: Deadline) -> impl Iterator<Item = String> {
    let tables = tables("self").into_iter().map(|table| table.take(LONGEST_TABLE));
    let lines = tables.flat_map(|table| BufReader::new(table).lines().map_while(Result::ok));
    lines.take_while(move |_| !deadline.left().is_zero())
}

/// The tables of TCP in the network of this process, but for empty ones: the kernel goes through the buckets of all namespaces for a
/// table, which takes it milliseconds.
pub(super) fn tables(process: &str) -> Vec<File> {
    let at = |name: &str| format!("/proc/{process}/net/{name}");
    let in_use =
        |(_, counts, name): &(&str, &str, &str)| !read_text(&at(counts)).is_ok_and(|text| is_zero(&text, name));
    TABLES.into_iter().filter(in_use).filter_map(|(table, ..)| File::open(at(table)).ok()).collect()
}

/// The port of an address as the tables have it.
pub(super) fn local_port(address: &str) -> Option<u16> {
    u16::from_str_radix(address.rsplit(':').next()?, 16).ok()
}

/// The local port of a connection that is open on both sides.
fn established_in(line: &str) -> Option<u16> {
    const ESTABLISHED: &str = "01";
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    if fields.nth(1)? == ESTABLISHED { local_port(local) } else { None }
}

/// Whether there is a line of this name, and its first number is 0.
fn is_zero(counts: &str, name: &str) -> bool {
    let count = counts.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next());
    count == Some("0")
}

/// `sl local remote state sent:received … uid timeout inode …`: a connection without an inode belongs to no process.
fn unsent_in(line: &str) -> Option<Connection> {
    const FIN_WAIT1: &str = "04";
    const LAST_ACK: &str = "09";
    const CLOSING: &str = "0B";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, remote, state, queues, _, _, _, _, inode, ..] = fields[..] else { return None };
    if ![FIN_WAIT1, LAST_ACK, CLOSING].contains(&state) || inode != "0" {
        return None;
    }
    let (sent, _) = queues.split_once(':')?;
    // The end of the stream counts as a byte, and is not waited for: nothing is lost with it.
    let bytes = u64::from_str_radix(sent, 16).ok()?.saturating_sub(1);
    (bytes > 0).then(|| Connection { ends: format!("{local} {remote}"), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_closed_connection_with_something_to_send_is_found() {
        let line =
            "   4: 0100007F:1F90 0200007F:D2F0 04 00012345:00000000 01:00000014 00000000     0        0 0 2 ffff";
        let ends = "0100007F:1F90 0200007F:D2F0".to_owned();
        assert_eq!(unsent_in(line), Some(Connection { ends, bytes: 0x12344 }), "the end of the stream is none");
        assert_eq!(unsent_in(&line.replace("00012345:", "00000001:")), None, "the end of the stream alone");
        assert_eq!(unsent_in(&line.replace(" 04 ", " 01 ")), None, "open");
        assert_eq!(unsent_in(&line.replace(" 04 ", " 06 ")), None, "everything was taken");
        assert_eq!(unsent_in(&line.replace("0        0 0 2", "0        0 4711 2")), None, "a process has it");
        assert_eq!(unsent_in("  sl  local_address rem_address   st tx_queue rx_queue tr"), None);
    }

    #[test]
    fn an_open_connection_is_known_by_its_local_port() {
        let line = "   4: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:D2F0 01 00000000:00000000 00:0";
        assert_eq!(established_in(line), Some(8080));
        assert_eq!(established_in(&line.replace(" 01 ", " 0A ")), None, "it listens");
        assert_eq!(established_in(&line.replace(" 01 ", " 06 ")), None, "it is over");
    }

    /// To read the tables of an empty network takes the kernel as long as those of a busy one.
    #[test]
    #[expect(clippy::disallowed_macros, reason = "what is skipped is said")]
    fn only_tables_with_sockets_are_read() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                    return println!("skipped: only root makes a network");
                }
                assert_eq!(tables("thread-self").len(), 0);
                let _listener = std::net::TcpListener::bind("0.0.0.0:8080").expect("all ports are free");
                assert_eq!(tables("thread-self").len(), 1);
            });
        });
    }

    #[test]
    fn a_connection_counts_once() {
        use std::net::{TcpListener, TcpStream};
        // An IPv6 socket that takes IPv4, as most servers have it.
        let Ok(listener) = TcpListener::bind("[::]:0") else { return }; // a kernel without IPv6
        let port = listener.local_addr().expect("it is bound").port();
        let count = || established(&[port], Deadline::after(Duration::from_secs(10)));
        assert_eq!(count(), 0);
        let _client = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        assert_eq!(count(), 1);
    }

    #[test]
    fn a_table_is_left_out_only_where_the_kernel_says_that_it_is_empty() {
        let counts = "sockets: used 9\nTCP: inuse 0 orphan 2 tw 0 alloc 1 mem 87\nUDP: inuse 1 mem 0\n";
        assert!(is_zero(counts, "TCP: inuse "));
        assert!(!is_zero(&counts.replace("inuse 0", "inuse 10"), "TCP: inuse "));
        assert!(!is_zero(counts, "TCP6: inuse "), "it says nothing");
    }
}
