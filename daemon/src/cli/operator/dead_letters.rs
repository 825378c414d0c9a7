//! `tidegate dead-letters`: the local store of messages and publishes that failed for good.

use clap::{ArgGroup, Args, Subcommand};
use serde_json::Value;

use super::payload::bytes;
use super::{Asking, show};
use crate::cli::client::{Client, Failure, Request};
use crate::cli::console::Console;
use crate::cli::table::{Look, or_none, table};
use crate::control::admin::limits;
use crate::control::admin::resource::{DeadLetterCount, DeadLetterKind, DeadLetterList, WholeDeadLetter};

/// The arguments of `dead-letters`.
#[derive(Args)]
pub struct DeadLetters {
    #[command(flatten)]
    pub asking: Asking,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the last dead letters of the local store, oldest first
    #[command(after_help = "Example: tidegate dead-letters list --handler celsius --reason reject --last 10")]
    List(List),
    /// Show everything about a dead letter: payload and properties too
    Show(Show),
    /// Handle dead letters again: messages by their handlers, publishes by their brokers
    #[command(after_help = "\
Each leaves the store once what comes of it is safe. One that fails again stays there, with its new failure. Mend the cause \
first: `handlers set`, `subscriptions set`, or a new plugin.
Example: tidegate dead-letters retry --handler celsius")]
    Retry(Choice),
    /// Forget dead letters, without a way back
    #[command(after_help = "Example: tidegate dead-letters clear 17 18")]
    Clear(Choice),
}

#[derive(Args)]
struct List {
    /// Only those of this handler
    #[arg(long, value_name = "NAME")]
    handler: Option<String>,
    /// Only those with this reason, such as reject, trap, deadline or publish_refused
    #[arg(long)]
    reason: Option<String>,
    /// Only so many, the last ones, 1 to 1000 [default: 100]
    #[arg(long, value_name = "COUNT")]
    last: Option<u32>,
    /// Only those that are older than this one
    #[arg(long, value_name = "ID")]
    before: Option<u64>,
}

#[derive(Args)]
struct Show {
    /// Its id, as `list` tells it
    id: u64,
    /// Print the payload alone, byte for byte
    #[arg(long, conflicts_with = "json")]
    payload: bool,
}

/// Which dead letters.
#[derive(Args)]
#[command(group(ArgGroup::new("which").required(true).args(["ids", "handler", "all"])))]
struct Choice {
    /// Those with these ids
    #[arg(value_name = "ID")]
    ids: Vec<u64>,
    /// Those of this handler
    #[arg(long, value_name = "NAME")]
    handler: Option<String>,
    /// All
    #[arg(long)]
    all: bool,
}

impl Choice {
    /// The request with what is chosen.
    fn of(&self, request: Request) -> Result<Request, Failure> {
        if self.ids.len() > limits::IDS {
            let (given, most) = (self.ids.len(), limits::IDS);
            return Err(Failure::WrongUse(format!(
                "{given} ids are given, and {most} may be at a time; use --handler or --all, or several commands"
            )));
        }
        let ids = self.ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        let ids = (!ids.is_empty()).then_some(ids);
        let request = request.query("ids", ids.as_deref()).query("handler", self.handler.as_deref());
        Ok(request.query("all", self.all.then_some("true")))
    }
}

impl DeadLetters {
    /// Does it.
    ///
    /// # Errors
    /// The client's errors.
    pub async fn run(self, client: &Client<'_>, console: &mut Console<'_>) -> Result<u8, Failure> {
        let json = self.asking.json;
        match self.command {
            Command::List(List { handler, reason, last, before }) => {
                let [last, before] = [last.map(u64::from), before].map(|number| number.map(|one| one.to_string()));
                let request = Request::get(&["dead-letters"]).query("handler", handler.as_deref());
                let request = request.query("reason", reason.as_deref()).query("last", last.as_deref());
                let answer = client.send(request.query("before", before.as_deref())).await?;
                if json {
                    return console.json(&answer.json()?);
                }
                listed(console, &answer.read()?)
            }
            Command::Show(Show { id, payload }) => {
                let answer = client.send(Request::get(&["dead-letters", &id.to_string()])).await?;
                if payload {
                    let WholeDeadLetter { data, encoding, .. } = answer.read()?;
                    return console.bytes(&bytes(&data, encoding)?);
                }
                console.show(json, &answer, |letter: Value| show::details(&letter))
            }
            Command::Retry(choice) => {
                let answer = client.send(choice.of(Request::post(&["dead-letters", "retry"], None))?).await?;
                console.show(json, &answer, |count: DeadLetterCount| match count.dead_letters {
                    1 => "1 dead letter is handled again".to_owned(),
                    count => format!("{count} dead letters are handled again"),
                })
            }
            Command::Clear(choice) => {
                let answer = client.send(choice.of(Request::delete(&["dead-letters"]))?).await?;
                console.show(json, &answer, |count: DeadLetterCount| match count.dead_letters {
                    1 => "1 dead letter is forgotten".to_owned(),
                    count => format!("{count} dead letters are forgotten"),
                })
            }
        }
    }
}

fn listed(console: &mut Console<'_>, list: &DeadLetterList) -> Result<u8, Failure> {
    let code = console.data(rows(console.look, list))?;
    if list.more {
        let before = list.dead_letters.first().map_or(0, |oldest| oldest.id);
        let kept = list.kept.messages;
        console
            .notice(format_args!("there are older ones, of {kept} in all: --before {before} shows them, --last more"));
    }
    Ok(code)
}

