//! The pages of the HTTP door: what probes and Prometheus see. Nothing of the command line or the environment is on them.

use super::Runtime;
use super::doors::DoorId;
use super::sockets::{explain, listen_tcp};
use crate::config::{Config, ListenAddress, Readiness};
use crate::doors::http::{Answer, Http, HttpClient, Page};
use crate::report::metrics::{self, Limits, RestartReason};
use crate::report::{lines_dropped, status};
use crate::supervisor::{Asker, Ending, Failure, InPlace};
use crate::sys::errno::reason;
use anyhow::anyhow;

const TEXT: &str = "text/plain; charset=utf-8";

impl Runtime<'_> {
    /// Opens the door where GUARD_HTTP names an address. It stays open until guard exits.
    pub(super) fn open_http(&mut self) -> anyhow::Result<()> {
        let Some(address) = self.config.http else { return Ok(()) };
        let listener = listen_tcp(address);
        let listener = listener.map_err(|error| explain("GUARD_HTTP", &ListenAddress::Tcp(address), error))?;
        let door = Http::open(listener.into()).map_err(|error| anyhow!("GUARD_HTTP: {error}"))?;
        let door = self.register(DoorId::Http, door).map_err(|errno| anyhow!("GUARD_HTTP: {}", reason(errno)))?;
        self.http = Some(door);
        log::info!(address:%, pages = "/livez /readyz /metrics /status"; "http");
        Ok(())
    }

    /// Whether the app can take work.
    pub(super) fn readiness(&self) -> Result<&'static str, String> {
        self.supervisor.readiness().map(|()| "ready").map_err(|why| format!("not ready: {why}"))
    }

    /// Whether guard has not given up.
    pub(super) fn health(&self) -> Result<&'static str, String> {
        if self.supervisor.gave_up() { Err("guard has given up".to_owned()) } else { Ok("alive") }
    }

    /// Shows a page.
    pub(super) fn answer_page(&mut self, page: Page, client: HttpClient) {
        let say = |result: Result<&str, String>| {
            let (yes, mut body) = result.map_or_else(|why| (false, why), |text| (true, text.to_owned()));
            body.push('\n');
            Answer { yes, content_type: TEXT, body }
        };
        let answer = match page {
            Page::Livez => say(self.health()),
            Page::Readyz => say(self.readiness()),
            Page::Status => {
                let body = status::json_without_app(&self.status());
                Answer { yes: true, content_type: "application/json", body }
            }
            Page::Metrics => {
                let status = self.status();
                let limits = Limits { memory: self.memory_limit(), ..limits(self.config) };
                let body = metrics::text(&status, &self.counters, &limits, lines_dropped());
                Answer { yes: true, content_type: metrics::CONTENT_TYPE, body }
            }
        };
        if let Some(http) = &mut self.http {
            http.answer(client, &answer);
        }
    }
}

/// Why a run was followed by another: how it ended, or who has asked for the other one.
pub(super) fn restart_reason(ending: Ending, asked: Option<(InPlace, Asker)>) -> RestartReason {
    match ending {
        Ending::Exited(0) => RestartReason::Success,
        Ending::Exited(_) => RestartReason::Exit,
        Ending::Signaled(_) | Ending::Dumped(_) => RestartReason::Signal,
        Ending::OutOfMemory => RestartReason::OutOfMemory,
        Ending::NotSpawned(_) => RestartReason::SpawnFailed,
        Ending::Failed(Failure::NotReady, _) => RestartReason::NotReady,
        Ending::Failed(Failure::Watchdog, _) => RestartReason::Watchdog,
        Ending::Failed(Failure::Health, _) => RestartReason::Health,
        Ending::Failed(Failure::Memory, _) => RestartReason::MemoryLimit,
        // It had said that it would stop.
        Ending::Killed if asked.is_none() => RestartReason::Signal,
        Ending::Replaced(..) | Ending::Killed => match asked {
            Some((_, Asker::Memory)) => RestartReason::MemoryLimit,
            Some((_, Asker::Lifetime)) => RestartReason::Lifetime,
            Some((_, Asker::File)) => RestartReason::ChangedFile,
            Some((InPlace::Reload, Asker::Operator)) => RestartReason::Reload,
            Some((InPlace::Restart, Asker::Operator)) | None => RestartReason::Restart,
        },
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        restarts: config.restart.max,
        restart_window: config.restart.window,
        stop_timeout: config.stop.timeout,
        ready_timeout: (config.ready.when != Readiness::Exec).then_some(config.ready.timeout),
        watchdog: config.watchdog,
        lifetime: config.max_lifetime,
        memory: None,
    }
}
