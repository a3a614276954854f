//! Starting a child: as fast as posix_spawn(3), with what that one cannot do.
//!
//! The child shares guard's memory until it executes the program, and guard stands still meanwhile (CLONE_VM and
//! CLONE_VFORK, `clone(2)`). So everything that allocates is prepared before, the child only makes system calls, and what
//! went wrong is simply written to memory.

use super::early::{CHANGED, Inherited, inherited};
use super::fork::wait_for_copy;
use super::limits::{self, ChildLimit};
use super::seccomp::Channel;
use super::signal_set::{SignalSet, change_mask};
use super::{Errno, Pid};
use std::borrow::Cow;
use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where `execvp(3)` looks when PATH is not set; what container engines set where an image says nothing.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const SHELL: &CStr = c"/bin/sh";

/// A program with its arguments, and the files that it may be, in the order in which they are tried.
pub struct Program {
    arguments: Vec<CString>,
    candidates: Vec<CString>,
    /// Each candidate is in a directory of PATH.
    is_searched: bool,
}

/// What a child starts with besides its program.
pub struct Start<'a> {
    /// The whole environment, each entry as `NAME=value`.
    pub environment: &'a [&'a CStr],
    pub directory: Option<&'a CStr>,
    /// The child is in guard's process group instead of one of its own.
    pub in_guards_group: bool,
    /// SIGKILL the child when guard dies (`PR_SET_PDEATHSIG`, `prctl(2)`).
    pub die_with_guard: bool,
    /// Variables whose value is the child's own pid, which nobody knows before it is there.
    pub own_pid: &'a [&'a str],
    /// Descriptors that would close themselves, and stay open for the child.
    pub kept: &'a [BorrowedFd<'a>],
    /// The child's descriptors from 3 on (`sd_listen_fds(3)`). Each is at its place already, or above all of them, as those in
    /// `kept` are.
    pub passed: &'a [BorrowedFd<'a>],
    /// The child installs the filter that has it ask guard.
    pub filter: Option<&'a Channel>,
    pub output: Output<'a>,
    pub limits: &'a [ChildLimit],
}

/// What the standard descriptors of a child are.
#[derive(Clone, Copy)]
pub enum Output<'a> {
    /// All are guard's own.
    Inherited,
    /// Stdout and stderr are guard's own, and stdin is empty.
    WithoutStdin,
    /// Stdout and stderr are this, and stdin is empty.
    To(BorrowedFd<'a>),
    /// The same, and nobody reads it.
    Nowhere,
}

impl<'a> Start<'a> {
    /// A child with this environment and working directory, and all else as guard has it.
    pub fn new(environment: &'a [&'a CStr], directory: Option<&'a CStr>) -> Start<'a> {
        Start {
            environment,
            directory,
            in_guards_group: false,
            die_with_guard: true,
            own_pid: &[],
            kept: &[],
            passed: &[],
            filter: None,
            output: Output::Inherited,
            limits: &[],
        }
    }
}

/// Why there is no process, or none that ran the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnFailure {
    /// No process could be made, or nothing opened that it was to have.
    Clone(Errno),
    /// The working directory could not be entered.
    Directory(Errno),
    /// A resource limit could not be set.
    Limit(Errno),
    /// No candidate could be executed.
    Execute(Errno),
    /// The file is an ELF binary that this kernel cannot run (`ENOEXEC`).
    Architecture,
    /// The file has no format of its own, and there is no shell to run it (`execvp(3)`).
    Shell(Errno),
}

impl Program {
    /// `words` is the program's name and its arguments; a name without a slash is looked for in `path`, or where
    /// `execvp(3)` looks without one.
    pub fn new(words: &[OsString], path: Option<&OsStr>) -> Program {
        let text = |word: &OsStr| CString::new(word.as_bytes()).unwrap_or_default();
        let name = words.first().map_or(OsStr::new(""), OsString::as_os_str);
        let is_searched = !name.is_empty() && !name.as_bytes().contains(&b'/');
        let candidates = if is_searched {
            let directories = path.unwrap_or(OsStr::new(DEFAULT_PATH)).as_bytes().split(|&byte| byte == b':');
            // An empty element is the working directory.
            directories.map(|directory| text(Path::new(OsStr::from_bytes(directory)).join(name).as_os_str())).collect()
        } else {
            vec![text(name)]
        };
        Program { arguments: words.iter().map(|word| text(word)).collect(), candidates, is_searched }
    }

    /// guard itself, whatever its file is called now (`/proc/PID/exe`, `proc(5)`).
    pub fn of_guard(arguments: &[&str]) -> Program {
        let words = ["guard"].iter().chain(arguments).map(|word| CString::new(*word).unwrap_or_default());
        Program { arguments: words.collect(), candidates: vec![c"/proc/self/exe".to_owned()], is_searched: false }
    }

