//! `tidegate handlers`: which plugins run, with which limits, and what they have done.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Asking;
use super::keys::{Key, Kind, Resource, Settings, Unset, key};
use super::show;
use crate::cli::client::{Client, Failure, Request};
use crate::cli::console::Console;
use crate::cli::table::{Look, table};
use crate::control::admin::resource::{Handler, Reloaded};

/// `[handlers.NAME]`.
#[derive(Debug)]
pub struct HandlerKeys;

impl Resource for HandlerKeys {
    const TABLES: &'static [&'static str] = &["config", "dead-letter", "quarantine", "reload", "retry"];
    const NEEDED: &'static [&'static str] = &["dead-letter-broker", "dead-letter-topic"];
    const KEYS: &'static [Key] = {
        use Kind::{Boolean, Choice, Integer, List, Number, NumberOrOff, Table, Text};
        &[
            key(
                "plugin",
                &["plugin"],
                Text,
                "FILE",
                "Its plugin, by its file name in plugins-dir: a WebAssembly component (.wasm), or a native library (.so)",
            ),
            key(
                "instances",
                &["instances"],
                Integer,
                "COUNT",
                "How many run beside each other, 1 to 256 [default: one per core]",
            ),
            key(
                "isolation",
                &["isolation"],
                Choice(&["reuse", "per-message"]),
                "MODE",
                "Whether an instance lives on between calls [default: reuse]",
            ),
            key("call-deadline", &["call-deadline"], Text, "DURATION", "Wall clock limit of a call [default: 1s]"),
            key("max-memory", &["max-memory"], Text, "SIZE", "Memory of an instance [default: 64MiB]"),
            key("queue", &["queue"], Integer, "COUNT", "Messages that may wait [default: 1024]"),
            key("queue-bytes", &["queue-bytes"], Text, "SIZE", "Bytes of messages that may wait [default: 16MiB]"),
            key(
                "overload",
                &["overload"],
                Choice(&["drop-newest", "drop-oldest"]),
                "MODE",
                "Which QoS 0 message is dropped when there is no room [default: drop-newest]",
            ),
            key(
                "retry-max",
                &["retry", "max"],
                Integer,
                "COUNT",
                "Further calls for a message whose call failed [default: 3]",
            ),
            key(
                "retry-backoff",
                &["retry", "backoff"],
                Text,
                "SHORTEST..LONGEST",
                "The wait before a further call [default: 100ms..10s]",
            ),
            key(
                "retry-max-time",
                &["retry", "max-time"],
                Text,
                "DURATION",
                "From the first call of a message to its last, at most [default: 30s]",
            ),
            key(
                "quarantine",
                &["quarantine"],
                Choice(&["off"]),
                "off",
                "Call it however often it fails [default: see --quarantine-after]",
            ),
            key(
                "quarantine-after",
                &["quarantine", "after"],
                Integer,
                "COUNT",
                "Failures in a row after which it is left alone [default: 5]",
            ),
            key(
                "quarantine-for",
                &["quarantine", "for"],
                Text,
                "DURATION",
                "For how long it is left alone; doubled by each trial that fails, up to 10m [default: 30s]",
            ),
            key(
                "reload-canary",
                &["reload", "canary"],
                NumberOrOff,
                "SHARE|off",
                "The share of first calls that run on a new version of the plugin while it is on trial, such as 0.1 [default: off]",
            ),
            key(
                "reload-max-failures",
                &["reload", "max-failures"],
                Number,
                "SHARE",
                "The largest share of the calls on trial that may fail [default: 0.05]",
            ),
            key("max-publishes", &["max-publishes"], Integer, "COUNT", "Publishes of one call [default: 64]"),
            key(
                "max-publish-bytes",
                &["max-publish-bytes"],
                Text,
                "SIZE",
                "Bytes of one call's publishes [default: 1MiB]",
            ),
            key(
                "dead-letter-broker",
                &["dead-letter", "broker"],
                Text,
                "BROKER",
                "Where messages go whose calls have failed for good; needs --dead-letter-topic [default: the dead-letter store]",
            ),
            key("dead-letter-topic", &["dead-letter", "topic"], Text, "TOPIC", "The topic that they are published to"),
            key(
                "default-broker",
                &["default-broker"],
                Text,
                "BROKER",
                "Where it publishes on a schedule, unless it names a broker [default: nowhere]",
            ),
            key(
                "allow-publish",
                &["allow", "publish"],
                List,
                "BROKER:FILTER",
                "Where it may publish, in place of all before; again for further ones [default: nowhere]",
            ),
            key(
                "allow-system",
                &["allow", "system"],
                Boolean,
                "YES",
                "Whether it may read the machine: model, load, memory, uptime [default: no]",
            ),
            key(
                "allow-kv",
                &["allow", "kv"],
                Text,
                "SIZE",
                "How much it may remember, such as 1MiB [default: nothing]",
            ),
            key(
                "config",
                &["config"],
                Table,
                "KEY=VALUE",
                "Given to the handler; a number, true, false, [..], {..} or \"..\" is read as JSON, null removes the key; again for further ones",
            ),
        ]
    };
}

