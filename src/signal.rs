//! Signals by name and number, real-time ones included: `nix` and `signal-hook` know only the first 31.

use std::fmt;
use std::str::FromStr;

/// A signal number that the kernel takes, 1 to 64 (`signal(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(u8);

/// The standard signals of x86, Arm and most other architectures, in the order of their numbers from 1 (`signal(7)`).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// Other names in use for the same numbers (`signal(7)`).
const ALIASES: [(&str, Signal); 4] =
    [("IOT", Signal(6)), ("CLD", Signal::CHLD), ("POLL", Signal::IO), ("UNUSED", Signal(31))];

/// The first real-time signal as glibc and Docker count; musl's own constant says 35.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

impl Signal {
    pub const HUP: Signal = Signal(1);
    pub const INT: Signal = Signal(2);
    pub const QUIT: Signal = Signal(3);
    pub const ABRT: Signal = Signal(6);
    pub const KILL: Signal = Signal(9);
    pub const PIPE: Signal = Signal(13);
    pub const TERM: Signal = Signal(15);
    pub const CHLD: Signal = Signal(17);
    pub const CONT: Signal = Signal(18);
    pub const STOP: Signal = Signal(19);
    pub const TSTP: Signal = Signal(20);
    pub const TTIN: Signal = Signal(21);
    pub const TTOU: Signal = Signal(22);
    pub const XFSZ: Signal = Signal(25);
    pub const WINCH: Signal = Signal(28);
    pub const IO: Signal = Signal(29);

    /// What the terminal sends for Ctrl-C, for Ctrl-\, and when it is closed (`termios(3)`).
    pub const TERMINAL_ENDS: [Signal; 3] = [Signal::INT, Signal::QUIT, Signal::HUP];

    /// What the terminal stops a process with: for Ctrl-Z, and for a read or a write from the background (`termios(3)`).
    pub const TERMINAL_STOPS: [Signal; 3] = [Signal::TSTP, Signal::TTIN, Signal::TTOU];

    /// The signal of this number, if there is one.
    pub fn from_number(number: i32) -> Option<Signal> {
        u8::try_from(number).ok().filter(|number| (1..=RTMAX).contains(number)).map(Signal)
    }

    /// The number that the kernel uses.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// Parses a number that is written in digits alone; Rust's own parser takes a sign too.
pub fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            number @ 1..=31 => write!(f, "SIG{}", NAMES[usize::from(number) - 1]),
            RTMIN => f.write_str("SIGRTMIN"),
            RTMAX => f.write_str("SIGRTMAX"),
            number if number > RTMIN => write!(f, "SIGRTMIN+{}", number - RTMIN),
            number => write!(f, "SIG{number}"),
        }
    }
}

impl FromStr for Signal {
    type Err = String;

    /// Takes `TERM`, `SIGTERM`, `15`, `RTMIN+3` and `RTMAX-2`, in any case.
    fn from_str(text: &str) -> Result<Signal, String> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let offset = |rest: &str, sign: char| match rest {
            "" => Some(0),
            _ => number(rest.strip_prefix(sign)?),
        };
        let found = if let Some(rest) = name.strip_prefix("RTMIN") {
            offset(rest, '+').and_then(|up| RTMIN.checked_add(up))
        } else if let Some(rest) = name.strip_prefix("RTMAX") {
            offset(rest, '-').and_then(|down| RTMAX.checked_sub(down)).filter(|&number| number >= RTMIN)
        } else if let Some(index) = NAMES.iter().position(|&known| known == name) {
            u8::try_from(index + 1).ok()
        } else if let Some((_, signal)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
            Some(signal.0)
        } else {
            number(name)
        };
        found
            .and_then(|number| Signal::from_number(i32::from(number)))
            .ok_or_else(|| format!("no signal is called {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_prefixes_say_the_same() {
        for text in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(text.parse(), Ok(Signal::TERM), "{text}");
        }
        assert_eq!("CLD".parse(), Ok(Signal::CHLD));
    }

    #[test]
    fn real_time_signals_count_from_34_whatever_the_c_library() {
        assert_eq!("RTMIN".parse(), Ok(Signal(34)));
        assert_eq!("SIGRTMIN+3".parse(), Ok(Signal(37)));
        assert_eq!("RTMAX-1".parse(), Ok(Signal(63)));
        assert_eq!("64".parse(), Ok(Signal(64)));
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "SIG",
            "0",
            "65",
            "-1",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN-1",
            "TERMINATE",
            "RTMIN+",
            "256",
            "+5",
            "RTMIN++3",
        ] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_signal_reads_back_as_itself() {
        for signal in (1..=RTMAX).map(Signal) {
            assert_eq!(signal.to_string().parse(), Ok(signal), "{signal}");
        }
    }
}
