//! One line for each event: the record's message is the name of the event, and its keys and values follow.

use crate::sys::clock::timestamp;
use crate::text::cut;
use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};
use std::fmt::Write;

/// Longer values are cut, so that a line fits into PIPE_BUF and a pipe takes it as a whole (`pipe(7)`).
const LONGEST_VALUE: usize = 400;

/// `guard time=… level=info event=start key=value …`, in the manner of logfmt.
pub(super) fn text(record: &Record) -> String {
    let mut line = format!("guard time={} level={} event={}", timestamp(), level(record), record.args());
    let mut append = |key: &str, value: &Value| {
        let value = shorten(value.to_string());
        let plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\=".contains(&byte));
        let value = if plain { value } else { json_string(&value) };
        let _ = write!(line, " {key}={value}");
    };
    let _ = record.key_values().visit(&mut Pairs(&mut append));
    line + "\n"
}

/// The same as a JSON object (RFC 8259).
pub(super) fn json(record: &Record) -> String {
    let mut line = format!(r#"{{"time":"{}","level":"{}","event":"{}""#, timestamp(), level(record), record.args());
    let mut append = |key: &str, value: &Value| {
        let value =
            value.to_u64().map_or_else(|| json_string(&shorten(value.to_string())), |number| number.to_string());
        let _ = write!(line, ",{}:{value}", json_string(key));
    };
    let _ = record.key_values().visit(&mut Pairs(&mut append));
    line + "}\n"
}

struct Pairs<'a>(&'a mut dyn FnMut(&str, &Value));

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if !is_null(&value) {
            (self.0)(key.as_str(), &value);
        }
        Ok(())
    }
}

/// A key without a value does not apply, and is left out.
fn is_null(value: &Value) -> bool {
    struct Null(bool);
    impl VisitValue<'_> for Null {
        fn visit_any(&mut self, _: Value) -> Result<(), Error> {
            self.0 = false;
            Ok(())
        }

        fn visit_null(&mut self) -> Result<(), Error> {
            self.0 = true;
            Ok(())
        }
    }
    let mut null = Null(false);
    value.visit(&mut null).is_ok() && null.0
}

fn level(record: &Record) -> &'static str {
    match record.level() {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// Cuts a long text, and marks the cut with `…`.
pub fn shorten(mut value: String) -> String {
    if value.len() > LONGEST_VALUE {
        value.truncate(cut(&value, LONGEST_VALUE).len());
        value.push('…');
    }
    value
}

/// A JSON string (RFC 8259, 7). It escapes more than JSON asks for: every control character, C1 included, so that none
/// reaches a terminal.
pub(super) fn json_string(value: &str) -> String {
    let mut quoted = String::from("\"");
    for character in value.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: fn(&Record) -> String) -> String {
        let app = Value::from("sh -c \"a\nb\"\u{1b}");
        let pairs: [(&str, Value); 4] =
            [("instance", Value::null()), ("code", Value::from(3)), ("app", app), ("empty", Value::from(""))];
        let pairs = &pairs[..];
        let args = format_args!("exit");
        let record = Record::builder().args(args).level(Level::Warn).key_values(&pairs).build();
        let line = format(&record);
        // The time is the one thing that changes.
        let (head, tail) = line.split_once(&line[line.find("20").expect("a year")..][..24]).expect("a time");
        format!("{head}TIME{tail}")
    }

    #[test]
    fn a_value_that_a_reader_could_mistake_is_quoted() {
        let expected = "guard time=TIME level=warn event=exit code=3 app=\"sh -c \\\"a\\nb\\\"\\u001b\" empty=\"\"\n";
        assert_eq!(line(text), expected);
    }

    #[test]
    fn json_has_numbers_as_numbers() {
        let expected = concat!(
            r#"{"time":"TIME","level":"warn","event":"exit","code":3,"#,
            r#""app":"sh -c \"a\nb\"\u001b","empty":""}"#,
            "\n"
        );
        assert_eq!(line(json), expected);
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let value = shorten("ä".repeat(1000));
        assert!(value.len() <= LONGEST_VALUE + 3 && value.ends_with('…'));
    }
}
