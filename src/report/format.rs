//! One line for each event: the record's message is the name of the event, and its keys and values follow.

use crate::config::duration::{show, show_seconds};
use crate::sys::clock::timestamp;
use crate::text::cut;
use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{Level, Record};
use std::fmt::Write;
use std::time::Duration;

/// Longer values are cut, so that a line fits into PIPE_BUF and a pipe takes it as a whole (`pipe(7)`).
const LONGEST_VALUE: usize = 400;

/// Most lines are no longer, in bytes.
const USUAL_LINE: usize = 256;

/// A time as a value of the log: the text has it with its unit, JSON as a number of seconds. `log` has no such type of its own;
/// nothing else that guard logs is a u128 or an i128.
pub fn time(time: Duration) -> Value<'static> {
    Value::from(time.as_millis())
}

/// A size as a value of the log: the text has it in MiB, JSON in bytes.
pub fn size(bytes: u64) -> Value<'static> {
    Value::from(i128::from(bytes))
}

/// `guard time=… level=info event=start key=value …`, in the manner of logfmt.
pub(super) fn text(record: &Record) -> String {
    let mut line = String::with_capacity(USUAL_LINE);
    let _ = write!(line, "guard time={} level={} event={}", timestamp(), level(record), record.args());
    each_pair(record, &mut |key, field| {
        let value = match field {
            Field::Text(value) => value,
            Field::Number(number) => number.to_string(),
            Field::Time(time) => show(time),
            Field::Size(bytes) => mebibytes(bytes),
        };
        let plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\=".contains(&byte));
        let value = if plain { value } else { json_string(&value) };
        let _ = write!(line, " {key}={value}");
    });
    line.push('\n');
    line
}

/// The same as a JSON object (RFC 8259). By its field `logger` readers know it from objects of the app's.
pub(super) fn json(record: &Record) -> String {
    let (time, level) = (timestamp(), level(record));
    let mut line = format!(r#"{{"logger":"guard","time":"{time}","level":"{level}","event":"{}""#, record.args());
    each_pair(record, &mut |key, field| {
        let value = match field {
            Field::Text(value) => json_string(&value),
            Field::Number(number) => number.to_string(),
            Field::Time(time) => show_seconds(time),
            Field::Size(bytes) => bytes.to_string(),
        };
        let _ = write!(line, ",{}:{value}", json_string(key));
    });
    line + "}\n"
}

/// A value as both forms of the log have it.
enum Field {
    Text(String),
    Number(i64),
    Time(Duration),
    Size(u64),
}

fn each_pair(record: &Record, tell: &mut dyn FnMut(&str, Field)) {
    let _ = record.key_values().visit(&mut Pairs(tell));
}

struct Pairs<'a>(&'a mut dyn FnMut(&str, Field));

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let mut reader = Reader(None);
        value.visit(&mut reader)?;
        if let Some(field) = reader.0 {
            (self.0)(key.as_str(), field);
        }
        Ok(())
    }
}

/// Reads a value. A key without one does not apply, and is left out.
struct Reader(Option<Field>);

impl VisitValue<'_> for Reader {
    fn visit_any(&mut self, value: Value) -> Result<(), Error> {
        // Numbers have functions of their own. Told so, the compiler leaves out how floats and numbers of 128 bits would be
        // written, which takes 11 KiB.
        if value.to_f64().is_none() && value.to_u128().is_none() && value.to_i128().is_none() {
            self.0 = Some(Field::Text(shorten(value.to_string())));
        }
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn visit_u64(&mut self, number: u64) -> Result<(), Error> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }

    fn visit_i64(&mut self, number: i64) -> Result<(), Error> {
        self.0 = Some(Field::Number(number));
        Ok(())
    }

    fn visit_u128(&mut self, milliseconds: u128) -> Result<(), Error> {
        self.0 = Some(Field::Time(Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX))));
        Ok(())
    }

    fn visit_i128(&mut self, bytes: i128) -> Result<(), Error> {
        self.0 = Some(Field::Size(u64::try_from(bytes).unwrap_or(u64::MAX)));
        Ok(())
    }
}

/// Bytes in MiB, to a tenth: `54.2M`.
pub fn mebibytes(bytes: u64) -> String {
    const MIB: u64 = 1024 * 1024;
    format!("{}.{}M", bytes / MIB, bytes % MIB * 10 / MIB)
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
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
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
        let pairs: [(&str, Value); 6] = [
            ("instance", Value::null()),
            ("code", Value::from(3)),
            ("app", app),
            ("empty", Value::from("")),
            ("uptime", time(Duration::from_millis(61_250))),
            ("max_rss", size(5_767_168)),
        ];
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
        let expected = "guard time=TIME level=warn event=exit code=3 app=\"sh -c \\\"a\\nb\\\"\\u001b\" empty=\"\" uptime=1m1.25s max_rss=5.5M\n";
        assert_eq!(line(text), expected);
    }

    #[test]
    fn json_has_numbers_as_numbers() {
        let expected = concat!(
            r#"{"logger":"guard","time":"TIME","level":"warn","event":"exit","code":3,"#,
            r#""app":"sh -c \"a\nb\"\u001b","empty":"","uptime":61.25,"max_rss":5767168}"#,
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
