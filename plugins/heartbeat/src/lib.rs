//! Tells that the gateway lives, with readings of its machine, on a schedule; and raises a retained alarm when a subscription
//! falls silent, which the next message clears.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tidegate_sdk::{Message, Outgoing, Qos, Result, Run, Trigger, config, publish, system};

/// `[handlers.NAME.config]`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Config {
    /// Where the readings go.
    topic: String,
    /// Above which topic the alarms go: the subscription's name follows.
    alarms: String,
}

/// What is published on a schedule.
#[derive(Serialize)]
struct Heartbeat {
    model: String,
    cpu: u8,
    free_memory: u64,
    uptime: u64,
}

/// What is published when a subscription falls silent, and when it is heard again.
#[derive(Serialize)]
struct Alarm<'a> {
    silent: bool,
    subscription: &'a str,
}

/// The subscriptions that are silent. With more than one instance the first would not know of messages that others get.
type Silent = BTreeSet<String>;

fn start() -> Result<Silent> {
    config::<Config>()?;
    Ok(Silent::new())
}

fn handle(silent: &mut Silent, message: &Message) -> Result {
    if silent.contains(&message.subscription) {
        alarm(&message.subscription, false)?;
        silent.remove(&message.subscription);
    }
    Ok(())
}

fn run(silent: &mut Silent, run: &Run) -> Result {
    match run.trigger {
        Trigger::Schedule => beat(),
        Trigger::Silence => {
            alarm(&run.name, true)?;
            silent.insert(run.name.clone());
            Ok(())
        }
    }
}

fn beat() -> Result {
    let Config { topic, .. } = config()?;
    let readings = system::read()?;
    let heartbeat = Heartbeat {
        model: readings.model,
        cpu: readings.cpu_load,
        free_memory: readings.free_memory,
        uptime: readings.uptime,
    };
    publish(Outgoing::json(topic.clone(), &heartbeat)?)?;
    Ok(())
}

fn alarm(subscription: &str, silent: bool) -> Result {
    let Config { alarms, .. } = config()?;
    let alarm = Alarm { silent, subscription };
    publish(Outgoing::json(format!("{alarms}/{subscription}"), &alarm)?.qos(Qos::AtLeastOnce).retain(true))?;
    Ok(())
}

tidegate_sdk::handler!(handle, on_schedule = run, state = start);

#[cfg(test)]
mod tests {
    use tidegate_sdk::serde_json::json;
    use tidegate_sdk::testing::{Host, message, readings, scheduled, silent};

    use super::*;

    fn host() -> Host {
        Host::new().config(&json!({ "topic": "gateway/heartbeat", "alarms": "gateway/silent" }))
    }

    #[test]
    fn a_heartbeat_has_readings() {
        let outcome = host().system(&readings()).run(|| run(&mut Silent::new(), &scheduled("heartbeat")));
        assert_eq!(outcome.result, Ok(()));
        let payload = json!({ "model": "test", "cpu": 7, "free_memory": 156 << 20, "uptime": 3600 });
        let sent: tidegate_sdk::serde_json::Value =
            tidegate_sdk::serde_json::from_slice(&outcome.publishes[0].payload).expect("is JSON");
        assert_eq!((outcome.publishes[0].topic.as_str(), sent), ("gateway/heartbeat", payload));
    }

    #[test]
    fn a_heartbeat_needs_the_grant() {
        let error = host().run(|| run(&mut Silent::new(), &scheduled("heartbeat"))).result.expect_err("is refused");
        assert_eq!(error.to_string(), "the host grants no allow.system");
    }

    #[test]
    fn an_alarm_stands_until_the_next_message() {
        let mut input = message("sensors/1", "21.5");
        input.subscription = "sensors".into();
        let outcome = host().run(|| {
            let mut state = start()?;
            handle(&mut state, &input)?;
            run(&mut state, &silent("sensors"))?;
            handle(&mut state, &input)?;
            handle(&mut state, &input)
        });
        assert_eq!(outcome.result, Ok(()));
        let alarm = |text: &str| Outgoing::new("gateway/silent/sensors", text).qos(Qos::AtLeastOnce).retain(true);
        let expected = [
            alarm(r#"{"silent":true,"subscription":"sensors"}"#),
            alarm(r#"{"silent":false,"subscription":"sensors"}"#),
        ];
        assert_eq!(outcome.publishes, expected);
    }
}
