//! Whether a guest's publish is permitted: a pure decision over the handler's grants and what its call holds already.
//!
//! Fed by the host functions of each kind of plugin. A permitted publish is held back in [`Held`] until its call has returned ok.

use super::call::Origin;
use super::grants::Host;
use super::properties;
use crate::message::{BrokerId, Outgoing, Properties, Qos};
use crate::path::handler::{Limit, Publish};
use crate::printable::printable;
use crate::topic::TopicName;

/// Bytes kept of a topic or a broker's name in a sentence.
pub(super) const MAX_NAME_BYTES: usize = 256;

/// Grants that a denial lists.
const MAX_LISTED_GRANTS: usize = 8;

/// What a guest asks to publish; nothing of it is checked.
#[derive(Clone, Debug)]
pub(in crate::path::handler) struct PublishRequest {
    /// The topic name.
    pub(in crate::path::handler) topic: String,
    /// Any bytes.
    pub(in crate::path::handler) payload: Vec<u8>,
    /// The quality of service that it asks for.
    pub(in crate::path::handler) qos: Qos,
    /// Whether the broker is to keep it for later subscribers.
    pub(in crate::path::handler) retain: bool,
    /// Its properties, if it sets any.
    pub(in crate::path::handler) properties: Option<Properties>,
}

/// Why a guest's publish is not held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::path::handler) enum PublishError {
    /// Not granted. In words.
    Denied(String),
    /// The topic is none. In words.
    InvalidTopic(String),
    /// It can never be published.
    TooLarge,
    /// Not after what the call has published already.
    Quota,
    /// No broker has this name; empty where none was named and there is no default.
    UnknownBroker(String),
    /// In words.
    Other(String),
}

/// The publishes of the call in progress.
#[derive(Debug, Default)]
pub(super) struct Held {
    publishes: Vec<Publish>,
    /// Topic, payload and property bytes of all.
    bytes: usize,
    /// The first limit that a publish went past.
    exceeded: Option<Limit>,
}

impl Held {
    /// Takes all publishes out, in order.
    pub(super) fn take(&mut self) -> Vec<Publish> {
        std::mem::take(self).publishes
    }

    /// The limit that a publish went past, if one did: the call has then failed, whatever it returns.
    pub(super) fn exceeded(&self) -> Option<Limit> {
        self.exceeded
    }

    /// The newest.
    pub(super) fn last(&self) -> Option<&Publish> {
        self.publishes.last()
    }

    fn push(&mut self, publish: Publish) {
        self.bytes += publish.message.weight();
        self.publishes.push(publish);
    }
}

impl Host {
    /// Holds a publish back, if the handler may make it. `origin` is what the call is for.
    pub(super) fn hold(
        &self,
        held: &mut Held,
        origin: Origin,
        request: PublishRequest,
        broker: Option<&str>,
    ) -> Result<(), PublishError> {
        if origin == Origin::Init {
            return Err(self.deny(
                broker,
                &request.topic,
                format!("handler \"{}\" must not publish in init; publish when a message is handled", self.name),
            ));
        }
        let broker = match (broker, origin) {
            (Some(name), _) => self.broker_id(name)?,
            (None, Origin::Broker(broker)) => broker,
            // An empty name: that none was given.
            (None, Origin::Init | Origin::Schedule) => {
                self.default_broker.ok_or_else(|| PublishError::UnknownBroker(String::new()))?
            }
        };
        let topic = TopicName::new(request.topic)
            .map_err(|reason| PublishError::InvalidTopic(format!("the topic {reason}")))?;
        self.check_grant(broker, &topic)?;

        let properties = match request.properties {
            Some(properties) => properties::checked(properties, &request.payload)?,
            None => None,
        };
        let message = Outgoing {
            topic,
            payload: request.payload.into(),
            qos: request.qos,
            retain: request.retain,
            properties,
            hops: None,
        };
        if let Some(limit) = self.exceeds(held, message.weight()) {
            held.exceeded.get_or_insert(limit);
            return Err(if message.weight() > self.max_publish_bytes {
                PublishError::TooLarge
            } else {
                PublishError::Quota
            });
        }
        held.push(Publish { broker, message });
        Ok(())
    }

    /// The limit that one publish more, of so many bytes, goes past.
    fn exceeds(&self, held: &Held, bytes: usize) -> Option<Limit> {
        if held.publishes.len() >= self.max_publishes {
            return Some(Limit::Publishes(self.max_publishes));
        }
        (held.bytes.saturating_add(bytes) > self.max_publish_bytes)
            .then_some(Limit::PublishBytes(self.max_publish_bytes))
    }

    fn broker_id(&self, name: &str) -> Result<BrokerId, PublishError> {
        let unknown = || PublishError::UnknownBroker(printable(name, MAX_NAME_BYTES).into_owned());
        self.brokers.find(name).ok_or_else(unknown)
    }

