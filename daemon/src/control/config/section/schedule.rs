//! `[[schedules]]`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{MAX_NAME, Named, broker, handler, qos, resolve, topic_name};
use crate::control::config::ObjectOrigin;
use crate::control::config::model::{Schedule, ScheduleAction, ScheduledPayload, ScheduledPublish};
use crate::control::config::problem::Place;
use crate::control::config::reader::{Table, Value};
use crate::control::config::scalar::format_duration;
use crate::control::config::suggest::either;
use crate::path::schedule::timing::{CronTiming, Timing};
use crate::topic::TopicName;

/// How often something may run.
pub(super) const PERIODS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(365 * 86_400);

/// How long a run may be put off at random.
const JITTERS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(86_400);

/// Words of `payload.builtin`.
const BUILTINS: [(&str, ScheduledPayload); 1] = [("system-stats", ScheduledPayload::SystemStats)];

const WHEN: &str = "every = \"60s\" or cron = \"0 */5 * * * *\"";
const WHAT: &str = "publish = { broker = \"BROKER\", topic = \"TOPIC\" } or on-schedule = \"HANDLER\"";
const PUBLISH: &str = "publish = { broker = \"BROKER\", topic = \"TOPIC\", message = \"TEXT\" }";

/// A schedule and where it stands.
pub(in crate::control::config) type Placed = (Arc<Schedule>, ObjectOrigin);

/// The schedules of all files.
#[derive(Default)]
pub(in crate::control::config) struct Schedules {
    /// In the order of the files.
    pub(in crate::control::config) all: Vec<Placed>,
    /// Whether one of them runs the handler, by the handlers' places.
    pub(in crate::control::config) used: Vec<bool>,
}

/// Reads them.
pub(in crate::control::config) fn read<'a>(
    roots: &[Table<'a>],
    brokers: &[Named<'a, broker::Placed>],
    handlers: &[Named<'a, handler::Placed>],
) -> Schedules {
    let mut section = Section { brokers, handlers, used: vec![false; handlers.len()], names: Vec::new() };
    let mut all = Vec::new();
    for root in roots {
        let Some(array) = root.get("schedules") else { continue };
        for value in array.items("[[schedules]]").unwrap_or_default() {
            let read = value.table("[[schedules]]", |table| section.schedule(table, &value));
            all.extend(read.flatten().map(|schedule| (Arc::new(schedule), value.object())));
        }
    }
    Schedules { all, used: section.used }
}

struct Section<'s, 'a> {
    brokers: &'s [Named<'a, broker::Placed>],
    handlers: &'s [Named<'a, handler::Placed>],
    /// By the handlers' places.
    used: Vec<bool>,
    names: Vec<(Arc<str>, Place)>,
}

impl<'a> Section<'_, 'a> {
    fn schedule(&mut self, table: &Table<'a>, value: &Value<'a>) -> Option<Schedule> {
        let name = table.require("name", || "add name = \"NAME\"".to_owned()).and_then(|value| self.name(&value));
        let timing = timing(table, value);
        let jitter = table.get("jitter").map_or(Some(Duration::ZERO), |value| jitter(&value, timing.as_ref()));
        let action = self.action(table, value);
        Some(Schedule { name: name?, timing: timing?, jitter: jitter?, action: action? })
    }

    fn name(&mut self, value: &Value<'a>) -> Option<Arc<str>> {
        let name: Arc<str> = value.text()?.value.into();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if !name.chars().all(allowed) || !(1..=MAX_NAME).contains(&name.len()) {
            value.error(format!("not a name: 1 to {MAX_NAME} letters, digits, \"-\" and \"_\""), "use another name");
            return None;
        }
        if let Some((_, place)) = self.names.iter().find(|(known, _)| *known == name) {
            value.error(format!("also the name of the schedule at {place}"), "use another name");
            return None;
        }
        self.names.push((Arc::clone(&name), value.origin().place));
        Some(name)
    }

    /// One of `publish` and `on-schedule`.
    fn action(&mut self, table: &Table<'a>, value: &Value<'a>) -> Option<ScheduleAction> {
        match (table.get("publish"), table.get("on-schedule")) {
            (Some(publish), None) => self.publish(&publish).map(ScheduleAction::Publish),
            (None, Some(handler)) => {
                let name = handler.text()?;
                let place = resolve(&handler, &name, self.handlers, "handler")?;
                self.used[place] = true;
                Some(ScheduleAction::Handler(Arc::clone(&self.handlers[place].name)))
            }
            (Some(_), Some(handler)) => {
                handler
                    .error("a schedule publishes or runs a handler, and this one has publish too", "keep one of both");
                None
            }
            (None, None) => {
                if !table.reading.is_incomplete() {
                    value.error("does nothing", format!("add {WHAT}"));
                }
                None
            }
        }
    }

    fn publish(&self, value: &Value<'a>) -> Option<ScheduledPublish> {
        let read = |table: &Table<'a>| {
            let remedy = || match self.brokers {
                [] => "add [brokers.NAME], and broker = \"NAME\" here".to_owned(),
                brokers => format!("add broker = {}", either(brokers.iter().map(|named| &*named.name))),
            };
            let broker = table.require("broker", remedy).and_then(|value| {
                let name = value.text()?;
                resolve(&value, &name, self.brokers, "broker")?;
                value.reading.names.find(&name.value)
            });
            let topic = table.require("topic", || "add topic = \"TOPIC\"".to_owned());
            let topic: Option<TopicName> = topic.and_then(|value| topic_name(&value, "gateway/1/stats"));
            let payload = payload(table);
            let (qos, retain) = (qos(table), table.get("retain").and_then(|value| value.boolean()).unwrap_or(false));
            Some(ScheduledPublish { broker: broker?, topic: topic?, payload: payload?, qos, retain })
        };
        value.table(PUBLISH, read).flatten()
    }
}

