//! `tidegate subscribe`, `unsubscribe` and `subscriptions`: RouterOS' `/iot mqtt subscribe`, `unsubscribe` and
//! `subscriptions`.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Asking;
use super::keys::{Key, Keys, Kind, Resource, Settings, Unset, key};
use super::show;
use crate::cli::client::{Client, Failure, Request};
use crate::cli::console::Console;
use crate::cli::table::{Look, or_none, table};
use crate::control::admin::resource::{OnMessage, Subscription, SubscriptionState, When};
use crate::topic::TopicFilter;

/// `[[subscriptions]]`.
#[derive(Debug)]
pub struct SubscriptionKeys;

impl Resource for SubscriptionKeys {
    const TABLES: &'static [&'static str] = &["on-message", "when"];
    const KEYS: &'static [Key] = {
        use Kind::{Boolean, Choice, Integer, Text};
        &[
            key("broker", &["broker"], Text, "NAME", "The broker's name"),
            key("topic", &["topic"], Text, "FILTER", "The topic filter, such as sensors/+/temperature or sensors/#"),
            key("qos", &["qos"], Integer, "QOS", "0 to 2, which is received as 1 [default: 0]"),
            key("name", &["name"], Text, "NAME", "Its name [default: BROKER:TOPIC]"),
            key("share", &["share"], Text, "GROUP", "A group, of which the broker gives each message to one member"),
            key("on-message", &["on-message"], Text, "HANDLER", "The handler to call"),
            key(
                "log",
                &["on-message", "log"],
                Text,
                "TEMPLATE",
                "Write a line to the log instead, such as 'Got data {payload} from topic {topic}'",
            ),
            key(
                "when-payload",
                &["when", "payload"],
                Text,
                "REGEX",
                "Only if this regular expression matches somewhere in the payload",
            ),
            key(
                "when-min-bytes",
                &["when", "min-bytes"],
                Integer,
                "COUNT",
                "Only if the payload has so many bytes at least",
            ),
            key(
                "when-retained",
                &["when", "retained"],
                Boolean,
                "YES",
                "Only if the message is a retained one that the broker replays; with no: only if not",
            ),
            key(
                "when-otherwise",
                &["when", "otherwise"],
                Choice(&["stop", "next"]),
                "WORD",
                "What happens where a condition does not hold: nothing, or the next rank is tried [default: stop]",
            ),
            key(
                "silence",
                &["silence"],
                Text,
                "DURATION",
                "Run the handler's on-schedule when nothing came for so long [default: never]",
            ),
        ]
    };
}

/// The arguments of `subscribe`.
#[derive(Args)]
#[command(
    mut_arg("broker", |broker| broker.required(true)),
    mut_arg("topic", |topic| topic.required(true)),
    mut_arg("log", |log| log.conflicts_with("on-message")),
    after_help = "\
Example:  tidegate subscribe --broker plant --topic my/test/# --log 'Got data {payload} from topic {topic}'
RouterOS: /iot mqtt subscribe broker=plant topic=my/test/#"
)]
pub struct Subscribe {
    #[command(flatten)]
    pub asking: Asking,
    #[command(flatten)]
    settings: Settings<SubscriptionKeys>,
    /// Refuse instead of connecting a broker that is not connected
    #[arg(long)]
    no_force: bool,
}

impl Subscribe {
    /// Does it.
    ///
    /// # Errors
    /// The client's errors.
    pub async fn run(self, client: &Client<'_>, console: &mut Console<'_>) -> Result<u8, Failure> {
        let request = Request::post(&["subscriptions"], Some(self.settings.keys.into_json()));
        let answer = client.send(request.query("force", self.no_force.then_some("false"))).await?;
        if !self.asking.json {
            console.warnings(&answer.json()?);
        }
        console.show(self.asking.json, &answer, |subscription: Subscription| {
            format!("subscription {}: {}", subscription.name, standing(&subscription))
        })
    }
}

