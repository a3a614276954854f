//! Whether processes listen, as /proc tells it (`proc_pid_net(5)`).

use super::clock::Deadline;
use super::connections::{local_port, tables};
use super::process::{effective_uid_of, id};
use super::{Pid, procfs};
use std::fs::{File, read_dir, read_link};
use std::io::ErrorKind::PermissionDenied;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// No more than so many bytes of a table are read.
const LONGEST_TABLE: u64 = 8 * 1024 * 1024;

/// A socket that listens: its inode, and where it is TCP its port and the user that made it.
type Listener = (u64, Option<(u16, u32)>);

/// Whether one of these processes has a TCP or unix stream socket open that listens, and not for guard alone, as far as can be
/// seen by the deadline. Of a process whose descriptors guard may not see (`ptrace(2)`) every TCP socket counts that its user
/// has made and that is not older than they are. Without a /proc nobody can tell, and all count as listening.
pub fn any_listens(
    pids: &[Pid],
    is_guards: &dyn Fn(u64) -> bool,
    is_older: &dyn Fn(u64) -> bool,
    deadline: Deadline,
) -> bool {
    if !procfs::is_own() {
        return true;
    }
    let mut sockets = listeners(pids, deadline);
    sockets.retain(|(inode, _)| !is_guards(*inode));
    let is_new = |(inode, tcp): &Listener, user| !is_older(*inode) && tcp.is_some_and(|(_, owner)| owner == user);
    let is_of = |user: u32| sockets.iter().any(|socket| is_new(socket, user));
    !sockets.is_empty()
        && (pids.iter().any(|pid| descriptors(*pid, deadline).any(|inode| find(&sockets, inode).is_some()))
            || pids.iter().filter(|pid| is_hidden(pid)).filter_map(|pid| effective_uid_of(*pid)).any(is_of))
}

/// The sockets that listen in guard's network, by their inodes.
pub fn all(deadline: Deadline) -> Vec<u64> {
    listeners(&[id()], deadline).into_iter().map(|(inode, _)| inode).collect()
}

/// Whether guard may not see what a process has open. Root may list the numbers of all, and then follow none of them.
pub fn is_hidden(pid: &Pid) -> bool {
    read_link(format!("/proc/{pid}/cwd")).is_err_and(|error| error.kind() == PermissionDenied)
}

/// The TCP ports that these processes listen on; all that are listened on where guard may not see what one has open, or not by
/// the deadline.
pub fn ports_of(pids: &[Pid], deadline: Deadline) -> Vec<u16> {
    let sockets = listeners(pids, deadline);
    let seen = pids.iter().flat_map(|pid| descriptors(*pid, deadline));
    let mut ports: Vec<u16> = seen.filter_map(|inode| find(&sockets, inode)?.1).map(|(port, _)| port).collect();
    if deadline.left().is_zero() || pids.iter().any(is_hidden) {
        ports = sockets.iter().filter_map(|(_, tcp)| *tcp).map(|(port, _)| port).collect();
    }
    ports
}

/// Those of these sockets that no descendant of guard has open, by their inodes: none where guard cannot see what one has open, or
/// not by the deadline.
pub fn closed_among(mut inodes: Vec<u64>, deadline: Deadline) -> Vec<u64> {
    // A socket may go from one process to another during a walk.
    let is_sure = !hides_processes() && (0..2).all(|_| forget_open(&mut inodes, deadline).is_some());
    if is_sure { inodes } else { Vec::new() }
}

/// Whether /proc shows no process of other users (hidepid, `proc(5)`).
fn hides_processes() -> bool {
    let mounts = File::open("/proc/self/mounts").map(|file| BufReader::new(file.take(LONGEST_TABLE)));
    // A mount has a device, a place, a type and options.
    let hides = |line: String| {
        let fields: Vec<&str> = line.split(' ').collect();
        fields.get(1..3) == Some(&["/proc", "proc"])
            && fields.get(3).is_some_and(|options| options.split(',').any(|option| option.starts_with("hidepid=")))
    };
    !mounts.is_ok_and(|mounts| !lines(mounts).any(hides))
}

/// Removes the sockets that descendants of guard have open, if guard can see all. A thread may have descriptors of its own (`unshare(2)`).
fn forget_open(inodes: &mut Vec<u64>, deadline: Deadline) -> Option<()> {
    let seen = procfs::descendants(deadline).filter(|seen| seen.complete)?;
    for process in seen.processes.iter().filter(|process| process.lives()) {
        for thread in entries(format!("/proc/{}/task", process.pid))? {
            for entry in entries(thread.join("fd"))? {
                match read_link(entry) {
                    // A ring has files that no number leads to (`io_uring_register(2)`).
                    Ok(target) if target.as_os_str() == "anon_inode:[io_uring]" => return None,
                    Ok(target) => {
                        let inode = socket_inode(&target);
                        inodes.retain(|one| Some(*one) != inode);
                    }
                    Err(error) if is_of_ended(&error) => {}
                    Err(_) => return None,
                }
                if deadline.left().is_zero() {
                    return None;
                }
            }
        }
    }
    Some(())
}

