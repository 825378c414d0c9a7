//! `tidegate trace`: the way of each message, live.

use std::collections::HashSet;
use std::future::Future;
use std::io::ErrorKind;

use clap::Args;

use super::Asking;
use super::follow::{Arrival, Feed, ended, until_interrupted};
use super::trace_line::line;
use crate::cli::DONE;
use crate::cli::client::{Client, Failure, Request};
use crate::cli::console::{Console, unwritten};
use crate::control::admin::resource::{Step, TraceStep};
use crate::topic::TopicFilter;

/// The arguments of `trace`.
#[derive(Args)]
#[command(after_help = "\
A line a step: the time, the message's number as in `recv list --json`, the time since it was received, what happened. \
With --json it prints an object a line. Exit code 0 after --count messages, SIGINT or SIGTERM; 3 when the daemon ends first. \
Steps that came faster than they could be shown are counted on standard error.

Example: tidegate trace 'sensors/#' --count 1")]
pub struct Trace {
    #[command(flatten)]
    pub asking: Asking,
    /// Messages whose topic this filter matches
    #[arg(allow_hyphen_values = true)]
    filter: String,
    /// Only those of this broker
    #[arg(long, value_name = "NAME")]
    broker: Option<String>,
    /// End after so many messages
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
}

impl Trace {
    /// Does it.
    ///
    /// # Errors
    /// The filter is none, or the client's errors.
    pub async fn run(self, client: &Client<'_>, console: &mut Console<'_>) -> Result<u8, Failure> {
        if let Err(error) = TopicFilter::new(self.filter.as_str()) {
            return Err(Failure::WrongUse(format!("the filter {:?}: {error}", self.filter)));
        }
        let stop = until_interrupted()?;
        let count = self.count.map(|count| count.to_string());
        let request = Request::get(&["trace"]).query("topic", Some(&self.filter));
        let request = request.query("broker", self.broker.as_deref()).query("count", count.as_deref());
        let feed = Feed::open(client, request).await?;
        follow(feed, console, self.asking.json, self.count, stop).await
    }
}

async fn follow(
    mut feed: Feed<TraceStep>,
    console: &mut Console<'_>,
    json: bool,
    count: Option<u32>,
    stop: impl Future<Output = ()>,
) -> Result<u8, Failure> {
    let mut progress = Progress::default();
    tokio::pin!(stop);
    loop {
        let arrival = tokio::select! {
            biased;
            () = &mut stop => return Ok(DONE),
            arrival = feed.try_next() => arrival?,
        };
        let line = match arrival {
            None if count.is_some_and(|count| progress.complete(count)) => return Ok(DONE),
            None => return Err(ended(feed.at())),
            Some(Arrival::Missed(count)) => {
                progress.missed = true;
                console.notice(format_args!("warning: {count} steps came too fast to be shown"));
                continue;
            }
            Some(Arrival::Item { raw, item }) => {
                progress.take(&item);
                if json { raw } else { line(&item) }
            }
        };
        match console.line(line) {
            // `head` has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(DONE),
            written => written.map_err(|error| unwritten(&error))?,
        }
    }
}

/// Tells the end of the messages that were asked for from the daemon's end, which ends the stream in the same way.
#[derive(Default)]
struct Progress {
    seen: HashSet<u64>,
    ended: HashSet<u64>,
    /// Some steps are not known: ends may be among them.
    missed: bool,
}

impl Progress {
    fn take(&mut self, step: &TraceStep) {
        self.seen.insert(step.sequence);
        if matches!(step.step, Step::Ended { .. }) {
            self.ended.insert(step.sequence);
        }
    }

    fn complete(&self, count: u32) -> bool {
        self.missed || self.ended.len() >= count as usize
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{check_refused, check_request, run_against};
    use crate::cli::client::testing::Scripted;

    fn step(sequence: u64, step: Value) -> Value {
        let mut whole = json!({"sequence": sequence, "time": "2026-01-02T03:04:05.678901Z", "elapsed": 1234});
        whole.as_object_mut().expect("an object").extend(step.as_object().expect("an object").clone());
        whole
    }

    fn stream(steps: &[Value]) -> Scripted {
        Scripted::events(&steps.iter().map(|step| format!("data: {step}\n\n")).collect::<String>())
    }

    #[test]
    fn the_filter_goes_along() {
        let check = |arguments: &str, line: &str| check_request(arguments, b"", line, Value::Null);
        check("trace a/#", "GET /api/v1/trace?topic=a%2F%23");
        check("trace +/b --broker b --count 2", "GET /api/v1/trace?topic=%2B%2Fb&broker=b&count=2");
        check_refused("trace a/#/b", 2, "the filter \"a/#/b\"");
        check_refused("trace a --count 0", 2, "0 is not in");
    }

    #[test]
    fn a_line_a_step_until_the_messages_have_ended() {
        let steps = [
            step(7, json!({"step": "queued", "handler": "h", "subscription": "s"})),
            step(7, json!({"step": "ended", "outcome": "handled"})),
        ];
        let (ran, _) = run_against("trace # --count 1", b"", vec![stream(&steps)]);
        let output = "\
2026-01-02T03:04:05.678901Z #7 +1.234 ms queued for h by s
2026-01-02T03:04:05.678901Z #7 +1.234 ms ended: handled
";
        assert_eq!((ran.code, ran.output.as_str(), ran.notices.as_str()), (0, output, ""));

        let (ran, _) = run_against("trace # --count 1 --json", b"", vec![stream(&steps)]);
        let lines: Vec<Value> = ran.output.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!((ran.code, lines.as_slice()), (0, steps.as_slice()));
    }

    #[test]
    fn a_daemon_that_ends_first_is_told() {
        let steps = [step(7, json!({"step": "ended", "outcome": "handled"}))];
        for arguments in ["trace #", "trace # --count 2"] {
            let (ran, _) = run_against(arguments, b"", vec![stream(&steps)]);
            assert_eq!(ran.code, 3, "{arguments}: {ran:?}");
            assert!(ran.notices.contains("the stream has ended"), "{ran:?}");
        }
    }

    #[test]
    fn missed_steps_are_counted() {
        let missed = Scripted::events("event: missed\ndata: {\"count\":3}\n\n");
        let (ran, _) = run_against("trace # --count 1", b"", vec![missed]);
        assert_eq!((ran.code, &*ran.notices), (0, "warning: 3 steps came too fast to be shown\n"));
    }
}
