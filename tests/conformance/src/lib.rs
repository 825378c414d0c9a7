//! A handler that does what its messages say: one source, built as a component and as a native plugin, so that scenarios can see that the
//! daemon treats both alike.
//!
//! Fed by the scenario tests: a message's payload is a JSON array of [`Step`]s, and so is `on-schedule` in its configuration. What each step
//! came to is published as a JSON array to `report`, unless a step ends the call, and logged as one line of level info, `report`, in
//! any case. It deliberately decides nothing: what is right is in the scenarios.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_native::serde_json::{Value, json};
use tidegate_native::{
    KvError, Message, OrFail, Outgoing, Properties, PublishError, Qos, Result, Run, Trigger, clock, config, info, kv,
    log, publish, random, reject, retry, system,
};

/// `[handlers.NAME.config]`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Config {
    /// `init` refuses in these words.
    refuse: Option<String>,
    /// `init` panics with these words.
    panic: Option<String>,
    /// `init` does this, and its report is the first line of the log.
    #[serde(default)]
    init: Vec<Step>,
    /// What is done on a schedule and on silence. The run itself is the first entry of its report.
    #[serde(default)]
    on_schedule: Vec<Step>,
    /// For [`Step::Config`]: anything.
    #[serde(default)]
    any: Value,
}

