//! `[[subscriptions]]`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};
use toml::de::DeValue;

use super::{Named, broker, dead_letter, filter, handler, loops, qos, reaches_brokers, resolve, schedule};
use crate::control::config::ObjectOrigin;
use crate::control::config::model::{DispatchMode, OnMessage, Otherwise, Protocol, Subscription, When};
use crate::control::config::problem::Place;
use crate::control::config::reader::{Table, Value};
use crate::control::config::scalar::format_size;
use crate::control::config::suggest::either;
use crate::control::config::template::{LogTemplate, TemplateError};
use crate::topic::{TopicFilter, widest};

/// Largest compiled `when.payload`, in bytes: one expression must not eat the daemon's memory.
const MAX_REGEX: usize = 1 << 20;

/// Longest name, in bytes; it is a metric's label.
const MAX_NAME: usize = 256;

/// Largest `when.min-bytes`: that of the largest packet (MQTT 5 §1.5.5).
const LARGEST_PAYLOAD: u64 = 268_435_455;

/// Pairs of overlapping filters that are told one by one.
const MAX_OVERLAPS: usize = 10;

/// Words of `when.otherwise`.
const OTHERWISE: [(&str, Otherwise); 2] = [("stop", Otherwise::Stop), ("next", Otherwise::Next)];

/// What is said of a handler that nothing leads to.
pub const UNUSED: &str = "no subscription and no schedule runs it";

const ON_MESSAGE: &str = "on-message = \"HANDLER\" or { log = \"TEMPLATE\" }";

/// A subscription and where it stands.
pub(in crate::control::config) type Placed = (Arc<Subscription>, ObjectOrigin);

/// Reads the subscriptions of all files, in their order. Tells about handlers that none of them uses, nor a schedule (`scheduled`), and about what
/// handlers and subscriptions together bring about.
pub(in crate::control::config) fn read<'a>(
    roots: &[Table<'a>],
    brokers: &[Named<'a, broker::Placed>],
    handlers: &[Named<'a, handler::Placed>],
    scheduled: Vec<bool>,
) -> Vec<Placed> {
    let mut section = Section { brokers, handlers, used: scheduled, seen: Vec::new(), names: Vec::new() };
    let mut subscriptions = Vec::new();
    for root in roots {
        let Some(array) = root.get("subscriptions") else { continue };
        for value in array.items("[[subscriptions]]").unwrap_or_default() {
            let read = value.table("[[subscriptions]]", |table| section.subscription(table, &value));
            subscriptions.extend(read.flatten());
        }
    }
    section.tell_overlaps();
    let unused =
        handlers.iter().zip(section.used).filter(|(handler, used)| !used && !handler.value.reading.is_incomplete());
    for (handler, _) in unused {
        handler.value.warn(UNUSED, format!("add on-message = \"{}\" to one", handler.name));
    }
    if roots.iter().all(|root| !root.reading.is_incomplete()) {
        loops::warn(&subscriptions, brokers);
        dead_letter::warn(&subscriptions, brokers, handlers);
    }
    subscriptions.into_iter().map(|(placed, _)| placed).collect()
}

/// What the subscriptions read so far rule out for the next.
struct Section<'s, 'a> {
    brokers: &'s [Named<'a, broker::Placed>],
    handlers: &'s [Named<'a, handler::Placed>],
    /// By the handlers' places.
    used: Vec<bool>,
    seen: Vec<Seen<'a>>,
    names: Vec<(Arc<str>, Place)>,
}

/// What decides whether two subscriptions get into each other's way.
struct Seen<'a> {
    broker: usize,
    /// With its share.
    filter: TopicFilter,
    condition: Condition,
    /// None where `on-message` has errors.
    runs: Option<Runs>,
    topic: Value<'a>,
    place: Place,
}

impl Seen<'_> {
    /// Whether it takes part in the dispatch.
    fn acts(&self) -> bool {
        self.runs != Some(Runs::Nothing)
    }
}

/// The conditions of a `when`, comparable; without one, none and nothing to hand on.
#[derive(Default)]
struct Condition {
    /// Expression, smallest payload, retained.
    holds: (Option<String>, Option<u64>, Option<bool>),
    /// Whether the next subscription gets its chance where these do not hold.
    hands_on: bool,
}

/// What a subscription does with a message; handlers by place.
#[derive(PartialEq, Eq)]
enum Runs {
    Nothing,
    Handler(usize),
    Log(LogTemplate),
}

