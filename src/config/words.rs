//! Splits a command into words as a shell would, quotes and backslashes included, and runs no shell.

/// The words of `text` by the quoting rules of POSIX (Shell Command Language, 2.2); nothing is expanded.
pub fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next().ok_or("a single quote is not closed")? {
                        '\'' => break,
                        quoted => word.push(quoted),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next().ok_or("a double quote is not closed")? {
                        '"' => break,
                        '\\' => match characters.next().ok_or("a double quote is not closed")? {
                            '\n' => {}
                            escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        quoted => word.push(quoted),
                    }
                }
            }
            '\\' => match characters.next().ok_or("nothing follows the last backslash")? {
                '\n' => {}
                escaped => word.get_or_insert_default().push(escaped),
            },
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Ok(words)
}

/// The words as a line that splits into them again.
pub fn join(words: &[String]) -> String {
    let plain = |word: &String| !word.is_empty() && !word.contains([' ', '\t', '\n', '\'', '"', '\\']);
    let quoted =
        words.iter().map(|word| if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn splits_as_a_shell_would() {
        for (text, words) in [
            ("", vec![]),
            ("  curl  -X POST ", vec!["curl", "-X", "POST"]),
            ("echo 'a b' \"c d\" e\\ f", vec!["echo", "a b", "c d", "e f"]),
            ("a'b'\"c\"d", vec!["abcd"]),
            ("'' \"\"", vec!["", ""]),
            (r#""a\"b\\c\d""#, vec![r#"a"b\c\d"#]),
            (r"'a\b'", vec![r"a\b"]),
            ("$HOME *", vec!["$HOME", "*"]),
            ("a\\\nb", vec!["ab"]),
        ] {
            assert_eq!(
                split(text).as_deref(),
                Ok(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()[..]),
                "{text}"
            );
        }
    }

    #[test]
    fn an_open_quote_is_an_error() {
        for text in ["'a", "\"a", "a\\", "\"a\\"] {
            assert!(split(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_word_comes_back_whole(word in "[^']*") {
            prop_assert_eq!(split(&format!("'{word}'")), Ok(vec![word]));
        }

        #[test]
        fn what_is_joined_splits_again(words in prop::collection::vec("\\PC*", 0..5)) {
            prop_assert_eq!(split(&join(&words)), Ok(words));
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = split(&text);
        }
    }
}
