//! Variables of the environment, read in place: a process may be given hundreds, and copies would slow the start.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;

/// A variable, as `NAME=value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    text: &'static CStr,
    /// Where the name ends.
    name: usize,
}

impl Entry {
    /// Splits the text at its first `=` after the first character; without one, all of it is the name.
    pub fn new(text: &'static CStr) -> Entry {
        let bytes = text.to_bytes();
        let name = bytes.iter().skip(1).position(|&byte| byte == b'=').map_or(bytes.len(), |index| index + 1);
        Entry { text, name }
    }

    /// The whole entry.
    pub fn text(self) -> &'static CStr {
        self.text
    }

    pub fn name(self) -> &'static OsStr {
        OsStr::from_bytes(&self.text.to_bytes()[..self.name])
    }

    /// Whether this is its name. The lengths tell nearly all names apart, and cost least.
    pub fn is(self, name: &str) -> bool {
        self.name == name.len() && self.text.to_bytes().starts_with(name.as_bytes())
    }

    pub fn value(self) -> &'static OsStr {
        OsStr::from_bytes(self.text.to_bytes().get(self.name + 1..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_name_and_a_value() {
        for (text, name, value) in [
            (c"A=b", "A", "b"),
            (c"A=", "A", ""),
            (c"A=b=c", "A", "b=c"),
            (c"=A=b", "=A", "b"),
            (c"A", "A", ""),
            (c"", "", ""),
        ] {
            let entry = Entry::new(text);
            assert_eq!((entry.name(), entry.value()), (name.as_ref(), value.as_ref()), "{text:?}");
            assert!(entry.is(name) && !entry.is("B"), "{text:?}");
        }
    }
}