impl<'a> Section<'_, 'a> {
    /// With its topic as it is written.
    fn subscription(&mut self, table: &Table<'a>, value: &Value<'a>) -> Option<(Placed, Value<'a>)> {
        let broker = table.require("broker", || self.broker_remedy()).and_then(|value| {
            let name = value.text()?;
            resolve(&value, &name, self.brokers, "broker")
        });
        let topic = table.require("topic", || "add topic = \"FILTER\"".to_owned());
        let filter = topic.as_ref().and_then(|value| {
            let text = value.text()?;
            filter(value, &text.value, text.hidden, ("a share has a key of its own", share_remedy))
        });
        let share = table.get("share").map(|value| share_name(&value));
        let qos = qos(table);
        let given = table.get("on-message");
        let runs = given.as_ref().map_or(Some(Runs::Nothing), |value| self.on_message(value));
        // What is added by hand may be for the list of received messages alone, as on RouterOS.
        if given.is_none() && !value.is_runtime() && !table.reading.is_incomplete() {
            value
                .warn("has no on-message: its messages are acknowledged and nothing runs", format!("add {ON_MESSAGE}"));
        }
        let (when, condition) = match table.get("when") {
            None => (None, Some(Condition::default())),
            Some(value) => when(&value).map_or((None, None), |(when, condition)| (Some(when), Some(condition))),
        };
        let silence = table.get("silence").map(|value| silence(&value, runs.as_ref()));
        let name = table.get("name");
        let (broker, topic, filter) = (broker?, topic?, filter?);
        let silence = unbroken(silence)?;
        let filter = match unbroken(share)? {
            Some(share) => shared(&topic, &share, &filter)?,
            None => filter,
        };
        let on_message = match &runs {
            Some(Runs::Handler(place)) => {
                self.handlers[*place].item.as_ref().map(|(handler, _)| handler.clone()).map(OnMessage::Handler)
            }
            Some(Runs::Log(template)) => Some(OnMessage::Log(template.clone())),
            Some(Runs::Nothing) | None => None,
        };
        let collides = condition.is_some_and(|condition| {
            let place = topic.origin().place;
            let seen = Seen { broker, filter: filter.clone(), condition, runs, topic: topic.clone(), place };
            self.collides(seen, &topic)
        });
        let default_name = format!("{}:{filter}", self.brokers[broker].name);
        let name = if collides { default_name.into() } else { self.name(name, default_name, &topic, table)? };
        let broker = table.reading.names.find(&self.brokers[broker].name)?;
        let subscription = Subscription { name, broker, topic: filter, qos, on_message, when, silence };
        Some(((Arc::new(subscription), value.object()), topic))
    }

    fn broker_remedy(&self) -> String {
        match self.brokers {
            [] => "add [brokers.NAME], and broker = \"NAME\" here".to_owned(),
            brokers => format!("add broker = {}", either(brokers.iter().map(|named| &*named.name))),
        }
    }

    /// A handler's name, or `{ log = "…" }`.
    fn on_message(&mut self, value: &Value<'_>) -> Option<Runs> {
        match value.raw() {
            DeValue::String(_) => {
                let name = value.text()?;
                let place = resolve(value, &name, self.handlers, "handler")?;
                self.used[place] = true;
                Some(Runs::Handler(place))
            }
            DeValue::Table(_) => {
                let log = |table: &Table<'_>| {
                    table.require("log", || "add log = \"TEMPLATE\"".to_owned()).and_then(|value| template(&value))
                };
                value.table(ON_MESSAGE, log).flatten().map(Runs::Log)
            }
            _ => {
                value.wrong_type("a handler's name or a table", format!("use {ON_MESSAGE}"));
                None
            }
        }
    }

    /// Reports a subscription that has the filter of an earlier one on its broker where the two cannot both do their work.
    fn collides(&mut self, new: Seen<'a>, topic: &Value<'_>) -> bool {
        let dispatch = self.brokers[new.broker].item.as_ref().map(|(broker, _)| broker.dispatch);
        let mut equal = self.seen.iter().filter(|seen| seen.broker == new.broker && seen.filter == new.filter);
        let same_condition = equal.clone().find(|seen| seen.condition.holds == new.condition.holds);
        let same_work = equal
            .clone()
            .find(|seen| seen.condition.holds == new.condition.holds && seen.runs.is_some() && seen.runs == new.runs);
        let collides = match dispatch {
            Some(DispatchMode::Best) => {
                if let Some(seen) = same_condition {
                    topic.error(
                        format!("the same filter as at {}, under the same condition", seen.place),
                        "give them different \"when\" conditions, or set dispatch = \"all\" for the broker to run both",
                    );
                } else if let (true, Some(seen)) =
                    (new.acts(), equal.find(|seen| seen.acts() && !seen.condition.hands_on))
                {
                    topic.warn(
                        format!("never runs: the same filter at {} keeps every message", seen.place),
                        "add otherwise = \"next\" to the \"when\" of that one, or put it last",
                    );
                }
                same_condition.is_some()
            }
            Some(DispatchMode::All) => {
                if let Some(seen) = same_work {
                    topic
                        .error(format!("does the same as the subscription at {}", seen.place), "remove one of the two");
                }
                same_work.is_some()
            }
            None => false,
        };
        self.seen.push(new);
        collides
    }

    /// Tells where the filters of a broker of 3.1.1 overlap: there a message does not say which subscription brought it.
    fn tell_overlaps(&self) {
        for (number, broker) in self.brokers.iter().enumerate() {
            if broker.item.as_ref().is_none_or(|(broker, _)| broker.protocol != Protocol::V311) {
                continue;
            }
            let seen: Vec<&Seen<'_>> = self.seen.iter().filter(|seen| seen.broker == number).collect();
            refuse_ambiguous_shares(&seen);
            warn_of_copies(&seen, &broker.value);
        }
    }

    /// The given name or the default, which no other subscription has.
    fn name(
        &mut self,
        given: Option<Value<'_>>,
        default: String,
        topic: &Value<'_>,
        table: &Table<'_>,
    ) -> Option<Arc<str>> {
        let name: Arc<str> = match &given {
            None => default.into(),
            Some(value) => {
                let text = value.text()?.value;
                if text.is_empty() || text.len() > MAX_NAME || text.contains(char::is_control) {
                    value.error(
                        format!("not a name: 1 to {MAX_NAME} bytes without control characters"),
                        "use another name",
                    );
                    return None;
                }
                text.into()
            }
        };
        let taken = self.names.iter().find(|(known, _)| *known == name).map(|(_, place)| place);
        match (taken, &given) {
            (None, _) => {}
            (Some(place), Some(value)) => {
                value.error(format!("also the name of the subscription at {place}"), "use another name")
            }
            (Some(place), None) => table.error_absent(
                "name",
                &format!("the default, BROKER:TOPIC, is also the name of the subscription at {place}"),
                "add name = \"NAME\"",
            ),
        }
        self.names.push((name.clone(), given.as_ref().unwrap_or(topic).origin().place));
        Some(name)
    }
}