/// One of `every` and `cron`.
fn timing(table: &Table<'_>, value: &Value<'_>) -> Option<Timing> {
    let (every, cron, zone) = (table.get("every"), table.get("cron"), table.get("time-zone"));
    if let (Some(zone), None) = (&zone, &cron) {
        zone.error("belongs to a cron, and there is none", "remove it, or use cron = \"0 */5 * * * *\"");
    }
    match (every, cron) {
        (Some(every), None) => every.duration(PERIODS).map(Timing::Every),
        (None, Some(pattern)) => {
            let zone = zone.map_or(Some("UTC".to_owned()), |value| time_zone(&value))?;
            let text = pattern.text()?;
            let timing = CronTiming::new(&text.value, &zone);
            timing
                .map_err(|error| {
                    pattern.error(error, "use SECOND MINUTE HOUR DAY MONTH WEEKDAY, such as \"0 */5 * * * *\"")
                })
                .ok()
                .map(|cron| Timing::Cron(Box::new(cron)))
        }
        (Some(_), Some(cron)) => {
            cron.error("a schedule has one of every and cron, and this one has both", "keep one of the two");
            None
        }
        (None, None) => {
            if !table.reading.is_incomplete() {
                value.error("is never due", format!("add {WHEN}"));
            }
            None
        }
    }
}

/// The name of a time zone that is known.
fn time_zone(value: &Value<'_>) -> Option<String> {
    let name = value.text()?.value;
    if CronTiming::knows(&name) {
        return Some(name);
    }
    value.error("no such time zone", "use a name of the IANA database, such as \"Europe/Riga\" or \"UTC\"");
    None
}

fn jitter(value: &Value<'_>, timing: Option<&Timing>) -> Option<Duration> {
    if value.as_written() == Some("off") {
        return Some(Duration::ZERO);
    }
    let jitter = value.duration(JITTERS)?;
    match timing {
        Some(Timing::Every(every)) if jitter > *every => {
            let every = format_duration(*every);
            value.error(format!("longer than every = \"{every}\""), format!("use \"{every}\" or less"));
            None
        }
        _ => Some(jitter),
    }
}

/// One of `message` and `payload`; neither is an empty message.
fn payload(table: &Table<'_>) -> Option<ScheduledPayload> {
    match (table.get("message"), table.get("payload")) {
        (None, None) => Some(ScheduledPayload::Message(Bytes::new())),
        (Some(message), None) => message.text().map(|text| ScheduledPayload::Message(text.value.into())),
        (None, Some(payload)) => {
            let read = |table: &Table<'_>| {
                let builtin = table.require("builtin", || "add builtin = \"system-stats\"".to_owned())?;
                let place = builtin.choice(&BUILTINS.each_ref().map(|(word, _)| (*word, *word)))?;
                BUILTINS.into_iter().find(|(word, _)| *word == place).map(|(_, payload)| payload)
            };
            payload.table("payload = { builtin = \"system-stats\" }", read).flatten()
        }
        (Some(_), Some(payload)) => {
            payload.error("a publish has one of message and payload, and this one has both", "keep one of the two");
            None
        }
    }
}
