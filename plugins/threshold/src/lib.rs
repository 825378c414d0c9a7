//! Raises an alarm when a reading crosses a limit, and ends it when the reading is back; says nothing in between.
//!
//! Owns: which topics are over the limit. That is state in memory: it goes with its instance.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tidegate_sdk::{Message, OrFail, Outgoing, Result, TopicTemplate, config, publish, reject, warn};

/// `[handlers.NAME.config]`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Config {
    /// The alarm is raised by a value above this.
    limit: f64,
    /// How far below the limit the value must be for the alarm to end.
    #[serde(default)]
    hysteresis: f64,
    /// Which member of the JSON payload is the value.
    #[serde(default = "default_field")]
    field: String,
    /// Where the alarm is published.
    #[serde(default = "default_topic")]
    topic: TopicTemplate,
}

fn default_field() -> String {
    "c".into()
}

fn default_topic() -> TopicTemplate {
    "alarm/{topic}".parse().expect("its braces are paired and its gap is known")
}

/// What is published when the limit is crossed.
#[derive(Serialize)]
struct Alarm<'a> {
    alarm: bool,
    topic: &'a str,
    value: f64,
    limit: f64,
}

/// Topics over the limit that are remembered. Past it, every reading over the limit raises its alarm again: too many
/// alarms are better than a missing one.
const MAX_RAISED: usize = 10_000;

struct Threshold {
    config: &'static Config,
    /// (broker, topic) whose last reading raised the alarm. Complete: one instance gets all messages of a topic.
    raised: HashSet<(String, String)>,
}

impl Threshold {
    fn start() -> Result<Threshold> {
        let config: &Config = config()?;
        if config.hysteresis < 0.0 {
            return Err(reject("the handler's config: hysteresis must not be negative"));
        }
        Ok(Threshold { config, raised: HashSet::new() })
    }

    fn handle(&mut self, message: &Message) -> Result {
        let Config { limit, hysteresis, field, topic } = self.config;
        let value = message.json::<Map<String, Value>>()?.get(field).and_then(Value::as_f64);
        let value = value.or_reject(&format!("unexpected payload: no number named \"{field}\""))?;

        let key = (message.broker.clone(), message.topic.clone());
        let was_raised = self.raised.contains(&key);
        let is_raised = value > if was_raised { limit - hysteresis } else { *limit };
        if is_raised == was_raised {
            return Ok(());
        }

        let alarm = Alarm { alarm: is_raised, topic: &message.topic, value, limit: *limit };
        publish(Outgoing::json(topic.fill(message)?, &alarm)?.qos(message.qos))?;
        // Only now: had the publish been refused, the next reading would have to try again.
        if !is_raised {
            self.raised.remove(&key);
        } else if self.raised.len() < MAX_RAISED {
            self.raised.insert(key);
        } else {
            warn!(topics = MAX_RAISED; "too many topics are over the limit: their alarms repeat");
        }
        Ok(())
    }
}

tidegate_sdk::handler!(Threshold::handle, state = Threshold::start);

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidegate_sdk::PublishError;
    use tidegate_sdk::testing::{Host, message};

    use super::*;

    /// What readings of one topic publish, as `topic payload`, through one instance.
    fn alarms(config: Value, readings: &[f64]) -> Vec<String> {
        let outcome = Host::new().config(&config).run(|| -> Result {
            let mut threshold = Threshold::start()?;
            for c in readings {
                threshold.handle(&message("oven", json!({ "c": c }).to_string()))?;
            }
            Ok(())
        });
        assert_eq!(outcome.result, Ok(()));
        let line = |sent: &Outgoing| format!("{} {}", sent.topic, String::from_utf8_lossy(&sent.payload));
        outcome.publishes.iter().map(line).collect()
    }

    #[track_caller]
    fn check(config: Value, readings: &[f64], expected: &[(bool, f64)]) {
        let line = |(alarm, value): &(bool, f64)| {
            format!(r#"alarm/oven {{"alarm":{alarm},"topic":"oven","value":{value:?},"limit":30.0}}"#)
        };
        assert_eq!(alarms(config, readings), expected.iter().map(line).collect::<Vec<_>>());
    }

    #[test]
    fn only_crossings_are_published() {
        let config = json!({ "limit": 30 });
        check(config.clone(), &[20.0, 30.0, 25.0], &[]);
        check(config.clone(), &[20.0, 30.5, 31.0, 30.1], &[(true, 30.5)]);
        check(config, &[31.0, 30.0, 29.0, 32.0], &[(true, 31.0), (false, 30.0), (true, 32.0)]);
    }

    #[test]
    fn hysteresis_keeps_a_wavering_value_quiet() {
        let config = json!({ "limit": 30, "hysteresis": 2 });
        check(config, &[31.0, 29.0, 31.0, 28.0, 29.5], &[(true, 31.0), (false, 28.0)]);
    }

    #[test]
    fn topics_are_apart() {
        let outcome = Host::new().config(&json!({ "limit": 30 })).run(|| -> Result {
            let mut threshold = Threshold::start()?;
            threshold.handle(&message("a", r#"{"c": 31}"#))?;
            threshold.handle(&message("b", r#"{"c": 31}"#))
        });
        let topics: Vec<_> = outcome.publishes.iter().map(|sent| sent.topic.as_str()).collect();
        assert_eq!(topics, ["alarm/a", "alarm/b"]);
    }

    #[test]
    fn field_and_topic_can_be_chosen() {
        let config = json!({ "limit": 1, "field": "bar", "topic": "{broker}/pressure" });
        let outcome =
            Host::new().config(&config).run(|| Threshold::start()?.handle(&message("pump", r#"{"bar": 1.5, "c": 0}"#)));
        assert_eq!((outcome.result, outcome.publishes[0].topic.as_str()), (Ok(()), "test/pressure"));
    }

    #[test]
    fn a_refused_alarm_is_tried_again_with_the_next_reading() {
        let host = Host::new().config(&json!({ "limit": 30 })).refuse_publishes(PublishError::OutboxFull);
        let outcome = host.run(|| -> Result<_> {
            let mut threshold = Threshold::start()?;
            let hot = message("oven", r#"{"c": 31}"#);
            Ok([threshold.handle(&hot).is_err(), threshold.handle(&hot).is_err()])
        });
        assert_eq!(outcome.result, Ok([true, true]));
    }

    #[test]
    fn a_reading_without_the_number_is_rejected() {
        let outcome = Host::new()
            .config(&json!({ "limit": 30 }))
            .run(|| Threshold::start()?.handle(&message("oven", r#"{"c": "hot"}"#)));
        assert_eq!(outcome.result, Err(reject("unexpected payload: no number named \"c\"")));
    }

    #[track_caller]
    fn check_config(config: Value, expected: &str) {
        let error = Host::new().config(&config).run(|| Threshold::start().map(|_| ())).result;
        assert_eq!(error, Err(reject(format!("the handler's config: {expected}"))));
    }

    #[test]
    fn a_mistake_in_the_configuration_is_found_at_the_start() {
        check_config(json!({}), "missing field `limit`");
        check_config(json!({ "limit": 1, "hysteresis": -1 }), "hysteresis must not be negative");
    }
}