/// What to write in place of `$share/NAME/FILTER`.
fn share_remedy(known: Option<(&str, &str)>) -> String {
    match known {
        Some((share, filter)) => format!("use topic = \"{filter}\" and share = \"{share}\""),
        None => "use share = \"NAME\", and the topic without \"$share/…/\"".to_owned(),
    }
}

/// The name of a share (MQTT 5 §4.8.2).
fn share_name(value: &Value<'_>) -> Option<String> {
    let text = value.text()?.value;
    if text.is_empty() || text.contains(['/', '+', '#', '\0']) {
        value.error(
            "not a share name: it has a character at least, and none of \"/\", \"+\", \"#\" and U+0000 (MQTT 5 §4.8.2)",
            "use the name that all members of the group have",
        );
        return None;
    }
    reaches_brokers(value, &text).then_some(text)
}

/// The filter as it is on the wire.
fn shared(topic: &Value<'_>, share: &str, filter: &TopicFilter) -> Option<TopicFilter> {
    let shared = TopicFilter::new(format!("$share/{share}/{filter}"));
    shared.map_err(|error| topic.error(format!("with its share: {error}"), "use a shorter share or topic")).ok()
}

/// A copy of a shared subscription is for this member of the group alone, but nothing tells it from another one.
fn refuse_ambiguous_shares(seen: &[&Seen<'_>]) {
    for (number, one) in seen.iter().enumerate() {
        let ambiguous = |other: &&&Seen<'_>| {
            (one.filter.share().is_some() || other.filter.share().is_some())
                && one.filter != other.filter
                && one.filter.overlaps(&other.filter)
        };
        if let Some(other) = seen[..number].iter().find(ambiguous) {
            let (filter, place) = (&other.filter, &other.place);
            one.topic.error(
                format!("overlaps \"{filter}\" at {place}, and with a share 3.1.1 does not tell whose message it is"),
                "use protocol = \"5\", or another [brokers.NAME] with its own client-id",
            );
        }
    }
}

