//! What is sent and what must come back: the n-th reading of a topic, and what `celsius` makes of it.
//!
//! Pure. A topic's readings rise by a hundredth of a degree from one to the next, so a result alone tells which reading it
//! belongs to: value and order are checked although the handler passes on nothing but the temperature. The expected
//! values come from integers, not from the formula of those who are measured.

/// Input topics: `bench/in/0` to `bench/in/15`.
pub const TOPICS: usize = 16;

/// Bytes of every reading sent.
pub const PAYLOAD_BYTES: usize = 256;

/// The first reading of a topic, in hundredths of a degree Celsius.
const FIRST: i64 = -5_000;

/// What comes back for a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Result {
    /// The reading in degrees Fahrenheit: `{"f":70.7}`.
    Converted,
    /// The reading as it was sent: nothing stands between.
    AsSent,
}

/// The topic of readings.
pub fn input_topic(topic: usize) -> String {
    format!("bench/in/{topic}")
}

/// The topic of results, as `celsius` chooses it.
pub fn output_topic(topic: usize) -> String {
    format!("bench/in/{topic}/fahrenheit")
}

/// The filter of all results.
pub const OUTPUT_FILTER: &str = "bench/in/+/fahrenheit";

/// The number of an output topic.
pub fn topic_number(output_topic: &[u8]) -> Option<usize> {
    let number = output_topic.strip_prefix(b"bench/in/")?.strip_suffix(b"/fahrenheit")?;
    str::from_utf8(number).ok()?.parse().ok().filter(|number| *number < TOPICS)
}

/// Writes the reading with this number: `{"c":-49.99,"seq":1,"t":123,"pad":"…"}`, `t` in monotonic nanoseconds.
pub fn write_reading(number: u64, time: u64, payload: &mut Vec<u8>) {
    let end = payload.len() + PAYLOAD_BYTES;
    payload.extend_from_slice(b"{\"c\":");
    let hundredths = celsius(number);
    if hundredths < 0 {
        payload.push(b'-');
    }
    write_number(hundredths.unsigned_abs() / 100, payload);
    let fraction = hundredths.unsigned_abs() % 100;
    payload.extend_from_slice(&[b'.', b'0' + (fraction / 10) as u8, b'0' + (fraction % 10) as u8]);
    payload.extend_from_slice(b",\"seq\":");
    write_number(number, payload);
    payload.extend_from_slice(b",\"t\":");
    write_number(time, payload);
    payload.extend_from_slice(b",\"pad\":\"");
    payload.resize(end - 2, b'x');
    payload.extend_from_slice(b"\"}");
}

fn write_number(number: u64, text: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[at..]);
}

/// The number of the reading that a result belongs to; none where it is the result of no reading.
pub fn reading_of(result: Result, payload: &[u8]) -> Option<u64> {
    let celsius = match result {
        Result::Converted => {
            let fahrenheit = hundredths(payload.strip_prefix(b"{\"f\":")?.strip_suffix(b"}")?)?;
            // 1.8 hundredths Fahrenheit for one of Celsius: what rounding loses leaves no doubt about the latter.
            let celsius = (fahrenheit * 10 - 32_000 + 9).div_euclid(18);
            (converted(celsius) == fahrenheit).then_some(celsius)?
        }
        Result::AsSent => {
            let rest = payload.strip_prefix(b"{\"c\":").filter(|_| payload.len() == PAYLOAD_BYTES)?;
            hundredths(&rest[..rest.iter().position(|byte| *byte == b',')?])?
        }
    };
    u64::try_from(celsius - FIRST).ok()
}

/// The reading with this number, in hundredths of a degree.
fn celsius(number: u64) -> i64 {
    FIRST + i64::try_from(number).expect("nobody sends so many")
}

/// Hundredths Celsius in hundredths Fahrenheit, to the nearest: never half-way between two, since 18 is even and 10
/// divides 32,000.
fn converted(celsius: i64) -> i64 {
    (celsius * 18 + 32_000 + 5).div_euclid(10)
}

/// A decimal number with at most two places, in hundredths.
fn hundredths(text: &[u8]) -> Option<i64> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let point = text.iter().position(|byte| *byte == b'.')?;
    let (whole, fraction) = (&text[..point], &text[point + 1..]);
    let scale = match fraction.len() {
        1 => 10,
        2 => 1,
        _ => return None,
    };
    let digits = |digits: &[u8]| -> Option<i64> {
        let valid = !digits.is_empty() && digits.len() < 16 && digits.iter().all(u8::is_ascii_digit);
        valid.then(|| digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
    };
    let number = digits(whole)? * 100 + digits(fraction)? * scale;
    Some(if negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_has_the_promised_form() {
        let mut payload = Vec::new();
        write_reading(1, 1_234, &mut payload);
        write_reading(5_007, u64::MAX, &mut payload);
        let (first, second) = payload.split_at(PAYLOAD_BYTES);
        assert!(first.starts_with(br#"{"c":-49.99,"seq":1,"t":1234,"pad":"xx"#), "{}", String::from_utf8_lossy(first));
        let start = br#"{"c":0.07,"seq":5007,"t":18446744073709551615,"pad":"xx"#;
        assert!(second.starts_with(start), "{}", String::from_utf8_lossy(second));
        let json: serde_json::Value = serde_json::from_slice(second).expect("is JSON");
        assert_eq!(json["c"], 0.07);
        assert_eq!(second.len(), PAYLOAD_BYTES);
    }

    #[track_caller]
    fn check(result: Result, payload: &str, expected: Option<u64>) {
        assert_eq!(reading_of(result, payload.as_bytes()), expected, "{payload}");
    }

    #[test]
    fn a_result_tells_its_reading() {
        check(Result::Converted, r#"{"f":-58.0}"#, Some(0));
        check(Result::Converted, r#"{"f":-57.98}"#, Some(1));
        check(Result::Converted, r#"{"f":32.0}"#, Some(5_000));
        check(Result::Converted, r#"{"f":70.7}"#, Some(7_150));
    }

    #[test]
    fn what_is_no_result_is_none() {
        for wrong in [
            r#"{"f":-57.99}"#,
            r#"{"f":70.71}"#,
            r#"{"f":70.7000}"#,
            r#"{"f":70}"#,
            r#"{"f":7e1}"#,
            r#"{"f":.7}"#,
            r#"{"f":null}"#,
            r#"{"f":-100.0}"#,
            r#"{"c":70.7}"#,
            "",
        ] {
            check(Result::Converted, wrong, None);
        }
        check(Result::AsSent, r#"{"c":21.50,"seq":7150}"#, None);
    }

    #[test]
    fn every_reading_is_told_by_its_result() {
        for number in 0..300_000 {
            let mut payload = Vec::new();
            write_reading(number, 7, &mut payload);
            assert_eq!(reading_of(Result::AsSent, &payload), Some(number));
            // The formula of the handler, in floating point.
            let celsius = celsius(number) as f64 / 100.0;
            let fahrenheit = ((celsius * 1.8 + 32.0) * 100.0).round() / 100.0;
            let payload = serde_json::json!({ "f": fahrenheit }).to_string();
            assert_eq!(reading_of(Result::Converted, payload.as_bytes()), Some(number), "{payload}");
        }
    }

    #[test]
    fn an_output_topic_tells_its_number() {
        for number in 0..TOPICS {
            assert_eq!(topic_number(output_topic(number).as_bytes()), Some(number));
        }
        assert_eq!(topic_number(b"bench/in/16/fahrenheit"), None);
        assert_eq!(topic_number(b"bench/in//fahrenheit"), None);
        assert_eq!(topic_number(b"bench/in/1"), None);
    }
}
