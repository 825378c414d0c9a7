//! Durations (`"250ms"`) and sizes (`"64KiB"`): from text, and back for remedies.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Units of sizes, in bytes, with the largest first within each family.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a duration such as `250ms`, `10s`, `1h 30m` or `7d`.
///
/// # Errors
/// `problem; remedy`, without the text itself.
pub(in crate::control) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| match error {
        humantime::DurationError::UnknownUnit { unit, value, .. } if unit.is_empty() => {
            format!("a duration needs a unit; use \"{value}ms\", \"{value}s\" or \"{value}m\"")
        }
        humantime::DurationError::UnknownUnit { .. } => {
            "not a unit of time; use ms, s, m, h or d, such as \"250ms\"".to_owned()
        }
        humantime::DurationError::NumberOverflow => "too large or too fine; use \"250ms\" or the like".to_owned(),
        _ => "not a duration; use a number and a unit, such as \"250ms\", \"10s\" or \"7d\"".to_owned(),
    })
}

/// A duration as the configuration writes it, in whole milliseconds.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    let mut text = String::new();
    for (unit, millis) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest >= millis {
            text.push_str(&format!("{}{unit}", rest / millis));
            rest %= millis;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Two durations as the configuration writes them.
pub fn format_durations(both: &RangeInclusive<Duration>) -> String {
    format!("{}..{}", format_duration(*both.start()), format_duration(*both.end()))
}

/// Reads a size such as `64KiB`: a whole number of B, KB, MB, GB, KiB, MiB or GiB. Gives bytes.
///
/// # Errors
/// `problem; remedy`, without the text itself.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = (&text[..digits], text[digits..].trim());
    if number.is_empty() || unit.starts_with(['.', ',', '_']) {
        return Err("not a size; use a whole number and a unit, such as \"64KiB\"".to_owned());
    }
    if unit.is_empty() {
        return Err(format!("a size needs a unit; use \"{number}B\", \"{number}KiB\" or \"{number}MiB\""));
    }
    let factor = SIZE_UNITS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))
        .map(|(_, factor)| *factor)
        .ok_or_else(|| "not a unit of size; use B, KiB, MiB or GiB, such as \"64KiB\"".to_owned())?;
    let count: Option<u64> = number.parse().ok();
    count.and_then(|count| count.checked_mul(factor)).ok_or_else(|| "too large; use a smaller size".to_owned())
}

/// A size as the configuration writes it, in the largest binary unit that is exact.
pub fn format_size(bytes: u64) -> String {
    SIZE_UNITS
        .iter()
        .filter(|(name, factor)| *factor == 1 || name.contains('i'))
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .map_or_else(|| "0B".to_owned(), |(name, factor)| format!("{}{name}", bytes / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(parse_size(text).ok(), expected, "{text}");
        check("0B", Some(0));
        check("64KiB", Some(65_536));
        check("64 KiB", Some(65_536));
        check("1mib", Some(1 << 20));
        check("2GiB", Some(2 << 30));
        check("1KB", Some(1_000));
        check("3MB", Some(3_000_000));
        check("1GB", Some(1_000_000_000));
        check("1.5MiB", None);
        check("-1B", None);
        check("64", None);
        check("64K", None);
        check("KiB", None);
        check("", None);
        check("99999999999999999999B", None);
        check("18446744073709551615GiB", None);
    }

    #[test]
    fn sizes_are_written_back_in_the_largest_exact_unit() {
        let check = |bytes: u64, expected: &str| {
            assert_eq!(format_size(bytes), expected);
            assert_eq!(parse_size(expected), Ok(bytes));
        };
        check(0, "0B");
        check(1, "1B");
        check(1_000, "1000B");
        check(1_024, "1KiB");
        check(64 << 20, "64MiB");
        check((1 << 30) + 1, "1073741825B");
    }

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<Duration>| assert_eq!(parse_duration(text).ok(), expected, "{text}");
        check("250ms", Some(Duration::from_millis(250)));
        check("1h 30m", Some(Duration::from_secs(5_400)));
        check("7d", Some(Duration::from_secs(604_800)));
        check("0s", Some(Duration::ZERO));
        check("250", None);
        check("fast", None);
        check("", None);
        check("1 fortnight", None);
        check("-1s", None);
        check("99999999999999999999s", None);
    }

    #[test]
    fn durations_are_written_back() {
        let check = |text: &str| assert_eq!(format_duration(parse_duration(text).expect(text)), text);
        for text in ["0s", "1ms", "1s", "10s", "1h", "1h30m", "7d"] {
            check(text);
        }
    }
}
