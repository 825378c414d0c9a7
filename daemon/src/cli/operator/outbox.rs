//! `tidegate outbox`: what waits to be published.

use clap::{Args, Subcommand};

use super::{Asking, show};
use crate::cli::client::{Client, Failure, Request};
use crate::cli::console::Console;
use crate::cli::table::{Look, NONE, or_none, table};
use crate::control::admin::resource::{OutboxView, Purged};

/// The arguments of `outbox`.
#[derive(Args)]
pub struct OutboxArgs {
    #[command(flatten)]
    pub asking: Asking,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List what waits for each broker, also for those that were removed
    List(List),
    /// Drop what waits for a broker, without a way back
    #[command(after_help = "\
What is on its way to a broker that is connected is not dropped. `brokers remove` keeps what is on the disk for a broker that is \
added again under this name; this drops it.")]
    Purge(Purge),
}

#[derive(Args)]
struct List {
    /// Only what waits for this broker
    #[arg(long, value_name = "NAME")]
    broker: Option<String>,
}

#[derive(Args)]
struct Purge {
    /// The broker's name
    broker: String,
}

impl OutboxArgs {
    /// Does it.
    ///
    /// # Errors
    /// There is no such broker, or the client's errors.
    pub async fn run(self, client: &Client<'_>, console: &mut Console<'_>) -> Result<u8, Failure> {
        let json = self.asking.json;
        let look = console.look;
        match self.command {
            Command::List(List { broker: None }) => {
                let answer = client.send(Request::get(&["outbox"])).await?;
                console.show(json, &answer, |outboxes| list(look, outboxes))
            }
            Command::List(List { broker: Some(name) }) => {
                let outboxes: Vec<OutboxView> = client.send(Request::get(&["outbox"])).await?.read()?;
                let one = vec![chosen(outboxes, &name)?];
                match json {
                    true => console.json(&serde_json::to_value(one).expect("strings and numbers become JSON")),
                    false => console.data(list(look, one)),
                }
            }
            Command::Purge(Purge { broker }) => {
                let answer = client.send(Request::delete(&["outbox", &broker])).await?;
                console.show(json, &answer, |purged: Purged| match purged.messages {
                    1 => format!("1 message to broker {broker} is dropped"),
                    messages => format!("{messages} messages to broker {broker} are dropped"),
                })
            }
        }
    }
}

/// The one of this broker, or the refusal that the daemon has for a name that it does not know.
fn chosen(outboxes: Vec<OutboxView>, name: &str) -> Result<OutboxView, Failure> {
    let known = outboxes.iter().map(|one| one.broker.as_str()).collect::<Vec<_>>().join(", ");
    outboxes.into_iter().find(|one| one.broker == name).ok_or_else(|| {
        let remedy = match known.as_str() {
            "" => "there are no brokers".to_owned(),
            known => format!("known here: {known}"),
        };
        Failure::not_found(format!("there is no broker {name}, and nothing waits for one"), remedy)
    })
}

fn list(look: Look, outboxes: Vec<OutboxView>) -> String {
    let header = ["BROKER", "STORE", "MESSAGES", "BYTES", "ON DISK", "WAITING", "OLDEST", "MAX", "WHEN FULL"];
    let rows = outboxes.into_iter().map(|one| {
        let store = match (one.configured, one.store, one.draining) {
            (false, ..) => "disk: the broker was removed".to_owned(),
            (true, Some(store), true) => format!("{store}, once the disk is drained"),
            (true, store, _) => or_none(store),
        };
        let most = match (one.max_messages, one.max_bytes) {
            (Some(messages), Some(bytes)) => format!("{messages}, {bytes}"),
            _ => NONE.to_owned(),
        };
        [
            one.broker,
            store,
            one.messages.to_string(),
            one.bytes.to_string(),
            one.on_disk.messages.to_string(),
            one.waiting.to_string(),
            or_none(one.oldest_age.map(show::duration)),
            most,
            or_none(one.when_full),
        ]
    });
    table(look, header, rows)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{check_request, check_shown, run_against};
    use crate::cli::client::testing::Scripted;

    fn outboxes() -> Value {
        let limits = |mut outbox: Value, store: &str, draining: bool| {
            let more = json!({"configured": true, "store": store, "draining": draining, "max-messages": 10000,
                "max-bytes": "64MiB", "max-age": null, "when-full": "block"});
            outbox.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            outbox
        };
        let plain = |name: &str, messages: u64, disk: u64| {
            json!({"broker": name, "messages": messages, "bytes": messages * 10, "waiting": 0,
                "on-disk": {"messages": disk, "bytes": disk * 10},
                "oldest-age": if messages > 0 { json!(93.4) } else { Value::Null }})
        };
        let mut gone = limits(plain("gone", 7, 7), "disk", false);
        for key in ["store", "max-messages", "max-bytes", "when-full"] {
            gone[key] = Value::Null;
        }
        gone["configured"] = json!(false);
        json!([
            limits(plain("a", 0, 0), "memory", false),
            limits(plain("b", 3, 2), "disk", false),
            limits(plain("c", 3, 3), "memory", true),
            gone,
        ])
    }

    #[test]
    fn outboxes_are_listed() {
        check_request("outbox list", b"", "GET /api/v1/outbox", Value::Null);
        let output = "\
BROKER  STORE                         MESSAGES  BYTES  ON DISK  WAITING  OLDEST  MAX           WHEN FULL
a       memory                        0         0      0        0        -       10000, 64MiB  block
b       disk                          3         30     2        0        1m 33s  10000, 64MiB  block
c       memory, once the disk is drained  3     30     3        0        1m 33s  10000, 64MiB  block
gone    disk: the broker was removed  7         70     7        0        1m 33s  -             -
";
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let (ran, _) = run_against("outbox list", b"", vec![Scripted::json(&outboxes())]);
        assert_eq!((ran.code, words(&ran.output), ran.notices.as_str()), (0, words(output), ""), "{}", ran.output);
        let (ran, _) = run_against("outbox list --json", b"", vec![Scripted::json(&outboxes())]);
        assert_eq!(serde_json::from_str::<Value>(&ran.output).expect("JSON"), outboxes());
    }

    #[test]
    fn one_outbox_is_chosen_by_its_broker() {
        let (ran, _) = run_against("outbox list --broker gone --json", b"", vec![Scripted::json(&outboxes())]);
        assert_eq!(serde_json::from_str::<Value>(&ran.output).expect("JSON"), json!([outboxes()[3]]));
        let (ran, _) = run_against("outbox list --broker b", b"", vec![Scripted::json(&outboxes())]);
        assert_eq!((ran.code, ran.output.lines().count()), (0, 2));
        let (ran, _) = run_against("outbox list --broker d", b"", vec![Scripted::json(&outboxes())]);
        let told = "error: there is no broker d, and nothing waits for one; known here: a, b, c, gone\n";
        assert_eq!((ran.code, ran.notices.as_str()), (4, told));
    }

    #[test]
    fn a_purge_tells_how_many_it_drops() {
        check_request("outbox purge b", b"", "DELETE /api/v1/outbox/b", Value::Null);
        let purged = |messages: u64| json!({"broker": "b", "messages": messages, "bytes": 9});
        check_shown("outbox purge b", &purged(1), "1 message to broker b is dropped\n");
        check_shown("outbox purge b", &purged(20), "20 messages to broker b are dropped\n");
    }
}
