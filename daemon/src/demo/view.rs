//! The live view of the demo: a sighting on the message's way becomes a line.
//!
//! Pure formatting. What devices and strangers send is shown with control characters escaped, so that no payload can
//! play tricks on the terminal.

use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::message::BrokerId;
use crate::path::handler::CallResult;
use crate::printable::push_escaped;
use crate::telemetry::tap::Sighting;

/// Columns for the topic; a longer one pushes what follows.
const TOPIC_WIDTH: usize = 36;
/// Characters of a payload that are shown on a terminal, where a line should not wrap.
const TERMINAL_PAYLOAD: usize = 56;
/// Characters of a payload that are shown in a pipe.
const PIPE_PAYLOAD: usize = 400;
/// Bytes that are shown of a payload that is not text.
const BINARY_BYTES: usize = 12;

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    colour: bool,
    payload_chars: usize,
}

impl Style {
    /// Colour on a terminal, unless `NO_COLOR` (<https://no-color.org>) or a dumb terminal forbids it; plain, longer lines
    /// in a pipe.
    pub fn of_stdout() -> Style {
        let terminal = std::io::stdout().is_terminal();
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Style {
            colour: terminal && !dumb && !set("NO_COLOR"),
            payload_chars: if terminal { TERMINAL_PAYLOAD } else { PIPE_PAYLOAD },
        }
    }

    /// The text in this colour, if there is colour.
    pub fn paint(&self, colour: Colour, text: &str) -> String {
        if self.colour { format!("\u{1b}[{}m{text}\u{1b}[0m", colour.code()) } else { text.to_owned() }
    }
}

/// The colours of the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Headings.
    Bold,
    /// What matters less.
    Dim,
    /// What arrives.
    Cyan,
    /// What went well.
    Green,
    /// What went wrong.
    Red,
    /// What leaves.
    Yellow,
}

impl Colour {
    /// SGR parameter (ECMA-48 §8.3.117).
    fn code(self) -> &'static str {
        match self {
            Colour::Bold => "1",
            Colour::Dim => "2",
            Colour::Cyan => "36",
            Colour::Green => "32",
            Colour::Red => "31",
            Colour::Yellow => "33",
        }
    }
}

/// How much was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    received: u64,
    calls: u64,
    failed: u64,
    published: u64,
    /// Sightings that came faster than they could be shown, of whatever kind.
    pub missed: u64,
}

impl Totals {
    /// Counts a sighting that is shown.
    pub fn count(&mut self, sighting: &Sighting) {
        match sighting {
            Sighting::Received(_) => self.received += 1,
            Sighting::Called { result, .. } => {
                self.calls += 1;
                self.failed += u64::from(*result != CallResult::Ok);
            }
            Sighting::Published(..) => self.published += 1,
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { received, calls, failed, published, missed } = self;
        write!(f, "messages in: {received}, handler calls: {calls} ({failed} failed), messages out: {published}")?;
        if *missed > 0 {
            write!(f, ", lines not shown: {missed}")?;
        }
        Ok(())
    }
}

/// Turns sightings into lines of four columns: seconds since the start; broker or handler; topic; payload or result.
pub struct View {
    style: Style,
    started: Instant,
    /// By [`BrokerId`].
    brokers: Vec<Arc<str>>,
    /// Columns for the name of a broker with its arrow, or of a handler.
    name_width: usize,
}

impl View {
    /// A view of these brokers (in the order of their ids) and handlers.
    pub fn new(style: Style, started: Instant, brokers: Vec<Arc<str>>, handlers: &[Arc<str>]) -> View {
        let arrowed = brokers.iter().map(|name| name.chars().count() + 2);
        let name_width = arrowed.chain(handlers.iter().map(|name| name.chars().count())).max().unwrap_or(0);
        View { style, started, brokers, name_width }
    }

    /// The line for what was seen at `now`, without an end of line.
    pub fn line(&self, sighting: &Sighting, now: Instant) -> String {
        match sighting {
            Sighting::Received(message) => {
                let from = format!("{} →", self.broker(message.broker));
                let payload = self.payload(&message.payload);
                self.columns(now, Colour::Cyan, &from, message.topic.as_str(), &payload)
            }
            Sighting::Called { handler, message, result, took } => {
                let colour = if *result == CallResult::Ok { Colour::Green } else { Colour::Red };
                let detail = self.style.paint(colour, &format!("{}, {}", result.label(), short(*took)));
                self.columns(now, colour, handler, message.topic.as_str(), &detail)
            }
            Sighting::Published(broker, message) => {
                let to = format!("→ {}", self.broker(*broker));
                let payload = self.payload(&message.payload);
                self.columns(now, Colour::Yellow, &to, message.topic.as_str(), &payload)
            }
        }
    }

    fn broker(&self, id: BrokerId) -> &str {
        self.brokers.get(id.index()).map_or("?", |name| name)
    }

    fn columns(&self, at: Instant, colour: Colour, name: &str, topic: &str, detail: &str) -> String {
        let seconds = format!("{:>8.3}", at.saturating_duration_since(self.started).as_secs_f64());
        let time = self.style.paint(Colour::Dim, &seconds);
        let name = self.style.paint(colour, &format!("{name:<width$}", width = self.name_width));
        let topic = format!("{:<TOPIC_WIDTH$}", escaped(topic));
        let line = format!("{time}  {name}  {topic} {detail}");
        line.trim_end().to_owned()
    }

