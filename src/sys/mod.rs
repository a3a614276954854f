//! The one room with `unsafe`: system calls, each behind a safe function that decides nothing.
//!
//! `nix` is used where it has the call as guard needs it. Raw calls are left where it refuses real-time signals or has none, and
//! between clone and exec.

#![allow(unsafe_code)]

pub mod caller;
pub mod cgroup;
pub mod clock;
pub mod connections;
pub mod directory;
mod disposition;
pub mod early;
pub mod environments;
pub mod errno;
pub mod file;
pub mod fork;
pub mod itself;
pub mod limits;
pub mod listen;
pub mod listeners;
pub mod poll;
pub mod process;
pub mod procfs;
pub mod reserve;
pub mod residency;
pub mod rights;
pub mod scheduler;
pub mod seccomp;
pub mod signal_set;
pub mod signals;
pub mod socket;
mod socket_option;
pub mod spawn;
pub mod spread;
pub mod stderr;
pub mod stdin;
pub mod terminal;
pub mod ticker;
#[cfg(panic = "abort")]
mod unwind;
pub mod user;
pub mod watch;

pub use nix::errno::Errno;

/// A process id, or that of a process group's leader (`credentials(7)`).
pub type Pid = nix::libc::pid_t;
