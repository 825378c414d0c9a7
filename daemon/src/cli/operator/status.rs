//! `tidegate status`: everything at a glance.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Args;

use super::{Asking, schedules, show};
use crate::cli::client::{Client, Failure, Request};
use crate::cli::console::Console;
use crate::cli::table::{Look, NONE, or_none, pairs, table};
use crate::control::admin::resource::{self, BrokerSummary, HandlerSummary, Kept, Messages, ScheduleSummary};

/// The arguments of `status`.
#[derive(Args)]
#[command(after_help = "RouterOS: /iot mqtt brokers print, and more")]
pub struct Status {
    #[command(flatten)]
    pub asking: Asking,
}

impl Status {
    /// Does it.
    ///
    /// # Errors
    /// The client's errors.
    pub async fn run(self, client: &Client<'_>, console: &mut Console<'_>) -> Result<u8, Failure> {
        let answer = client.send(Request::get(&["status"])).await?;
        let look = console.look;
        console.show(self.asking.json, &answer, |status| told(look, status))
    }
}

fn told(look: Look, status: resource::Status) -> String {
    let ready = if status.ready { "yes".to_owned() } else { format!("no: {}", status.obstacles.join("; ")) };
    let uptime = show::duration(status.uptime);
    let some = |kept: Kept| (kept.messages > 0).then(|| show::kept(kept));
    let parked = some(status.parked).map(|parked| parked + &orphans(&status.parked_orphans));
    let details = Some(status.details.join("; ")).filter(|details| !details.is_empty());
    let kept = [("details", details), ("dead letters", some(status.dead_letters)), ("parked", parked)];
    let kept = kept.into_iter().filter_map(|(name, kept)| Some((name, kept?)));
    let head = [
        ("tidegate", format!("{}, for {uptime}, since {}", status.version, status.started)),
        ("configuration", status.config),
        ("state", status.state_dir),
        ("ready", ready),
        ("messages", messages(&status.messages)),
    ];
    let mut text = pairs(head.into_iter().chain(kept));
    if !status.brokers.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n\n{}", brokers(look, status.brokers));
    }
    if !status.handlers.is_empty() {
        let _ = write!(text, "\n\n{}", handlers(look, status.handlers));
    }
    if !status.schedules.is_empty() {
        let _ = write!(text, "\n\n{}", schedules_of(look, status.schedules));
    }
    text
}

/// What is parked for handlers that are not configured any more.
fn orphans(parked: &BTreeMap<String, Kept>) -> String {
    let orphans = parked.iter().map(|(handler, kept)| format!("{} for {handler}", kept.messages));
    match orphans.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => none,
        some => format!(" ({some}, not configured any more)"),
    }
}

fn messages(messages: &Messages) -> String {
    let Messages { received, finished, in_progress, published } = messages;
    let finished: Vec<String> = finished.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let finished = if finished.is_empty() { "none finished".to_owned() } else { finished.join(", ") };
    format!("{received} received: {finished}, {in_progress} in progress; {published} published")
}

fn brokers(look: Look, brokers: Vec<BrokerSummary>) -> String {
    let header = ["BROKER", "CONNECTED", "RECEIVED", "PUBLISHED", "OUTBOX", "SUBSCRIPTIONS", "REFUSED"];
    let rows = brokers.into_iter().map(|broker| {
        let refused = if broker.refused.is_empty() { NONE.to_owned() } else { broker.refused.join(", ") };
        let connected = show::connected(broker.state, broker.reason.as_deref(), None);
        [
            broker.name,
            connected,
            broker.received.to_string(),
            broker.published.to_string(),
            outbox(broker.outbox.messages, broker.outbox_on_disk.messages),
            broker.subscriptions.to_string(),
            refused,
        ]
    });
    table(look, header, rows)
}

/// What waits, and what of it is on the disk.
fn outbox(messages: u64, on_disk: u64) -> String {
    if on_disk == 0 { messages.to_string() } else { format!("{messages} ({on_disk} on disk)") }
}

fn schedules_of(look: Look, schedules: Vec<ScheduleSummary>) -> String {
    let header = ["SCHEDULE", "NEXT", "RUNS", "FAILURES", "SKIPPED", "LAST RESULT"];
    let rows = schedules.into_iter().map(|one| {
        let result = schedules::result(one.last_result.as_deref(), one.last_error.as_deref());
        let counts = [one.runs, one.failures, one.skipped].map(|count| count.to_string());
        let [runs, failures, skipped] = counts;
        [one.name, or_none(one.next), runs, failures, skipped, result]
    });
    table(look, header, rows)
}

