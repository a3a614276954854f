//! The settings of the core, which never change.

use crate::config::{Config, HealthSettings, ReadySettings, RestartSettings, Scope, SignalMap, StopSettings};
use std::time::Duration;

/// What the supervisor needs to know before [`Event::Start`](super::Event::Start).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    pub restart: RestartSettings,
    pub stop: StopSettings,
    pub ready: ReadySettings,
    pub watchdog: Option<Duration>,
    /// A run is replaced when it has lived about this long.
    pub lifetime: Option<Duration>,
    pub health: Option<HealthSettings>,
    /// A run that hangs is diagnosed, and has this long for it.
    pub diagnose: Option<Duration>,
    /// The app may listen on Node's channel.
    pub node_ipc: bool,
    pub signal_map: SignalMap,
    pub scope: Scope,
    /// There are sockets that outlive a run.
    pub holds: bool,
    /// There is a pre-stop hook.
    pub pre_stop: bool,
    /// Copies of the app, at least 1.
    pub instances: u32,
    /// Their number follows the CPU quota.
    pub auto: bool,
    /// guard is PID 1 of its namespace.
    pub init: bool,
    /// stdin is the terminal that controls guard's session.
    pub terminal: bool,
    /// There is a terminal, and somebody above may continue guard after it was stopped.
    pub job_control: bool,
    /// Where the jitter begins.
    pub seed: u64,
}

impl Settings {
    /// What the configuration says, for a guard that is PID 1 without a terminal and holds no sockets.
    pub fn of(config: &Config) -> Settings {
        Settings {
            restart: config.restart.clone(),
            stop: config.stop.clone(),
            ready: config.ready,
            watchdog: config.watchdog,
            lifetime: config.max_lifetime.filter(|_| config.restart.may_restart()),
            health: config.health_check.is_some().then_some(config.health),
            diagnose: config.diagnose.is_some().then_some(config.diagnose_timeout),
            node_ipc: config.node_ipc,
            signal_map: config.signal_map.clone(),
            scope: config.signal_scope,
            holds: false,
            pre_stop: !config.pre_stop.is_empty(),
            instances: 1,
            auto: false,
            init: true,
            terminal: false,
            job_control: false,
            seed: 0,
        }
    }
}
