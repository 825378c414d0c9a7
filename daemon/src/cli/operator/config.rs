//! `tidegate config`: the merged configuration that runs, with its origins, or as a file.

use std::collections::HashMap;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Asking, show};
use crate::cli::client::{Client, Failure, Request};
use crate::cli::console::Console;
use crate::cli::table::{Look, table};
use crate::control::admin::resource::{Setting, Settings, Subscription};

/// How the keys of subscriptions begin, which are counted.
const SUBSCRIPTIONS: &str = "subscriptions[";

/// The arguments of `config`.
#[derive(Args)]
pub struct Config {
    #[command(flatten)]
    pub asking: Asking,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show every key that is set, with its value and where it stands; secrets are masked
    Show,
    /// Print the configuration as one TOML file; secrets are masked
    #[command(after_help = "\
Example:  tidegate config export > gateway.toml
RouterOS: /iot mqtt export")]
    Export,
}

impl Config {
    /// Does it.
    ///
    /// # Errors
    /// The client's errors.
    pub async fn run(self, client: &Client<'_>, console: &mut Console<'_>) -> Result<u8, Failure> {
        match self.command {
            Command::Show => {
                let answer = client.send(Request::get(&["config"])).await?;
                if self.asking.json {
                    return console.json(&answer.json()?);
                }
                let settings: Settings = answer.read()?;
                let subscriptions: Vec<Subscription> =
                    match settings.settings.iter().any(|setting| setting.key.starts_with(SUBSCRIPTIONS)) {
                        true => client.send(Request::get(&["subscriptions"])).await?.read()?,
                        false => Vec::new(),
                    };
                console.data(shown(console.look, settings, &subscriptions))
            }
            Command::Export => {
                let answer = client.send(Request::get(&["config", "export"])).await?;
                let text = answer.text()?.trim_end();
                if self.asking.json { console.json(&Value::from(text)) } else { console.data(text) }
            }
        }
    }
}

fn shown(look: Look, settings: Settings, subscriptions: &[Subscription]) -> String {
    let names = names(&settings.settings, subscriptions);
    let rows = settings.settings.into_iter().map(|setting| {
        let value = as_toml(&setting.value);
        let name = within(&setting.key).and_then(|(place, _)| names.get(&place).copied()).unwrap_or_default();
        let name = name.to_owned();
        [setting.key, value, show::origin(&setting.origin), name]
    });
    table(look, ["KEY", "VALUE", "ORIGIN", "SUBSCRIPTION"], rows)
}

/// The place and the rest of a subscription's key.
fn within(key: &str) -> Option<(usize, &str)> {
    let (place, rest) = key.strip_prefix(SUBSCRIPTIONS)?.split_once(']')?;
    Some((place.parse().ok()?, rest))
}

/// The names by which commands call subscriptions, by their places. One that was changed between the two answers has none.
fn names<'a>(settings: &[Setting], subscriptions: &'a [Subscription]) -> HashMap<usize, &'a str> {
    let name = |setting: &Setting| {
        let (place, ".topic") = within(&setting.key)? else { return None };
        let (topic, known) = (setting.value.as_str()?, subscriptions.get(place)?);
        // What an interpolation stands for is not shown.
        (known.topic == topic || topic.contains("${")).then_some((place, known.name.as_str()))
    };
    settings.iter().filter_map(name).collect()
}

/// A value as it is written in the file.
fn as_toml(value: &Value) -> String {
    // JSON's null, which is no value of TOML, cannot have been written.
    toml::Value::try_from(value).map_or_else(|_| value.to_string(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{check_request, check_shown, run_against};
    use super::*;
    use crate::cli::client::testing::Scripted;

    #[test]
    fn each_key_has_its_value_and_origin() {
        check_request("config show", b"", "GET /api/v1/config", Value::Null);
        let setting = |key: &str, value: Value, source: &str| json!({"key": key, "value": value, "origin": {"source": source, "file": "t.toml", "line": 3}});
        let settings = json!({"settings": [
            setting("brokers.b.port", json!(1883), "file"),
            setting("brokers.b.password", json!("***"), "runtime"),
            setting("brokers.b.tls.alpn", json!(["a\"b", "c"]), "runtime"),
            setting("handlers.h.config.limit", json!({"max": 1.5, "on": true}), "runtime"),
        ]});
        let output = "\
KEY                      VALUE                     ORIGIN    SUBSCRIPTION
brokers.b.port           1883                      t.toml:3
brokers.b.password       \"***\"                     runtime
brokers.b.tls.alpn       ['a\"b', \"c\"]              runtime
handlers.h.config.limit  { max = 1.5, on = true }  runtime
";
        check_shown("config show", &settings, output);
    }

    #[test]
    fn a_subscription_has_the_name_that_commands_take() {
        let origin = json!({"source": "file", "file": "t.toml", "line": 3});
        let setting = |key: &str, value: &str| json!({"key": key, "value": value, "origin": origin});
        let settings = json!({"settings": [
            setting("subscriptions[0].topic", "a"), setting("subscriptions[0].on-message.log", "x"),
            setting("subscriptions[1].topic", "changed"), setting("subscriptions[2].topic", "${TOPIC}"),
        ]});
        let subscription = |name: &str, topic: &str| {
            json!({
                "name": name, "origin": origin, "broker": "b", "topic": topic, "qos": 1, "share": null, "on-message": null,
                "when": null, "state": "granted", "reason": null, "last-message": null,
            })
        };
        let subscriptions =
            Value::from(vec![subscription("b:a", "a"), subscription("b:b", "b"), subscription("n", "c")]);
        let answers = || vec![Scripted::json(&settings), Scripted::json(&subscriptions)];
        let (ran, _) = run_against("config show", b"", answers());
        let output = "\
KEY                              VALUE       ORIGIN    SUBSCRIPTION
subscriptions[0].topic           \"a\"         t.toml:3  b:a
subscriptions[0].on-message.log  \"x\"         t.toml:3  b:a
subscriptions[1].topic           \"changed\"   t.toml:3
subscriptions[2].topic           \"${TOPIC}\"  t.toml:3  n
";
        assert_eq!(ran.output, output);
        let (ran, _) = run_against("config show --json", b"", vec![Scripted::json(&settings)]);
        assert_eq!(serde_json::from_str::<Value>(&ran.output).expect("JSON"), settings);
    }

    #[test]
    fn an_export_is_the_text_itself() {
        let toml = "[brokers.b]\naddress = \"h\"\n";
        let answer = || Scripted::body("200 OK", "application/toml", toml);
        let (ran, asked) = run_against("config export", b"", vec![answer()]);
        assert_eq!((ran.code, ran.output.as_str()), (0, toml));
        assert_eq!(asked[0].line, "GET /api/v1/config/export");
        let (ran, _) = run_against("config export --json", b"", vec![answer()]);
        assert_eq!(serde_json::from_str::<Value>(&ran.output).expect("JSON"), json!(toml.trim_end()));
    }
}
