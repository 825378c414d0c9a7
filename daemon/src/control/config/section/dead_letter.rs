//! Warnings about dead letters: topics from which they are handled again or to which brokers may not take them, and outboxes that
//! may drop them.
//!
//! Fed by the subscriptions and handlers as they were read.

use super::subscription::Placed;
use super::{Named, broker, handler};
use crate::control::config::model::{DeadLetterTopic, DispatchMode, OnMessage, Otherwise, Subscription, WhenFull};
use crate::control::config::reader::Value;
use crate::topic::Rank;

/// Handlers that are named.
const MAX_NAMED: usize = 8;

/// Warns of what is dropped, and of what goes round.
pub(super) fn warn(
    subscriptions: &[(Placed, Value<'_>)],
    brokers: &[Named<'_, broker::Placed>],
    handlers: &[Named<'_, handler::Placed>],
) {
    brokers.iter().for_each(|broker| warn_of_outbox(broker, handlers));
    for named in handlers {
        let place = named.item.as_ref().and_then(|(handler, _)| handler.dead_letter.as_ref());
        let value = entry(&named.value, "dead-letter").and_then(|value| entry(&value, "topic"));
        if let (Some(place), Some(value)) = (place, value) {
            if let Some((by, origin)) = handled_by(place, subscriptions, brokers) {
                value.warn(
                    format!("the subscription {:?} at {origin} hands dead letters to a handler again", &*by.name),
                    "use a topic that no subscription with a handler gets",
                );
            }
            warn_of_system(place, &value, &named.name);
        }
    }
}

/// The topic that is suggested for a handler's dead letters.
pub(super) fn usual_topic(handler: &str) -> String {
    format!("tidegate/dead/{handler}")
}

/// Other topics that begin with `$` may be there for clients, such as `$aws/rules`.
fn warn_of_system(place: &DeadLetterTopic, value: &Value<'_>, handler: &str) {
    if place.topic.levels().next() == Some("$SYS") {
        value.warn(
            "topics under $SYS are the broker's own (MQTT 5 §4.7.2), which may refuse a dead letter there or end the \
             connection over it",
            format!("use one topic such as \"{}\"", usual_topic(handler)),
        );
    }
}

/// One warning for all handlers whose dead letters this broker's outbox may drop, at the first of them.
fn warn_of_outbox(broker: &Named<'_, broker::Placed>, handlers: &[Named<'_, handler::Placed>]) {
    let Some((known, _)) = &broker.item else { return };
    let drops =
        [("max-age", known.outbox.max_age.is_some()), ("when-full", known.outbox.when_full == WhenFull::DropOldest)];
    let keys: Vec<String> = drops
        .into_iter()
        .filter(|(_, drops)| *drops)
        .filter_map(|(key, _)| {
            let origin = broker.value.within("outbox").and_then(|outbox| outbox.within(key))?.origin();
            Some(format!("{key} = {} at {}", origin.value.as_deref().unwrap_or("…"), origin.place))
        })
        .collect();
    let goes_there =
        |handler: &handler::Placed| handler.0.dead_letter.as_ref().is_some_and(|place| place.broker == known.id);
    let mut of = handlers.iter().filter(|named| named.item.as_ref().is_some_and(goes_there));
    let (Some(first), false) = (of.next(), keys.is_empty()) else { return };
    let others: Vec<&str> = of.map(|named| &*named.name).collect();
    let named: Vec<String> = others.iter().take(MAX_NAMED).map(|name| format!("{name:?}")).collect();
    let others = match others.len().saturating_sub(MAX_NAMED) {
        _ if others.is_empty() => String::new(),
        0 => format!(", those of {} too", named.join(", ")),
        more => format!(", those of {} and {more} more too", named.join(", ")),
    };
    let at = entry(&first.value, "dead-letter").and_then(|value| entry(&value, "broker"));
    let what = if keys.len() == 1 { "that" } else { "these" };
    at.unwrap_or_else(|| first.value.clone()).warn(
        format!("its outbox may drop dead letters{others}, and their messages are gone then: {}", keys.join(", ")),
        format!("use a broker whose outbox keeps what waits, or remove {what}"),
    );
}

/// The subscription by which what is published there comes to a handler, as far as no payload decides that, and where it stands.
fn handled_by<'s>(
    place: &DeadLetterTopic,
    subscriptions: &'s [(Placed, Value<'_>)],
    brokers: &[Named<'_, broker::Placed>],
) -> Option<(&'s Subscription, String)> {
    let dispatch = brokers.iter().filter_map(|named| named.item.as_ref()).find(|(broker, _)| broker.id == place.broker);
    let dispatch = dispatch.map(|(broker, _)| broker.dispatch)?;
    let mut matching: Vec<(&Subscription, &Value<'_>)> = subscriptions
        .iter()
        .map(|((subscription, _), topic)| (&**subscription, topic))
        .filter(|(known, _)| {
            known.broker == place.broker && known.on_message.is_some() && known.topic.matches(&place.topic)
        })
        .collect();
    matching.sort_by_cached_key(|(known, _)| Rank::of(&known.topic));
    let keeps = |one: &Subscription| one.when.as_ref().is_none_or(|when| when.otherwise == Otherwise::Stop);
    // Each share is a dispatch domain of its own, and so is all that is not shared.
    let reached = |(place, (one, _)): &(usize, &(&Subscription, &Value<'_>))| {
        let better = &matching[..*place];
        dispatch == DispatchMode::All
            || !better.iter().any(|(other, _)| other.topic.share() == one.topic.share() && keeps(other))
    };
    let handled =
        |(_, (one, _)): &(usize, &(&Subscription, &Value<'_>))| matches!(one.on_message, Some(OnMessage::Handler(_)));
    let (_, (one, topic)) = matching.iter().enumerate().filter(reached).find(handled)?;
    Some((one, topic.origin().place.to_string()))
}

/// The value of a key in a table that was read already.
fn entry<'a>(table: &Value<'a>, key: &str) -> Option<Value<'a>> {
    table.entries_read().into_iter().find(|(known, _)| *known == key).map(|(_, value)| value)
}