    fn check_grant(&self, broker: BrokerId, topic: &TopicName) -> Result<(), PublishError> {
        if self.allow.iter().any(|grant| grant.broker == broker && grant.filter.matches(topic)) {
            return Ok(());
        }
        let broker = self.brokers.name(broker);
        let target = format!("{broker}:{}", printable(topic.as_str(), MAX_NAME_BYTES));
        let reason = format!(
            "handler \"{handler}\" must not publish to \"{target}\": allow.publish {granted}; to permit it, add \
             \"{target}\" or a filter that matches to allow.publish of [handlers.{handler}]",
            handler = self.name,
            granted = self.granted(),
        );
        Err(self.deny(Some(&broker), topic.as_str(), reason))
    }

    /// What `allow.publish` holds, in words.
    fn granted(&self) -> String {
        if self.allow.is_empty() {
            return "grants nothing".to_owned();
        }
        let listed: Vec<String> = self
            .allow
            .iter()
            .take(MAX_LISTED_GRANTS)
            .map(|grant| format!("\"{}:{}\"", self.brokers.name(grant.broker), grant.filter))
            .collect();
        let more = match self.allow.len().saturating_sub(MAX_LISTED_GRANTS) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("grants {}{more}", listed.join(", "))
    }

    /// Why a publish is not made, in plain words, with what to do.
    pub(in crate::path::handler) fn reason(&self, error: &PublishError) -> String {
        let limit = |key: &str, most: usize| format!("{key} = {most} of [handlers.{}]", self.name);
        match error {
            PublishError::Denied(reason) | PublishError::InvalidTopic(reason) | PublishError::Other(reason) => {
                reason.clone()
            }
            PublishError::UnknownBroker(name) if name.is_empty() => format!(
                "the publish names no broker, and [handlers.{}] has no default-broker; name one, or set default-broker",
                self.name,
            ),
            PublishError::UnknownBroker(name) => format!("no broker \"{name}\" is configured; add it, or use another"),
            PublishError::TooLarge => format!(
                "it is larger than a message may be, or than {}; publish less, or raise the limit",
                limit("max-publish-bytes", self.max_publish_bytes),
            ),
            PublishError::Quota => format!(
                "the call reaches {} or {}; publish less, or raise the limit",
                limit("max-publishes", self.max_publishes),
                limit("max-publish-bytes", self.max_publish_bytes),
            ),
        }
    }

