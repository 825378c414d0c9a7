//! Copies messages to another broker, to a topic that a template makes.

use serde::Deserialize;
use tidegate_sdk::{Message, Result, TopicTemplate, config, publish};

/// `[handlers.NAME.config]`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Config {
    /// The name of the configured broker that gets the copies.
    broker: String,
    /// The topic of a copy.
    topic: TopicTemplate,
    /// The retain flag of the copies. Absent, a copy has the message's: then only replayed retained messages stay retained,
    /// since brokers clear the flag of live ones.
    retain: Option<bool>,
}

fn init() -> Result {
    config::<Config>()?;
    Ok(())
}

fn handle(message: &Message) -> Result {
    let Config { broker, topic, retain } = config()?;
    let copy = message.copy_to(topic.fill(message)?).to_broker(broker);
    publish(copy.retain(retain.unwrap_or(message.retain)))?;
    Ok(())
}

tidegate_sdk::handler!(handle, init = init);

#[cfg(test)]
mod tests {
    use tidegate_sdk::serde_json::{Value, json};
    use tidegate_sdk::testing::{Host, message};
    use tidegate_sdk::{Outgoing, Properties, Qos};

    use super::*;

    fn original() -> Message {
        let mut original = message("site/7/temp", [0, 1, 0xff]);
        original.qos = Qos::AtLeastOnce;
        original.retain = true;
        original.captures = vec!["7".into()];
        original.properties = Some(properties());
        original
    }

    fn properties() -> Properties {
        Properties { user: vec![("trace".into(), "42".into())], ..Properties::default() }
    }

    #[track_caller]
    fn check(config: Value, expected: Outgoing) {
        let outcome = Host::new().config(&config).call(handle, &original());
        assert_eq!(outcome.result, Ok(()));
        assert_eq!(outcome.publishes, [expected]);
    }

    #[test]
    fn a_copy_is_the_message_on_another_topic() {
        let copy = |topic| Outgoing::new(topic, [0, 1, 0xff]).qos(Qos::AtLeastOnce).properties(properties());
        let to_cloud = |topic| copy(topic).to_broker("cloud");
        let config = |topic| json!({ "broker": "cloud", "topic": topic });
        check(config("copy/{topic}"), to_cloud("copy/site/7/temp").retain(true));
        check(config("{broker}/{1}"), to_cloud("test/7").retain(true));
        check(json!({ "broker": "cloud", "topic": "t", "retain": false }), to_cloud("t"));
    }

    #[test]
    fn a_mistake_in_the_template_is_found_at_the_start() {
        let host = Host::new().config(&json!({ "broker": "cloud", "topic": "{device}" }));
        let error = host.run(init).result.expect_err("the gap is unknown").to_string();
        assert!(error.starts_with("the handler's config: topic: {device} is not known"), "{error}");
    }
}
