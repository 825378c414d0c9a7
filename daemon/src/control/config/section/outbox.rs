//! `outbox` of a broker: what may wait to be published there; and whether that is enough for one call of each handler.
//!
//! An outbox that holds less than one call may publish would let that call in only while it is empty: a configuration that
//! says so contradicts itself.

use std::time::Duration;

use toml::de::DeValue;

use super::{Named, addressable, broker};
use crate::control::config::model::{Allow, OutboxLimits, OutboxStore, WhenFull};
use crate::control::config::reader::{Table, Value};
use crate::control::config::scalar::format_size;

/// Most messages that an outbox in memory may hold.
pub(super) const MOST_MESSAGES: u64 = 1_000_000;

/// Most bytes that an outbox in memory may hold.
const MOST_BYTES: u64 = 4 << 30;

/// Most messages that an outbox on disk may hold.
const MOST_MESSAGES_ON_DISK: u64 = 10_000_000;

/// Most bytes that an outbox on disk may hold.
const MOST_BYTES_ON_DISK: u64 = 64 << 30;

const AGES: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(365 * 86_400);

/// Words of `when-full`.
const WHEN_FULL: [(&str, WhenFull); 3] =
    [("block", WhenFull::Block), ("drop-oldest", WhenFull::DropOldest), ("reject", WhenFull::Reject)];

/// Words of `store`.
const STORES: [(&str, OutboxStore); 2] = [("memory", OutboxStore::Memory), ("disk", OutboxStore::Disk)];

/// How the table is written, for who writes something else.
const EXAMPLE: &str = "outbox = { max-messages = 10000, max-bytes = \"64MiB\" }";

/// Reads `outbox` of a broker.
pub(super) fn read(broker: &Table<'_>) -> OutboxLimits {
    let given = broker.get("outbox").and_then(|value| value.table(EXAMPLE, limits));
    given.unwrap_or_default()
}

fn limits(table: &Table<'_>) -> OutboxLimits {
    let default = OutboxLimits::default();
    let store = table.get("store").and_then(|value| value.choice(&STORES)).unwrap_or(default.store);
    let (most_messages, most_bytes) = match store {
        OutboxStore::Memory => (MOST_MESSAGES, MOST_BYTES),
        OutboxStore::Disk => (MOST_MESSAGES_ON_DISK, MOST_BYTES_ON_DISK),
    };
    let messages = table.get("max-messages").and_then(|value| value.integer(1..=most_messages, ""));
    let bytes = table.get("max-bytes").and_then(|value| value.size(1 << 10..=most_bytes));
    OutboxLimits {
        store,
        messages: messages.map_or(default.messages, addressable),
        bytes: bytes.map_or(default.bytes, addressable),
        max_age: table.get("max-age").and_then(|value| max_age(&value)),
        when_full: table.get("when-full").and_then(|value| value.choice(&WHEN_FULL)).unwrap_or(default.when_full),
    }
}

fn max_age(value: &Value<'_>) -> Option<Duration> {
    match value.raw() {
        DeValue::String(text) if text == "off" => None,
        DeValue::Boolean(_) => {
            value.wrong_type("a duration or \"off\"", "use \"off\", or a number and a unit, such as \"10m\"");
            None
        }
        _ => value.duration(AGES),
    }
}

/// A limit of what one call publishes, and the limit of an outbox that has to be as large.
struct Pair {
    /// The handler's key.
    call: &'static str,
    /// The outbox' key.
    outbox: &'static str,
    /// How a number of it is written.
    written: fn(u64) -> String,
}

const MESSAGES: Pair = Pair { call: "max-publishes", outbox: "max-messages", written: |number| number.to_string() };
const BYTES: Pair =
    Pair { call: "max-publish-bytes", outbox: "max-bytes", written: |bytes| format!("\"{}\"", format_size(bytes)) };

/// Reports outboxes that hold less than one call of a handler may publish to them. `table` is the handler's, `value` all of it.
pub(super) fn hold_a_call(
    (name, table, value): (&str, &Table<'_>, &Value<'_>),
    (max_publishes, max_publish_bytes): (u64, u64),
    allow: &Allow,
    brokers: &[Named<'_, broker::Placed>],
) {
    let granted = |named: &&Named<'_, broker::Placed>| {
        named.item.as_ref().is_some_and(|(broker, _)| allow.publish.iter().any(|grant| grant.broker == broker.id))
    };
    for named in brokers.iter().filter(granted) {
        let Some((broker, _)) = &named.item else { continue };
        let limits =
            [(MESSAGES, max_publishes, broker.outbox.messages), (BYTES, max_publish_bytes, broker.outbox.bytes)];
        for (pair, call, holds) in limits {
            let holds = holds as u64;
            if call > holds {
                contradiction((name, table, value), &pair, (call, holds), named);
            }
        }
    }
}

/// Tells it where it is written: at the handler's key, else at the broker's.
fn contradiction(
    (handler, table, value): (&str, &Table<'_>, &Value<'_>),
    pair: &Pair,
    (call, holds): (u64, u64),
    named: &Named<'_, broker::Placed>,
) {
    let (Pair { call: call_key, outbox: outbox_key, written }, broker) = (pair, &named.name);
    let limit = named.value.within("outbox").and_then(|outbox| outbox.within(outbox_key));
    match (table.get(call_key), limit) {
        (Some(given), limit) => {
            let at = match &limit {
                Some(limit) => format!("at {}", limit.origin().place),
                None => "by default".to_owned(),
            };
            given.error(
                format!(
                    "one call may publish more than the outbox of {broker} holds: brokers.{broker}.outbox.{outbox_key} = {} {at}",
                    written(holds)
                ),
                format!("use {} or less, or raise that {outbox_key}", written(holds)),
            );
        }
        (None, Some(limit)) => limit.error(
            format!(
                "holds less than one call of {handler} may publish: handlers.{handler}.{call_key} = {} by default, for the \
                 handler at {}",
                written(call),
                value.origin().place
            ),
            format!("use {} or more, or set a lower {call_key} there", written(call)),
        ),
        (None, None) => debug_assert!(false, "the defaults do not contradict each other"),
    }
}
