//! Which orchestrator runs this container, how long it waits between its stop signal and SIGKILL, and what it asks with.

use std::ffi::OsStr;
use std::time::Duration;

/// An orchestrator. guard recognizes it by a variable that it sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Its name, as the log and `guard check` print it.
    pub name: &'static str,
    /// The variable that was found; empty for an engine.
    pub seen_by: &'static str,
    /// Its own time between its stop signal and SIGKILL: from a variable that it sets, else its default.
    pub own_timeout: Duration,
    /// What raises that time; empty where nothing does.
    pub setting: &'static str,
    /// It asks with SIGINT, which many apps take for a quick end.
    pub interrupts: bool,
}

/// A row of the table of platforms.
struct Known {
    name: &'static str,
    /// Any of these is set.
    variables: &'static [&'static str],
    /// Its own timeout, in seconds.
    seconds: u64,
    /// The variable that holds another timeout, in seconds.
    timeout_variable: &'static str,
    setting: &'static str,
    interrupts: bool,
}

impl Known {
    const fn new(name: &'static str, variables: &'static [&'static str], seconds: u64, setting: &'static str) -> Known {
        Known { name, variables, seconds, timeout_variable: "", setting, interrupts: false }
    }

    /// The platform says its timeout in the variable that also sets it.
    const fn says_timeout(self) -> Known {
        Known { timeout_variable: self.setting, ..self }
    }

    const fn interrupts(self) -> Known {
        Known { interrupts: true, ..self }
    }
}

/// Kubernetes comes first, since users set variables of the others by hand in a pod.
const PLATFORMS: [Known; 11] = [
    Known::new("Kubernetes", &["KUBERNETES_SERVICE_HOST"], 30, "terminationGracePeriodSeconds"),
    Known::new("ECS", &["ECS_CONTAINER_METADATA_URI_V4"], 30, "stopTimeout"),
    Known::new("Azure Container Apps", &["CONTAINER_APP_NAME"], 30, "terminationGracePeriodSeconds"),
    Known::new("Azure App Service", &["WEBSITE_INSTANCE_ID"], 5, "WEBSITES_CONTAINER_STOP_TIME_LIMIT").says_timeout(),
    Known::new("Heroku", &["DYNO"], 30, ""),
    Known::new("Render", &["RENDER"], 30, "maxShutdownDelaySeconds"),
    Known::new("Railway", &["RAILWAY_ENVIRONMENT_ID"], 0, "RAILWAY_DEPLOYMENT_DRAINING_SECONDS").says_timeout(),
    Known::new("Cloud Run", &["K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL"], 10, ""),
    Known::new("Cloud Foundry", &["VCAP_APPLICATION"], 10, ""),
    Known::new("Nomad", &["NOMAD_ALLOC_ID"], 5, "kill_timeout").interrupts(),
    Known::new("Fly.io", &["FLY_APP_NAME"], 5, "kill_timeout").interrupts(),
];

/// Docker, Podman, and every platform that sets no variable of its own.
pub const ENGINE: Platform = Platform {
    name: "Docker, Podman or another engine",
    seen_by: "",
    own_timeout: Duration::from_secs(10),
    setting: "--stop-timeout or stop_grace_period",
    interrupts: false,
};

impl Platform {
    /// The first platform that has a variable among those that `value` knows.
    pub fn detect<'a>(value: impl Fn(&str) -> Option<&'a OsStr>) -> Platform {
        let seen = |known: &'static Known| Some((known, *known.variables.iter().find(|name| value(name).is_some())?));
        let Some((known, seen_by)) = PLATFORMS.iter().find_map(seen) else { return ENGINE };
        let said = value(known.timeout_variable).and_then(|seconds| seconds.to_str()?.trim().parse().ok());
        let own_timeout = Duration::from_secs(said.unwrap_or(known.seconds));
        let Known { name, setting, interrupts, .. } = *known;
        Platform { name, seen_by, own_timeout, setting, interrupts }
    }

    /// Five sixths of the platform's own timeout or 1 s less, whichever is shorter, to a tenth of a second. Of a very short
    /// one the app has half. Where the platform gives no time at all the app has two seconds, in case somebody else stops guard.
    pub fn stop_timeout(self) -> Duration {
        let own = self.own_timeout;
        if own.is_zero() {
            return Duration::from_secs(2);
        }
        let time = (own / 6).saturating_mul(5).min(own.saturating_sub(Duration::from_secs(1))).max(own / 2);
        Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX) / 100 * 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(variables: &[(&str, &'static str)]) -> Platform {
        Platform::detect(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsStr::new(*value)))
    }

    #[test]
    fn each_platform_is_seen_by_its_variables() {
        for known in &PLATFORMS {
            for variable in known.variables {
                let platform = detect(&[("PATH", "/"), (variable, "x")]);
                assert_eq!((platform.name, platform.seen_by), (known.name, *variable));
            }
        }
        assert_eq!(detect(&[("PATH", "/")]), ENGINE);
        assert_eq!(detect(&[("FLY_APP_NAME", "x"), ("KUBERNETES_SERVICE_HOST", "x")]).name, "Kubernetes");
    }

    #[test]
    fn the_default_stop_timeout_leaves_room_before_the_platforms_own() {
        for (variable, milliseconds) in [
            ("KUBERNETES_SERVICE_HOST", 25_000),
            ("WEBSITE_INSTANCE_ID", 4_000),
            ("RENDER", 25_000),
            ("RAILWAY_ENVIRONMENT_ID", 2_000),
            ("CLOUD_RUN_JOB", 8_300),
            ("NOMAD_ALLOC_ID", 4_000),
            ("HOME", 8_300),
        ] {
            assert_eq!(detect(&[(variable, "x")]).stop_timeout(), Duration::from_millis(milliseconds), "{variable}");
        }
    }

    #[test]
    fn a_platform_may_say_what_its_timeout_is() {
        const RAILWAY: &str = "RAILWAY_DEPLOYMENT_DRAINING_SECONDS";
        const AZURE: &str = "WEBSITES_CONTAINER_STOP_TIME_LIMIT";
        for (platform, variable, value, milliseconds) in [
            ("RAILWAY_ENVIRONMENT_ID", RAILWAY, "60", 50_000),
            ("RAILWAY_ENVIRONMENT_ID", RAILWAY, "3", 2_000),
            ("RAILWAY_ENVIRONMENT_ID", RAILWAY, "1", 500),
            ("RAILWAY_ENVIRONMENT_ID", RAILWAY, "0", 2_000),
            ("RAILWAY_ENVIRONMENT_ID", RAILWAY, "soon", 2_000),
            ("WEBSITE_INSTANCE_ID", AZURE, "120", 100_000),
            ("WEBSITE_INSTANCE_ID", AZURE, "", 4_000),
            ("RENDER", RAILWAY, "60", 25_000),
        ] {
            let found = detect(&[(platform, "x"), (variable, value)]).stop_timeout();
            assert_eq!(found, Duration::from_millis(milliseconds), "{platform} {value}");
        }
    }
}