/// The arguments of `unsubscribe`.
#[derive(Args)]
#[command(after_help = "RouterOS: /iot mqtt unsubscribe broker=plant topic=my/test/#")]
pub struct Unsubscribe {
    #[command(flatten)]
    pub asking: Asking,
    /// The broker's name
    #[arg(long, value_name = "NAME", required_unless_present = "name", requires = "topic")]
    broker: Option<String>,
    /// The topic filter, as it was subscribed to
    #[arg(long, value_name = "FILTER", requires = "broker")]
    topic: Option<String>,
    /// The group, if it has one
    #[arg(long, value_name = "GROUP", requires = "topic")]
    share: Option<String>,
    /// The subscription's name, in place of broker and topic
    #[arg(long, conflicts_with_all = ["broker", "topic", "share"])]
    name: Option<String>,
}

impl Unsubscribe {
    /// Does it.
    ///
    /// # Errors
    /// There is no such subscription, or several, or the client's errors.
    pub async fn run(self, client: &Client<'_>, console: &mut Console<'_>) -> Result<u8, Failure> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => self.find(client.send(Request::get(&["subscriptions"])).await?.read()?)?,
        };
        let answer = client.send(Request::delete(&["subscriptions", &name])).await?;
        console.done(self.asking.json, &answer, format_args!("subscription {name} is removed"))
    }

    /// The name of the one that is meant.
    fn find(&self, subscriptions: Vec<Subscription>) -> Result<String, Failure> {
        let (broker, topic) = (self.broker.as_deref().unwrap_or_default(), self.topic.as_deref().unwrap_or_default());
        // "$share/GROUP/FILTER" is the same as FILTER with --share GROUP.
        let parsed = TopicFilter::new(topic).ok();
        let filter = parsed.as_ref().map_or(topic, TopicFilter::unshared);
        let share = self.share.as_deref().or(parsed.as_ref().and_then(TopicFilter::share));
        let same = |one: &Subscription| one.broker == broker && one.topic == filter && one.share.as_deref() == share;
        let mut found: Vec<String> = subscriptions.into_iter().filter(same).map(|one| one.name).collect();
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(Failure::not_found(
                format!("broker {broker} has no subscription to {topic:?}"),
                "`tidegate subscriptions list` shows them".to_owned(),
            )),
            _ => Err(Failure::No(format!(
                "broker {broker} has several subscriptions to {topic:?}; choose with --name: {}",
                found.join(", ")
            ))),
        }
    }
}

/// The arguments of `subscriptions`.
#[derive(Args)]
pub struct Subscriptions {
    #[command(flatten)]
    pub asking: Asking,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the subscriptions and whether the broker has granted them
    #[command(after_help = "RouterOS: /iot mqtt subscriptions print")]
    List(List),
    /// Change settings of a subscription, at once and without a reconnect
    #[command(
        mut_arg("log", |log| log.conflicts_with("on-message")),
        after_help = "\
Example:  tidegate subscriptions set plant:my/test/# --on-message celsius
RouterOS: /iot mqtt subscriptions set 0 on-message=celsius"
    )]
    Set(Box<Set>),
}

#[derive(Args)]
struct List {
    /// Show everything about this subscription alone
    #[arg(value_name = "NAME")]
    subscription: Option<String>,
}

#[derive(Args)]
struct Set {
    /// The subscription's name
    #[arg(value_name = "NAME")]
    subscription: String,
    #[command(flatten)]
    settings: Settings<SubscriptionKeys>,
    /// Run nothing for its messages
    #[arg(long, conflicts_with_all = ["on-message", "log"])]
    no_on_message: bool,
    /// Take its conditions away
    #[arg(long, conflicts_with_all = ["when-payload", "when-min-bytes", "when-retained", "when-otherwise"])]
    no_when: bool,
    #[command(flatten)]
    unset: Unset<SubscriptionKeys>,
}

impl Subscriptions {
    /// Does it.
    ///
    /// # Errors
    /// There is nothing to set, or the client's errors.
    pub async fn run(self, client: &Client<'_>, console: &mut Console<'_>) -> Result<u8, Failure> {
        let look = console.look;
        let json = self.asking.json;
        match self.command {
            Command::List(List { subscription: None }) => {
                let answer = client.send(Request::get(&["subscriptions"])).await?;
                console.show(json, &answer, |subscriptions| list(look, subscriptions))
            }
            Command::List(List { subscription: Some(name) }) => {
                let answer = client.send(Request::get(&["subscriptions", &name])).await?;
                console.show(json, &answer, |subscription: Value| show::details(&subscription))
            }
            Command::Set(set) => {
                let answer = client.send(set.request()?).await?;
                if !json {
                    console.warnings(&answer.json()?);
                }
                console.show(json, &answer, |changed: Subscription| match changed.name == set.subscription {
                    true => format!("subscription {} is changed", changed.name),
                    // Unless it was given, a name follows from broker and topic.
                    false => format!("subscription {} is changed; its name is {} now", set.subscription, changed.name),
                })
            }
        }
    }
}