    /// Its name, as it was given.
    pub fn name(&self) -> Cow<'_, str> {
        self.arguments.first().map_or(Cow::Borrowed(""), |name| name.to_string_lossy())
    }

    /// A candidate that is there, whether or not it can be executed.
    pub fn found(&self, directory: Option<&Path>) -> Option<PathBuf> {
        let paths = self.candidates.iter().map(|path| Path::new(OsStr::from_bytes(path.to_bytes())));
        let paths = paths.map(|path| directory.unwrap_or(Path::new("")).join(path));
        paths.filter(|path| !path.as_os_str().is_empty()).find(|path| path.exists())
    }

    /// Starts the program in a process group of its own unless `start` says otherwise, with default dispositions for
    /// signals and the mask that guard was started with, and every descriptor of guard's that does not close itself.
    pub fn spawn(&self, start: &Start) -> Result<Pid, SpawnFailure> {
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let mut plan = Plan {
            program: self,
            start,
            inherited: inherited(),
            guard: super::process::id(),
            arguments: pointers(&self.arguments),
            shell_arguments: [vec![SHELL.as_ptr(); 2], pointers(self.arguments.get(1..).unwrap_or_default())].concat(),
            environment: start.environment.iter().map(|entry| entry.as_ptr()).chain([std::ptr::null()]).collect(),
            own_pid: start.own_pid.iter().map(|name| OwnPid::new(name)).collect(),
            failure: None,
        };
        plan.environment.splice(0..0, plan.own_pid.iter().map(|entry| entry.text.as_ptr().cast()));
        const STACK: usize = 16 * 1024;
        let mut stack = MaybeUninit::<[u128; STACK / size_of::<u128>()]>::uninit();
        let old = change_mask(libc::SIG_SETMASK, SignalSet::FULL);
        // SAFETY: the child runs `run_plan` on a stack of its own, which grows down from its end and outlives it, since
        // guard stands still until the child has executed its program or has ended. It shares `plan`, to which nobody
        // else has access meanwhile. All signals are blocked, so no handler of guard's can run in it.
        let pid = unsafe {
            let top = stack.as_mut_ptr().add(1).cast::<c_void>();
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            libc::clone(run_plan, top, flags, (&raw mut plan).cast())
        };
        let pid = Errno::result(pid);
        change_mask(libc::SIG_SETMASK, old);
        let pid = pid.map_err(SpawnFailure::Clone)?;
        match plan.failure {
            None => Ok(pid),
            Some(failure) => {
                // guard reaps it here, so that no other reap takes it for a main process.
                wait_for_copy(pid);
                Err(failure)
            }
        }
    }
}

/// All that the child needs, prepared by its parent.
struct Plan<'a> {
    program: &'a Program,
    start: &'a Start<'a>,
    inherited: Inherited,
    guard: Pid,
    arguments: Vec<*const c_char>,
    /// `/bin/sh`, the file, and the arguments; the second is filled in by the child.
    shell_arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    own_pid: Vec<OwnPid>,
    failure: Option<SpawnFailure>,
}

/// `NAME=`, and room for the digits of a pid and a NUL.
struct OwnPid {
    text: Vec<u8>,
    digits: usize,
}

impl OwnPid {
    fn new(name: &str) -> OwnPid {
        const ROOM: usize = 12;
        let mut text = format!("{name}=").into_bytes();
        let digits = text.len();
        text.resize(digits + ROOM, 0);
        OwnPid { text, digits }
    }

    /// Writes a number without leading zeros, which some read as octal.
    fn write(&mut self, pid: Pid) {
        let count = pid.checked_ilog10().unwrap_or(0) + 1;
        let mut rest = pid.unsigned_abs();
        for digit in self.text.iter_mut().skip(self.digits).take(count as usize).rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
}

/// The child's life before its program. It must not allocate, panic or return.
extern "C" fn run_plan(plan: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes its plan, which lives until this process has executed or ended.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
    plan.failure = Some(plan.run());
    // SAFETY: _exit(2) takes any number, and runs nothing of guard's.
    unsafe { libc::_exit(127) }
}

impl Plan<'_> {
    /// Returns only if the program could not be executed.
    fn run(&mut self) -> SpawnFailure {
        self.take_place();
        if let Some(channel) = self.start.filter {
            channel.install();
        }
        for limit in limits::of_child(self.start.limits) {
            if let Err(error) = limit.set() {
                return SpawnFailure::Limit(error);
            }
        }
        self.place_descriptors();
        self.redirect_output();
        if let Some(directory) = self.start.directory
            // SAFETY: chdir(2) reads a string of the plan's.
            && unsafe { libc::chdir(directory.as_ptr()) } == -1
        {
            return SpawnFailure::Directory(Errno::last());
        }
        self.reset_signals();
        self.execute()
    }

