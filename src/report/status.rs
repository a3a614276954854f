//! The answer to `guard status`: a table for people, JSON for programs.

use super::format::{json_string, mebibytes};
use crate::config::duration::{show, show_seconds};
use crate::text::printable;
use std::fmt::Write;
use std::time::Duration;

/// All that guard knows of itself and the app.
pub struct GuardStatus {
    pub version: &'static str,
    pub pid: i32,
    pub uptime: Duration,
    pub app: String,
    /// The error says why the app cannot take work.
    pub readiness: Result<(), &'static str>,
    /// guard is on its way to exit.
    pub stopping: bool,
    /// Datagrams from senders that may not talk to guard.
    pub refused: u64,
    /// Sockets that outlive a run.
    pub held: Vec<HeldStatus>,
    /// How many instances there are to be.
    pub desired: u32,
    pub instances: Vec<InstanceStatus>,
}

/// A socket that outlives a run.
pub struct HeldStatus {
    pub address: String,
    pub name: Option<String>,
    /// Clients that wait, and how many can; `None` where the kernel does not say.
    pub queue: Option<(u32, u32)>,
    /// No run has listened for too long, so clients are refused.
    pub refusing: bool,
}

/// One copy of the app.
pub struct InstanceStatus {
    pub number: u32,
    pub run: Option<u32>,
    /// Runs so far.
    pub runs: u32,
    pub pid: Option<i32>,
    pub state: &'static str,
    /// Why the run is being ended.
    pub ending: Option<&'static str>,
    /// The run that it replaces in a reload.
    pub old: Option<OldRun>,
    pub uptime: Option<Duration>,
    /// Until the next run starts, in a backoff.
    pub next_in: Option<Duration>,
    /// Restarts that nobody asked for.
    pub restarts: u32,
    pub last_exit: Option<String>,
    /// How the last run ended, in a sentence; empty if none has.
    pub last_run: String,
    /// Resident sets of the whole run, in bytes.
    pub memory: u64,
    /// CPU time that the living processes of the run and their reaped children have used.
    pub cpu: Duration,
    /// The app said RELOADING=1, and has not said READY=1 since.
    pub reloading: bool,
    /// The text of the app's last STATUS=.
    pub says: String,
}

/// A run that another one replaces.
#[derive(Clone, Copy)]
pub struct OldRun {
    pub number: u32,
    pub state: &'static str,
    /// Why it is being ended; `None` while it serves.
    pub ending: Option<&'static str>,
    /// As those of the instance.
    pub memory: u64,
    pub cpu: Duration,
}

impl InstanceStatus {
    /// The old run of a reload, while it serves: it goes on if the new one fails.
    pub fn serving_old(&self) -> Option<OldRun> {
        self.old.filter(|old| old.ending.is_none())
    }

    /// Memory and CPU time of the run that serves.
    pub fn usage_of_serving(&self) -> (u64, Duration) {
        self.serving_old().map_or((self.memory, self.cpu), |old| (old.memory, old.cpu))
    }
}

impl GuardStatus {
    /// Leaves out what may be long: what the apps say, and how the last runs ended.
    pub fn shorten(&mut self) {
        for instance in &mut self.instances {
            instance.says.clear();
            instance.last_run.clear();
        }
    }
}

impl InstanceStatus {
    fn state(&self) -> String {
        let mut text = state(self.state, self.ending);
        if let Some(left) = self.next_in {
            let _ = write!(text, ", next run in {}", show(whole(left)));
        } else if self.reloading && self.ending.is_none() {
            text.push_str(", reloading");
        }
        if let Some(old) = self.old {
            let _ = write!(text, "; run {} {}", old.number, state(old.state, old.ending));
        }
        text
    }
}

/// The state of a run, with the reason where it is being ended.
fn state(state: &str, ending: Option<&str>) -> String {
    ending.map_or_else(|| state.to_owned(), |why| format!("{state} ({why})"))
}

