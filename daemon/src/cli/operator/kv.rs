//! `tidegate kv`: what handlers remember.

use std::io::Read;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Asking;
use super::payload::{Most, bytes, from_file, from_input, in_json};
use crate::cli::client::{Client, Failure, Request};
use crate::cli::console::Console;
use crate::cli::table::{Look, or_none, table};
use crate::control::admin::limits;
use crate::control::admin::resource::{KvEntry, KvList, KvTotals, KvValue};

/// Largest request that the daemon takes, in bytes of JSON.
const MOST: Most = Most {
    bytes: limits::KV_BYTES,
    beside: "with all that is beside it",
    remedy: "let the handler itself remember more, or keep it elsewhere",
};

/// The arguments of `kv`.
#[derive(Args)]
pub struct Kv {
    #[command(flatten)]
    pub asking: Asking,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List how much each handler remembers, or the keys of one, in order
    #[command(after_help = "Example: tidegate kv list counter --prefix sensors/")]
    List(List),
    /// Print what a handler remembers under a key, byte for byte
    Get(Named),
    /// Let a handler remember a value, in place of the one before
    #[command(after_help = "\
Examples: tidegate kv set counter sensors/7 42 --ttl 1h
          tidegate kv set counter table --file table.json
A value that begins with - is written after --, as in `kv set --ttl 1h counter key -- -x`; a number below zero needs no --.")]
    Set(Set),
    /// Let a handler forget a key
    Delete(Named),
}

#[derive(Args)]
struct List {
    /// The handler's name
    handler: Option<String>,
    /// Only the keys that begin with this
    #[arg(long, requires = "handler", allow_hyphen_values = true)]
    prefix: Option<String>,
    /// Only the keys that come after this one
    #[arg(long, value_name = "KEY", requires = "handler", allow_hyphen_values = true)]
    after: Option<String>,
    /// Only so many, the first ones, 1 to 1000 [default: 100]
    #[arg(long, value_name = "COUNT", requires = "handler")]
    limit: Option<u32>,
}

#[derive(Args)]
struct Named {
    /// The handler's name
    handler: String,
    /// The key
    key: String,
}

#[derive(Args)]
struct Set {
    #[command(flatten)]
    named: Named,
    /// The value; - is standard input, byte for byte
    #[arg(required_unless_present = "file", allow_negative_numbers = true)]
    value: Option<String>,
    /// The file that holds the value
    #[arg(long, conflicts_with = "value")]
    file: Option<PathBuf>,
    /// Forget it after this time, such as 5m [default: never]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
}

impl Kv {
    /// Does it.
    ///
    /// # Errors
    /// The key or the value cannot be, or the client's errors.
    pub async fn run(self, client: &Client<'_>, console: &mut Console<'_>) -> Result<u8, Failure> {
        let json = self.asking.json;
        let look = console.look;
        match self.command {
            Command::List(List { handler: None, .. }) => {
                let answer = client.send(Request::get(&["kv"])).await?;
                console.show(json, &answer, |states| totals(look, states))
            }
            Command::List(List { handler: Some(handler), prefix, after, limit }) => {
                let limit = limit.map(|limit| limit.to_string());
                let request = Request::get(&["kv", &handler]).query("prefix", prefix.as_deref());
                let request = request.query("after", after.as_deref()).query("limit", limit.as_deref());
                let answer = client.send(request).await?;
                if json {
                    return console.json(&answer.json()?);
                }
                listed(console, &answer.read()?)
            }
            Command::Get(named) => {
                let answer = client.send(Request::get(&named.path()?)).await?;
                if json {
                    return console.json(&answer.json()?);
                }
                let KvEntry { value, encoding, .. } = answer.read()?;
                console.bytes(&bytes(&value, encoding)?)
            }
            Command::Set(set) => {
                let answer = client.send(set.request(console.input)?).await?;
                let Named { handler, key } = &set.named;
                console.done(json, &answer, format_args!("handler {handler} remembers {key:?}"))
            }
            Command::Delete(named) => {
                let answer = client.send(Request::delete(&named.path()?)).await?;
                let Named { handler, key } = &named;
                console.done(json, &answer, format_args!("handler {handler} has forgotten {key:?}"))
            }
        }
    }
}

impl Named {
    /// Where it is in the API.
    fn path(&self) -> Result<[&str; 3], Failure> {
        match self.key.as_str() {
            "" => Err(Failure::WrongUse("the key is empty; name one as `kv list HANDLER` tells it".to_owned())),
            key => Ok(["kv", &self.handler, key]),
        }
    }
}

impl Set {
    fn request(&self, input: &mut dyn Read) -> Result<Request, Failure> {
        let path = self.named.path()?;
        let bytes = match (&self.file, self.value.as_deref()) {
            (Some(file), _) => from_file(file, MOST)?,
            (None, Some("-")) => from_input(input, MOST)?,
            (None, value) => value.unwrap_or_default().as_bytes().to_vec(),
        };
        let size = bytes.len();
        let (value, value_base64) = in_json(bytes);
        let body = KvValue { value, value_base64, ttl: self.ttl.clone() };
        let body = serde_json::to_value(body).expect("strings become JSON");
        MOST.holds(&body, "value", size)?;
        Ok(Request::put(&path, body))
    }
}

