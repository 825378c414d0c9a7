//! Text from others made fit for one line of a log, an error or a table: bounded, without control characters.

use std::borrow::Cow;
use std::fmt::Write;

/// `text` with control characters escaped as in Rust, and cut after at most `max` bytes of it with a note of how much is
/// missing.
pub fn printable(text: &str, max: usize) -> Cow<'_, str> {
    let kept = &text[..text.floor_char_boundary(max)];
    if kept.len() == text.len() && !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(kept.len() + 32);
    for c in kept.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    if kept.len() < text.len() {
        // Writing to a string cannot fail.
        let _ = write!(line, "… ({} bytes more)", text.len() - kept.len());
    }
    Cow::Owned(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, max: usize, expected: &str) {
        assert_eq!(printable(text, max), expected);
    }

    #[test]
    fn one_bounded_line() {
        check("", 0, "");
        check("grüezi", 16, "grüezi");
        check("a\nb\tc\u{1b}[31m\u{7f}\0", 32, "a\\nb\\tc\\u{1b}[31m\\u{7f}\\u{0}");
        check("abcdef", 6, "abcdef");
        check("abcdef", 4, "abcd… (2 bytes more)");
        check("aü", 2, "a… (2 bytes more)");
        check("\n\n", 1, "\\n… (1 bytes more)");
    }

    #[test]
    fn what_needs_no_change_is_borrowed() {
        assert!(matches!(printable("plain", 5), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn the_result_is_one_line_and_begins_as_the_text_does(text in any::<String>(), max in 0_usize..64) {
            let line = printable(&text, max);
            prop_assert!(!line.contains(char::is_control));
            // The longest escape, \u{10ffff}, has ten bytes, and the shortest character that needs it one.
            prop_assert!(line.len() <= max * 10 + "… ( bytes more)".len() + 20);
            let plain: String = text.chars().take_while(|c| !c.is_control()).collect();
            prop_assert!(line.starts_with(&plain[..plain.floor_char_boundary(max)]));
        }
    }
}