/// What the handler does, and what it reports of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
enum Step {
    /// Reports the message, field by field; `null` on a schedule.
    Describe,
    /// Reports how many calls this instance has had, this one included.
    Calls,
    /// Publishes; reports "ok", or the error as `{"denied": WORDS}`, `"quota"` and so on.
    Publish(Publish),
    /// Publishes the payload's bytes so many times; reports each different outcome once.
    Many { times: u32, bytes: usize, topic: String },
    /// Reports the value as text, or null.
    KvGet { key: String },
    /// Reports "ok".
    KvSet {
        key: String,
        value: String,
        /// For ever, if absent.
        ttl_ms: Option<u64>,
    },
    /// Reports "ok".
    KvDelete { key: String },
    /// Reports the keys.
    KvKeys {
        #[serde(default)]
        prefix: String,
        after: Option<String>,
        limit: u32,
    },
    /// Reads a number, adds 1 and writes it back; reports the sum.
    KvAdd { key: String },
    /// Gets so many keys that are not there; reports "ok".
    KvMany { keys: u32 },
    /// Writes a line; reports whether it would be kept.
    Log {
        level: Level,
        text: String,
        #[serde(default)]
        fields: Vec<(String, String)>,
    },
    /// Reports `any` of the configuration.
    Config,
    /// Reports the names of the readings that are there, or the error in words.
    System,
    /// Reports true: the clocks go, and the message was received before now and within the last minute.
    Clocks,
    /// Reports true: two times 16 random bytes are not the same.
    Random,
    /// Keeps the thread busy for so long; reports "ok".
    Spin { ms: u64 },
    /// Ends the call.
    Reject { reason: String },
    /// Ends the call.
    Retry { reason: String, after_ms: Option<u64> },
    /// Ends the call.
    Panic { reason: String },
    /// Ends the call in its first attempts, by a retry; afterwards reports which attempt this is.
    RetryUntil { attempt: u32 },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Publish {
    topic: String,
    #[serde(default)]
    payload: String,
    #[serde(default)]
    qos: u8,
    #[serde(default)]
    retain: bool,
    broker: Option<String>,
    properties: Option<Props>,
}

/// [`Properties`], as JSON has them.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Props {
    content_type: Option<String>,
    response_topic: Option<String>,
    correlation_data: Option<Vec<u8>>,
    message_expiry: Option<u32>,
    utf8_payload: bool,
    user: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// What an instance keeps.
struct State {
    calls: u64,
}

fn start() -> Result<State> {
    let Config { refuse, panic, init, .. } = config()?;
    if let Some(words) = panic {
        panic!("{words}");
    }
    if let Some(words) = refuse {
        return Err(reject(words.as_str()));
    }
    let mut state = State { calls: 0 };
    if !init.is_empty() {
        let mut report = Vec::new();
        let done = steps(&mut state, init, None, &mut report);
        info!(report = Value::from(report); "report");
        done?;
    }
    Ok(state)
}

fn handle(state: &mut State, message: &Message) -> Result {
    state.calls += 1;
    let wanted: Vec<Step> = message.json()?;
    finish(state, &wanted, Some(message), Vec::new())
}

fn run(state: &mut State, run: &Run) -> Result {
    state.calls += 1;
    let trigger = match run.trigger {
        Trigger::Schedule => "schedule",
        Trigger::Silence => "silence",
    };
    let late = clock::now().duration_since(run.due).is_ok_and(|late| late < Duration::from_secs(60));
    let Config { on_schedule, .. } = config()?;
    finish(state, on_schedule, None, vec![json!({ "trigger": trigger, "name": run.name, "due-before-now": late })])
}

tidegate_native::handler!(handle, on_schedule = run, state = start);

/// Does all steps, logs the report, and publishes it if none has ended the call.
fn finish(state: &mut State, wanted: &[Step], message: Option<&Message>, mut report: Vec<Value>) -> Result {
    let done = steps(state, wanted, message, &mut report);
    let report = Value::from(report);
    info!(report; "report");
    done?;
    publish(Outgoing::json("report", &report)?.qos(Qos::AtLeastOnce))?;
    Ok(())
}

fn steps(state: &mut State, wanted: &[Step], message: Option<&Message>, report: &mut Vec<Value>) -> Result {
    for step in wanted {
        report.push(do_one(state, step, message)?);
    }
    Ok(())
}

fn do_one(state: &mut State, step: &Step, message: Option<&Message>) -> Result<Value> {
    Ok(match step {
        Step::Describe => message.map_or(Value::Null, describe),
        Step::Calls => json!(state.calls),
        Step::Publish(wanted) => published(publish(outgoing(wanted)?)),
        Step::Many { times, bytes, topic } => many(*times, *bytes, topic),
        Step::KvGet { key } => remembered(kv::get(key), |value| json!(value.map(|value| text(&value)))),
        Step::KvSet { key, value, ttl_ms: None } => remembered(kv::set(key, value), |()| json!("ok")),
        Step::KvSet { key, value, ttl_ms: Some(ttl_ms) } => {
            remembered(kv::set_with_ttl(key, value, Duration::from_millis(*ttl_ms)), |()| json!("ok"))
        }
        Step::KvDelete { key } => remembered(kv::delete(key), |()| json!("ok")),
        Step::KvKeys { prefix, after: None, limit } => remembered(kv::keys(prefix, *limit), |keys| json!(keys)),
        Step::KvKeys { prefix, after: Some(after), limit } => {
            remembered(kv::keys_after(prefix, after, *limit), |keys| json!(keys))
        }
        Step::KvAdd { key } => {
            let sum = kv::get_json::<u64>(key)?.unwrap_or(0) + 1;
            kv::set_json(key, &sum)?;
            json!(sum)
        }
        Step::KvMany { keys } => {
            let got = (0..*keys).try_for_each(|key| kv::get(&format!("none/{key}")).map(|_| ()));
            remembered(got, |()| json!("ok"))
        }
        Step::Log { level, text, fields } => {
            let level = log_level(*level);
            let enabled = log::enabled(level);
            log::write(level, text, fields);
            json!(enabled)
        }
        Step::Config => config::<Config>()?.any.clone(),
        Step::System => readings(),
        Step::Clocks => json!(clocks(message)),
        Step::Random => json!(random::bytes(16) != random::bytes(16)),
        Step::Spin { ms } => {
            let start = clock::monotonic();
            while clock::monotonic() < start + Duration::from_millis(*ms) {
                std::hint::spin_loop();
            }
            json!("ok")
        }
        Step::Reject { reason } => return Err(reject(reason.as_str())),
        Step::Retry { reason, after_ms: None } => return Err(retry(reason.as_str())),
        Step::Retry { reason, after_ms: Some(ms) } => {
            return Err(retry(reason.as_str()).after(Duration::from_millis(*ms)));
        }
        Step::Panic { reason } => panic!("{reason}"),
        Step::RetryUntil { attempt } => {
            let now = message.or_reject("there is no message")?.attempt;
            if now < *attempt {
                return Err(retry(format!("attempt {now} of {attempt}")));
            }
            json!(now)
        }
    })
}

fn many(times: u32, bytes: usize, topic: &str) -> Value {
    let mut outcomes = Vec::new();
    for _ in 0..times {
        let outcome = published(publish(Outgoing::new(topic, vec![b'x'; bytes])));
        if !outcomes.contains(&outcome) {
            outcomes.push(outcome);
        }
    }
    Value::from(outcomes)
}

fn outgoing(wanted: &Publish) -> Result<Outgoing> {
    let Publish { topic, payload, qos, retain, broker, properties } = wanted;
    let qos = match qos {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        2 => Qos::ExactlyOnce,
        other => return Err(reject(format!("there is no QoS {other}"))),
    };
    let mut outgoing = Outgoing::new(topic.as_str(), payload.as_str()).qos(qos).retain(*retain);
    outgoing.broker.clone_from(broker);
    outgoing.properties = properties.clone().map(|given| Properties {
        content_type: given.content_type,
        response_topic: given.response_topic,
        correlation_data: given.correlation_data,
        message_expiry: given.message_expiry,
        utf8_payload: given.utf8_payload,
        user: given.user,
    });
    Ok(outgoing)
}

fn published(outcome: Result<(), PublishError>) -> Value {
    match outcome {
        Ok(()) => json!("ok"),
        Err(PublishError::Denied(words)) => json!({ "denied": words }),
        Err(PublishError::InvalidTopic(words)) => json!({ "invalid-topic": words }),
        Err(PublishError::TooLarge) => json!("too-large"),
        Err(PublishError::Quota) => json!("quota"),
        Err(PublishError::UnknownBroker(name)) => json!({ "unknown-broker": name }),
        Err(PublishError::OutboxFull) => json!("outbox-full"),
        Err(PublishError::Other(words)) => json!({ "other": words }),
        Err(other) => json!({ "unexpected": other.to_string() }),
    }
}

fn remembered<T>(outcome: Result<T, KvError>, shown: impl FnOnce(T) -> Value) -> Value {
    match outcome {
        Ok(value) => shown(value),
        Err(KvError::Quota) => json!({ "kv": "quota" }),
        Err(KvError::TooLarge) => json!({ "kv": "too-large" }),
        Err(KvError::Unavailable(words)) => json!({ "kv-unavailable": words }),
        Err(KvError::Other(words)) => json!({ "kv-other": words }),
        Err(other) => json!({ "unexpected": other.to_string() }),
    }
}

fn describe(message: &Message) -> Value {
    let properties = message.properties.as_ref().map(|given| Props {
        content_type: given.content_type.clone(),
        response_topic: given.response_topic.clone(),
        correlation_data: given.correlation_data.clone(),
        message_expiry: given.message_expiry,
        utf8_payload: given.utf8_payload,
        user: given.user.clone(),
    });
    json!({
        "broker": message.broker,
        "subscription": message.subscription,
        "topic": message.topic,
        "payload-bytes": message.payload.len(),
        "qos": message.qos as u8,
        "retain": message.retain,
        "dup": message.dup,
        "attempt": message.attempt,
        "captures": message.captures,
        "properties": properties,
    })
}

fn readings() -> Value {
    match system::read() {
        Err(error) => json!({ "error": error.to_string() }),
        Ok(readings) => {
            let there = [
                ("model", !readings.model.is_empty()),
                ("serial-number", !readings.serial_number.is_empty()),
                ("os-version", !readings.os_version.is_empty()),
                ("cpu-load", readings.cpu_load <= 100),
                ("used-memory", readings.used_memory > 0),
                ("free-memory", readings.free_memory > 0),
                ("uptime", readings.uptime > 0),
            ];
            json!(there.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect::<Vec<_>>())
        }
    }
}

fn clocks(message: Option<&Message>) -> bool {
    let start = clock::monotonic();
    let minute = Duration::from_secs(60);
    let recent = |message: &Message| clock::now().duration_since(message.received).is_ok_and(|passed| passed < minute);
    message.is_none_or(recent) && clock::monotonic() >= start
}

fn log_level(level: Level) -> log::Level {
    match level {
        Level::Trace => log::Level::Trace,
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error => log::Level::Error,
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use tidegate_native::serde_json;
    use tidegate_native::testing::{Host, Outcome, message, scheduled};

    use super::*;

    fn call(host: &Host, steps: &Value) -> Outcome {
        host.run(|| handle(&mut start()?, &message("t", steps.to_string())))
    }

    #[test]
    fn what_a_message_says_is_done_and_reported() {
        let steps = json!([
            { "do": "calls" },
            { "do": "publish", "topic": "a/b", "payload": "x", "qos": 1 },
            { "do": "publish", "topic": "a/#" },
            { "do": "kv-get", "key": "k" },
            { "do": "kv-set", "key": "k", "value": "7", "ttl-ms": 1000 },
            { "do": "kv-add", "key": "k" },
            { "do": "kv-keys", "limit": 5 },
            { "do": "log", "level": "warn", "text": "a line", "fields": [["k", "v"]] },
            { "do": "config" },
            { "do": "random" },
            { "do": "many", "times": 3, "bytes": 1, "topic": "m" },
        ]);
        let outcome = call(&Host::new().config(&json!({ "any": [1, "x"] })), &steps);
        assert_eq!(outcome.result, Ok(()));
        let report: Value = serde_json::from_slice(&outcome.sent().last().unwrap().payload).unwrap();
        let expected = json!([1, "ok", { "invalid-topic": "a/#" }, null, "ok", 8, ["k"], true, [1, "x"], true, ["ok"]]);
        assert_eq!(report, expected);
        assert_eq!(outcome.sent()[0], Outgoing::new("a/b", "x").qos(Qos::AtLeastOnce));
        assert_eq!(outcome.logs[0].message, "a line");
        assert_eq!(outcome.logs[1].fields, [("report".to_owned(), expected.to_string())]);
    }

    #[test]
    fn a_step_may_end_the_call() {
        let check = |step: Value, expected: Result| {
            let outcome = call(&Host::new(), &json!([{ "do": "calls" }, step, { "do": "calls" }]));
            assert_eq!((outcome.result, outcome.logs[0].fields[0].1.as_str()), (expected, "[1]"));
        };
        check(json!({ "do": "reject", "reason": "no" }), Err(reject("no")));
        check(json!({ "do": "retry", "reason": "later" }), Err(retry("later")));
        let after = Err(retry("later").after(Duration::from_millis(5)));
        check(json!({ "do": "retry", "reason": "later", "after-ms": 5 }), after);
        check(json!({ "do": "retry-until", "attempt": 2 }), Err(retry("attempt 1 of 2")));
    }

    #[test]
    fn runs_and_starts_do_what_the_configuration_says() {
        let host = |config: Value| Host::new().config(&config);
        let ran =
            host(json!({ "on-schedule": [{ "do": "describe" }] })).run(|| run(&mut start()?, &scheduled("hourly")));
        let report = r#"[{"due-before-now":true,"name":"hourly","trigger":"schedule"},null]"#;
        assert_eq!(ran.sent()[0].payload, report.as_bytes());
        let refused = host(json!({ "refuse": "not today" })).run(|| start().map(|_| ()));
        assert_eq!(refused.result, Err(reject("not today")));
        let asked = host(json!({ "init": [{ "do": "kv-get", "key": "k" }] })).run(|| start().map(|_| ()));
        assert_eq!(asked.logs[0].fields, [("report".to_owned(), "[null]".to_owned())]);
    }
}
