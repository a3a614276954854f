//! Which orchestrator runs this container, and how long it waits between its stop signal and SIGKILL.

use std::time::Duration;

/// An orchestrator. guard recognizes it by a variable that it sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Its name, as the log and `guard check` print it.
    pub name: &'static str,
    seen_by: &'static str,
    /// Its own default time between its stop signal and SIGKILL.
    pub own_timeout: Duration,
}

const fn platform(name: &'static str, seen_by: &'static str, seconds: u64) -> Platform {
    Platform { name, seen_by, own_timeout: Duration::from_secs(seconds) }
}

/// Kubernetes comes first, since users set variables of the others by hand in a pod.
const PLATFORMS: [Platform; 7] = [
    platform("Kubernetes", "KUBERNETES_SERVICE_HOST", 30),
    platform("ECS", "ECS_CONTAINER_METADATA_URI_V4", 30),
    platform("Azure Container Apps", "CONTAINER_APP_NAME", 30),
    platform("Heroku", "DYNO", 30),
    platform("Cloud Run", "K_SERVICE", 10),
    platform("Nomad", "NOMAD_ALLOC_ID", 5),
    platform("Fly.io", "FLY_APP_NAME", 5),
];

/// Docker, Podman, and every platform that sets no variable of its own.
pub const ENGINE: Platform = platform("Docker, Podman or another engine", "", 10);

impl Platform {
    /// The first platform whose variable is set.
    pub fn detect(is_set: impl Fn(&str) -> bool) -> Platform {
        PLATFORMS.into_iter().find(|platform| is_set(platform.seen_by)).unwrap_or(ENGINE)
    }

    /// Five sixths of the platform's own timeout or 1 s less, whichever is shorter, to a tenth of a second.
    pub fn stop_timeout(self) -> Duration {
        let own = self.own_timeout.as_millis();
        let tenths = (own * 5 / 6).min(own.saturating_sub(1_000)) / 100;
        Duration::from_millis(u64::try_from(tenths * 100).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(names: &[&str]) -> Platform {
        Platform::detect(|name| names.contains(&name))
    }

    #[test]
    fn each_platform_is_seen_by_its_variable() {
        for platform in PLATFORMS {
            assert_eq!(detect(&["PATH", platform.seen_by]), platform);
        }
        assert_eq!(detect(&["PATH"]), ENGINE);
    }

    #[test]
    fn the_default_stop_timeout_leaves_room_before_the_platforms_own() {
        for (variable, milliseconds) in [
            ("KUBERNETES_SERVICE_HOST", 25_000),
            ("ECS_CONTAINER_METADATA_URI_V4", 25_000),
            ("CONTAINER_APP_NAME", 25_000),
            ("DYNO", 25_000),
            ("K_SERVICE", 8_300),
            ("NOMAD_ALLOC_ID", 4_000),
            ("FLY_APP_NAME", 4_000),
            ("HOME", 8_300),
        ] {
            assert_eq!(detect(&[variable]).stop_timeout(), Duration::from_millis(milliseconds), "{variable}");
        }
    }
}
