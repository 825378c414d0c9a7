//! `tidegate reload`: the configuration's files read again.

use clap::Args;

use super::Asking;
use crate::cli::client::{Client, Failure, Request};
use crate::cli::console::Console;
use crate::cli::table::{Look, NONE, table};
use crate::control::admin::resource::{self, ObjectChange};

/// The arguments of `reload`.
#[derive(Args)]
#[command(after_help = "Exit code 4 if nothing was changed: it says everything that is wrong with the files.")]
pub struct Reload {
    #[command(flatten)]
    pub asking: Asking,
    /// Change nothing, and tell what would change
    #[arg(long)]
    dry_run: bool,
}

impl Reload {
    /// Does it.
    ///
    /// # Errors
    /// The client's errors.
    pub async fn run(self, client: &Client<'_>, console: &mut Console<'_>) -> Result<u8, Failure> {
        let request = Request::post(&["reload"], None).query("dry-run", self.dry_run.then_some("true"));
        let answer = client.send(request).await?;
        let look = console.look;
        if !self.asking.json {
            console.warnings(&answer.json()?);
        }
        console.show(self.asking.json, &answer, |reload| told(look, &reload))
    }
}

fn told(look: Look, reload: &resource::ReloadReport) -> String {
    let resource::ReloadReport { dry_run, settings, brokers, subscriptions, handlers, schedules, .. } = reload;
    let setting = |key: &String| ["setting".to_owned(), key.clone(), "changed".to_owned(), NONE.to_owned()];
    let mut rows: Vec<[String; 4]> = settings.iter().map(setting).collect();
    let objects =
        [("broker", brokers), ("subscription", subscriptions), ("handler", handlers), ("schedule", schedules)];
    for (kind, changes) in objects {
        rows.extend(changes.iter().map(|change| row(kind, change)));
    }
    let end = match (dry_run, rows.is_empty()) {
        (true, true) => return "nothing would change".to_owned(),
        (false, true) => return "the configuration is reloaded: nothing has changed".to_owned(),
        (true, false) => "this would change; nothing has changed yet",
        (false, false) => "the configuration is reloaded",
    };
    format!("{}\n\n{end}", table(look, ["WHAT", "NAME", "CHANGE", "KEYS"], rows))
}

fn row(kind: &str, change: &ObjectChange) -> [String; 4] {
    let ObjectChange { name, change, keys, forced_by } = change;
    let others: Vec<&str> = keys.iter().filter(|key| !forced_by.contains(key)).map(String::as_str).collect();
    let keys = match (&**forced_by, &*others) {
        ([], []) => NONE.to_owned(),
        ([], others) => others.join(", "),
        (forced, []) => forced.join(", "),
        (forced, others) => format!("{} (and {})", forced.join(", "), others.join(", ")),
    };
    [kind.to_owned(), name.clone(), change.word().to_owned(), keys]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{check_request, check_shown, run_against};
    use crate::cli::client::testing::Scripted;

    fn answer(dry_run: bool) -> Value {
        let changed = |name: &str, change: &str, keys: &[&str], forced: &[&str]| json!({"name": name, "change": change, "keys": keys, "forced-by": forced});
        json!({
            "dry-run": dry_run, "settings": ["log.level"], "warnings": [],
            "brokers": [
                changed("plant", "reconnected", &["address", "outbox.max-age"], &["address"]),
                changed("cloud", "adjusted", &["auto-connect", "dispatch"], &[]),
                changed("old", "removed", &[], &[]),
            ],
            "subscriptions": [changed("plant:a/#", "added", &[], &[])],
            "handlers": [changed("celsius", "changed", &["config.unit"], &[])],
            "schedules": [changed("stats", "changed", &["every"], &[])],
        })
    }

    #[test]
    fn what_changes_is_told() {
        check_request("reload", b"", "POST /api/v1/reload", Value::Null);
        check_request("reload --dry-run", b"", "POST /api/v1/reload?dry-run=true", Value::Null);
        let table = "\
WHAT          NAME       CHANGE       KEYS
setting       log.level  changed      -
broker        plant      reconnected  address (and outbox.max-age)
broker        cloud      adjusted     auto-connect, dispatch
broker        old        removed      -
subscription  plant:a/#  added        -
handler       celsius    changed      config.unit
schedule      stats      changed      every

";
        check_shown("reload", &answer(false), &format!("{table}the configuration is reloaded\n"));
        let yet = "this would change; nothing has changed yet\n";
        check_shown("reload --dry-run", &answer(true), &format!("{table}{yet}"));
    }

    #[test]
    fn that_nothing_changes_is_told_and_warnings_apart() {
        let nothing = |dry_run: bool| {
            json!({"dry-run": dry_run, "settings": [], "brokers": [], "subscriptions": [], "handlers": [], "schedules": [],
                "warnings": ["mind this"]})
        };
        let (ran, _) = run_against("reload --dry-run", b"", vec![Scripted::json(&nothing(true))]);
        assert_eq!((ran.output.as_str(), ran.notices.as_str()), ("nothing would change\n", "warning: mind this\n"));
        let (ran, _) = run_against("reload", b"", vec![Scripted::json(&nothing(false))]);
        assert_eq!((ran.code, ran.output.as_str()), (0, "the configuration is reloaded: nothing has changed\n"));
        let (ran, _) = run_against("reload --json", b"", vec![Scripted::json(&nothing(false))]);
        assert_eq!(serde_json::from_str::<Value>(&ran.output).expect("JSON"), nothing(false));
        assert_eq!(ran.notices, "");
    }

    #[test]
    fn a_refusal_has_every_problem() {
        let refused = || vec![Scripted::problem("422 Unprocessable Entity", "the configuration has 2 problems", "")];
        let (ran, _) = run_against("reload", b"", refused());
        assert_eq!((ran.code, ran.output.as_str()), (4, ""));
        assert!(ran.notices.starts_with("error: the configuration has 2 problems"), "{}", ran.notices);
    }
}