impl Set {
    fn request(&self) -> Result<Request, Failure> {
        let mut keys: Keys = self.settings.keys.clone();
        self.unset.clear(&mut keys)?;
        if self.no_on_message {
            keys.put(&["on-message"], Value::Null);
        }
        if self.no_when {
            keys.put(&["when"], Value::Null);
        }
        if keys.is_empty() {
            return Err(show::nothing_to_set("--qos 1"));
        }
        Ok(Request::patch(&["subscriptions", &self.subscription], keys.into_json()))
    }
}

fn list(look: Look, subscriptions: Vec<Subscription>) -> String {
    let header = ["NAME", "BROKER", "TOPIC", "QOS", "ON-MESSAGE", "WHEN", "STATE", "LAST MESSAGE", "ORIGIN"];
    let rows = subscriptions.into_iter().map(|one| {
        let standing = standing(&one);
        let topic = match &one.share {
            Some(share) => format!("{} (share {share})", one.topic),
            None => one.topic,
        };
        [
            one.name,
            one.broker,
            topic,
            one.qos.to_string(),
            or_none(one.on_message.as_ref().map(action)),
            or_none(one.when.as_ref().map(conditions)),
            standing,
            or_none(one.last_message),
            show::origin(&one.origin),
        ]
    });
    table(look, header, rows)
}

fn standing(subscription: &Subscription) -> String {
    match (subscription.state, &subscription.reason) {
        (SubscriptionState::Granted, _) => "granted".to_owned(),
        (SubscriptionState::Pending, _) => "pending".to_owned(),
        (SubscriptionState::Refused, Some(reason)) => format!("refused: {reason}"),
        (SubscriptionState::Refused, None) => "refused".to_owned(),
    }
}

fn action(on_message: &OnMessage) -> String {
    match on_message {
        OnMessage::Handler(name) => name.clone(),
        OnMessage::Log { log } => format!("log {log:?}"),
    }
}

