//! `[handlers.NAME]`.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::daemon::Daemon;
use super::{
    Named, addressable, broker, choose, dead_letter as dead_letters, filter, json, named, outbox, resolve, topic_name,
};
use crate::control::config::HandlerOrigins;
use crate::control::config::Origin;
use crate::control::config::model::{
    Allow, DeadLetterTopic, Handler, Isolation, Overload, PublishGrant, QuarantinePolicy, ReloadPolicy, Retry,
};
use crate::control::config::reader::{Table, Value};
use crate::control::config::scalar::format_duration;
use crate::control::config::suggest::either;
use crate::message::BrokerId;

const CALL_DEADLINE: Duration = Duration::from_secs(1);
const MAX_MEMORY: u64 = 64 * MIB;
const QUEUE: u64 = 1024;
const QUEUE_BYTES: u64 = 16 * MIB;
const RETRY_MAX: u32 = 3;
const RETRY_BACKOFF: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(10);
const RETRY_MAX_TIME: Duration = Duration::from_secs(30);
const QUARANTINE: QuarantinePolicy = QuarantinePolicy { after: 5, wait: Duration::from_secs(30) };
const RELOAD: ReloadPolicy = ReloadPolicy { canary: None, max_failures: 0.05 };
const MAX_PUBLISHES: u64 = 64;
const MAX_PUBLISH_BYTES: u64 = MIB;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// All of it is in memory.
const MOST_KV: u64 = 64 * MIB;

/// More instances than any machine has use for; each has a memory of its own.
const MAX_INSTANCES: u64 = 256;

/// More calls for one message than that show nothing new.
const MOST_RETRIES: u64 = 1_000;

/// A message holds back those behind it for no longer.
const LONGEST_RETRY: Duration = Duration::from_secs(3_600);

/// More failures in a row than that are no reason to wait longer.
const MOST_FAILURES: u64 = 1_000;

/// A handler is left alone for no longer, however often it fails.
pub const LONGEST_QUARANTINE: Duration = Duration::from_secs(600);

/// How the names of native plugins end.
const NATIVE: &str = ".so";

/// Words of `isolation`.
const ISOLATIONS: [(&str, Isolation); 2] = [("reuse", Isolation::Reuse), ("per-message", Isolation::PerMessage)];

/// Words of `overload`.
const OVERLOADS: [(&str, Overload); 2] = [("drop-newest", Overload::DropNewest), ("drop-oldest", Overload::DropOldest)];

/// A handler with the places that later checks need.
pub(in crate::control::config) type Placed = (Arc<Handler>, HandlerOrigins);

/// Reads the handlers of all files, in their order.
pub(in crate::control::config) fn read<'a>(
    roots: &[Table<'a>],
    brokers: &[Named<'_, broker::Placed>],
    daemon: &Daemon,
) -> Vec<Named<'a, Placed>> {
    let entries = named(roots, "handlers").into_iter().map(|(name, value)| {
        let item = value.table("[handlers.NAME]", |table| handler(name, table, &value, brokers, daemon)).flatten();
        let item = item.map(|(handler, plugin)| (handler, HandlerOrigins { object: value.object(), plugin }));
        Named { name: name.into(), value, item }
    });
    entries.collect()
}

