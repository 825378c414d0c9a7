//! What the daemon remembers of a broker's session: the filters that the broker was asked for and what it answered.
//!
//! Pure: the form of the record and its rules. Made and taken by `machine.rs`, kept in a file by `store.rs`. It says
//! `granted` only of what a SUBACK has granted, and names a filter before the broker is asked for it, so that whatever a
//! crash leaves behind is known or known to be unsure.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::control::config::model::Broker;
use crate::message::Qos;
use crate::topic::TopicFilter;

/// The version of the form below. Of version 1, which is read too, filters that were given back stayed in the record so that
/// their identifiers were known, and there was neither `change` nor `next-identifier`.
pub(super) const VERSION: u32 = 2;

const OLDEST_VERSION: u32 = 1;

/// Largest subscription identifier (MQTT 5 §3.8.2.1.2).
pub(super) const MAX_IDENTIFIER: u32 = 268_435_455;

/// The session that a record is about: another server or client identifier is another session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Identity {
    address: String,
    port: u16,
    client_id: String,
}

impl Identity {
    /// The session that the daemon has at this broker.
    pub(super) fn of(broker: &Broker) -> Identity {
        Identity {
            address: broker.address.to_ascii_lowercase(),
            port: broker.port.get(),
            client_id: broker.client_id.clone(),
        }
    }
}

/// Whether the broker's session has a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Presence {
    /// It was asked for, and no answer is known.
    Asked,
    /// A SUBACK granted it.
    Granted,
    /// It was given back, or refused when it was asked for again, and it is not known whether the broker still has it.
    Leaving,
    /// It was given back: of no use, and not recorded any more. Messages that were queued before may still name its
    /// identifier; it tells nothing about them, so they go by their topic.
    Removed,
}

/// Whether each message that comes and matches a filter comes in a copy that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Certainty {
    /// Messages may come that were queued without it.
    Unsure,
    /// A copy has named it, so all that the broker sends for the first time after that were queued with it.
    Named,
    /// The session has had it since before its first message.
    Always,
}

/// One filter of the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Entry {
    /// As on the wire, with its share.
    pub(super) filter: String,
    /// Its subscription identifier. While the session lasts, it is given neither to another filter nor, once the broker
    /// may have dropped this one, to the same again: it stands for an unbroken time of being subscribed. All are rising, so
    /// that this needs no memory of what was given back.
    pub(super) identifier: u32,
    /// As asked for: 0 or 1.
    pub(super) qos: u8,
    pub(super) presence: Presence,
    pub(super) certainty: Certainty,
}

/// Whether a message may be under way of which one copy was left to another one by what does not decide any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Change {
    /// No.
    #[default]
    None,
    /// Another decision was made after the change; what was decided before may come again.
    Seen,
    /// The next one may be that.
    Unseen,
}

/// What is remembered of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Record {
    /// [`VERSION`].
    pub(super) version: u32,
    #[serde(flatten)]
    pub(super) session: Identity,
    /// A connection was to be made, and it is not known whether the broker began a new session then: nothing below is sure.
    pub(super) connecting: bool,
    /// A digest of the subscriptions that decide which copy of a message counts.
    pub(super) subscriptions: String,
    /// Whether other ones decided shortly before.
    #[serde(default)]
    pub(super) change: Change,
    /// The smallest identifier that was not given yet; begins anew at 1 after the largest. None in version 1.
    #[serde(default)]
    pub(super) next_identifier: Option<u32>,
    /// Filters of subscriptions whose retained messages the session has had.
    pub(super) served: Vec<String>,
    /// By text.
    pub(super) filters: Vec<Entry>,
}

/// Why a text is no record.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    /// No JSON, or not of this form.
    #[error(transparent)]
    Form(#[from] serde_json::Error),
    /// Another version of the daemon wrote it.
    #[error("it has version {0}, this daemon writes {VERSION}")]
    Version(u32),
    /// A rule is broken.
    #[error("{0}")]
    Rule(String),
}