/// Where no filter covers the other, both are on the wire.
fn warn_of_copies(seen: &[&Seen<'_>], broker: &Value<'_>) {
    let mut first: BTreeMap<&TopicFilter, &Seen<'_>> = BTreeMap::new();
    for one in seen.iter().filter(|one| one.filter.share().is_none()) {
        first.entry(&one.filter).or_insert(one);
    }
    let filters: Vec<&TopicFilter> = first.keys().copied().collect();
    let widest = widest(&filters);
    // Without a wildcard a filter overlaps none but those that cover it.
    let mut wires: Vec<(usize, &Seen<'_>)> = first
        .values()
        .zip(&widest)
        .filter(|(one, widest)| **widest && one.filter.has_wildcard())
        .filter_map(|(one, _)| Some((seen.iter().position(|other| std::ptr::eq(*other, *one))?, *one)))
        .collect();
    wires.sort_unstable_by_key(|(order, _)| *order);
    let mut pairs = 0;
    for (number, (_, one)) in wires.iter().enumerate() {
        for (_, other) in wires[..number].iter().filter(|(_, other)| one.filter.overlaps(&other.filter)) {
            pairs += 1;
            if pairs <= MAX_OVERLAPS {
                one.topic.warn(
                    format!(
                        "overlaps \"{}\" at {} in part: what both match may be handled twice on brokers that send a copy for each",
                        other.filter, other.place,
                    ),
                    "use protocol = \"5\"",
                );
            }
        }
    }
    if pairs > MAX_OVERLAPS {
        broker
            .warn(format!("{} more pairs of its topics overlap in part", pairs - MAX_OVERLAPS), "use protocol = \"5\"");
    }
}

/// How long nothing may come before the handler runs.
fn silence(value: &Value<'_>, runs: Option<&Runs>) -> Option<Duration> {
    let silence = value.duration(schedule::PERIODS)?;
    match runs {
        // One with errors is told already.
        Some(Runs::Handler(_)) | None => Some(silence),
        Some(Runs::Nothing | Runs::Log(_)) => {
            value.error("no handler runs for it", "add on-message = \"HANDLER\", whose on-schedule then runs");
            None
        }
    }
}

fn template(value: &Value<'_>) -> Option<LogTemplate> {
    let text = value.text()?;
    match LogTemplate::new(&text.value) {
        Ok(template) => Some(template),
        Err(TemplateError::Unknown { .. }) if text.hidden => {
            // What came from outside the file is not repeated.
            value.error("has an unknown placeholder", format!("use {}", LogTemplate::placeholders()));
            None
        }
        Err(error) => {
            value.error_told(&error.to_string());
            None
        }
    }
}

fn when(value: &Value<'_>) -> Option<(When, Condition)> {
    const EXAMPLE: &str = "when = { payload = \"EXPRESSION\" }";
    let read = |table: &Table<'_>| {
        let payload = table.get("payload");
        let min_bytes = table.get("min-bytes");
        let retained = table.get("retained");
        let otherwise = table.get("otherwise").and_then(|value| value.choice(&OTHERWISE)).unwrap_or(Otherwise::Stop);
        if payload.is_none() && min_bytes.is_none() && retained.is_none() {
            value.error("has no condition", "add payload, min-bytes or retained");
            return None;
        }
        let payload = payload.map(|value| expression(&value));
        let min_bytes = min_bytes.map(|value| value.integer(0..=LARGEST_PAYLOAD, " bytes"));
        let retained = retained.map(|value| value.boolean());
        // A condition with an error is reported, and makes the whole unknown.
        let (payload, min_bytes, retained) = (unbroken(payload)?, unbroken(min_bytes)?, unbroken(retained)?);
        let condition = Condition {
            holds: (payload.as_ref().map(|regex| regex.as_str().to_owned()), min_bytes, retained),
            hands_on: otherwise == Otherwise::Next,
        };
        Some((When { payload, min_bytes, retained, otherwise }, condition))
    };
    value.table(EXAMPLE, read).flatten()
}

/// None if a condition is given and has an error; not to be given is fine.
fn unbroken<T>(condition: Option<Option<T>>) -> Option<Option<T>> {
    condition.map_or(Some(None), |good| good.map(Some))
}

/// A regular expression on bytes.
fn expression(value: &Value<'_>) -> Option<Regex> {
    let text = value.text()?;
    match RegexBuilder::new(&text.value).size_limit(MAX_REGEX).build() {
        Ok(regex) => Some(regex),
        Err(regex::Error::CompiledTooBig(_)) => {
            let limit = format_size(MAX_REGEX as u64);
            value.error(
                format!("compiles to more than {limit}"),
                "use smaller repetitions, or \\x in place of Unicode classes",
            );
            None
        }
        Err(error) => {
            // The lines before draw the expression with a marker under it; the last one tells what is wrong.
            let told = error.to_string();
            let told = told.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            value.error(
                format!("not a regular expression: {told}"),
                "write a \\ before each of .+*?()|[]{}^$\\ that stands for itself",
            );
            None
        }
    }
}