fn rows(look: Look, list: &DeadLetterList) -> String {
    let header = ["ID", "TIME", "HANDLER", "BROKER", "TOPIC", "REASON", "ERROR", "ATTEMPTS", "BYTES"];
    let rows = list.dead_letters.iter().map(|letter| {
        let topic = match letter.kind {
            DeadLetterKind::Message => letter.topic.clone(),
            DeadLetterKind::Publish => format!("{} (a publish)", letter.topic),
        };
        [
            letter.id.to_string(),
            letter.time.clone(),
            or_none(letter.handler.clone()),
            letter.broker.clone(),
            topic,
            letter.reason.clone(),
            letter.error.clone(),
            letter.attempts.to_string(),
            letter.bytes.to_string(),
        ]
    });
    table(look, header, rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{check_refused, check_request, check_shown, run, run_against};
    use super::*;
    use crate::cli::client::testing::Scripted;

    fn letter(id: u64, kind: &str) -> Value {
        json!({
            "id": id, "kind": kind, "time": "2026-01-02T03:04:05.678Z", "handler": "celsius", "subscription": "b:t/#",
            "broker": "b", "topic": "t/1", "qos": 1, "retain": false, "reason": "reject", "error": "no number",
            "attempts": 1, "bytes": 4,
        })
    }

    #[test]
    fn dead_letters_are_listed() {
        let list = "GET /api/v1/dead-letters";
        check_request("dead-letters list", b"", list, Value::Null);
        let all = "dead-letters list --handler h --reason reject --last 5 --before 9";
        check_request(all, b"", &format!("{list}?handler=h&reason=reject&last=5&before=9"), Value::Null);
        let mut publish = letter(4, "publish");
        publish["handler"] = Value::Null;
        let letters = [letter(3, "message"), publish];
        let answer = json!({"dead-letters": letters, "more": false, "kept": {"messages": 2, "bytes": 8}});
        let output = "\
ID  TIME                      HANDLER  BROKER  TOPIC            REASON  ERROR      ATTEMPTS  BYTES
3   2026-01-02T03:04:05.678Z  celsius  b       t/1              reject  no number  1         4
4   2026-01-02T03:04:05.678Z  -        b       t/1 (a publish)  reject  no number  1         4
";
        check_shown("dead-letters list", &answer, output);
        let mut more = answer.clone();
        more["more"] = json!(true);
        more["kept"]["messages"] = json!(900);
        let (ran, _) = run_against("dead-letters list", b"", vec![Scripted::json(&more)]);
        let said = "there are older ones, of 900 in all: --before 3 shows them, --last more\n";
        assert_eq!((ran.code, ran.output.as_str(), ran.notices.as_str()), (0, output, said));
        let (ran, _) = run_against("dead-letters list --json", b"", vec![Scripted::json(&more)]);
        assert_eq!(serde_json::from_str::<Value>(&ran.output).expect("JSON"), more);
    }

    #[test]
    fn a_dead_letter_is_shown_whole_or_its_payload_alone() {
        let show = "dead-letters show 3";
        check_request(show, b"", "GET /api/v1/dead-letters/3", Value::Null);
        let mut whole = letter(3, "message");
        let more =
            json!({"received": "2026-01-02T03:04:05Z", "properties": null, "data": "AP8=", "encoding": "base64"});
        whole.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let (ran, _) = run_against(show, b"", vec![Scripted::json(&whole)]);
        assert!(ran.output.contains("data          AP8=\n") && ran.output.contains("retain        no\n"), "{ran:?}");
        whole["data"] = json!("a\n");
        whole["encoding"] = json!("utf-8");
        check_shown("dead-letters show 3 --payload", &whole, "a\n");
        check_refused("dead-letters show 3 --payload --json", 2, "cannot be used with");
        check_refused("dead-letters show x", 2, "invalid digit");
    }

    #[test]
    fn dead_letters_are_named_in_exactly_one_way() {
        let (retry, clear) = ("POST /api/v1/dead-letters/retry", "DELETE /api/v1/dead-letters");
        for (command, line) in [("retry", retry), ("clear", clear)] {
            let check = |words: &str, query: &str| {
                check_request(&format!("dead-letters {command} {words}"), b"", &format!("{line}?{query}"), Value::Null);
            };
            check("7", "ids=7");
            check("7 8", "ids=7%2C8");
            check("--handler h", "handler=h");
            check("--all", "all=true");
            check_refused(&format!("dead-letters {command}"), 2, "required");
            check_refused(&format!("dead-letters {command} --all 7"), 2, "cannot be used with");
            check_refused(&format!("dead-letters {command} --all --handler h"), 2, "cannot be used with");
            let many: Vec<String> = (0..=limits::IDS).map(|id| id.to_string()).collect();
            let words = ["dead-letters", command].into_iter().chain(many.iter().map(String::as_str));
            let ran = run(words, b"", std::path::Path::new("/nonexistent/admin.sock"));
            assert!(ran.code == 2 && ran.notices.contains("501 ids are given, and 500 may be at a time"), "{ran:?}");
        }
        check_shown("dead-letters retry 7", &json!({"dead-letters": 1}), "1 dead letter is handled again\n");
        check_shown("dead-letters clear --all", &json!({"dead-letters": 0}), "0 dead letters are forgotten\n");
    }
}
