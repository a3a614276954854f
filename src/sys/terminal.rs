//! The terminal at stdin: its foreground process group, and its modes.
//!
//! The runs are in guard's own process group, so the kernel sends the signals of keys to guard and to the app at once. An app
//! that takes the foreground for a group of its own, as a shell with job control does, has the keys alone until it gives
//! the foreground back or ends.

use super::socket::is_readable;
use super::{Pid, procfs};
use crate::shell::is_shell;
use crate::signal::Signal;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid as NixPid, getpgid, getpgrp, getpid, getppid, getsid, setpgid, tcgetpgrp, tcsetpgrp};
use std::fs::{File, OpenOptions};
use std::io::stdin;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;

/// The terminal that controls guard's session. guard blocks SIGTTOU, so it may change the foreground from the background
/// (`tcsetpgrp(3)`).
pub struct Terminal {
    modes: Option<Termios>,
    /// guard's process group, and that of its runs.
    group: NixPid,
    /// guard leads the session, so it alone gets the SIGHUP of a terminal that is closed.
    leads_session: bool,
    /// guard's group has the foreground, or one of its runs has taken that: no shell above has it.
    held: bool,
    /// The terminal, opened again: flags of stdin would be the app's too.
    own: Option<File>,
}

/// `fcntl(2)`. Not every C library has it.
const F_SETSIG: libc::c_int = 10;

impl Terminal {
    /// The terminal at stdin, with its modes as they are now; `None` where stdin is none, or one of another session.
    pub fn at_stdin() -> Option<Terminal> {
        let foreground = tcgetpgrp(stdin()).ok()?;
        let held = foreground == getpgrp();
        if getpgrp().as_raw() == 0 {
            // guard's group is outside of its PID namespace, where it has no name to come back to the foreground by.
            let _ = setpgid(NixPid::from_raw(0), NixPid::from_raw(0));
        }
        let leads_session = getsid(None) == Ok(getpid());
        let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
        let own = OpenOptions::new().read(true).custom_flags(flags).open("/dev/tty").ok();
        if let Some(own) = &own {
            // SAFETY: fcntl(2) with these commands takes integers.
            unsafe {
                libc::fcntl(own.as_raw_fd(), libc::F_SETOWN, libc::getpid());
                libc::fcntl(own.as_raw_fd(), F_SETSIG, libc::SIGIO);
            }
        }
        let terminal = Terminal { modes: tcgetattr(stdin()).ok(), group: getpgrp(), leads_session, held, own };
        terminal.take_back();
        Some(terminal)
    }

    /// guard's process group.
    pub fn group(&self) -> Pid {
        self.group.as_raw()
    }

    /// Asks the kernel for SIGIO at what is typed, or for no more of them. It sends the signal before it wakes a reader, so
    /// guard knows of a line before the app can end because of it.
    pub fn watch(&self, on: bool) {
        if let Some(own) = &self.own {
            let flags = libc::O_NONBLOCK | if on { libc::O_ASYNC } else { 0 };
            // SAFETY: as in `at_stdin`.
            unsafe { libc::fcntl(own.as_raw_fd(), libc::F_SETFL, flags) };
        }
    }

    /// Whether the kernel sends this signal to guard's group for a key, or for the end of the terminal.
    pub fn sends(&self, signal: Signal) -> bool {
        signal == Signal::WINCH || Signal::TERMINAL_ENDS.contains(&signal) || Signal::TERMINAL_STOPS.contains(&signal)
    }

    /// Whether a process has got a signal that the terminal has sent.
    pub fn reaches(&self, process: Pid, signal: Signal) -> bool {
        self.is_member(process) && !(signal == Signal::HUP && self.leads_session)
    }

    /// Whether a process is in guard's group.
    pub fn is_member(&self, process: Pid) -> bool {
        getpgid(Some(NixPid::from_raw(process))) == Ok(self.group)
    }

    /// Reads anew who has the foreground, after somebody has continued guard: guard's group, or the shell above.
    pub fn refresh(&mut self) {
        let foreground = tcgetpgrp(stdin()).ok();
        if foreground == Some(self.group) {
            self.held = true;
        } else if foreground.is_some() && foreground == getpgid(Some(getppid())).ok() {
            self.held = false;
        }
    }

    /// Whether something was typed that nobody has read yet.
    pub fn has_input(&self) -> bool {
        self.own.as_ref().is_some_and(|own| is_readable(own.as_fd()))
    }

    /// Whether a run has taken the foreground for itself.
    pub fn is_taken(&mut self) -> bool {
        match tcgetpgrp(stdin()) {
            Ok(foreground) if foreground == self.group => {
                self.held = true;
                false
            }
            Ok(_) => self.held,
            Err(_) => false,
        }
    }

    /// Whether guard's group had the foreground when guard last looked, or a run has taken it from there. Else what is typed is not for
    /// runs of guard's.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Puts guard's group into the foreground again, where a run has taken that and has ended.
    pub fn take_back(&self) {
        if self.held && tcgetpgrp(stdin()) != Ok(self.group) {
            let _ = tcsetpgrp(stdin(), self.group);
        }
    }

    /// Gives the foreground to the group of a process that has left guard's; `false` if that is not guard's to do.
    pub fn lend(&self, process: Pid) -> bool {
        let free = self.held && tcgetpgrp(stdin()) == Ok(self.group) && !self.is_member(process);
        free && getpgid(Some(NixPid::from_raw(process))).and_then(|group| tcsetpgrp(stdin(), group)).is_ok()
    }

    /// Sets the modes to what they were at the start, if the terminal is guard's.
    pub fn restore(&self) {
        if let Some(modes) = self.modes.as_ref().filter(|_| self.held) {
            let _ = tcsetattr(stdin(), SetArg::TCSANOW, modes);
        }
    }
}

/// Whether a parent may be there to continue guard if it were stopped: a process of the same session in another group, as
/// a shell with job control is to its jobs. An engine outside of the PID namespace continues nobody, and neither does an init at
/// PID 1 that is no shell.
pub fn has_job_control() -> bool {
    const MOST: usize = 64;
    let is_in_session = |pid: Pid| getsid(Some(NixPid::from_raw(pid))).is_ok_and(|session| getsid(None) == Ok(session));
    let is_in_group = |pid: Pid| getpgid(Some(NixPid::from_raw(pid))) == Ok(getpgrp());
    let parent = |pid: &Pid| procfs::process(*pid).map(|process| process.parent);
    // A script without job control is in guard's group, and its parent may be such a shell.
    let mut above = std::iter::successors(Some(getppid().as_raw()), parent).take(MOST);
    match above.find(|&pid| pid == 0 || !is_in_group(pid)) {
        None | Some(0) => false,
        Some(1) => is_in_session(1) && procfs::name(1).is_some_and(|name| is_shell(&name)),
        Some(pid) => is_in_session(pid),
    }
}
