//! GUARD_LISTEN: the sockets that guard opens for the app.

use super::list::each;
use crate::signal::number;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// What LISTEN_FDNAMES calls it.
    pub name: Option<String>,
    pub address: ListenAddress,
}

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    Tcp(TcpAddress),
    Unix(PathBuf),
}

/// Where a TCP socket listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpAddress {
    /// This port of every address of IPv4, and of IPv6 where there is any.
    Port(u16),
    Ip(SocketAddr),
}

impl TcpAddress {
    pub fn port(self) -> u16 {
        match self {
            TcpAddress::Port(port) => port,
            TcpAddress::Ip(address) => address.port(),
        }
    }

    /// Whether one of them includes the other, so that the kernel would refuse the second (`EADDRINUSE`).
    fn overlaps(self, other: TcpAddress) -> bool {
        self.port() == other.port()
            && match (self, other) {
                (TcpAddress::Port(_), _) | (_, TcpAddress::Port(_)) => true,
                (TcpAddress::Ip(a), TcpAddress::Ip(b)) => {
                    a.is_ipv4() == b.is_ipv4() && (a == b || a.ip().is_unspecified() || b.ip().is_unspecified())
                }
            }
    }
}

impl ListenAddress {
    fn overlaps(&self, other: &ListenAddress) -> bool {
        match (self, other) {
            (ListenAddress::Tcp(a), ListenAddress::Tcp(b)) => a.overlaps(*b),
            (ListenAddress::Tcp(_) | ListenAddress::Unix(_), _) => self == other,
        }
    }
}

/// The longest path of a unix socket, in bytes (`unix(7)`).
const LONGEST_PATH: usize = 107;

/// Reads a list of sockets, of which no two overlap.
pub(super) fn parse(text: &str) -> Result<Vec<Listen>, String> {
    let mut all: Vec<Listen> = Vec::new();
    each(text, &mut |entry| {
        let listen = parse_one(entry)?;
        if let Some(other) = all.iter().find(|other| other.address.overlaps(&listen.address)) {
            let is_same = other.address == listen.address;
            let twice = || format!("{} comes twice", listen.address);
            return Err(if is_same { twice() } else { format!("{} and {} overlap", other.address, listen.address) });
        }
        all.push(listen);
        Ok(())
    })?;
    Ok(all)
}

fn parse_one(entry: &str) -> Result<Listen, String> {
    let (name, rest) = match entry.split_once('=') {
        Some((name, rest)) if !name.starts_with("unix:") => (Some(name), rest),
        Some(_) | None => (None, entry),
    };
    // `sd_listen_fds_with_names(3)` divides names by colons.
    let is_name = |name: &str| name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    if let Some(name) = name.filter(|name| name.is_empty() || !is_name(name)) {
        return Err(format!("{name:?} is not a name"));
    }
    let address = if let Some(path) = rest.strip_prefix("unix:") {
        if !path.starts_with('/') {
            return Err(format!("{path:?} is not an absolute path"));
        }
        if path.len() > LONGEST_PATH {
            return Err(format!("{path:?} is longer than {LONGEST_PATH} bytes"));
        }
        ListenAddress::Unix(PathBuf::from(path))
    } else {
        ListenAddress::Tcp(parse_tcp(rest)?)
    };
    Ok(Listen { name: name.map(str::to_owned), address })
}

/// A port, or an IP address with one.
pub(super) fn parse_tcp(text: &str) -> Result<TcpAddress, String> {
    let address = match text.parse::<SocketAddr>() {
        Ok(address) => TcpAddress::Ip(address),
        Err(_) => {
            let port = Some(text).filter(|text| !text.is_empty()).and_then(number);
            TcpAddress::Port(port.ok_or_else(|| format!("{text:?} is not a port or an IP address with a port"))?)
        }
    };
    if address.port() == 0 { Err("0 is not a port".to_owned()) } else { Ok(address) }
}

/// In the form that the variables take.
impl fmt::Display for TcpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TcpAddress::Port(port) => port.fmt(f),
            TcpAddress::Ip(address) => address.fmt(f),
        }
    }
}

/// In the form that the variable takes.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// In the form that the variable takes.
pub(super) fn show(all: &[Listen]) -> String {
    let entry = |listen: &Listen| match &listen.name {
        Some(name) => format!("{name}={}", listen.address),
        None => listen.address.to_string(),
    };
    if all.is_empty() { "none".to_owned() } else { all.iter().map(entry).collect::<Vec<_>>().join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_read_and_shown() {
        for text in [
            "8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "127.0.0.1:80,127.0.0.2:80,[::]:80",
            "unix:/run/app.sock",
            "web=8080,unix:/a=b,x=unix:/a=c,1",
        ] {
            assert_eq!(parse(text).map(|all| show(&all)).as_deref(), Ok(text));
        }
        assert_eq!(parse(" a=80 , 81 ").map(|all| show(&all)).as_deref(), Ok("a=80,81"));
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "not a port"),
            ("0", "0 is not"),
            ("127.0.0.1:0", "0 is not"),
            ("65536", "not a port"),
            ("+80", "not a port"),
            ("localhost:80", "not a port"),
            ("::1:80", "not a port"),
            ("unix:app.sock", "absolute"),
            ("unix:", "absolute"),
            ("=80", "name"),
            ("a:b=80", "name"),
            ("a b=80", "name"),
            ("80,80", "twice"),
            ("a=80,b=80", "twice"),
            ("80,127.0.0.1:80", "80 and 127.0.0.1:80 overlap"),
            ("[::1]:80,[::]:80", "overlap"),
            (&format!("unix:/{}", "p".repeat(107)), "107 bytes"),
            ("80,,81", "not a port"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
