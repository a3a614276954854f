use super::*;
use std::time::Duration;

/// What the filter says to a system call, by a small machine: enough for a foreign architecture, which cannot be called.
fn verdict(words: &dyn Fn(u32) -> u32) -> u32 {
    let (mut at, mut loaded) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = FILTER[at];
        at += 1;
        match u32::from(code) {
            code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => loaded = words(k),
            code if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => {
                at += usize::from(if loaded == k { jt } else { jf });
            }
            _ => return k,
        }
    }
}

#[test]
fn kernels_that_have_the_filter_and_not_the_answers_are_known_by_their_release() {
    for (release, expected) in [
        (&b"5.0.0"[..], true),
        (b"5.4.0-150-generic\0", true),
        (b"5.8-rc1", true),
        (b"5.9.16", false),
        (b"5.10.0-30-amd64", false),
        (b"5.15.0", false),
        (b"6.1.0", false),
        (b"4.18.0-553.el8_10.x86_64", false),
        (b"", false),
    ] {
        assert_eq!(lacks_answers(release), expected, "{}", String::from_utf8_lossy(release));
    }
}

#[test]
fn a_foreign_architecture_passes() {
    let of = |architecture: u32, call: libc::c_long| {
        verdict(&move |offset| match offset {
            0 => call as u32,
            4 => architecture,
            _ => 0,
        })
    };
    for call in 0..1_000 {
        let asks = [libc::SYS_bind, libc::SYS_listen].contains(&call);
        let wanted = if asks { libc::SECCOMP_RET_USER_NOTIF } else { libc::SECCOMP_RET_ALLOW };
        assert_eq!(of(ARCHITECTURE, call), wanted, "{call}");
        assert_eq!(of(ARCHITECTURE ^ 1, call), libc::SECCOMP_RET_ALLOW, "{call}");
    }
}

/// System calls of a child, with what guard is asked; others fail in the kernel, since there is no such descriptor.
const CALLS: [(libc::c_long, [u64; 5], Option<Call>); 17] = [
    (libc::SYS_bind, [7, 8, 16, 0, 0], Some(Call::Bind { address: 8, length: 16 })),
    (libc::SYS_bind, [7 | 1 << 32, 0, u64::MAX, 1, 1], Some(Call::Bind { address: 0, length: u64::MAX })),
    (libc::SYS_listen, [7, 128, 0, 0, 0], Some(Call::Listen)),
    (libc::SYS_listen, [7, 0, 41, 26, 0], Some(Call::Listen)),
    (libc::SYS_setsockopt, [7, 41, 26, 9, 4], Some(Call::OnlyV6 { value: 9, length: 4 })),
    (libc::SYS_setsockopt, [7, 41 | 1 << 32, 26 | 5 << 32, 9, 4], Some(Call::OnlyV6 { value: 9, length: 4 })),
    (libc::SYS_setsockopt, [9_999, 41, 25, 9, 4], None),
    (libc::SYS_setsockopt, [9_999, 41 << 32, 26, 9, 4], None),
    (libc::SYS_setsockopt, [9_999, libc::SOL_SOCKET as u64, libc::SO_REUSEADDR as u64, 9, 4], None),
    (libc::SYS_setsockopt, [9_999, libc::IPPROTO_TCP as u64, libc::TCP_NODELAY as u64, 9, 4], None),
    (libc::SYS_getsockopt, [7, 1, 30, 9, 4], Some(Call::AcceptConn)),
    (libc::SYS_getsockopt, [9_999, 1, 3, 9, 4], None),
    (libc::SYS_getsockopt, [9_999, 41, 30, 9, 4], None),
    (libc::SYS_getsockopt, [9_999, 41, 26, 9, 4], None),
    (libc::SYS_connect, [9_999, 8, 16, 0, 0], None),
    (libc::SYS_accept4, [9_999, 0, 0, 0, 0], None),
    (libc::SYS_getsockname, [9_999, 0, 0, 0, 0], None),
];

#[test]
fn guard_is_asked_about_these_calls_alone() {
    let channel = Channel::open(Ok).expect("sockets");
    // SAFETY: the child only makes system calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // A test that fails must not leave it waiting for an answer.
        // SAFETY: prctl(2) takes numbers here.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0) };
        channel.install();
        let wrong = (1..).zip(CALLS).find(|(index, (call, [a, b, c, d, e], asked))| {
            // SAFETY: the arguments are numbers, or addresses that the kernel does not look at.
            let result = unsafe { libc::syscall(*call, *a, *b, *c, *d, *e) };
            let wanted = if asked.is_some() { Errno::from_raw(*index) } else { Errno::EBADF };
            Errno::result(result) != Err(wanted)
        });
        // SAFETY: _exit(2) takes any number.
        unsafe { libc::_exit(wrong.map_or(0, |(index, _)| index)) };
    }
    super::super::socket::wait_readable(&[channel.own.as_fd()], Duration::from_secs(20)).expect("a poll");
    let questions = channel.receive().expect("a filter can be had here");
    for (index, asked) in (1..).zip(CALLS.map(|(_, _, asked)| asked)) {
        let Some(call) = asked else { continue };
        super::super::socket::wait_readable(&[questions.as_fd()], Duration::from_secs(20)).expect("a poll");
        let Next::Question(question) = questions.next() else { panic!("no question {index}") };
        assert_eq!((question.call, question.socket, question.caller), (call, 7, child));
        assert!(questions.is_waiting(&question));
        questions.answer(&question, Answer::Failed(Errno::from_raw(index))).expect("it waits");
        assert!(!questions.is_waiting(&question));
        // The kernel says the former until the child has taken the answer.
        let again = questions.answer(&question, Answer::Done);
        assert!(matches!(again, Err(Errno::EINPROGRESS | Errno::ENOENT)), "once: {again:?}");
    }
    let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None).expect("a child");
    assert_eq!(
        status,
        nix::sys::wait::WaitStatus::Exited(nix::unistd::Pid::from_raw(child), 0),
        "which call went wrong"
    );
    assert_eq!(questions.next(), Next::End, "nobody can ask any more");
}
