//! Characters that a topic should not have: brokers may end the connection over them.
//!
//! Pure. Used where an operator gives a topic; what a broker sends is taken as it is.

/// The first character of a text that a broker may refuse by ending the connection (MQTT 5 §1.5.4, MQTT 3.1.1 §1.5.3): a
/// control character or a Unicode non-character. Mosquitto does, at each SUBSCRIBE and UNSUBSCRIBE again.
pub fn refusable(text: &str) -> Option<char> {
    text.chars().find(|&character| {
        let code = u32::from(character);
        character.is_control() || (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
    })
}

/// What is told about such a character.
pub fn refused(character: char) -> String {
    let code = u32::from(character);
    format!("has the character U+{code:04X}, over which brokers may end the connection (MQTT 5 §1.5.4)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_non_characters_are_found() {
        for good in ["a/b", "a/+/#", "Übergröße/温度/🌡", "a b", "\u{fffd}", "\u{a0}", "\u{fdcf}\u{fdf0}", "$SYS/#"]
        {
            assert_eq!(refusable(good), None, "{good:?}");
        }
        for bad in [
            '\u{1}',
            '\n',
            '\u{1f}',
            '\u{7f}',
            '\u{9f}',
            '\u{fdd0}',
            '\u{fdef}',
            '\u{fffe}',
            '\u{ffff}',
            '\u{1ffff}',
            '\u{10fffe}',
        ] {
            assert_eq!(refusable(&format!("a/{bad}b")), Some(bad));
        }
        assert!(refused('\u{1a}').starts_with("has the character U+001A, "));
    }
}
