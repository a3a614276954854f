//! Why a run ends.

use super::exit_code::{Failure, MEMORY_LIMIT};

/// Why a run ends.
///
/// Where a second cause comes, the greater one in this order is what counts. What somebody asks for wins over what the run
/// does by itself: a run that fails its health checks, and is restarted by an operator while it stops, is followed at once
/// by the next, and that restart does not count against the limit. guard's own end wins over everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Cause {
    /// The app says that it stops (STOPPING=1). The restart policy decides what follows, as after a crash.
    Itself,
    /// guard ends it as a failure. The restart policy decides what follows.
    Failed(Failure),
    /// A forwarded QUIT has stopped it. No run follows in its instance.
    Quit,
    /// The new run of a reload takes its place.
    Reload(Asker),
    /// A restart in place. The next run follows at once.
    Restart(Asker),
    /// There are to be fewer instances. No run follows in this one.
    Scale,
    /// guard ends. No run follows.
    Stop,
}

/// What has asked for another run in the place of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Asker {
    /// It has reached GUARD_MAX_MEMORY.
    Memory,
    /// It has reached GUARD_MAX_LIFETIME.
    Lifetime,
    /// A file has changed (GUARD_ON_CHANGE).
    File,
    /// An operator, by a command or a signal.
    Operator,
}

impl Asker {
    /// It asks for one instance alone.
    pub(super) fn is_limit(self) -> bool {
        match self {
            Asker::Memory | Asker::Lifetime => true,
            Asker::File | Asker::Operator => false,
        }
    }

    /// As GUARD_LAST_EXIT says it.
    pub fn word(self) -> &'static str {
        match self {
            Asker::Memory => MEMORY_LIMIT,
            Asker::Lifetime => "lifetime",
            Asker::File => "changed-file",
            Asker::Operator => "operator",
        }
    }
}

impl Cause {
    /// As `guard status` shows it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Cause::Itself => "STOPPING=1",
            Cause::Failed(Failure::NotReady) => "not ready in time",
            Cause::Failed(Failure::Watchdog) => "watchdog",
            Cause::Failed(Failure::Health) => "unhealthy",
            Cause::Failed(Failure::Memory) => "memory limit",
            Cause::Quit => "SIGQUIT",
            Cause::Reload(Asker::Operator) => "reload",
            Cause::Restart(Asker::Operator) => "restart",
            Cause::Reload(Asker::File) | Cause::Restart(Asker::File) => "changed file",
            Cause::Reload(Asker::Memory) | Cause::Restart(Asker::Memory) => "memory limit",
            Cause::Reload(Asker::Lifetime) | Cause::Restart(Asker::Lifetime) => "lifetime",
            Cause::Scale => "scale",
            Cause::Stop => "guard stops",
        }
    }
}