/// The arguments of `handlers`.
#[derive(Args)]
pub struct Handlers {
    #[command(flatten)]
    pub asking: Asking,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the handlers: version, calls, failures
    List(List),
    /// Load a plugin and start a handler
    #[command(
        mut_arg("plugin", |plugin| plugin.required(true)),
        after_help = "\
Example: tidegate handlers add celsius --plugin celsius.wasm --allow-publish 'plant:converted/#' --config unit=F"
    )]
    Add(Add),
    /// Change settings of a handler; calls in progress end first, then the changed handler has what waits
    #[command(after_help = "Example: tidegate handlers set celsius --call-deadline 250ms --unset queue")]
    Set(Set),
    /// Remove a handler that no subscription runs
    Remove(Remove),
    /// Keep a handler's messages on the disk, acknowledged, in place of calling it; it stays so after a restart
    #[command(after_help = "What is in a call is finished. Its schedules do not run meanwhile.")]
    Pause(Name),
    /// Have handlers run what their plugins' files hold, at once and also where that was refused before
    #[command(after_help = "A file that changes is loaded by itself. Without names, of all handlers.")]
    Reload(Names),
    /// Give a handler what was kept for it, in its order, and then what comes; this ends a quarantine too
    Resume(Name),
}

#[derive(Args)]
struct List {
    /// Show everything about this handler alone
    name: Option<String>,
}

#[derive(Args)]
struct Add {
    /// Its name: letters, digits, - and _
    name: String,
    #[command(flatten)]
    settings: Settings<HandlerKeys>,
}

#[derive(Args)]
struct Set {
    /// The handler's name
    name: String,
    #[command(flatten)]
    settings: Settings<HandlerKeys>,
    #[command(flatten)]
    unset: Unset<HandlerKeys>,
}

#[derive(Args)]
struct Remove {
    /// The handler's name
    name: String,
}

#[derive(Args)]
struct Name {
    /// The handler's name
    name: String,
}

