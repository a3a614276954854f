//! The terminal that stdin is, if it is one: who is in its foreground, and its modes.

use super::{Pid, procfs};
use crate::shell::is_shell;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid as NixPid, getpgid, getpgrp, getppid, getsid, setpgid, tcgetpgrp, tcsetpgrp};
use std::io::{IsTerminal, stdin};

/// A terminal at stdin. guard blocks SIGTTOU, so it may change the foreground from the background (`tcsetpgrp(3)`).
pub struct Terminal {
    modes: Option<Termios>,
    /// The foreground is guard's to give: it had it at the start or was given it again, and no shell has taken it back.
    held: bool,
}

impl Terminal {
    /// The terminal at stdin, with its modes as they are now.
    pub fn at_stdin() -> Option<Terminal> {
        if !stdin().is_terminal() {
            return None;
        }
        let held = is_in_foreground();
        if getpgrp().as_raw() == 0 {
            // guard's group is outside of its PID namespace, where it has no name to come back to the foreground by.
            let _ = setpgid(NixPid::from_raw(0), NixPid::from_raw(0));
        }
        Some(Terminal { modes: tcgetattr(stdin()).ok(), held })
    }

    /// Looks anew at whose the foreground is, after somebody continued guard: its own, or that of the shell above.
    pub fn look(&mut self) {
        let shell = getpgid(Some(getppid()));
        if is_in_foreground() {
            self.held = true;
        } else if tcgetpgrp(stdin()).is_ok_and(|foreground| shell == Ok(foreground)) {
            self.held = false;
        }
    }

    /// Whether the foreground is guard's to give.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Puts a group into the foreground, if that is guard's to do; `false` if it is not, or could not be done.
    pub fn give(&self, group: Pid) -> bool {
        self.held && tcsetpgrp(stdin(), NixPid::from_raw(group)).is_ok()
    }

    /// Puts guard's own group into the foreground, if that is guard's to do: a Ctrl-C between two runs is for guard.
    pub fn take(&self) {
        let _ = self.give(getpgrp().as_raw());
    }

    /// Sets the modes to what they were at the start, if guard holds the terminal.
    pub fn restore(&self) {
        if let Some(modes) = self.modes.as_ref().filter(|_| self.held) {
            let _ = tcsetattr(stdin(), SetArg::TCSANOW, modes);
        }
    }
}

fn is_in_foreground() -> bool {
    tcgetpgrp(stdin()).is_ok_and(|foreground| foreground == getpgrp())
}

/// Whether a parent may be there to continue guard if it were stopped. An engine outside of the PID namespace continues
/// nobody, an init at PID 1 that is no shell continues nobody, and a parent of another session, such as script(1) or sshd,
/// continues nobody.
pub fn has_job_control() -> bool {
    let same_session = getsid(Some(getppid())).is_ok_and(|session| getsid(None) == Ok(session));
    match getppid().as_raw() {
        _ if !same_session => false,
        0 => false,
        1 => procfs::name(1).is_some_and(|name| is_shell(&name)),
        _ => true,
    }
}
