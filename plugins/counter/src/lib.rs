//! Counts messages, and publishes the count with each: how many came in all, across restarts and instances.
//!
//! Owns: the counts, which the daemon remembers (`allow.kv`). Reading, adding and writing back needs no lock: where two calls meet, one
//! of them is run again.

use serde::{Deserialize, Serialize};
use tidegate_sdk::{Message, Outgoing, Result, TopicTemplate, config, kv, publish};

/// `[handlers.NAME.config]`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Config {
    /// Messages for which this is the same are counted together.
    #[serde(default = "default_count")]
    count: TopicTemplate,
    /// Where counts are published.
    #[serde(default = "default_topic")]
    topic: TopicTemplate,
}

fn default_count() -> TopicTemplate {
    "{broker}/{topic}".parse().expect("its braces are paired and its gaps are known")
}

fn default_topic() -> TopicTemplate {
    "count/{topic}".parse().expect("its braces are paired and its gap is known")
}

/// What is published for each message.
#[derive(Serialize)]
struct Count<'a> {
    topic: &'a str,
    count: u64,
}

fn init() -> Result {
    config::<Config>()?;
    // Without the grant no message could ever be counted.
    kv::keys("", 1)?;
    Ok(())
}

fn handle(message: &Message) -> Result {
    let Config { count, topic } = config()?;
    let key = count.fill(message)?;
    let count = kv::get_json::<u64>(&key)?.unwrap_or(0) + 1;
    kv::set_json(&key, &count)?;
    publish(Outgoing::json(topic.fill(message)?, &Count { topic: &message.topic, count })?.qos(message.qos))?;
    Ok(())
}

tidegate_sdk::handler!(handle, init = init);

#[cfg(test)]
mod tests {
    use tidegate_sdk::testing::{Host, message};
    use tidegate_sdk::{KvError, Qos, reject, retry, serde_json::json};

    use super::*;

    #[test]
    fn each_message_adds_one_to_its_topic() {
        let mut host = Host::new();
        let mut published = Vec::new();
        for topic in ["a", "b", "a"] {
            let outcome = host.call(handle, &message(topic, "x"));
            published.extend(outcome.sent().iter().map(|sent| String::from_utf8_lossy(&sent.payload).into_owned()));
            host = host.after(&outcome);
        }
        assert_eq!(
            published,
            [r#"{"topic":"a","count":1}"#, r#"{"topic":"b","count":1}"#, r#"{"topic":"a","count":2}"#]
        );
    }

    #[test]
    fn what_is_counted_together_and_where_it_goes_can_be_chosen() {
        let config = json!({ "count": "{1}", "topic": "counts/{1}" });
        let mut message = message("sensors/7/temperature", "");
        (message.captures, message.qos) = (vec!["7".into()], Qos::AtLeastOnce);
        let outcome = Host::new().config(&config).remembers("7", "41").call(handle, &message);
        assert_eq!(outcome.remembered("7"), Some(&b"42"[..]));
        assert_eq!((outcome.sent()[0].topic.as_str(), outcome.sent()[0].qos), ("counts/7", Qos::AtLeastOnce));
    }

    #[test]
    fn without_the_grant_it_does_not_start() {
        let host = Host::new().refuse_kv(KvError::Other("allow.kv grants nothing".into()));
        assert_eq!(host.run(init).result, Err(reject("allow.kv grants nothing")));
    }

    #[test]
    fn without_room_the_message_is_tried_again() {
        let outcome = Host::new().refuse_kv(KvError::Quota).call(handle, &message("a", ""));
        assert_eq!(outcome.result, Err(retry("there is no room for it within allow.kv")));
    }
}
