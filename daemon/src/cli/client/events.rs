//! Server-sent events, from bytes as they come.
//!
//! Pure; fed by the client's stream. Of the format (HTML Living Standard §9.2) it knows what the daemon sends: `event`, `data`,
//! comments and any line end; identifiers and times to reconnect are for those who reconnect.

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its type; `message` unless it is given.
    pub kind: String,
    /// Its lines.
    pub data: String,
}

/// Cuts a stream into events.
#[derive(Debug, Default)]
pub struct Parser {
    /// The line that has begun.
    line: Vec<u8>,
    /// The last line ended with a carriage return: a newline that follows belongs to it.
    after_return: bool,
    kind: String,
    data: Vec<String>,
}

impl Parser {
    /// Takes further bytes, and gives the events that they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for byte in bytes {
            match byte {
                b'\n' if self.after_return => {}
                b'\n' | b'\r' => events.extend(self.end_of_line()),
                _ => self.line.push(*byte),
            }
            self.after_return = *byte == b'\r';
        }
        events
    }

    fn end_of_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.end_of_event();
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" => self.data.push(value.to_owned()),
            // A comment, which keeps the connection alive, or what this client does not need.
            _ => {}
        }
        None
    }

    fn end_of_event(&mut self) -> Option<Event> {
        let kind = std::mem::take(&mut self.kind);
        let data = std::mem::take(&mut self.data);
        let kind = if kind.is_empty() { "message".to_owned() } else { kind };
        (!data.is_empty()).then(|| Event { kind, data: data.join("\n") })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(stream: &str, expected: &[(&str, &str)]) {
        let found = Parser::default().feed(stream.as_bytes());
        let found: Vec<_> = found.iter().map(|event| (event.kind.as_str(), event.data.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn events_end_with_an_empty_line() {
        check("", &[]);
        check("data: x\n", &[]);
        check("data: x\n\n", &[("message", "x")]);
        check("id: 7\nevent: missed\ndata: 3\n\ndata:y\n\n", &[("missed", "3"), ("message", "y")]);
        check(":keep-alive\n\ndata:  a: b\ndata:\n\n", &[("message", " a: b\n")]);
        check("data: x\r\n\r\ndata: y\r\rdata: z\n\n", &[("message", "x"), ("message", "y"), ("message", "z")]);
        check("event: lonely\n\ndata: x\n\n", &[("message", "x")]);
    }

    proptest! {
        #[test]
        fn where_the_network_cuts_does_not_matter(
            lines in prop::collection::vec(prop_oneof!["data: [a-zü]{0,3}", "event: [a-z]{0,2}", ":", Just(String::new())], 0..12),
            end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let stream: String = lines.iter().flat_map(|line| [line.as_str(), end]).collect();
            let whole = Parser::default().feed(stream.as_bytes());
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            places.extend([0, stream.len()]);
            places.sort_unstable();
            let mut parser = Parser::default();
            let parts: Vec<Event> =
                places.windows(2).flat_map(|ends| parser.feed(&stream.as_bytes()[ends[0]..ends[1]])).collect();
            prop_assert_eq!(parts, whole);
        }
    }
}