fn conditions(when: &When) -> String {
    let payload = when.payload.as_ref().map(|regex| format!("payload {regex}"));
    let bytes = when.min_bytes.map(|bytes| format!("min-bytes {bytes}"));
    let retained = when.retained.map(|retained| format!("retained {retained}"));
    let otherwise = (when.otherwise == "next").then(|| "otherwise next".to_owned());
    [payload, bytes, retained, otherwise].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{check_refused, check_request, check_shown, run_against};
    use super::*;
    use crate::cli::client::testing::Scripted;

    fn subscription(name: &str, topic: &str, share: Option<&str>) -> Value {
        json!({
            "name": name, "origin": {"source": "runtime", "file": "runtime.toml", "line": 1}, "broker": "b",
            "topic": topic, "qos": 1, "share": share, "on-message": null, "when": null, "state": "granted",
            "reason": null, "last-message": null,
        })
    }

    #[test]
    fn the_options_become_keys_of_the_configuration() {
        let check = |arguments: &str, line: &str, body| check_request(arguments, b"", line, body);
        let add = "POST /api/v1/subscriptions";
        check("subscribe --broker b --topic t/#", add, json!({"broker": "b", "topic": "t/#"}));
        check(
            "subscribe --broker b --topic t --qos 1 --name n --share g --on-message h --when-payload -x --when-min-bytes 3 \
             --when-retained=no --when-otherwise next --no-force",
            "POST /api/v1/subscriptions?force=false",
            json!({"broker": "b", "topic": "t", "qos": 1, "name": "n", "share": "g", "on-message": "h",
                "when": {"payload": "-x", "min-bytes": 3, "retained": false, "otherwise": "next"}}),
        );
        let log = json!({"broker": "b", "topic": "t", "on-message": {"log": "{payload}"}});
        check("subscribe --broker b --topic t --log {payload}", add, log);
        let set = "PATCH /api/v1/subscriptions/b%3At%2F%23";
        check("subscriptions set b:t/# --qos 1", set, json!({"qos": 1}));
        check("subscriptions set b:t/# --no-on-message --no-when", set, json!({"on-message": null, "when": null}));
        let unset = json!({"when": {"payload": null}, "share": null, "on-message": "h"});
        check("subscriptions set b:t/# --unset when-payload --unset share --on-message h", set, unset);
        check("subscriptions list b:t/#", "GET /api/v1/subscriptions/b%3At%2F%23", Value::Null);
        check("unsubscribe --name b:t/#", "DELETE /api/v1/subscriptions/b%3At%2F%23", Value::Null);
    }

    #[test]
    fn wrong_use_is_told_before_anything_is_sent() {
        check_refused("subscribe --topic t", 2, "--broker <NAME>");
        check_refused("subscribe --broker b --topic t --log x --on-message h", 2, "cannot be used with");
        check_refused("subscriptions set b:t", 2, "there is nothing to set; give an option, such as --qos 1");
        check_refused("subscriptions set b:t --no-on-message --on-message h", 2, "cannot be used with");
        check_refused("unsubscribe --broker b", 2, "--topic <FILTER>");
        check_refused("unsubscribe --topic t", 2, "--broker <NAME>");
        check_refused("unsubscribe", 2, "required");
        check_refused("unsubscribe --name n --broker b --topic t", 2, "cannot be used with");
    }

    #[test]
    fn broker_and_topic_name_the_subscription_to_end() {
        let known = || {
            let all = [
                subscription("first", "t", None),
                subscription("shared", "t", Some("g")),
                subscription("a", "twice", None),
                subscription("b", "twice", None),
            ];
            Scripted::json(&Value::from(all.to_vec()))
        };
        let removed = |arguments: &str, name: &str| {
            let (ran, asked) = run_against(arguments, b"", vec![known(), Scripted::nothing()]);
            assert_eq!((ran.code, ran.output), (0, format!("subscription {name} is removed\n")), "{}", ran.notices);
            assert_eq!(asked[1].line, format!("DELETE /api/v1/subscriptions/{name}"));
        };
        removed("unsubscribe --broker b --topic t", "first");
        removed("unsubscribe --broker b --topic t --share g", "shared");
        removed("unsubscribe --broker b --topic $share/g/t", "shared");
        let refused = |arguments: &str, code: u8, reason: &str| {
            let (ran, _) = run_against(arguments, b"", vec![known()]);
            assert_eq!((ran.code, ran.notices), (code, format!("error: {reason}\n")));
        };
        let none = "broker c has no subscription to \"t\"; `tidegate subscriptions list` shows them";
        refused("unsubscribe --broker c --topic t", 4, none);
        let several = "broker b has several subscriptions to \"twice\"; choose with --name: a, b";
        refused("unsubscribe --broker b --topic twice", 1, several);
    }

    #[test]
    fn subscriptions_are_listed() {
        let mut refused = subscription("x", "y", Some("g"));
        refused["state"] = "refused".into();
        refused["reason"] = "not authorized".into();
        refused["on-message"] = json!({"log": "a \"b\""});
        refused["when"] = json!({"payload": "x+", "min-bytes": 2, "retained": true, "otherwise": "next"});
        let answer = Value::from(vec![subscription("b:t/#", "t/#", None), refused]);
        let output = "\
NAME   BROKER  TOPIC        QOS  ON-MESSAGE     WHEN                                                    STATE                    LAST MESSAGE  ORIGIN
b:t/#  b       t/#          1    -              -                                                       granted                  -             runtime
x      b       y (share g)  1    log \"a \\\"b\\\"\"  payload x+, min-bytes 2, retained true, otherwise next  refused: not authorized  -             runtime
";
        check_shown("subscriptions list", &answer, output);
    }

    #[test]
    fn a_subscription_that_gets_another_name_says_so() {
        let changed = subscription("b:u", "u", None);
        check_shown("subscriptions set b:u --qos 1", &changed, "subscription b:u is changed\n");
        let renamed = "subscription b:t is changed; its name is b:u now\n";
        check_shown("subscriptions set b:t --topic u", &changed, renamed);
    }

    #[test]
    fn a_new_subscription_tells_how_it_stands() {
        let granted = subscription("b:t", "t", None);
        check_shown("subscribe --broker b --topic t", &granted, "subscription b:t: granted\n");
    }
}
