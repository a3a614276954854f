//! The URL that `guard probe` and a health check take: `http://HOST[:PORT][/PATH]`, `http+unix:///SOCKET[:/PATH]` or
//! `tcp://HOST:PORT`.

use crate::signal::number;
use std::fmt;

/// The forms that a URL may have, for messages.
pub const FORMS: &str = "http://HOST[:PORT][/PATH], http+unix:///SOCKET[:/PATH] or tcp://HOST:PORT";

/// A server, and for HTTP the path to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub server: Server,
    /// Path and query of an HTTP request; `None` for TCP, where an accepted connection is enough.
    pub path: Option<String>,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// A name or an address, IPv6 without brackets, and a port.
    Network(String, u16),
    /// The path of a unix stream socket.
    Socket(String),
}

impl Target {
    /// Reads a URL (RFC 3986), and refuses the parts that a probe cannot use.
    pub fn parse(text: &str) -> Result<Target, String> {
        if text.chars().any(|character| character.is_control() || character.is_whitespace()) {
            return Err("a URL has no spaces or control characters".to_owned());
        }
        let split = text.split_once(':').and_then(|(scheme, rest)| Some((scheme, rest.strip_prefix("//")?)));
        let (scheme, rest) = split.ok_or("no scheme such as http://")?;
        let http = match scheme.to_ascii_lowercase().as_str() {
            "http" => true,
            "tcp" => false,
            "http+unix" => return Target::of_socket(rest),
            "https" => return Err("guard speaks no TLS".to_owned()),
            _ => return Err(format!("unknown scheme {scheme:?}")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if path.contains('#') {
            return Err("a probe sends no fragment (#)".to_owned());
        }
        if !http && !path.is_empty() {
            return Err("tcp:// takes no path".to_owned());
        }
        let (host, port) = parse_authority(authority)?;
        let port = match port {
            Some(port) => number(port).filter(|&port| port > 0).ok_or("the port is not a number from 1 to 65535")?,
            None if http => 80,
            None => return Err("no port".to_owned()),
        };
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Target { server: Server::Network(host.to_owned(), port), path: http.then(|| format!("{slash}{path}")) })
    }

    /// Reads `/SOCKET[:/PATH]`.
    fn of_socket(text: &str) -> Result<Target, String> {
        let (socket, path) = text.split_once(':').unwrap_or((text, "/"));
        if !socket.starts_with('/') || socket.len() < 2 {
            return Err("the path of the socket begins with /".to_owned());
        }
        if !path.starts_with('/') {
            return Err("only :/PATH may follow the socket".to_owned());
        }
        if text.contains('#') {
            return Err("a probe sends no fragment (#)".to_owned());
        }
        Ok(Target { server: Server::Socket(socket.to_owned()), path: Some(path.to_owned()) })
    }

    /// The value of HTTP's Host field, which names a port only if it is not 80 (RFC 9110, 7.2). A server
    /// behind a unix socket has no name but `localhost`.
    pub fn authority(&self) -> String {
        match &self.server {
            Server::Network(host, 80) => bracketed(host),
            Server::Network(host, port) => format!("{}:{port}", bracketed(host)),
            Server::Socket(_) => "localhost".to_owned(),
        }
    }
}

/// A host as a URL writes it.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Reads a name for HTTP's Host field (RFC 9110, 7.2).
pub fn parse_host(text: &str) -> Result<String, String> {
    let is_wrong = |character: char| character.is_control() || character.is_whitespace() || "/?#@".contains(character);
    if text.is_empty() || text.contains(is_wrong) {
        Err("not the name of a host".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// Host and port, IPv6 in brackets.
fn parse_authority(text: &str) -> Result<(&str, Option<&str>), String> {
    if text.contains('@') {
        return Err("a probe sends no user (@)".to_owned());
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("[ is not closed")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| format!("[{host}] is not an IPv6 address"))?;
            let port =
                if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or("only :PORT may follow ]")?) };
            (host, port)
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => return Err("an IPv6 address takes brackets".to_owned()),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() { Err("no host".to_owned()) } else { Ok((host, port)) }
}

/// As [`Target::parse`] reads it.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.server, &self.path) {
            (Server::Network(..), Some(path)) => write!(f, "http://{}{path}", self.authority()),
            (Server::Network(host, port), None) => write!(f, "tcp://{}:{port}", bracketed(host)),
            (Server::Socket(socket), path) => write!(f, "http+unix://{socket}:{}", path.as_deref().unwrap_or("/")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> (String, u16, Option<String>) {
        let target = Target::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(Target::parse(&target.to_string()), Ok(target.clone()), "{target} reads back");
        let Server::Network(host, port) = target.server else { panic!("{text}: a socket") };
        (host, port, target.path)
    }

    #[test]
    fn a_socket_has_a_path_of_its_own() {
        for (text, socket, path) in [
            ("http+unix:///run/app.sock:/health?x=y:z", "/run/app.sock", "/health?x=y:z"),
            ("HTTP+UNIX:///run/app.sock", "/run/app.sock", "/"),
        ] {
            let target = Target::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(Target::parse(&target.to_string()), Ok(target.clone()), "{target} reads back");
            assert_eq!(target.authority(), "localhost");
            assert_eq!(target, Target { server: Server::Socket(socket.to_owned()), path: Some(path.to_owned()) });
        }
    }

    #[test]
    fn a_host_is_one_word() {
        assert!(["example.com", "a:8080", "[::1]"].iter().all(|host| parse_host(host).is_ok()));
        assert!(["", "a b", "a/b", "a\r\nX: y", "\u{1}"].iter().all(|host| parse_host(host).is_err()));
    }

    #[test]
    fn urls_are_read() {
        for (text, host, port, path) in [
            ("http://localhost", "localhost", 80, Some("/")),
            ("http://localhost:8080/health?deep=1", "localhost", 8080, Some("/health?deep=1")),
            ("http://127.0.0.1:80/", "127.0.0.1", 80, Some("/")),
            ("http://[::1]:3000/x", "::1", 3000, Some("/x")),
            ("http://[::1]", "::1", 80, Some("/")),
            ("http://a?b", "a", 80, Some("/?b")),
            ("tcp://db:5432", "db", 5432, None),
            ("tcp://[::1]:65535", "::1", 65535, None),
        ] {
            assert_eq!(parse(text), (host.to_owned(), port, path.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn a_url_that_a_probe_cannot_use_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "no scheme"),
            ("localhost:80", "no scheme"),
            ("https://localhost", "TLS"),
            ("ftp://localhost", "unknown scheme \"ftp\""),
            ("http://", "no host"),
            ("http://:80/", "no host"),
            ("http://a:0", "port"),
            ("http://a:65536", "port"),
            ("http://a:", "port"),
            ("http://a:+80", "port"),
            ("tcp://a", "no port"),
            ("tcp://a:1/x", "no path"),
            ("http://user@a/", "user"),
            ("http://a/#b", "fragment"),
            ("http://::1/", "brackets"),
            ("http://[::1/", "not closed"),
            ("http://[a]/", "not an IPv6"),
            ("http://[::1]80/", "only :PORT"),
            ("http+unix://", "begins with /"),
            ("http+unix://run/app.sock", "begins with /"),
            ("http+unix:///run/app.sock:health", "only :/PATH"),
            ("http+unix:///run/app.sock:/a#b", "fragment"),
            ("http://a/ b", "spaces"),
            ("http://a/\r\nX: y", "spaces"),
        ] {
            let error = Target::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_reads_back(text in "(http|tcp|http\\+unix)?(://)?\\PC{0,30}") {
            if let Ok(target) = Target::parse(&text) {
                prop_assert_eq!(Target::parse(&target.to_string()), Ok(target));
            }
        }
    }
}
