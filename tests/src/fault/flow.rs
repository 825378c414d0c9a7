//! What is sent: messages that take turns between topics, each with its number and with bytes that can be checked.
//!
//! A message follows from its place in the flow alone, so that neither the sender nor the checker has to keep any.

use crate::client::message::Message;

/// Bytes of filler at most, behind a message's number.
const FILLER: usize = 120;

/// A flow of QoS 1 messages to `NAME/0`, `NAME/1` and so on; the numbers of a topic count from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    name: String,
    topics: usize,
    count: usize,
}

impl Flow {
    /// So many messages in all, over so many topics.
    pub fn new(name: &str, topics: usize, count: usize) -> Flow {
        assert!(topics > 0, "messages need a topic");
        Flow { name: name.to_owned(), topics, count }
    }

    /// The first level of its topics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many topics it has.
    pub fn topics(&self) -> usize {
        self.topics
    }

    /// How many messages it has.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The topic filter that matches it.
    pub fn filter(&self) -> String {
        format!("{}/#", self.name)
    }

    /// The message in this place, counted from 0. Its payload begins with its number in its topic, then a space.
    pub fn message(&self, place: usize) -> Message {
        Message::new(format!("{}/{}", self.name, place % self.topics), self.payload(place))
    }

    fn payload(&self, place: usize) -> String {
        // 37 and 121 have no common divisor: every length occurs.
        format!("{} {}", place / self.topics, ".".repeat(place * 37 % (FILLER + 1)))
    }

    /// The topic and the place of a message of this flow that had this topic and payload; none if it is not of this flow, to
    /// the last byte.
    pub fn place(&self, topic: &str, payload: &[u8]) -> Option<(usize, usize)> {
        let topic: usize = topic.strip_prefix(&self.name)?.strip_prefix('/')?.parse().ok()?;
        let number = payload.split(|byte| *byte == b' ').next()?;
        let number: usize = std::str::from_utf8(number).ok()?.parse().ok()?;
        let place = number.checked_mul(self.topics)?.checked_add(topic)?;
        let ours = topic < self.topics && place < self.count && self.payload(place).as_bytes() == payload;
        ours.then_some((topic, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_tells_its_place() {
        let flow = Flow::new("in", 16, 1000);
        for place in 0..1000 {
            let message = flow.message(place);
            assert_eq!(flow.place(&message.topic, &message.payload), Some((place % 16, place)));
        }
    }

    #[test]
    fn what_is_not_of_the_flow_has_no_place() {
        let flow = Flow::new("in", 16, 1000);
        let (message, beyond) = (flow.message(3), Flow::new("in", 16, 2000).message(1000));
        assert_eq!(flow.place("in/4", &message.payload), None, "another topic's bytes");
        assert_eq!(flow.place("out/3", &message.payload), None);
        assert_eq!(flow.place("in/3", &message.payload[..message.payload.len() - 1]), None, "cut short");
        assert_eq!(flow.place(&beyond.topic, &beyond.payload), None, "never sent");
        assert_eq!(flow.place("in/16", b"0 "), None);
        assert_eq!(flow.place("in/0", b""), None);
    }
}
