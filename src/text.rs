//! Text of unknown origin, made fit to be shown or kept.

/// The longest beginning of `text` that has at most `longest` bytes and ends between two characters.
pub fn cut(text: &str, longest: usize) -> &str {
    let end = (0..=longest.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

/// The same text with each control character escaped. It then controls no terminal, and looks like no other line.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The same for text of several lines, which stay lines.
pub fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(["aä", "aäb", "", "ää"].map(|text| cut(text, 2)), ["a", "a", "", "ä"]);
        assert_eq!(cut("abc", 3), "abc");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("up \u{1b}[31m\n\u{9b}1m\té"), "up \\u{1b}[31m\\n\\u{9b}1m\\té");
        assert_eq!(printable_lines("one\ntwo\u{7f}\r\n"), "one\ntwo\\u{7f}\\r\n");
    }
}
