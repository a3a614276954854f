//! With nothing to do guard does not wake up at all.

mod common;

use common::{everywhere, sleeps_at_rest, status_field};

/// The app is a shell, so that a second passes for it and not for the test.
const RESTARTED: &str = "test $GUARD_RUN = 2 || exit 1; echo ready; sleep 1; echo later; read wait";

#[test]
fn no_wake_up_without_a_cause() {
    for setup in everywhere() {
        let mut guard = setup.terminal().app(["sh", "-c", RESTARTED]).start();
        guard.line("ready");
        let pid = guard.pid();
        let before = sleeps_at_rest(pid);
        guard.line("later");
        assert_eq!(status_field(pid, "voluntary_ctxt_switches:"), before);
    }
}
