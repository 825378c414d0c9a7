//! `tidegate schedules`: what runs by the clock.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{Asking, show};
use crate::cli::client::{Client, Failure, Request};
use crate::cli::console::Console;
use crate::cli::table::{Look, NONE, or_none, table};
use crate::cli::{DONE, NO};
use crate::control::admin::resource::{Schedule, ScheduleRun};

/// The arguments of `schedules`.
#[derive(Args)]
pub struct Schedules {
    #[command(flatten)]
    pub asking: Asking,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the schedules: when they are due, and what came of their runs
    #[command(after_help = "RouterOS: /system scheduler print")]
    List(List),
    /// Run a schedule at once, whenever it is due, and wait for what comes of it
    #[command(after_help = "Exit code 1 if the run fails; 4 if the schedule is under way already.")]
    Run(Run),
}

#[derive(Args)]
struct List {
    /// Show everything about this schedule alone
    name: Option<String>,
}

#[derive(Args)]
struct Run {
    /// The schedule's name
    name: String,
}

impl Schedules {
    /// Does it.
    ///
    /// # Errors
    /// The client's errors.
    pub async fn run(self, client: &Client<'_>, console: &mut Console<'_>) -> Result<u8, Failure> {
        let look = console.look;
        let json = self.asking.json;
        match self.command {
            Command::List(List { name: None }) => {
                let answer = client.send(Request::get(&["schedules"])).await?;
                console.show(json, &answer, |schedules| list(look, schedules))
            }
            Command::List(List { name: Some(name) }) => {
                let answer = client.send(Request::get(&["schedules", &name])).await?;
                console.show(json, &answer, |schedule: Value| show::details(&schedule))
            }
            Command::Run(Run { name }) => {
                let answer = client.send(Request::post(&["schedules", &name, "run"], None)).await?;
                let run: ScheduleRun = answer.read()?;
                console.show(json, &answer, |_: Value| told(&run))?;
                Ok(if run.result == "ok" { DONE } else { NO })
            }
        }
    }
}

fn told(run: &ScheduleRun) -> String {
    match (&*run.result, &run.error) {
        ("ok", _) => format!("schedule {} has run", run.name),
        (result, None) => format!("schedule {} has failed: {result}", run.name),
        (result, Some(error)) => format!("schedule {} has failed: {result}: {error}", run.name),
    }
}

fn list(look: Look, schedules: Vec<Schedule>) -> String {
    let header = ["NAME", "TIMING", "ACTION", "NEXT", "LAST RUN", "RESULT", "RUNS", "FAILURES", "SKIPPED", "ORIGIN"];
    let rows = schedules.into_iter().map(|one| {
        let result = result(one.last_result.as_deref(), one.last_error.as_deref());
        [
            one.name,
            one.timing,
            one.action,
            or_none(one.next),
            or_none(one.last_run),
            result,
            one.runs.to_string(),
            one.failures.to_string(),
            one.skipped.to_string(),
            show::origin(&one.origin),
        ]
    });
    table(look, header, rows)
}

/// What came of a schedule's last run.
pub fn result(result: Option<&str>, error: Option<&str>) -> String {
    match (result, error) {
        (None, _) => NONE.to_owned(),
        (Some(result), None) => result.to_owned(),
        (Some(result), Some(error)) => format!("{result}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{check_request, check_shown, run_against};
    use super::*;
    use crate::cli::client::testing::Scripted;

    #[test]
    fn schedules_are_listed() {
        check_request("schedules list", b"", "GET /api/v1/schedules", Value::Null);
        check_request("schedules list s", b"", "GET /api/v1/schedules/s", Value::Null);
        let origin = json!({"source": "file", "file": "t.toml", "line": 7});
        let schedules = json!([
            {"name": "stats", "origin": origin, "timing": "every 1m", "action": "publish b:gw/stats",
                "next": "2026-01-02T03:05:05Z", "last-run": "2026-01-02T03:04:05Z", "last-result": "ok", "last-error": null,
                "runs": 5, "failures": 0, "skipped": 1},
            {"name": "night", "origin": origin, "timing": "cron 0 0 2 * * *", "action": "on-schedule h", "next": null,
                "last-run": "2026-01-02T02:00:00Z", "last-result": "trap", "last-error": "unreachable", "runs": 1,
                "failures": 1, "skipped": 0},
        ]);
        let output = "\
NAME   TIMING            ACTION              NEXT                  LAST RUN              RESULT             RUNS  FAILURES  SKIPPED  ORIGIN
stats  every 1m          publish b:gw/stats  2026-01-02T03:05:05Z  2026-01-02T03:04:05Z  ok                 5     0         1        t.toml:7
night  cron 0 0 2 * * *  on-schedule h       -                     2026-01-02T02:00:00Z  trap: unreachable  1     1         0        t.toml:7
";
        check_shown("schedules list", &schedules, output);
    }

    #[test]
    fn a_run_tells_what_came_of_it() {
        check_request("schedules run s", b"", "POST /api/v1/schedules/s/run", Value::Null);
        let ran = |result: &str, error: Value, json: bool| {
            let answer = json!({"name": "s", "result": result, "error": error});
            let command = if json { "schedules run s --json" } else { "schedules run s" };
            let (ran, _) = run_against(command, b"", vec![Scripted::json(&answer)]);
            (ran.code, ran.output)
        };
        assert_eq!(ran("ok", Value::Null, false), (0, "schedule s has run\n".to_owned()));
        let failed = "schedule s has failed: trap: unreachable\n".to_owned();
        assert_eq!(ran("trap", json!("unreachable"), false), (1, failed));
        let (code, output) = ran("trap", json!("unreachable"), true);
        assert_eq!((code, serde_json::from_str::<Value>(&output).expect("JSON")["result"].clone()), (1, json!("trap")));
    }
}
