//! The calendar time of log lines, and deadlines for what is not driven by the core.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time now, in UTC, as RFC 3339 with milliseconds.
pub fn timestamp() -> String {
    #[expect(clippy::disallowed_methods, reason = "log lines are the one place for calendar time")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = now.as_secs().try_into().unwrap_or(0);
    // SAFETY: tm is plain data, for which all zeros is a value; gmtime_r(3) reads one number and fills one structure.
    let time = unsafe {
        let mut time: libc::tm = std::mem::zeroed();
        libc::gmtime_r(&raw const seconds, &raw mut time);
        time
    };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        time.tm_year + 1900,
        time.tm_mon + 1,
        time.tm_mday,
        time.tm_hour,
        time.tm_min,
        time.tm_sec,
        now.subsec_millis()
    )
}

/// The CPU time that guard has used, in which it does not matter who else has run (CLOCK_THREAD_CPUTIME_ID, `clock_gettime(2)`).
pub(super) fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) fills one structure.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// A wait that ends this much too late means that guard, and the app with it, was kept from running, as in a pause of the container.
pub const OVERSLEPT: Duration = Duration::from_secs(1);

/// A deadline on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<Instant>);

#[expect(clippy::disallowed_methods, reason = "it bounds single system calls, which no event of the core ends")]
impl Deadline {
    pub const NEVER: Deadline = Deadline(None);

    /// This long from now on.
    pub fn after(time: Duration) -> Deadline {
        Deadline(Instant::now().checked_add(time))
    }

    /// The sooner of both.
    pub fn sooner(self, other: Deadline) -> Deadline {
        Deadline([self.0, other.0].into_iter().flatten().min())
    }

    /// What is left until then; zero when it has passed.
    pub fn left(self) -> Duration {
        self.0.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
    }
}