/// What is in a directory, if guard may see it. Of a process that has ended it is empty.
fn entries(directory: impl AsRef<Path>) -> Option<Vec<PathBuf>> {
    match read_dir(directory) {
        Ok(entries) => Some(entries.map_while(Result::ok).map(|entry| entry.path()).collect()),
        Err(error) => is_of_ended(&error).then(Vec::new),
    }
}

fn is_of_ended(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// What listens in the network of the first process.
fn listeners(pids: &[Pid], deadline: Deadline) -> Vec<Listener> {
    // They share a network, as a rule.
    let Some(first) = pids.first() else { return Vec::new() };
    let lines_of =
        |table: File| lines(BufReader::new(table.take(LONGEST_TABLE))).take_while(|_| !deadline.left().is_zero());
    let tcp = tables(&first.to_string()).into_iter().flat_map(|table| of_tcp_table(lines_of(table)));
    let unix = File::open(format!("/proc/{first}/net/unix")).into_iter().flat_map(lines_of);
    tcp.chain(unix.filter_map(|line| of_unix(&line))).collect()
}

/// The kernel has the sockets that listen first, after a heading (`tcp_get_idx` of the kernel). To read of all connections may take
/// seconds.
fn of_tcp_table(lines: impl Iterator<Item = String>) -> impl Iterator<Item = Listener> {
    lines.skip(1).map_while(|line| of_tcp(&line))
}

/// The lines of a table. The name of a unix socket, which ends a line, is any bytes that its owner likes.
fn lines(table: impl BufRead) -> impl Iterator<Item = String> {
    table.split(b'\n').map_while(Result::ok).map(|line| String::from_utf8_lossy(&line).into_owned())
}

fn find(sockets: &[Listener], inode: u64) -> Option<&Listener> {
    sockets.iter().find(|(known, _)| *known == inode)
}

/// The inodes of the sockets that a process has open.
fn descriptors(pid: Pid, deadline: Deadline) -> impl Iterator<Item = u64> {
    let entries = read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().map_while(Result::ok);
    entries
        .take_while(move |_| !deadline.left().is_zero())
        .filter_map(|entry| socket_inode(&read_link(entry.path()).ok()?))
}

/// Of what an entry in /proc/PID/fd leads to.
pub(super) fn socket_inode(target: &Path) -> Option<u64> {
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// `sl local remote state sent:received … uid timeout inode …`
fn of_tcp(line: &str) -> Option<Listener> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let port = local_port(fields.nth(1)?)?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let user = fields.nth(3)?.parse().ok()?;
    Some((fields.nth(1)?.parse().ok()?, Some((port, user))))
}

/// `number references protocol flags type state inode path`
fn of_unix(line: &str) -> Option<Listener> {
    /// __SO_ACCEPTCON, <linux/net.h>
    const ACCEPTS: &str = "00010000";
    const STREAM: &str = "0001";
    let mut fields = line.split_ascii_whitespace().skip(3);
    (fields.next()? == ACCEPTS && fields.next()? == STREAM).then(|| Some((fields.nth(1)?.parse().ok()?, None)))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sockets_that_listen_are_found_in_the_tables() {
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 4711 1 ffff";
        assert_eq!(of_tcp(line), Some((4711, Some((8080, 33)))));
        assert_eq!(of_tcp(&line.replace(" 0A ", " 01 ")), None, "a connection");
        assert_eq!(of_tcp("  sl  local_address rem_address   st tx_queue rx_queue tr"), None);
        let heading = "  sl  local_address rem_address   st tx_queue rx_queue tr";
        let table = [heading, line, line, &line.replace(" 0A ", " 06 ")].map(str::to_owned).into_iter();
        let endless = table.chain(std::iter::once_with(|| panic!("no connection is read")));
        assert_eq!(of_tcp_table(endless).count(), 2);
        let table = b"ffff8880: 00000002 00000000 00000000 0002 01 815 @\xff\nffff8880: 00000002 00000000 00010000 0001 01 816\n";
        let found: Vec<Listener> = lines(&table[..]).filter_map(|line| of_unix(&line)).collect();
        assert_eq!(found, [(816, None)], "a stranger's name hides none");
        let line = "ffff8880: 00000002 00000000 00010000 0001 01 4711 /run/app.sock";
        assert_eq!(of_unix(line), Some((4711, None)));
        assert_eq!(of_unix(&line.replace("00010000 0001", "00010000 0005")), None, "of packets");
        assert_eq!(of_unix(&line.replace("00010000 0001 01", "00000000 0001 03")), None, "a connection");
        assert_eq!(of_unix("Num       RefCount Protocol Flags    Type St Inode Path"), None);
    }

    #[test]
    fn a_process_that_listens_is_found() {
        let deadline = || Deadline::after(Duration::from_secs(10));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
        let port = listener.local_addr().expect("it is bound").port();
        assert!(ports_of(&[id()], deadline()).contains(&port));
        let is_found =
            |pids: &[Pid], is_guards: &dyn Fn(u64) -> bool| any_listens(pids, is_guards, &|_| false, deadline());
        assert!(is_found(&[id()], &|_| false));
        assert!(!is_found(&[], &|_| false));
        assert!(!is_found(&[id()], &|_| true), "guard's own");
        let inode = super::super::listen::inode(std::os::fd::AsFd::as_fd(&listener)).expect("it is open");
        assert!(all(deadline()).contains(&inode));
    }
}