fn handlers(look: Look, handlers: Vec<HandlerSummary>) -> String {
    let header = ["HANDLER", "VERSION", "STATE", "CALLS", "FAILURES", "WAITING", "LAST FAILURE"];
    let rows = handlers.into_iter().map(|handler| {
        let state = show::state(handler.state, handler.quarantined_until.as_deref(), handler.parked.messages);
        [
            handler.name,
            show::version_of(&handler.version, &handler.file, handler.trial.as_ref()),
            state,
            handler.calls.to_string(),
            handler.failures.to_string(),
            handler.waiting.to_string(),
            show::last_failure(handler.last_failure.as_ref()),
        ]
    });
    table(look, header, rows)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{check_request, check_shown};

    #[test]
    fn everything_is_seen_at_a_glance() {
        check_request("status", b"", "GET /api/v1/status", Value::Null);
        let status = json!({
            "version": "0.1.0", "started": "2026-01-02T03:04:05Z", "uptime": 3661.5, "config": "/etc/t.toml",
            "state-dir": "/var/lib/t", "ready": false, "obstacles": ["broker b is not connected", "x"], "last-reload": null,
            "details": ["handler i runs version fedcba987654: it refuses another"], "messages": {"received": 12, "finished": {"handled": 9, "filtered": 1}, "in-progress": 2, "published": 7},
            "dead-letters": {"messages": 2, "bytes": 30}, "parked": {"messages": 5, "bytes": 50},
            "parked-orphans": {}, "brokers": [
                {"name": "a", "connected": true, "state": "connected", "reason": null, "received": 12, "published": 7,
                    "outbox": {"messages": 0, "bytes": 0},
                    "outbox-on-disk": {"messages": 0, "bytes": 0}, "subscriptions": 2, "refused": []},
                {"name": "b", "connected": false, "state": "waiting", "reason": "the connection is refused",
                    "received": 0, "published": 0, "outbox": {"messages": 3, "bytes": 30},
                    "outbox-on-disk": {"messages": 2, "bytes": 20}, "subscriptions": 1,
                    "refused": ["b:t", "b:u"]},
            ],
            "handlers": [
                {"name": "h", "version": "0123456789abcdef",
                    "file": {"state": "runs", "version": null, "reason": null, "since": null}, "calls": 9, "failures": 1, "waiting": 0, "state": "paused",
                    "quarantined-until": null, "parked": {"messages": 5, "bytes": 50}, "last-failure":
                    {"time": "2026-01-02T03:04:06Z", "result": "deadline", "error": "it ran longer than 1s"}},
                {"name": "i", "version": "fedcba9876543210",
                    "file": {"state": "refused", "version": "0123456789ab", "reason": "it is empty", "since":
                        "2026-01-02T03:04:05Z"}, "calls": 0, "failures": 0, "waiting": 0, "state": "open",
                    "quarantined-until": null, "parked": {"messages": 0, "bytes": 0}, "last-failure": null},
            ],
            "schedules": [
                {"name": "stats", "next": "2026-01-02T03:05:05Z", "runs": 3, "failures": 1, "skipped": 0,
                    "last-result": "trap", "last-error": "unreachable"},
            ],
        });
        let output = "\
tidegate       0.1.0, for 1h 1m 1s, since 2026-01-02T03:04:05Z
configuration  /etc/t.toml
state          /var/lib/t
ready          no: broker b is not connected; x
messages       12 received: 1 filtered, 9 handled, 2 in progress; 7 published
details        handler i runs version fedcba987654: it refuses another
dead letters   2, 30 bytes
parked         5, 50 bytes

BROKER  CONNECTED                      RECEIVED  PUBLISHED  OUTBOX         SUBSCRIPTIONS  REFUSED
a       yes                            12        7          0              2              -
b       no: the connection is refused  0         0          3 (2 on disk)  1              b:t, b:u

HANDLER  VERSION                                   STATE             CALLS  FAILURES  WAITING  LAST FAILURE
h        0123456789ab                              paused, 5 parked  9      1         0        2026-01-02T03:04:06Z deadline: it ran longer than 1s
i        fedcba987654 (file 0123456789ab refused)  open              0      0         0        -

SCHEDULE  NEXT                  RUNS  FAILURES  SKIPPED  LAST RESULT
stats     2026-01-02T03:05:05Z  3     1         0        trap: unreachable
";
        check_shown("status", &status, output);
        let mut orphaned = status.clone();
        orphaned["parked-orphans"] = json!({"old": {"messages": 3, "bytes": 30}, "other": {"messages": 1, "bytes": 9}});
        let output = output.replace("5, 50 bytes\n", "5, 50 bytes (3 for old, 1 for other, not configured any more)\n");
        check_shown("status", &orphaned, &output);
    }
}
