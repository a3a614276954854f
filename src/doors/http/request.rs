//! Reading a request, as far as guard needs it.

use httparse::{EMPTY_HEADER, Error, Request, Status};

/// Header fields that a request may have. guard reads none of them.
const MOST_FIELDS: usize = 64;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// As `guard health`.
    Livez,
    /// As `guard ready`.
    Readyz,
    /// For Prometheus.
    Metrics,
    /// As `guard status --json`.
    Status,
}

/// What there is of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Request { page: Page, head_only: bool },
    Unfinished,
}

/// Why there is no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed,
    Method,
    NoPage { head_only: bool },
    TooLong,
}

impl Refusal {
    /// The status line's end (RFC 9110, 15; RFC 6585, 5).
    pub(super) fn status(self) -> &'static str {
        match self {
            Refusal::Malformed => "400 Bad Request",
            Refusal::Method => "405 Method Not Allowed",
            Refusal::NoPage { .. } => "404 Not Found",
            Refusal::TooLong => "431 Request Header Fields Too Large",
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            Refusal::Malformed => "this is no HTTP request\n",
            Refusal::Method => "only GET and HEAD are taken\n",
            Refusal::NoPage { .. } => "the pages are /livez, /readyz, /metrics and /status\n",
            Refusal::TooLong => "the request is too long\n",
        }
    }
}

/// Reads the beginning of a request. The path alone counts, without its query; a body is not read.
pub(super) fn parse(head: &[u8]) -> Result<Parsed, Refusal> {
    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
    let mut request = Request::new(&mut fields);
    match request.parse(head) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) => return Ok(Parsed::Unfinished),
        Err(Error::TooManyHeaders) => return Err(Refusal::TooLong),
        Err(_) => return Err(Refusal::Malformed),
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        Some(_) | None => return Err(Refusal::Method),
    };
    let target = request.path.unwrap_or_default();
    let page = match path(target) {
        "/livez" => Page::Livez,
        "/readyz" => Page::Readyz,
        "/metrics" => Page::Metrics,
        "/status" => Page::Status,
        _ => return Err(Refusal::NoPage { head_only }),
    };
    Ok(Parsed::Request { page, head_only })
}

/// The path of a target, which may be a whole URL (RFC 9112, 3.2.2).
fn path(target: &str) -> &str {
    let target = target.split(['?', '#']).next().unwrap_or_default();
    let split = target.split_once(':').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("http"));
    match split.and_then(|(_, rest)| rest.strip_prefix("//")) {
        Some(rest) => rest.find('/').map_or("", |start| &rest[start..]),
        None => target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asks(page: Page, head_only: bool) -> Result<Parsed, Refusal> {
        Ok(Parsed::Request { page, head_only })
    }

    #[test]
    fn a_request_names_its_page() {
        for (text, expected) in [
            ("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", asks(Page::Livez, false)),
            ("HEAD /readyz HTTP/1.0\r\n\r\n", asks(Page::Readyz, true)),
            ("GET /metrics?name[]=up HTTP/1.1\r\n\r\n", asks(Page::Metrics, false)),
            ("GET /status HTTP/1.1\n\n", asks(Page::Status, false)),
            ("GET http://a:9901/livez?b HTTP/1.1\r\n\r\n", asks(Page::Livez, false)),
            ("GET HTTP://a/livez HTTP/1.1\r\n\r\n", asks(Page::Livez, false)),
            ("GET http://a HTTP/1.1\r\n\r\n", Err(Refusal::NoPage { head_only: false })),
            ("GET http://a?b=/livez HTTP/1.1\r\n\r\n", Err(Refusal::NoPage { head_only: false })),
            ("GET http://a#/livez HTTP/1.1\r\n\r\n", Err(Refusal::NoPage { head_only: false })),
            ("GET /status HTTP/1.1\r\n", Ok(Parsed::Unfinished)),
            ("", Ok(Parsed::Unfinished)),
            ("GET / HTTP/1.1\r\n\r\n", Err(Refusal::NoPage { head_only: false })),
            ("GET /livez/ HTTP/1.1\r\n\r\n", Err(Refusal::NoPage { head_only: false })),
            ("POST /livez HTTP/1.1\r\n\r\n", Err(Refusal::Method)),
            ("\u{16}\u{3}\u{1}", Err(Refusal::Malformed)),
            ("GET /livez HTTP/2.0\r\n\r\n", Err(Refusal::Malformed)),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn too_many_fields_are_refused() {
        let text = format!("GET /livez HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MOST_FIELDS + 1));
        assert_eq!(parse(text.as_bytes()), Err(Refusal::TooLong));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