#[derive(Args)]
struct Names {
    /// The handlers' names; none is all
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

impl Handlers {
    /// Does it.
    ///
    /// # Errors
    /// There is nothing to set, or the client's errors.
    pub async fn run(self, client: &Client<'_>, console: &mut Console<'_>) -> Result<u8, Failure> {
        let look = console.look;
        let json = self.asking.json;
        match self.command {
            Command::List(List { name: None }) => {
                let answer = client.send(Request::get(&["handlers"])).await?;
                console.show(json, &answer, |handlers| list(look, handlers))
            }
            Command::List(List { name: Some(name) }) => {
                let answer = client.send(Request::get(&["handlers", &name])).await?;
                console.show(json, &answer, |handler: Value| show::details(&handler))
            }
            Command::Add(Add { name, mut settings }) => {
                settings.keys.put(&["name"], name.as_str());
                let answer = client.send(Request::post(&["handlers"], Some(settings.keys.into_json()))).await?;
                console.done(json, &answer, format_args!("handler {name} is added"))
            }
            Command::Set(Set { name, mut settings, unset }) => {
                unset.clear(&mut settings.keys)?;
                if settings.keys.is_empty() {
                    return Err(show::nothing_to_set("--call-deadline 250ms"));
                }
                let answer = client.send(Request::patch(&["handlers", &name], settings.keys.into_json())).await?;
                console.done(json, &answer, format_args!("handler {name} is changed"))
            }
            Command::Remove(Remove { name }) => {
                let answer = client.send(Request::delete(&["handlers", &name])).await?;
                console.done(json, &answer, format_args!("handler {name} is removed"))
            }
            Command::Pause(Name { name }) => {
                let answer = client.send(Request::post(&["handlers", &name, "pause"], None)).await?;
                console.done(json, &answer, format_args!("handler {name} is paused"))
            }
            Command::Reload(Names { names }) => reload(client, console, json, names).await,
            Command::Resume(Name { name }) => {
                let answer = client.send(Request::post(&["handlers", &name, "resume"], None)).await?;
                console.done(json, &answer, format_args!("handler {name} is resumed"))
            }
        }
    }
}

/// Reloads these handlers, or all. One that keeps what it runs does not keep the others from being reloaded.
async fn reload(
    client: &Client<'_>,
    console: &mut Console<'_>,
    json: bool,
    mut names: Vec<String>,
) -> Result<u8, Failure> {
    if names.is_empty() {
        let all: Vec<Handler> = client.send(Request::get(&["handlers"])).await?.read()?;
        names = all.into_iter().map(|handler| handler.name).collect();
    }
    let (mut reloaded, mut code) = (Vec::new(), 0);
    for name in names {
        match client.send(Request::post(&["handlers", &name, "reload"], None)).await {
            Ok(answer) if json => reloaded.push(answer.json()?),
            Ok(answer) => {
                console.data(runs(&answer.read()?))?;
            }
            Err(failure @ Failure::Refused(_)) => code = console.failure(json, &failure),
            Err(failure) => return Err(failure),
        }
    }
    if json {
        console.json(&Value::from(reloaded))?;
    }
    Ok(code)
}

fn runs(reloaded: &Reloaded) -> String {
    let (name, version) = (&reloaded.name, show::version(&reloaded.version));
    if let Some(other) = &reloaded.on_trial {
        return format!("handler {name} runs version {version}, and has {} on trial", show::version(other));
    }
    match reloaded.before == reloaded.version {
        true => format!("handler {name} is unchanged: it runs version {version}"),
        false => format!("handler {name} runs version {version} in place of {}", show::version(&reloaded.before)),
    }
}

fn list(look: Look, handlers: Vec<Handler>) -> String {
    let header = [
        "NAME",
        "PLUGIN",
        "VERSION",
        "INSTANCES",
        "STATE",
        "CALLS",
        "FAILURES",
        "DEAD LETTERS",
        "WAITING",
        "LAST FAILURE",
        "ORIGIN",
    ];
    let rows = handlers.into_iter().map(|handler| {
        let calls: u64 = handler.calls.values().sum();
        let ok = handler.calls.get("ok").copied().unwrap_or_default();
        let state = show::state(handler.state, handler.quarantined_until.as_deref(), handler.parked.messages);
        [
            handler.name,
            handler.plugin,
            show::version_of(&handler.version, &handler.file, handler.trial.as_ref()),
            handler.instances.to_string(),
            state,
            calls.to_string(),
            (calls - ok).to_string(),
            dead_letters(handler.dead_letters.values().sum(), handler.dead_letters_dropped),
            handler.waiting.to_string(),
            show::last_failure(handler.last_failure.as_ref()),
            show::origin(&handler.origin),
        ]
    });
    table(look, header, rows)
}

/// Those that their broker has, and those that it never had, which nobody finds elsewhere.
fn dead_letters(kept: u64, dropped: u64) -> String {
    if dropped == 0 { kept.to_string() } else { format!("{kept} ({dropped} dropped)") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{check_refused, check_request, check_shown, run_against};
    use super::*;
    use crate::cli::client::testing::Scripted;

    #[test]
    fn the_options_become_keys_of_the_configuration() {
        let check = |arguments: &str, line: &str, body| check_request(arguments, b"", line, body);
        let add = "POST /api/v1/handlers";
        check("handlers add h --plugin p.wasm", add, json!({"name": "h", "plugin": "p.wasm"}));
        check(
            "handlers add h --plugin p.wasm --instances 2 --isolation per-message --call-deadline 1s --max-memory 1MiB \
             --queue 3 --queue-bytes 1KiB --overload drop-oldest --retry-max 5 --retry-backoff 1s..1m \
             --retry-max-time 10m --quarantine-after 2 --quarantine-for 1s \
             --reload-canary 0.1 --reload-max-failures 0 --max-publishes 0 --max-publish-bytes 1B \
             --dead-letter-broker a --dead-letter-topic dead/h --allow-publish a:x/# --allow-publish b:y,z --default-broker a --allow-system --allow-kv 1MiB --config unit=F --config limit=3",
            add,
            json!({"name": "h", "plugin": "p.wasm", "instances": 2, "isolation": "per-message", "call-deadline": "1s",
                "max-memory": "1MiB", "queue": 3, "queue-bytes": "1KiB", "overload": "drop-oldest",
                "retry": {"max": 5, "backoff": "1s..1m", "max-time": "10m"},
                "quarantine": {"after": 2, "for": "1s"}, "reload": {"canary": 0.1, "max-failures": 0}, "max-publishes": 0,
                "max-publish-bytes": "1B", "dead-letter": {"broker": "a", "topic": "dead/h"}, "default-broker": "a",
                "allow": {"publish": ["a:x/#", "b:y,z"], "system": true, "kv": "1MiB"},
                "config": {"unit": "F", "limit": 3}}),
        );
        let set = "PATCH /api/v1/handlers/h";
        check("handlers set h --config unit=null", set, json!({"config": {"unit": null}}));
        let unset = json!({"allow": {"publish": null}, "config": null, "queue": 1});
        check("handlers set h --unset allow-publish --unset config --queue 1", set, unset);
        check("handlers set h --unset dead-letter", set, json!({"dead-letter": null}));
        check("handlers set h --unset retry", set, json!({"retry": null}));
        check("handlers set h --quarantine off", set, json!({"quarantine": "off"}));
        check("handlers set h --unset quarantine", set, json!({"quarantine": null}));
        check("handlers set h --unset quarantine-for", set, json!({"quarantine": {"for": null}}));
        check("handlers set h --reload-canary off", set, json!({"reload": {"canary": "off"}}));
        check("handlers set h --reload-canary 1", set, json!({"reload": {"canary": 1}}));
        check("handlers set h --unset reload", set, json!({"reload": null}));
        check("handlers set h --unset reload-canary", set, json!({"reload": {"canary": null}}));
        check_refused("handlers set h --reload-canary on", 2, "neither a number nor off");
        check_refused("handlers set h --reload-max-failures off", 2, "not a number");
        check("handlers set h --unset retry-max", set, json!({"retry": {"max": null}}));
        check("handlers remove h", "DELETE /api/v1/handlers/h", Value::Null);
        check("handlers list", "GET /api/v1/handlers", Value::Null);
        check("handlers pause h", "POST /api/v1/handlers/h/pause", Value::Null);
        check("handlers resume h", "POST /api/v1/handlers/h/resume", Value::Null);
        check("handlers reload h", "POST /api/v1/handlers/h/reload", Value::Null);
        check("handlers reload", "GET /api/v1/handlers", Value::Null);
        check("handlers list h", "GET /api/v1/handlers/h", Value::Null);
        check_refused("handlers add h", 2, "--plugin <FILE>");
        check_refused("handlers set h", 2, "there is nothing to set");
        check_refused("handlers set h --unset dead-letter-topic", 2, "use --unset dead-letter, which takes all of it");
        check_refused("handlers set h --unset name", 2, "invalid value 'name'");
        check_refused("handlers add h --plugin p --config unit", 2, "there is no = in it; write KEY=VALUE");
    }

    #[test]
    fn a_reload_goes_on_with_the_next_handler_where_one_keeps_what_it_runs() {
        let problem = Scripted::problem("422 Unprocessable Content", "handler a keeps running version 0123", "");
        let reloaded = json!({"name": "b", "before": "0123", "version": "4567"});
        let unchanged = json!({"name": "c", "before": "4567", "version": "4567"});
        let answers = vec![problem, Scripted::json(&reloaded), Scripted::json(&unchanged)];
        let (ran, asked) = run_against("handlers reload a b c", b"", answers);
        let output = "handler b runs version 4567 in place of 0123\nhandler c is unchanged: it runs version 4567\n";
        assert_eq!((ran.code, ran.output.as_str(), asked.len()), (4, output, 3), "{}", ran.notices);
        assert!(ran.notices.contains("handler a keeps running version 0123"), "{}", ran.notices);
    }

    #[test]
    fn handlers_are_listed() {
        let handler = json!({
            "name": "celsius", "origin": {"source": "file", "file": "t.toml", "line": 7}, "plugin": "plugins/c.wasm",
            "version": "0123456789abcdef", "file": {"state": "runs", "version": null, "reason": null, "since": null},
            "instances": 2, "isolation": "reuse", "call-deadline": "1s",
            "max-memory": "64MiB", "queue": 1024, "queue-bytes": "16MiB", "overload": "drop-newest",
            "retry": {"max": 3, "backoff": "100ms..10s", "max-time": "30s"}, "retrying": 1,
            "quarantine": {"after": 5, "for": "30s"}, "reload": {"canary": 0.1, "max-failures": 0.05},
            "max-publishes": 64, "max-publish-bytes": "1MiB", "dead-letter": {"broker": "b", "topic": "dead"},
            "allow-publish": ["b:x/#"], "allow-system": false, "allow-kv": null, "config": {"unit": "***"},
            "calls": {"ok": 5, "reject": 1, "trap": 2},
            "dead-letters": {"reject": 1, "trap": 1}, "dead-letters-dropped": 1, "waiting": 4, "state": "paused",
            "quarantined-until": null, "parked": {"messages": 12, "bytes": 120},
            "last-failure": {"time": "2026-01-02T03:04:05Z", "result": "trap", "error": "unreachable"},
        });
        let output = "\
NAME     PLUGIN          VERSION       INSTANCES  STATE              CALLS  FAILURES  DEAD LETTERS   WAITING  LAST FAILURE                            ORIGIN
celsius  plugins/c.wasm  0123456789ab  2          paused, 12 parked  8      3         2 (1 dropped)  4        2026-01-02T03:04:05Z trap: unreachable  t.toml:7
kelvin   plugins/c.wasm  0123456789ab  2          open               8      3         2              4        2026-01-02T03:04:05Z trap: unreachable  t.toml:7
";
        let mut keeps_all = handler.clone();
        keeps_all["name"] = json!("kelvin");
        keeps_all["dead-letters-dropped"] = json!(0);
        keeps_all["state"] = json!("open");
        keeps_all["parked"] = json!({"messages": 0, "bytes": 0});
        check_shown("handlers list", &Value::from(vec![handler.clone(), keeps_all]), output);
        check_shown("handlers pause celsius", &handler, "handler celsius is paused\n");
        check_shown("handlers resume celsius", &handler, "handler celsius is resumed\n");
    }
}
