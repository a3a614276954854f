//! How `guard status` and the like talk with the guard that runs: a datagram each way, and the first word of the answer says
//! which kind it is. A request is `guard 1 VERB`, where 1 is the version of the protocol.

use crate::config::Scale;
use crate::text::printable_lines;
use std::time::Duration;

/// Sockets that guards of one mount namespace may have at a time.
pub const NAMES: u32 = 16;

/// The longest answer, in bytes. The kernel may allow less: twice net.core.wmem_max (`socket(7)`).
pub const LONGEST_ANSWER: usize = 512 * 1024;

/// The abstract name of a control socket: guards that share a mount namespace, whose inode this is, count from 1.
pub fn name(mount_namespace: u64, number: u32) -> String {
    match number {
        1 => format!("guard/{mount_namespace}"),
        _ => format!("guard/{mount_namespace}/{number}"),
    }
}

/// Whether `own` trusts a peer: root, or the same user. guard asks it of its clients, and clients of guard.
pub fn is_trusted(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Who is there: `yes PID APP`.
    Ping,
    /// `yes` if the app can take work.
    Ready,
    /// `yes` if guard has not given up.
    Health,
    /// `text`, for people.
    Status,
    /// `text`, for programs.
    StatusJson,
    /// `text`: the settings in force.
    Settings,
    /// `wait`, and `yes` when the last run has ended.
    Stop,
    /// `wait`, and `yes` when the next run is ready, or `no`.
    Restart,
    /// `wait`, and `yes` when new runs have replaced all old ones, or `no`.
    Reload,
    /// `wait`, and `yes` when the new instances are ready and the others have ended, or `no`. The number follows the verb.
    Scale(Scale),
}

const SCALE: &str = "scale ";

const VERBS: [(Request, &str); 9] = [
    (Request::Ping, "ping"),
    (Request::Ready, "ready"),
    (Request::Health, "health"),
    (Request::Status, "status"),
    (Request::StatusJson, "status-json"),
    (Request::Settings, "settings"),
    (Request::Stop, "stop"),
    (Request::Restart, "restart"),
    (Request::Reload, "reload"),
];

impl Request {
    /// The datagram.
    pub fn to_text(self) -> String {
        if let Request::Scale(scale) = self {
            return format!("guard 1 {SCALE}{scale}");
        }
        let (_, verb) = VERBS.iter().find(|(request, _)| *request == self).unwrap_or(&VERBS[0]);
        format!("guard 1 {verb}")
    }

    /// What a datagram asks for; `None` if this version does not know.
    pub fn parse(bytes: &[u8]) -> Option<Request> {
        let verb = std::str::from_utf8(bytes).ok()?.strip_prefix("guard 1 ")?;
        if let Some(scale) = verb.strip_prefix(SCALE) {
            return Scale::parse(scale).ok().map(Request::Scale);
        }
        VERBS.iter().find(|(_, known)| *known == verb).map(|(request, _)| *request)
    }
}

/// An answer, with a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Yes(String),
    No(String),
    /// It was begun; the outcome follows within this time, if it is limited.
    Wait(Option<Duration>),
    /// The client may not ask.
    Refused(String),
    /// The text that was asked for.
    Text(String),
}

/// What a question has for an answer, and why not.
impl From<Result<&str, String>> for Reply {
    fn from(answer: Result<&str, String>) -> Reply {
        answer.map_or_else(Reply::No, |yes| Reply::Yes(yes.to_owned()))
    }
}

impl Reply {
    /// The datagram.
    pub fn to_text(&self) -> String {
        match self {
            Reply::Yes(text) => format!("yes {text}"),
            Reply::No(text) => format!("no {text}"),
            Reply::Wait(Some(time)) => format!("wait {}", u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            Reply::Wait(None) => "wait none".to_owned(),
            Reply::Refused(text) => format!("refused {text}"),
            Reply::Text(text) => format!("text {text}"),
        }
    }

    /// What a datagram answers; `None` if it is no answer that this version knows. Control characters, which could change the
    /// reader's terminal, are escaped: root reads answers of every user.
    pub fn parse(bytes: &[u8]) -> Option<Reply> {
        let text = printable_lines(&String::from_utf8_lossy(bytes));
        let (word, rest) = text.split_once(' ')?;
        Some(match word {
            "yes" => Reply::Yes(rest.to_owned()),
            "no" => Reply::No(rest.to_owned()),
            "wait" if rest == "none" => Reply::Wait(None),
            "wait" => Reply::Wait(Some(Duration::from_millis(rest.parse().ok()?))),
            "refused" => Reply::Refused(rest.to_owned()),
            "text" => Reply::Text(rest.to_owned()),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_request_reads_back() {
        for (request, verb) in VERBS {
            assert_eq!(request.to_text(), format!("guard 1 {verb}"));
            assert_eq!(Request::parse(request.to_text().as_bytes()), Some(request));
        }
        for scale in ["4", "auto", "+1", "-1"].map(|text| Scale::parse(text).expect("a number")) {
            let text = format!("guard 1 scale {scale}");
            assert_eq!(Request::Scale(scale).to_text(), text);
            assert_eq!(Request::parse(text.as_bytes()), Some(Request::Scale(scale)));
        }
        for wrong in [
            "guard 1 scale",
            "guard 1 scale ",
            "guard 1 scale 0",
            "",
            "ready",
            "guard 2 ready",
            "guard 1 ",
            "guard 1 ready ",
            "guard 1 Ready",
            "guard 1 dance",
        ] {
            assert_eq!(Request::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn every_reply_reads_back() {
        let text = || "line\nand line".to_owned();
        for reply in [
            Reply::Yes(text()),
            Reply::No(String::new()),
            Reply::Wait(Some(Duration::from_millis(8_300))),
            Reply::Wait(None),
            Reply::Refused(text()),
            Reply::Text(text()),
        ] {
            assert_eq!(Reply::parse(reply.to_text().as_bytes()), Some(reply));
        }
        assert_eq!(Reply::parse(b"yes \x1b[31m\xc2\x9bred"), Some(Reply::Yes("\\u{1b}[31m\\u{9b}red".to_owned())));
        for wrong in ["", "yes", "maybe x", "wait", "wait soon", "wait -1", "wait 99999999999999999999"] {
            assert_eq!(Reply::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn root_and_the_same_user_are_trusted() {
        assert!(is_trusted(0, 1000) && is_trusted(1000, 1000));
        assert!(!is_trusted(1000, 0) && !is_trusted(1001, 1000));
    }

    #[test]
    fn names_count_from_one() {
        assert_eq!([name(42, 1), name(42, 2), name(42, 16)], ["guard/42", "guard/42/2", "guard/42/16"]);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in any::<Vec<u8>>()) {
            let _ = (Request::parse(&bytes), Reply::parse(&bytes));
        }
    }
}