fn totals(look: Look, states: Vec<KvTotals>) -> String {
    let rows = states.into_iter().map(|one| {
        let quota = match (one.configured, one.quota) {
            (true, Some(quota)) => quota,
            (true, None) => "not granted".to_owned(),
            (false, _) => "the handler is not configured".to_owned(),
        };
        [one.handler, one.keys.to_string(), one.bytes.to_string(), quota]
    });
    table(look, ["HANDLER", "KEYS", "BYTES", "QUOTA"], rows)
}

fn listed(console: &mut Console<'_>, list: &KvList) -> Result<u8, Failure> {
    let rows = list.keys.iter().map(|one| [one.key.clone(), one.bytes.to_string(), or_none(one.expires.clone())]);
    let code = console.data(table(console.look, ["KEY", "BYTES", "EXPIRES"], rows))?;
    if let Some(last) = list.keys.last().filter(|_| list.more) {
        console.notice(format_args!("there are further ones: --after {:?} shows them, --limit more", last.key));
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{check_refused, check_request, check_shown, run, run_against};
    use crate::cli::client::testing::Scripted;

    #[test]
    fn handlers_and_their_keys_are_listed() {
        check_request("kv list", b"", "GET /api/v1/kv", Value::Null);
        check_request("kv list h", b"", "GET /api/v1/kv/h", Value::Null);
        let chosen = "kv list h --prefix a/ --after a/b --limit 5";
        check_request(chosen, b"", "GET /api/v1/kv/h?prefix=a%2F&after=a%2Fb&limit=5", Value::Null);
        check_refused("kv list --prefix a", 2, "<HANDLER>");
        let state = |name: &str, configured: bool, quota: Value| json!({"handler": name, "configured": configured, "keys": 2, "bytes": 90, "quota": quota});
        let states =
            json!([state("a", true, json!("1MiB")), state("b", true, Value::Null), state("c", false, Value::Null)]);
        let output = "\
HANDLER  KEYS  BYTES  QUOTA
a        2     90     1MiB
b        2     90     not granted
c        2     90     the handler is not configured
";
        check_shown("kv list", &states, output);
        let keys = json!({"keys": [{"key": "a/b", "bytes": 3, "expires": "2026-01-02T03:04:05Z"},
            {"key": "ä\n", "bytes": 4, "expires": null}], "more": false});
        let output = "\
KEY  BYTES  EXPIRES
a/b  3      2026-01-02T03:04:05Z
ä\\n  4      -
";
        check_shown("kv list h", &keys, output);
        let mut more = keys.clone();
        more["more"] = json!(true);
        let (ran, _) = run_against("kv list h", b"", vec![Scripted::json(&more)]);
        let said = "there are further ones: --after \"ä\\n\" shows them, --limit more\n";
        assert_eq!((ran.code, ran.output.as_str(), ran.notices.as_str()), (0, output, said));
    }

    #[test]
    fn a_value_is_printed_as_it_is() {
        check_request("kv get h a/b", b"", "GET /api/v1/kv/h/a%2Fb", Value::Null);
        let entry = json!({"key": "a/b", "value": "42", "encoding": "utf-8", "expires": null});
        check_shown("kv get h a/b", &entry, "42");
        let (ran, _) = run_against("kv get h a/b --json", b"", vec![Scripted::json(&entry)]);
        assert_eq!(serde_json::from_str::<Value>(&ran.output).expect("JSON"), entry);
        let text = json!({"key": "k", "value": "AAo=", "encoding": "base64", "expires": null});
        check_shown("kv get h k", &text, "\0\n");
        let ran = run(["kv", "get", "h", ""], b"", std::path::Path::new("/nonexistent/admin.sock"));
        assert!(ran.code == 2 && ran.notices.contains("the key is empty"), "{ran:?}");
    }

    #[test]
    fn a_value_comes_from_the_line_a_file_or_standard_input() {
        let put = "PUT /api/v1/kv/h/k";
        check_request("kv set h k 42", b"", put, json!({"value": "42"}));
        check_request("kv set h k -42 --ttl 5m", b"", put, json!({"value": "-42", "ttl": "5m"}));
        check_request("kv set h k -- -x", b"", put, json!({"value": "-x"}));
        check_request("kv set h k -", b"\x00\xff", put, json!({"value-base64": "AP8="}));
        check_request("kv set h k -", b"", put, json!({"value": ""}));
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), b"{}\n").expect("our file");
        check_request(&format!("kv set h k --file {}", file.path().display()), b"", put, json!({"value": "{}\n"}));
        check_refused("kv set h k", 2, "required");
        check_refused("kv set h k -x", 2, "unexpected argument");
        check_refused("kv set h k 1 --file x", 2, "cannot be used with");
        check_refused("kv set h k --file /dev/zero", 2, "/dev/zero holds more than 16777216 bytes; the daemon takes");
        let (ran, _) = run_against("kv set h k 42", b"", vec![Scripted::nothing()]);
        assert_eq!((ran.code, ran.output.as_str()), (0, "handler h remembers \"k\"\n"));
    }

    #[test]
    fn a_key_is_forgotten() {
        check_request("kv delete h a/b", b"", "DELETE /api/v1/kv/h/a%2Fb", Value::Null);
        let (ran, _) = run_against("kv delete h a/b", b"", vec![Scripted::nothing()]);
        assert_eq!((ran.code, ran.output.as_str()), (0, "handler h has forgotten \"a/b\"\n"));
    }
}