/// A few lines about guard, and a table with a row for each instance.
pub fn table(status: &GuardStatus) -> String {
    let ready = status.readiness.map_or_else(|why| format!("not ready: {why}"), |()| "ready".to_owned());
    let mut text = format!(
        "guard {}, pid {}, up {}\napp: {}\n{}{ready}\n",
        status.version,
        status.pid,
        show(whole(status.uptime)),
        printable(&status.app),
        if status.stopping { "stopping, " } else { "" },
    );
    if status.refused > 0 {
        let _ = writeln!(text, "{} datagrams of strangers refused", status.refused);
    }
    for held in status.held.iter().take(MOST_HELD) {
        let name = held.name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
        let state = match held.queue {
            _ if held.refusing => ", clients are refused".to_owned(),
            Some((waiting, most)) => format!(", {waiting} of {most} waiting"),
            None => String::new(),
        };
        let _ = writeln!(text, "held: {}{}{state}", printable(&held.address), printable(&name));
    }
    if let Some(more) = status.held.len().checked_sub(MOST_HELD).filter(|more| *more > 0) {
        let _ = writeln!(text, "held: {more} more");
    }
    let ended = status.instances.iter().filter(|instance| !instance.last_run.is_empty());
    for InstanceStatus { number, last_run, .. } in ended.take(MOST_ENDED) {
        let _ = writeln!(text, "last run of instance {number}: {}", printable(last_run));
    }
    const HEAD: [&str; 10] =
        ["instance", "run", "pid", "state", "up", "restarts", "last exit", "memory", "cpu", "status"];
    let number = |number: Option<u32>| number.map_or("-".to_owned(), |number| number.to_string());
    let rows = status.instances.iter().map(|instance| {
        let pid = instance.pid.and_then(|pid| u32::try_from(pid).ok());
        [
            instance.number.to_string(),
            number(instance.run),
            number(pid),
            instance.state(),
            instance.uptime.map_or("-".to_owned(), |up| show(whole(up))),
            instance.restarts.to_string(),
            instance.last_exit.clone().unwrap_or("-".to_owned()),
            instance.run.map_or("-".to_owned(), |_| mebibytes(instance.memory)),
            instance.run.map_or("-".to_owned(), |_| format!("{}s", show_seconds(instance.cpu))),
            printable(&instance.says),
        ]
    });
    let rows: Vec<[String; 10]> = [HEAD.map(str::to_owned)].into_iter().chain(rows).collect();
    let mut widths = [0; 10];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    text.push('\n');
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The most sockets in an answer, which is one datagram.
pub(super) const MOST_HELD: usize = 64;

/// The table says of no more instances than this how their last run ended; JSON has all.
const MOST_ENDED: usize = 20;

/// One JSON object (RFC 8259). Times are in seconds, memory is in bytes, and unknown values are null.
pub fn json(status: &GuardStatus) -> String {
    object(status, &format!(r#""app":{},"#, json_string(&status.app)))
}

/// The same without the command line, which may hold secrets.
pub fn json_without_app(status: &GuardStatus) -> String {
    object(status, "")
}

fn object(status: &GuardStatus, app: &str) -> String {
    let optional = |value: Option<String>| value.unwrap_or("null".to_owned());
    let known = |text: &str| if text.is_empty() { "null".to_owned() } else { json_string(text) };
    let instances = status.instances.iter().map(|instance| {
        format!(
            r#"{{"instance":{},"run":{},"pid":{},"state":{},"ending":{},"uptime":{},"next_in":{},"restarts":{},"last_exit":{},"last_run":{},"memory":{},"cpu":{},"reloading":{},"status":{},"old":{}}}"#,
            instance.number,
            optional(instance.run.map(|run| run.to_string())),
            optional(instance.pid.map(|pid| pid.to_string())),
            json_string(instance.state),
            optional(instance.ending.map(json_string)),
            optional(instance.uptime.map(show_seconds)),
            optional(instance.next_in.map(show_seconds)),
            instance.restarts,
            optional(instance.last_exit.as_deref().map(json_string)),
            known(&instance.last_run),
            optional(instance.run.map(|_| instance.memory.to_string())),
            optional(instance.run.map(|_| show_seconds(instance.cpu))),
            instance.reloading,
            known(&instance.says),
            optional(instance.old.map(|old| format!(
                r#"{{"run":{},"state":{},"ending":{}}}"#,
                old.number,
                json_string(old.state),
                optional(old.ending.map(json_string)),
            ))),
        )
    });
    let held = status.held.iter().take(MOST_HELD).map(|held| {
        format!(
            r#"{{"address":{},"name":{},"waiting":{},"limit":{},"refusing":{}}}"#,
            json_string(&held.address),
            optional(held.name.as_deref().map(json_string)),
            optional(held.queue.map(|(waiting, _)| waiting.to_string())),
            optional(held.queue.map(|(_, limit)| limit.to_string())),
            held.refusing,
        )
    });
    format!(
        r#"{{"version":{},"pid":{},"uptime":{},{app}"ready":{},"why":{},"stopping":{},"refused":{},"held":[{}],"instances":[{}]}}"#,
        json_string(status.version),
        status.pid,
        show_seconds(status.uptime),
        status.readiness.is_ok(),
        optional(status.readiness.err().map(json_string)),
        status.stopping,
        status.refused,
        held.collect::<Vec<_>>().join(","),
        instances.collect::<Vec<_>>().join(","),
    ) + "\n"
}

/// Cuts fractions of a second from times of a minute or more.
fn whole(time: Duration) -> Duration {
    if time.as_secs() < 60 { time } else { Duration::from_secs(time.as_secs()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> GuardStatus {
        let instance = InstanceStatus {
            number: 0,
            run: Some(3),
            runs: 3,
            pid: Some(17),
            state: "ready",
            ending: None,
            old: None,
            uptime: Some(Duration::from_secs(3_905)),
            next_in: None,
            restarts: 2,
            last_exit: Some("SIGSEGV".to_owned()),
            last_run: "run 2 died of SIGSEGV after 2s".to_owned(),
            memory: 54 * 1024 * 1024 + 300_000,
            cpu: Duration::from_millis(1_250),
            reloading: false,
            says: "up \u{1b}[31m\"red\"".to_owned(),
        };
        let waiting = InstanceStatus {
            number: 1,
            run: None,
            pid: None,
            state: "backoff",
            ending: None,
            old: None,
            uptime: None,
            next_in: Some(Duration::from_millis(350)),
            last_exit: None,
            last_run: String::new(),
            says: String::new(),
            ..status_of(&instance)
        };
        GuardStatus {
            version: "1.2.3",
            pid: 1,
            uptime: Duration::from_secs(4_000),
            app: "node server.js".to_owned(),
            readiness: Err("the app is between two runs"),
            stopping: false,
            refused: 0,
            held: vec![HeldStatus {
                address: "[::]:80".to_owned(),
                name: Some("web".to_owned()),
                queue: Some((3, 4096)),
                refusing: false,
            }],
            desired: 2,
            instances: vec![instance, waiting],
        }
    }

    fn status_of(instance: &InstanceStatus) -> InstanceStatus {
        InstanceStatus { last_exit: None, last_run: String::new(), says: String::new(), ..*instance }
    }

    #[test]
    fn the_table_lines_up_and_shows_no_escapes() {
        let expected = "\
guard 1.2.3, pid 1, up 1h6m40s
app: node server.js
not ready: the app is between two runs
held: [::]:80 (web), 3 of 4096 waiting
last run of instance 0: run 2 died of SIGSEGV after 2s

instance  run  pid  state                       up      restarts  last exit  memory  cpu    status
0         3    17   ready                       1h5m5s  2         SIGSEGV    54.2M   1.25s  up \\u{1b}[31m\"red\"
1         -    -    backoff, next run in 350ms  -       2         -          -       -
";
        assert_eq!(table(&status()), expected);
    }

    #[test]
    fn json_has_seconds_bytes_and_null() {
        let text = json(&status());
        for part in [
            r#""pid":1,"uptime":4000,"app":"node server.js","ready":false,"why":"the app is between two runs""#,
            r#""held":[{"address":"[::]:80","name":"web","waiting":3,"limit":4096,"refusing":false}]"#,
            r#""run":3,"pid":17,"state":"ready","ending":null,"uptime":3905,"next_in":null"#,
            r#""last_exit":"SIGSEGV","last_run":"run 2 died of SIGSEGV after 2s","memory":56923104,"cpu":1.25,"reloading":false,"status":"up \u001b[31m\"red\"""#,
            r#""run":null,"pid":null,"state":"backoff","ending":null,"uptime":null,"next_in":0.35"#,
            r#""last_exit":null,"last_run":null,"memory":null,"cpu":null,"reloading":false,"status":null,"old":null"#,
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
