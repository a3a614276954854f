//! Which of several sockets with one address gets a new connection: a program of the group's decides (SO_REUSEPORT,
//! SO_ATTACH_REUSEPORT_CBPF, `socket(7)`). It takes no privilege.
//!
//! The kernel numbers the sockets of a group in the order of their listen(2). The last one takes the number of one that is closed
//! or shut down; listen(2) of one that listens already changes nothing.

use super::Errno;
use super::seccomp::statement;
use libc::{BPF_A, BPF_ABS, BPF_ADD, BPF_ALU, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_MOD, BPF_RET, BPF_W, sock_filter};
use std::os::fd::{AsRawFd, BorrowedFd};

/// A random word in the place of one of the packet (<linux/filter.h>).
const RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;

/// Lets a socket share its address with others that do, or not (SO_REUSEPORT). The kernel asks that they have one owner.
pub fn share_address(socket: BorrowedFd, shares: bool) {
    let _ = super::socket_option::set(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, shares.into());
}

/// Leads new connections of a socket's group to the sockets with these numbers, which are in order and at least one.
pub fn lead_to(socket: BorrowedFd, numbers: &[u32]) -> Result<(), Errno> {
    let mut program = program(numbers);
    let program = libc::sock_fprog { len: program.len() as libc::c_ushort, filter: program.as_mut_ptr().cast() };
    let length = size_of_val(&program) as libc::socklen_t;
    // SAFETY: setsockopt(2) reads the structure, and the program that it points to, which outlives the call.
    let result = unsafe {
        let program = (&raw const program).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, program, length)
    };
    Errno::result(result).map(drop)
}

/// Draws one of the places in the list by chance, and returns the number there. Numbers that follow each other are one case, so
/// that 1,024 sockets in whatever order are less than 4,096 statements (BPF_MAXINSNS).
fn program(numbers: &[u32]) -> Vec<sock_filter> {
    let count = numbers.len() as u32;
    let mut program = vec![statement(BPF_LD | BPF_W | BPF_ABS, RANDOM), statement(BPF_ALU | BPF_MOD | BPF_K, count)];
    let mut place = 0;
    for case in numbers.chunk_by(|one, next| one + 1 == *next) {
        let offset = case[0] - place;
        place += case.len() as u32;
        if place < count {
            program.push(sock_filter { jt: 2, ..statement(BPF_JMP | BPF_JGE | BPF_K, place) });
        }
        program.extend([statement(BPF_ALU | BPF_ADD | BPF_K, offset), statement(BPF_RET | BPF_A, 0)]);
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::listen;
    use std::collections::BTreeSet;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::{AsFd, OwnedFd};

    /// What the kernel makes of a program, for each random word.
    fn run(program: &[sock_filter], random: u32) -> u32 {
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match u32::from(code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => accumulator = random,
                code if code == BPF_ALU | BPF_MOD | BPF_K => accumulator %= k,
                code if code == BPF_ALU | BPF_ADD | BPF_K => accumulator += k,
                code if code == BPF_JMP | BPF_JGE | BPF_K => at += usize::from(if accumulator >= k { jt } else { jf }),
                code if code == BPF_RET | BPF_A => return accumulator,
                code => panic!("{code}"),
            }
        }
    }

    #[test]
    fn each_number_comes_as_often_as_another_and_no_other_comes() {
        let even: Vec<u32> = (0..1024).map(|number| number * 2).collect();
        let all: Vec<u32> = (0..1024).collect();
        for numbers in [&[0][..], &[3], &[0, 1, 2, 3], &[1, 2], &[0, 2, 3, 7], &even, &all] {
            let program = program(numbers);
            assert!(program.len() <= 4_096, "{}", program.len());
            let count = u32::try_from(numbers.len()).expect("a few");
            let drawn: Vec<u32> = (0..count).map(|random| run(&program, random)).collect();
            assert_eq!(drawn, numbers);
            assert_eq!(run(&program, count), numbers[0], "the word is larger as a rule");
        }
    }

    /// So many sockets of one address that listen.
    fn group(count: usize) -> (Vec<OwnedFd>, SocketAddr) {
        // A socket that has not named its port loses it when it is shut down.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
        let first = listen::bind(address, false).expect("a socket");
        share_address(first.as_fd(), true);
        let more = (1..count).map(|_| listen::bind_beside(address, false, &|_| {}).expect("a socket"));
        let sockets: Vec<OwnedFd> = std::iter::once(first).chain(more).collect();
        for socket in &sockets {
            listen::listen(socket.as_fd()).expect("it listens");
        }
        (sockets, address)
    }

    /// The sockets that new connections go to.
    fn served(sockets: &[OwnedFd], address: SocketAddr) -> BTreeSet<usize> {
        let waiting = || -> Vec<u32> {
            sockets.iter().map(|socket| listen::queue(socket.as_fd()).map_or(0, |(waiting, _)| waiting)).collect()
        };
        let before = waiting();
        let clients: Vec<TcpStream> =
            (0..40).map(|_| TcpStream::connect(address).expect("nobody is refused")).collect();
        let after = waiting();
        let led_to = (0..sockets.len()).filter(|&index| after[index] > before[index]).collect();
        drop(clients);
        led_to
    }

    #[test]
    fn connections_go_where_the_program_says_whoever_leaves_the_group_and_comes_back() {
        let (mut sockets, address) = group(4);
        let lead = |sockets: &[OwnedFd], numbers: &[u32]| {
            lead_to(sockets[1].as_fd(), numbers).expect("the kernel takes the program");
            served(sockets, address)
        };
        assert_eq!(lead(&sockets, &[0, 1, 2, 3]), [0, 1, 2, 3].into());
        assert_eq!(lead(&sockets, &[2]), [2].into());
        assert_eq!(lead(&sockets, &[0, 3]), [0, 3].into());
        // The last takes the place of one that is shut down, which comes back as the last.
        listen::refuse(sockets[0].as_fd());
        assert_eq!(lead(&sockets, &[0]), [3].into());
        share_address(sockets[0].as_fd(), true);
        listen::listen(sockets[0].as_fd()).expect("it listens again");
        assert_eq!(lead(&sockets, &[3]), [0].into());
        // Again changes nothing.
        listen::listen(sockets[3].as_fd()).expect("it listens already");
        assert_eq!(lead(&sockets, &[3]), [0].into());
        // The order is 3, 1, 2, 0. Without 1 it is 3, 0, 2.
        drop(sockets.remove(1));
        assert_eq!(lead(&sockets, &[1]), [0].into());
    }

    #[test]
    fn an_address_that_another_has_is_not_shared() {
        let (sockets, address) = group(2);
        assert_eq!(listen::bind(address, false).err(), Some(Errno::EADDRINUSE));
        drop(sockets);
    }
}
