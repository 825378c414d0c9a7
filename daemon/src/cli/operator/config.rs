//! `tidegate config`: the merged configuration that runs, with its origins, or as a file.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Asking, show};
use crate::cli::client::{Client, Failure, Request};
use crate::cli::console::Console;
use crate::cli::table::table;
use crate::control::admin::resource::Settings;

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
                let colour = console.colour;
                console.show(self.asking.json, &answer, |settings| shown(colour, settings))
            }
            Command::Export => {
                let answer = client.send(Request::get(&["config", "export"])).await?;
                let text = answer.text()?.trim_end();
                if self.asking.json { console.json(&Value::from(text)) } else { console.data(text) }
            }
        }
    }
}

fn shown(colour: bool, settings: Settings) -> String {
    let rows = settings.settings.into_iter().map(|setting| {
        let value = as_toml(&setting.value);
        [setting.key, value, show::origin(&setting.origin)]
    });
    table(colour, ["KEY", "VALUE", "ORIGIN"], rows)
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
KEY                      VALUE                     ORIGIN
brokers.b.port           1883                      t.toml:3
brokers.b.password       \"***\"                     runtime
brokers.b.tls.alpn       ['a\"b', \"c\"]              runtime
handlers.h.config.limit  { max = 1.5, on = true }  runtime
";
        check_shown("config show", &settings, output);
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
