//! The terminal that stdin is, if it is one: who is in its foreground, and its modes.

use super::{Errno, Pid};
use nix::sys::signal::killpg;
use nix::sys::termios::{SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{Pid as NixPid, getpgrp, tcgetpgrp, tcsetpgrp};
use std::io::{IsTerminal, stdin};

/// A terminal at stdin. guard blocks SIGTTOU, so it may change the foreground from the background (`tcsetpgrp(3)`).
pub struct Terminal {
    modes: Option<Termios>,
}

impl Terminal {
    /// The terminal at stdin, with its modes as they are now.
    pub fn at_stdin() -> Option<Terminal> {
        stdin().is_terminal().then(|| Terminal { modes: tcgetattr(stdin()).ok() })
    }

    /// Whether guard's own group is in the foreground, so that guard may pass it on.
    pub fn is_ours(&self) -> bool {
        tcgetpgrp(stdin()).is_ok_and(|foreground| foreground == getpgrp())
    }

    /// Puts a group into the foreground.
    pub fn give(&self, group: Pid) {
        let _ = tcsetpgrp(stdin(), NixPid::from_raw(group));
    }

    /// Puts guard's own group into the foreground again after the app's group, unless a shell above has taken it back:
    /// without a shell (`alone`), or where the foreground is the app's or nobody's.
    pub fn reclaim(&self, app: Pid, alone: bool) {
        let nobody = |group: NixPid| killpg(group, None) == Err(Errno::ESRCH);
        if tcgetpgrp(stdin()).is_ok_and(|group| alone || group.as_raw() == app || nobody(group)) {
            let _ = tcsetpgrp(stdin(), getpgrp());
        }
    }

    /// Sets the modes to what they were at the start.
    pub fn restore(&self) {
        if let Some(modes) = &self.modes {
            let _ = tcsetattr(stdin(), SetArg::TCSANOW, modes);
        }
    }
}
