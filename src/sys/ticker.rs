//! A timer that is a descriptor (`timerfd_create(2)`), for a door that has to do something now and then.

use super::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Readable once each period while it runs. A ticker that rests costs nothing.
pub struct Ticker {
    timer: TimerFd,
    period: Duration,
    runs: bool,
}

impl Ticker {
    /// A ticker that rests, closed on exec.
    pub fn new(period: Duration) -> Result<Ticker, Errno> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Ticker { timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?, period, runs: false })
    }

    /// Starts it, or lets it rest. A ticker that runs keeps its time.
    pub fn run(&mut self, runs: bool) {
        if std::mem::replace(&mut self.runs, runs) == runs {
            return;
        }
        let _ = if runs {
            let period = Expiration::Interval(TimeSpec::from_duration(self.period));
            self.timer.set(period, TimerSetTimeFlags::empty())
        } else {
            self.timer.unset()
        };
    }

    /// Takes the ticks that have come.
    pub fn take(&self) {
        // It never waits (TFD_NONBLOCK).
        let _ = self.timer.wait();
    }
}

impl AsFd for Ticker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