    /// Its group, its end with guard, and its pid in the environment.
    fn take_place(&mut self) {
        // SAFETY: each call takes plain numbers.
        unsafe {
            if !self.start.in_guards_group {
                libc::setpgid(0, 0);
            }
            if self.start.die_with_guard {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0);
                if libc::getppid() != self.guard {
                    libc::_exit(127);
                }
            }
        }
        let pid = super::process::id();
        self.own_pid.iter_mut().for_each(|entry| entry.write(pid));
    }

    /// What the program is to have open: what guard was handed for it, and from 3 on the sockets that it is passed.
    fn place_descriptors(&self) {
        // SAFETY: each call takes plain numbers.
        unsafe {
            for descriptor in self.start.kept {
                libc::fcntl(descriptor.as_raw_fd(), libc::F_SETFD, 0);
            }
            for (place, descriptor) in (super::listen::FIRST..).zip(self.start.passed) {
                if descriptor.as_raw_fd() == place {
                    libc::fcntl(place, libc::F_SETFD, 0);
                } else {
                    libc::dup2(descriptor.as_raw_fd(), place);
                }
            }
        }
    }

    fn redirect_output(&self) {
        let (is_stdin_empty, output) = match self.start.output {
            Output::Inherited => (false, None),
            Output::WithoutStdin => (true, None),
            Output::To(descriptor) => (true, Some(descriptor.as_raw_fd())),
            Output::Nowhere => (true, Some(libc::STDIN_FILENO)),
        };
        // SAFETY: each call takes plain numbers, or a constant string.
        unsafe {
            if is_stdin_empty {
                libc::close(libc::STDIN_FILENO);
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
            if let Some(output) = output {
                libc::dup2(output, libc::STDOUT_FILENO);
                libc::dup2(output, libc::STDERR_FILENO);
            }
        }
    }

    /// Dispositions first, the mask last: a signal that was held back meanwhile must find no handler of guard's.
    fn reset_signals(&self) {
        // A Ctrl-Z from before the program would stop this process, and guard with it: to ignore it once discards it.
        // SAFETY: signal(2) with one of its two constants, or what it returned, installs no handler of guard's.
        unsafe { libc::signal(libc::SIGTSTP, libc::signal(libc::SIGTSTP, libc::SIG_IGN)) };
        for signal in CHANGED {
            let disposition = if self.inherited.ignored.contains(signal) { libc::SIG_IGN } else { libc::SIG_DFL };
            // SAFETY: signal(2) with one of the two constants installs no handler.
            unsafe { libc::signal(signal.number().into(), disposition) };
        }
        change_mask(libc::SIG_SETMASK, self.inherited.mask);
    }

    /// Tries the candidates as `execvp(3)` does.
    fn execute(&mut self) -> SpawnFailure {
        let mut failure = Errno::ENOENT;
        for candidate in &self.program.candidates {
            // SAFETY: execve(2) reads a string and two arrays of strings, each ended by a null pointer.
            unsafe { libc::execve(candidate.as_ptr(), self.arguments.as_ptr(), self.environment.as_ptr()) };
            let mut errno = Errno::last();
            if errno == Errno::ENOEXEC {
                return self.execute_shell(candidate);
            }
            // As shells have it, the file is not in a directory of PATH that this user may not search.
            // SAFETY: access(2) reads a string.
            let is_there = || unsafe { libc::access(candidate.as_ptr(), libc::F_OK) } == 0;
            if errno == Errno::EACCES && self.program.is_searched && !is_there() {
                errno = Errno::ENOENT;
            }
            if errno != Errno::EACCES && !ELSEWHERE.contains(&errno) {
                return SpawnFailure::Execute(errno);
            }
            // A later directory may have a file that works. If none has, any other error says more than that.
            let elsewhere = [Errno::ENOENT, Errno::ENOTDIR].contains(&errno) && failure != Errno::ENOENT;
            if failure != Errno::EACCES && !elsewhere {
                failure = errno;
            }
        }
        SpawnFailure::Execute(failure)
    }

    /// The kernel knows no such format: unless it is a binary, it is taken for a script of the shell's.
    fn execute_shell(&mut self, candidate: &CStr) -> SpawnFailure {
        if is_elf(candidate) {
            return SpawnFailure::Architecture;
        }
        self.shell_arguments[1] = candidate.as_ptr();
        // SAFETY: as in `execute`.
        unsafe { libc::execve(SHELL.as_ptr(), self.shell_arguments.as_ptr(), self.environment.as_ptr()) };
        SpawnFailure::Shell(Errno::last())
    }
}

/// Errors after which the search goes on in the next directory of PATH (`execvp(3)` of glibc).
const ELSEWHERE: [Errno; 5] = [Errno::ENOENT, Errno::ENOTDIR, Errno::ESTALE, Errno::ENODEV, Errno::ETIMEDOUT];

/// Whether the file begins as an ELF binary does (`elf(5)`).
fn is_elf(path: &CStr) -> bool {
    let mut magic = [0_u8; 4];
    // SAFETY: open(2) reads a string, read(2) writes at most four bytes; the child's end closes the descriptor.
    unsafe {
        let descriptor = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        libc::read(descriptor, magic.as_mut_ptr().cast(), magic.len());
    }
    magic == *b"\x7fELF"
}