    /// Tells the log, and makes the error that tells the guest.
    fn deny(&self, broker: Option<&str>, topic: &str, reason: String) -> PublishError {
        self.log.denied(broker, topic, &reason);
        PublishError::Denied(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::handler::host::testing::handler;

    fn outgoing(topic: &str, bytes: usize) -> PublishRequest {
        PublishRequest {
            topic: topic.to_owned(),
            payload: vec![b'x'; bytes],
            qos: Qos::AtLeastOnce,
            retain: true,
            properties: None,
        }
    }

    /// One publish of a handler of these grants, on a message from broker 0, "plant"; broker 1 is "cloud".
    fn check(allow: &[&str], topic: &str, broker: Option<&str>, expected: Result<u32, &str>) {
        let host = handler().allow(allow).host();
        let mut held = Held::default();
        match (host.hold(&mut held, Origin::Broker(BrokerId(0)), outgoing(topic, 1), broker), expected) {
            (Ok(()), Ok(id)) => {
                let publishes = held.take();
                assert_eq!(publishes.len(), 1);
                assert_eq!(publishes[0].broker, BrokerId(id));
                assert_eq!(publishes[0].message.topic.as_str(), topic);
                assert_eq!(publishes[0].message.qos, Qos::AtLeastOnce);
                assert!(publishes[0].message.retain);
            }
            (Err(error), Err(sentence)) => {
                assert_eq!(words(error), sentence);
                assert!(held.take().is_empty());
            }
            (seen, expected) => panic!("{seen:?} is not {expected:?}"),
        }
    }

    fn words(error: PublishError) -> String {
        match error {
            PublishError::Denied(text) | PublishError::InvalidTopic(text) | PublishError::Other(text) => text,
            PublishError::UnknownBroker(name) => format!("unknown broker {name}"),
            PublishError::TooLarge => "too large".to_owned(),
            PublishError::Quota => "quota".to_owned(),
        }
    }

    #[test]
    fn a_grant_is_a_broker_and_a_filter() {
        check(&["0:out/#"], "out/a", None, Ok(0));
        check(&["0:out/#"], "out", Some("plant"), Ok(0));
        check(&["1:out/+", "0:other"], "out/a", Some("cloud"), Ok(1));
        check(&["0:#"], "any/thing", None, Ok(0));
        check(&["1:#"], "x", Some("mill"), Err("unknown broker mill"));
    }

    #[test]
    fn a_broker_that_was_added_later_is_known() {
        let host = handler().allow(&["2:#"]).host();
        let mut held = Held::default();
        let mut hold =
            || host.hold(&mut held, Origin::Broker(BrokerId(0)), outgoing("t", 1), Some("mill")).map_err(words);
        assert_eq!(hold(), Err("unknown broker mill".to_owned()));
        assert_eq!(host.brokers.number("mill"), BrokerId(2));
        assert_eq!(hold(), Ok(()));
    }

    #[test]
    fn a_denial_names_what_is_allowed_and_what_to_change() {
        check(
            &[],
            "out/a",
            None,
            Err(
                "handler \"celsius\" must not publish to \"plant:out/a\": allow.publish grants nothing; to permit it, add \
                 \"plant:out/a\" or a filter that matches to allow.publish of [handlers.celsius]",
            ),
        );
        check(
            &["0:out/+", "1:#"],
            "out/a/b",
            None,
            Err("handler \"celsius\" must not publish to \"plant:out/a/b\": allow.publish grants \"plant:out/+\", \
                 \"cloud:#\"; to permit it, add \"plant:out/a/b\" or a filter that matches to allow.publish of \
                 [handlers.celsius]"),
        );
        // A filter that starts with a wildcard grants no topic of the broker itself.
        check(
            &["0:#"],
            "$SYS/x",
            None,
            Err(
                "handler \"celsius\" must not publish to \"plant:$SYS/x\": allow.publish grants \"plant:#\"; to permit it, \
                 add \"plant:$SYS/x\" or a filter that matches to allow.publish of [handlers.celsius]",
            ),
        );
    }

    #[test]
    fn wildcards_and_empty_topics_are_refused() {
        check(
            &["0:#"],
            "a/+",
            None,
            Err("the topic has the wildcard '+' at byte 2, which only a topic filter may have (MQTT 5 §4.7.1)"),
        );
        check(&["0:#"], "", None, Err("the topic must not be empty (MQTT 5 §4.7.3)"));
    }

    #[test]
    fn init_must_not_publish() {
        let host = handler().allow(&["0:#"]).host();
        let error = host.hold(&mut Held::default(), Origin::Init, outgoing("a", 1), None).expect_err("is denied");
        assert_eq!(words(error), "handler \"celsius\" must not publish in init; publish when a message is handled",);
    }

    #[test]
    fn on_a_schedule_the_default_broker_gets_what_names_none() {
        let hold = |host: &Host, broker| {
            let mut held = Held::default();
            let result = host.hold(&mut held, Origin::Schedule, outgoing("a", 1), broker);
            result.map(|()| held.take()[0].broker)
        };
        let without = handler().allow(&["0:#", "1:#"]).host();
        assert_eq!(hold(&without, Some("plant")).map_err(words), Ok(BrokerId(0)));
        let error = hold(&without, None).expect_err("is refused");
        assert_eq!(
            without.reason(&error),
            "the publish names no broker, and [handlers.celsius] has no default-broker; name one, or set default-broker"
        );
        assert_eq!(words(error), "unknown broker ");
        let with = handler().allow(&["0:#", "1:#"]).default_broker(BrokerId(1)).host();
        assert_eq!(hold(&with, None).map_err(words), Ok(BrokerId(1)));
        assert_eq!(hold(&with, Some("plant")).map_err(words), Ok(BrokerId(0)));
    }

    #[test]
    fn a_call_has_a_quota_of_publishes_and_bytes() {
        let host = handler().allow(&["0:#"]).publishes(3, 100).host();
        let mut held = Held::default();
        let mut hold =
            |bytes: usize| host.hold(&mut held, Origin::Broker(BrokerId(0)), outgoing("t", bytes), None).map_err(words);
        assert_eq!(hold(100), Err("too large".to_owned()));
        assert_eq!(hold(49), Ok(()));
        assert_eq!(hold(50), Err("quota".to_owned()));
        assert_eq!(hold(49), Ok(()));
        assert_eq!(hold(100), Err("too large".to_owned()));
        assert_eq!(held.exceeded(), Some(Limit::PublishBytes(100)), "the first");
        assert_eq!(held.take().len(), 2);
        assert_eq!(held.exceeded(), None, "of the next call");
        let mut hold =
            |bytes: usize| host.hold(&mut held, Origin::Broker(BrokerId(0)), outgoing("t", bytes), None).map_err(words);
        for _ in 0..3 {
            assert_eq!(hold(0), Ok(()));
        }
        assert_eq!(hold(0), Err("quota".to_owned()));
        assert_eq!(held.exceeded(), Some(Limit::Publishes(3)));
        assert_eq!(held.take().len(), 3);
    }
}