    /// A payload on one line: text as it is, other bytes as hexadecimal, both cut to length.
    fn payload(&self, payload: &[u8]) -> String {
        if payload.is_empty() {
            return self.style.paint(Colour::Dim, "(empty)");
        }
        // A character has at most four bytes: more than this is never shown.
        let bytes = &payload[..payload.len().min(4 * (self.style.payload_chars + 1))];
        let text = match str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) if error.error_len().is_none() && bytes.len() < payload.len() => {
                str::from_utf8(&bytes[..error.valid_up_to()]).expect("UTF-8 up to here")
            }
            Err(_) => return binary(payload),
        };
        let text = escaped(text);
        match text.char_indices().nth(self.style.payload_chars) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

fn binary(payload: &[u8]) -> String {
    let mut text = format!("{} bytes:", payload.len());
    for byte in payload.iter().take(BINARY_BYTES) {
        write!(text, " {byte:02x}").expect("a String takes everything");
    }
    if payload.len() > BINARY_BYTES {
        text.push_str(" …");
    }
    text
}

/// The text with everything escaped that moves the cursor, changes colours or turns the direction of writing.
fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    push_escaped(&mut shown, text);
    shown
}

/// A duration with three digits or fewer before the unit.
fn short(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
        _ => format!("{:.2} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {

    use bytes::Bytes;

    use super::*;
    use crate::message::{Message, Outgoing, Qos};
    use crate::topic::TopicName;

    const PLAIN: Style = Style { colour: false, payload_chars: 20 };

    fn view(style: Style, started: Instant) -> View {
        View::new(style, started, vec!["plant".into(), "cloud".into()], &["threshold".into()])
    }

    fn received(topic: &str, payload: &[u8]) -> Sighting {
        Sighting::Received(Arc::new(Message::testing(topic, payload)))
    }

    fn called(result: CallResult, took: Duration) -> Sighting {
        let Sighting::Received(message) = received("plant/oven", b"x") else { unreachable!() };
        Sighting::Called { handler: "threshold".into(), message, result, took }
    }

    fn published(topic: &str, payload: &str) -> Sighting {
        let message = Outgoing {
            topic: TopicName::new(topic).expect("valid"),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: None,
            hops: None,
        };
        Sighting::Published(BrokerId(1), Arc::new(message))
    }

    #[track_caller]
    fn check(sighting: Sighting, expected: &str) {
        let started = Instant::now();
        let now = started + Duration::from_millis(3_142);
        assert_eq!(view(PLAIN, started).line(&sighting, now), expected);
    }

    #[test]
    fn a_line_tells_when_who_where_and_what() {
        check(
            received("plant/oven", br#"{"c":84.4}"#),
            r#"   3.142  plant →    plant/oven                           {"c":84.4}"#,
        );
        check(
            called(CallResult::Ok, Duration::from_micros(85)),
            "   3.142  threshold  plant/oven                           ok, 85 µs",
        );
        check(
            called(CallResult::Deadline, Duration::from_millis(1_004)),
            "   3.142  threshold  plant/oven                           deadline, 1.00 s",
        );
        check(published("site-1/alarm", "on"), "   3.142  → cloud    site-1/alarm                         on");
    }

    #[test]
    fn a_long_topic_is_shown_whole() {
        let topic = "a/".repeat(30);
        check(published(&topic, "on"), &format!("   3.142  → cloud    {topic} on"));
    }

    #[test]
    fn payloads_are_shown_on_one_line() {
        let view = view(PLAIN, Instant::now());
        for (payload, shown) in [
            (&b""[..], "(empty)"),
            (b"two\nlines", r"two\nlines"),
            (b"\x1b[31mred", r"\u{1b}[31mred"),
            ("a\u{202e}b".as_bytes(), r"a\u{202e}b"),
            ("größe".as_bytes(), "größe"),
            (b"twenty characters...", "twenty characters..."),
            (b"twenty-one characters", "twenty-one character…"),
            (b"\xff\x00\x10", "3 bytes: ff 00 10"),
            (&[0xfe; 13], "13 bytes: fe fe fe fe fe fe fe fe fe fe fe fe …"),
            (b"cut\xc3", "4 bytes: 63 75 74 c3"),
        ] {
            assert_eq!(view.payload(payload), shown);
        }
    }

    #[test]
    fn a_long_text_may_be_cut_within_a_character() {
        let view = view(PLAIN, Instant::now());
        for start in 0..4 {
            let text = format!("{}{}", "x".repeat(start), "温".repeat(100));
            let shown = view.payload(text.as_bytes());
            assert_eq!(shown.chars().count(), PLAIN.payload_chars + 1, "{shown}");
            assert!(shown.ends_with("温…"), "{shown}");
        }
    }

    #[test]
    fn totals_tell_what_was_seen() {
        let mut totals = Totals::default();
        totals.count(&received("a", b""));
        totals.count(&called(CallResult::Ok, Duration::ZERO));
        totals.count(&called(CallResult::Retry, Duration::ZERO));
        totals.count(&published("b", ""));
        assert_eq!(totals.to_string(), "messages in: 1, handler calls: 2 (1 failed), messages out: 1");
        totals.missed = 7;
        assert!(totals.to_string().ends_with(", lines not shown: 7"));
    }

    #[test]
    fn colour_wraps_words_and_nothing_else() {
        let started = Instant::now();
        let style = Style { colour: true, ..PLAIN };
        let line = view(style, started).line(&called(CallResult::Trap, Duration::from_millis(2)), started);
        assert_eq!(
            line,
            "\u{1b}[2m   0.000\u{1b}[0m  \u{1b}[31mthreshold\u{1b}[0m  plant/oven                           \u{1b}[31mtrap, 2.0 ms\u{1b}[0m"
        );
    }
}