fn handler(
    name: &str,
    table: &Table<'_>,
    value: &Value<'_>,
    brokers: &[Named<'_, broker::Placed>],
    daemon: &Daemon,
) -> Option<(Arc<Handler>, Origin)> {
    let plugin = table.require("plugin", || format!("add plugin = \"{name}.wasm\""));
    let file = plugin.as_ref().and_then(|value| plugin_file(value, daemon.native));
    if let Some(value) = table.get("max-memory").filter(|_| file.as_ref().is_some_and(|file| file.ends_with(NATIVE))) {
        value.warn("does not hold for native plugins, which take what memory they want", "remove it");
    }
    let size = |key, range, default| table.get(key).and_then(|value: Value<'_>| value.size(range)).unwrap_or(default);
    let mut secrets = Vec::new();
    let allow = allow(table, brokers);
    let publishes = table.get("max-publishes").and_then(|value| value.integer(0..=outbox::MOST_MESSAGES, ""));
    let publishes = publishes.unwrap_or(MAX_PUBLISHES);
    let publish_bytes = size("max-publish-bytes", 1..=GIB, MAX_PUBLISH_BYTES);
    outbox::hold_a_call((name, table, value), (publishes, publish_bytes), &allow, brokers);
    let handler = Handler {
        name: name.into(),
        instances: table
            .get("instances")
            .and_then(|value| value.integer(1..=MAX_INSTANCES, ""))
            .and_then(|count| NonZeroUsize::new(addressable(count)))
            .unwrap_or(table.reading.environment.parallelism),
        isolation: table.get("isolation").and_then(|value| value.choice(&ISOLATIONS)).unwrap_or(Isolation::Reuse),
        call_deadline: table
            .get("call-deadline")
            .and_then(|value| value.duration(Duration::from_millis(1)..=Duration::from_secs(3_600)))
            .unwrap_or(CALL_DEADLINE),
        max_memory: addressable(size("max-memory", 64 * KIB..=4 * GIB, MAX_MEMORY)),
        queue: addressable(table.get("queue").and_then(|value| value.integer(1..=1_000_000, "")).unwrap_or(QUEUE)),
        queue_bytes: addressable(size("queue-bytes", KIB..=GIB, QUEUE_BYTES)),
        overload: table.get("overload").and_then(|value| value.choice(&OVERLOADS)).unwrap_or(Overload::DropNewest),
        retry: retry(table),
        quarantine: table.get("quarantine").map_or(Some(QUARANTINE), |value| quarantine(&value)),
        reload: table.get("reload").map_or(RELOAD, |value| reload(&value)),
        max_publishes: addressable(publishes),
        max_publish_bytes: addressable(publish_bytes),
        dead_letter: table.get("dead-letter").and_then(|value| dead_letter(name, &value, brokers)),
        default_broker: table.get("default-broker").and_then(|value| default_broker(&value, brokers)),
        allow,
        config: table.get("config").and_then(|value| json::object(&value, &mut secrets)).unwrap_or_default(),
        secrets,
        plugin: daemon.plugins_dir.join(file?),
    };
    let plugin = plugin.expect("a handler without one is not made").origin();
    Some((Arc::new(handler), plugin))
}

/// `retry = { max = 3, backoff = "100ms..10s", max-time = "30s" }`.
fn retry(table: &Table<'_>) -> Retry {
    let read = |table: &Table<'_>| {
        let max = table.get("max").and_then(|value| u32::try_from(value.integer(0..=MOST_RETRIES, "")?).ok());
        let backoff = table.get("backoff").and_then(|value| value.durations(Duration::from_millis(1)..=LONGEST_RETRY));
        let max_time = table.get("max-time").and_then(|value| value.duration(Duration::ZERO..=LONGEST_RETRY));
        (max, backoff, max_time)
    };
    let shape = "{ max = 3, backoff = \"100ms..10s\", max-time = \"30s\" }";
    let given = table.get("retry");
    let (max, backoff, max_time) = given.as_ref().and_then(|value| value.table(shape, read)).unwrap_or_default();
    let retry = Retry {
        max: max.unwrap_or(RETRY_MAX),
        backoff: backoff.unwrap_or(RETRY_BACKOFF),
        max_time: max_time.unwrap_or(RETRY_MAX_TIME),
    };
    if let Some(value) = given
        && retry.max > 0
        && *retry.backoff.start() > retry.max_time
    {
        let shortest = format_duration(*retry.backoff.start());
        value.warn(
            format!("the shortest wait, {shortest}, is longer than max-time: no call is made again"),
            format!("use a max-time of more than {shortest}, or max = 0"),
        );
    }
    retry
}

/// `quarantine = { after = 5, for = "30s" }`, or `"off"`.
fn quarantine(value: &Value<'_>) -> Option<QuarantinePolicy> {
    if value.as_written().is_some() {
        value.choice(&[("off", ())]);
        return None;
    }
    let read = |table: &Table<'_>| {
        let after = table.get("after").and_then(|value| u32::try_from(value.integer(1..=MOST_FAILURES, "")?).ok());
        let wait = table.get("for").and_then(|value| value.duration(Duration::from_millis(1)..=LONGEST_QUARANTINE));
        QuarantinePolicy { after: after.unwrap_or(QUARANTINE.after), wait: wait.unwrap_or(QUARANTINE.wait) }
    };
    value.table("{ after = 5, for = \"30s\" } or \"off\"", read)
}

/// `reload = { canary = "off", max-failures = 0.05 }`.
fn reload(value: &Value<'_>) -> ReloadPolicy {
    let read = |table: &Table<'_>| {
        let failures = table.get("max-failures").and_then(|value| {
            let inside = |share: f64| (0.0..1.0).contains(&share);
            value.number(inside, "must be at least 0 and less than 1", "a share such as 0.05")
        });
        ReloadPolicy {
            canary: table.get("canary").and_then(|value| canary(&value)),
            max_failures: failures.unwrap_or(RELOAD.max_failures),
        }
    };
    value.table("{ canary = 0.1, max-failures = 0.05 }", read).unwrap_or(RELOAD)
}

/// A share, or `"off"`.
fn canary(value: &Value<'_>) -> Option<f64> {
    if value.as_written() == Some("off") {
        return None;
    }
    let inside = |share: f64| share > 0.0 && share <= 1.0;
    value.number(inside, "must be more than 0 and at most 1", "a share such as 0.1, or \"off\"")
}

