//! Streams of numbered messages: what shows that none is lost and that each topic stays in order.
//!
//! Sent to `in/0`, `in/1` and so on; a gateway under test echoes each to `out/` and its topic.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::Client;
use crate::client::message::Message;

/// So many messages, taking turns between so many topics; the payloads of a topic count from 0.
pub fn numbered(count: usize, topics: usize) -> Vec<Message> {
    (0..count).map(|n| Message::new(format!("in/{}", n % topics), format!("{}", n / topics))).collect()
}

/// Collects until an echo of each message came; `came` are those from before, of which some must be missing. Each may take the
/// usual time: a loaded machine takes its own for all of them.
#[track_caller]
pub fn collect_all(collector: &Client, sent: &[Message], came: &mut Vec<Message>) {
    let mut missing: BTreeSet<_> = sent.iter().map(|one| (format!("out/{}", one.topic), one.payload.clone())).collect();
    for message in came.iter() {
        missing.remove(&(message.topic.clone(), message.payload.clone()));
    }
    assert!(!missing.is_empty(), "the interruption came too late to show anything");
    while !missing.is_empty() {
        let message = collector.next(|| {
            let some: Vec<_> =
                missing.iter().take(8).map(|(topic, text)| (topic, String::from_utf8_lossy(text))).collect();
            format!("{} of {} messages are missing, such as {some:?}", missing.len(), sent.len())
        });
        missing.remove(&(message.topic.clone(), message.payload.clone()));
        came.push(message);
    }
}

/// Checks that in each topic the numbers first occur in ascending order without a gap; they may occur again.
#[track_caller]
pub fn assert_order(came: &[Message]) {
    let mut next: BTreeMap<&str, usize> = BTreeMap::new();
    for message in came {
        let number: usize = message.text().parse().expect("a number");
        let next = next.entry(&message.topic).or_default();
        assert!(number <= *next, "{}: {number} came before {next}", message.topic);
        *next = (*next).max(number + 1);
    }
}
