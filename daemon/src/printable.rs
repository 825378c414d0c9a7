//! Text from others made fit for one line of a log, an error or a table: bounded, and without characters that break the
//! line, that nobody sees, or that let it be read as something else.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character acts on the text around it instead of being seen: a control character, a line or paragraph separator,
/// or one that Unicode calls a format character (Cf), such as those that turn the direction of writing or have no width.
#[rustfmt::skip]
pub fn is_hidden(character: char) -> bool {
    character.is_control() || matches!(
        character,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
            | '\u{8e2}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}'
            | '\u{2066}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}'
            | '\u{e0020}'..='\u{e007f}'
    )
}

/// Appends `text`, its hidden characters escaped as in Rust.
pub fn push_escaped(line: &mut String, text: &str) {
    for character in text.chars() {
        if is_hidden(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
}

/// `text` with hidden characters escaped as in Rust, and cut after at most `max` bytes of it with a note of how much is
/// missing.
pub fn printable(text: &str, max: usize) -> Cow<'_, str> {
    let kept = &text[..text.floor_char_boundary(max)];
    if kept.len() == text.len() && !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(kept.len() + 32);
    push_escaped(&mut line, kept);
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
        check("a\u{202e}b\u{200b}\u{feff}", 32, "a\\u{202e}b\\u{200b}\\u{feff}");
    }

    #[test]
    fn what_needs_no_change_is_borrowed() {
        assert!(matches!(printable("plain", 5), Cow::Borrowed(_)));
    }

    #[test]
    fn what_unicode_calls_a_format_character_is_hidden() {
        let hidden = regex::Regex::new(r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]").expect("a regular expression");
        let mut buffer = [0; 4];
        for character in '\0'..=char::MAX {
            let expected = hidden.is_match(character.encode_utf8(&mut buffer));
            assert_eq!(is_hidden(character), expected, "{character:?}");
        }
    }

    proptest! {
        #[test]
        fn the_result_is_one_line_and_begins_as_the_text_does(text in "(.|[\u{200b}-\u{202e}\n]){0,40}", max in 0_usize..64) {
            let line = printable(&text, max);
            prop_assert!(!line.contains(is_hidden));
            // The longest escape, \u{10ffff}, has ten bytes, and the shortest character that needs it one.
            prop_assert!(line.len() <= max * 10 + "… ( bytes more)".len() + 20);
            let plain: String = text.chars().take_while(|&c| !is_hidden(c)).collect();
            prop_assert!(line.starts_with(&plain[..plain.floor_char_boundary(max)]));
        }
    }
}
