//! The defaults of all settings.

use super::codes::CodeSet;
use super::limits::Limits;
use super::settings::{
    Config, HealthSettings, Hold, Instances, LogFormat, Readiness, ReadySettings, RestartPolicy, RestartSettings,
    Scope, StopSettings,
};
use crate::platform::Platform;
use crate::signal::Signal;
use std::path::PathBuf;
use std::time::Duration;

impl Config {
    /// The defaults on this platform, without a command and an environment.
    pub(super) fn of_platform(platform: Platform) -> Config {
        let termination_log = PathBuf::from("/dev/termination-log");
        Config {
            command: Vec::new(),
            environment: Vec::new(),
            notify_socket: None,
            restart: RestartSettings::default(),
            stop: StopSettings {
                signal: platform.interrupts.then_some(Signal::TERM),
                timeout: Some(platform.stop_timeout()),
                restart_timeout: platform.stop_timeout(),
                drain_delay: Duration::ZERO,
                drain_idle: Duration::ZERO,
            },
            ready: ReadySettings { when: Readiness::Exec, timeout: Duration::from_secs(60) },
            notify: false,
            watchdog: None,
            diagnose: None,
            diagnose_timeout: Duration::from_secs(5),
            max_memory: None,
            max_lifetime: None,
            health: HealthSettings::default(),
            health_check: None,
            health_host: None,
            listen: Vec::new(),
            hold: Hold::Off,
            hold_timeout: Duration::from_secs(10),
            node_ipc: false,
            instances: Instances::Number(1),
            signal_map: Vec::new(),
            signal_scope: Scope::Process,
            on_change: Vec::new(),
            pre_stop: Vec::new(),
            drain_file: None,
            chdir: None,
            env_files: Vec::new(),
            user: None,
            limits: Limits::new(),
            directory: None,
            http: None,
            termination_log: Some(termination_log).filter(|path| path.exists()),
            log_filter: "info".to_owned(),
            log_format: LogFormat::Text,
            platform,
            stdin: None,
            origins: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

impl Default for HealthSettings {
    fn default() -> HealthSettings {
        HealthSettings {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            retries: 3,
            start_period: Duration::from_secs(60),
        }
    }
}

impl Default for RestartSettings {
    fn default() -> RestartSettings {
        RestartSettings {
            policy: RestartPolicy::OnFailure,
            max: Some(10),
            window: Duration::from_secs(300),
            backoff_initial: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            stable_after: Duration::from_secs(10),
            success_codes: CodeSet::default(),
            no_restart_codes: CodeSet::default(),
        }
    }
}