impl Record {
    /// Reads and checks a record.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub(super) fn parse(text: &[u8]) -> Result<Record, RecordError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(text)?;
        if !(OLDEST_VERSION..=VERSION).contains(&version) {
            return Err(RecordError::Version(version));
        }
        let record: Record = serde_json::from_slice(text)?;
        if record.next_identifier.is_some_and(|next| !(1..=MAX_IDENTIFIER).contains(&next)) {
            return Err(RecordError::Rule("the next identifier is out of range".to_owned()));
        }
        let (mut filters, mut identifiers) = (HashSet::new(), HashSet::new());
        for entry in &record.filters {
            let Entry { filter, identifier, qos, .. } = entry;
            TopicFilter::new(filter.as_str())
                .map_err(|error| RecordError::Rule(format!("the topic filter {filter:?} {error}")))?;
            if !(1..=MAX_IDENTIFIER).contains(identifier) || Qos::from_number(*qos).is_none() {
                return Err(RecordError::Rule(format!("the entry of {filter:?} has a number out of range")));
            }
            let current = entry.presence != Presence::Removed;
            if current && !filters.insert(filter) || !identifiers.insert(identifier) {
                return Err(RecordError::Rule(format!("the filter {filter:?} or its identifier stands there twice")));
            }
        }
        Ok(record)
    }

    /// The text of its file.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("strings and numbers become JSON");
        text.push(b'\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let entry = |filter: &str, identifier, presence| Entry {
            filter: filter.to_owned(),
            identifier,
            qos: 1,
            presence,
            certainty: Certainty::Named,
        };
        Record {
            version: VERSION,
            session: Identity { address: "::1".to_owned(), port: 1883, client_id: "gateway \"1\"".to_owned() },
            connecting: false,
            subscriptions: "00".to_owned(),
            change: Change::Seen,
            next_identifier: Some(4),
            served: vec!["a/+".to_owned()],
            filters: vec![
                entry("$share/g/a", MAX_IDENTIFIER, Presence::Leaving),
                entry("a/+", 1, Presence::Granted),
                entry("é", 2, Presence::Asked),
            ],
        }
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(Record::parse(&record().text()).expect("is good"), record());
    }

    #[test]
    fn a_damaged_record_is_told() {
        let text = String::from_utf8(record().text()).expect("is UTF-8");
        let error = |text: &str| Record::parse(text.as_bytes()).expect_err(text).to_string();
        let damaged = |from: &str, to: &str| {
            assert!(text.contains(from), "{text}");
            error(&text.replace(from, to))
        };
        assert!(error("").contains("EOF"), "{}", error(""));
        assert!(error(&text[..text.len() / 2]).contains("EOF"));
        assert_eq!(damaged("\"version\": 2", "\"version\": 3"), "it has version 3, this daemon writes 2");
        assert!(damaged("\"next-identifier\": 4", "\"next-identifier\": 0").contains("next identifier"));
        assert!(damaged("\"seen\"", "\"sen\"").contains("unknown variant"));
        assert!(damaged("\"identifier\": 1,", "\"identifier\": 0,").contains("out of range"));
        assert!(damaged("\"identifier\": 1,", "\"identifier\": 2,").contains("twice"));
        assert!(damaged("\"filter\": \"é\"", "\"filter\": \"a/+\"").contains("twice"));
        assert!(damaged("\"filter\": \"é\"", "\"filter\": \"a/#/b\"").contains("a/#/b"));
        assert!(damaged("\"granted\"", "\"sure\"").contains("unknown variant"));
        assert!(damaged("\"served\"", "\"servd\"").contains("field"));
    }

    #[test]
    fn a_record_of_version_1_is_read() {
        let text = r#"{
            "version": 1, "address": "::1", "port": 1883, "client-id": "c", "connecting": false, "subscriptions": "00",
            "served": [], "filters": [
                {"filter": "a/+", "identifier": 1, "qos": 1, "presence": "granted", "certainty": "always"},
                {"filter": "a/+", "identifier": 3, "qos": 1, "presence": "removed", "certainty": "unsure"}
            ]}"#;
        let record = Record::parse(text.as_bytes()).expect("is good");
        assert_eq!((record.filters.len(), record.change, record.next_identifier), (2, Change::None, None));
    }
}