/// A file name in `plugins-dir`, of a WebAssembly component, or where permitted of a native library.
fn plugin_file(value: &Value<'_>, native: bool) -> Option<String> {
    let text = value.text()?;
    let name = text.value;
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let shown = |name: &str| if text.hidden { "a file name in plugins-dir".to_owned() } else { format!("\"{name}\"") };
    let kind = if base.ends_with(NATIVE) { NATIVE } else { ".wasm" };
    if kind == NATIVE && !native {
        value.error(
            "native plugins are not permitted: they run with the daemon's rights, and without limits",
            "use a WebAssembly component (.wasm), or set native = true",
        );
    } else if base != name || matches!(base, "" | "." | "..") {
        let remedy = if base.ends_with(kind) { format!("use {}", shown(base)) } else { "use \"NAME.wasm\"".to_owned() };
        value.error("not a file name in plugins-dir", remedy);
    } else if name.contains('\0') {
        value.error("has the character U+0000", "use \"NAME.wasm\"");
    } else if !name.ends_with(kind) || name == kind {
        let stem = base.split('.').next().unwrap_or_default();
        let stem = if stem.is_empty() || text.hidden { "NAME" } else { stem };
        value.error("a plugin's name is NAME.wasm, or NAME.so of a native one", format!("use \"{stem}{kind}\""));
    } else {
        return Some(name);
    }
    None
}

/// `dead-letter = { broker, topic }`: both, since a topic without its broker would be another one for each message.
fn dead_letter(handler: &str, value: &Value<'_>, brokers: &[Named<'_, broker::Placed>]) -> Option<DeadLetterTopic> {
    let read = |table: &Table<'_>| {
        let known = || brokers.iter().map(|named| &*named.name);
        let remedy = || match brokers {
            [] => "add [brokers.NAME], and broker = \"NAME\" here".to_owned(),
            _ => format!("add broker = {}", either(known())),
        };
        let broker = table.require("broker", remedy).and_then(|value| {
            let name = value.text()?;
            resolve(&value, &name, brokers, "broker")?;
            value.reading.names.find(&name.value)
        });
        let usual = dead_letters::usual_topic(handler);
        let topic = table.require("topic", || format!("add topic = \"{usual}\""));
        let topic = topic.and_then(|value| topic_name(&value, &usual));
        Some(DeadLetterTopic { broker: broker?, topic: topic? })
    };
    value.table("dead-letter = { broker = \"BROKER\", topic = \"TOPIC\" }", read).flatten()
}

/// `default-broker`: where it publishes on a schedule.
fn default_broker(value: &Value<'_>, brokers: &[Named<'_, broker::Placed>]) -> Option<BrokerId> {
    let name = value.text()?;
    resolve(value, &name, brokers, "broker")?;
    value.reading.names.find(&name.value)
}

/// `allow = { publish = […], kv = "64KiB", system = false }`.
fn allow(table: &Table<'_>, brokers: &[Named<'_, broker::Placed>]) -> Allow {
    let allow = table.get("allow").and_then(|value| {
        value.table("allow = { publish = [\"BROKER:FILTER\"] }", |table| {
            let grants = |value: Value<'_>| {
                let items = value.items("[\"BROKER:FILTER\"]")?;
                Some(items.iter().filter_map(|item| grant(item, brokers)).collect())
            };
            Allow {
                publish: table.get("publish").and_then(grants).unwrap_or_default(),
                kv: table.get("kv").and_then(|value| value.size(KIB..=MOST_KV)).map(addressable),
                system: table.get("system").and_then(|value| value.boolean()).unwrap_or(false),
            }
        })
    });
    allow.unwrap_or_default()
}

fn grant(value: &Value<'_>, brokers: &[Named<'_, broker::Placed>]) -> Option<PublishGrant> {
    let text = value.text()?;
    let Some((broker, topics)) = text.value.split_once(':') else {
        value.error("names no broker", "use \"BROKER:FILTER\", such as \"plant:converted/#\"");
        return None;
    };
    let place = brokers.iter().position(|named| *named.name == *broker);
    if place.is_none() && !value.reading.is_incomplete() {
        value.error("no such broker", choose(broker, brokers, "broker"));
    }
    let unshared = |known: Option<(&str, &str)>| match known {
        Some((_, filter)) => format!("use \"{filter}\" without \"$share/…/\""),
        None => "use the filter without \"$share/…/\"".to_owned(),
    };
    let filter = filter(value, topics, text.hidden, ("nothing is published to a shared subscription", unshared))?;
    place?;
    Some(PublishGrant { broker: value.reading.names.find(broker)?, filter })
}
