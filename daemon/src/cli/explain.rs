//! `tidegate explain`: which subscriptions match a topic, in order of rank, which of them run, and why.
//!
//! Asks the running daemon, whose configuration may be older than its file; where none runs, or a file is named, the answer
//! comes of the files. Decides nothing itself: in both cases `path/router/explain.rs` does, with the router's own table and
//! selection.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::client::{Client, Failure, Place, Request};
use super::console::Console;
use super::{DONE, NO, configuration_file};
use crate::control::admin::limits::HEADER_BYTES;
use crate::control::config;
use crate::control::config::model::{Broker, Config};
use crate::path::router::explain::{Candidate, Explanation, Verdict, explain};
use crate::path::router::select::Facts;
use crate::path::router::{RouteTable, of_broker};
use crate::printable::printable;
use crate::topic::TopicName;

/// Longest question that is asked of the daemon, in bytes of its path: with the rest of the header it takes no more.
const MAX_QUESTION: usize = HEADER_BYTES - 1_024;

const TOO_LONG: &str = "topic and message are too long to ask the daemon";

/// The status that tells that there is no such broker.
const NOT_FOUND: u16 = 404;

/// Longest line that is shown, in bytes: a topic has 65,535 at most.
const MAX_LINE: usize = 1 << 18;

/// The arguments of `explain`.
#[derive(Args)]
#[command(after_help = "\
Asks the running daemon; without one, or with -c, the answer comes of the files, which may be newer than what runs. Standard \
error tells which, unless -c does.")]
pub struct Explain {
    /// The topic name of a message
    topic: String,
    /// Only this broker
    #[arg(long)]
    broker: Option<String>,
    /// The message's payload, for the conditions [default: empty]
    #[arg(long, default_value = "", hide_default_value = true)]
    message: String,
    /// The message is a retained one that the broker replays
    #[arg(long)]
    retained: bool,
    /// Answer by this configuration file, whatever runs
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["socket", "url"])]
    config: Option<PathBuf>,
    /// Print a JSON array, an object a broker
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// The answer, or why there is none.
type Answer = Result<Vec<Explanation>, Failure>;

impl Explain {
    /// Exits with 0 if something runs, 1 if nothing does, 2 on a bad topic, broker or configuration; where a daemon is named
    /// by an option, 3 if it cannot be reached.
    pub fn run(self) -> ExitCode {
        ExitCode::from(Console::of_process(|console| self.run_on(console)))
    }

    fn run_on(self, console: &mut Console<'_>) -> u8 {
        let shown = self.answer(console).and_then(|explanations| self.show(&explanations, console));
        shown.unwrap_or_else(|failure| console.failure(self.json, &failure))
    }

    fn answer(&self, console: &mut Console<'_>) -> Answer {
        let topic = TopicName::new(self.topic.as_str())
            .map_err(|error| Failure::WrongUse(format!("the topic {:?} {error}", self.topic)))?;
        if self.config.is_some() {
            return self.by_files(&topic, console);
        }
        let question = self.question();
        if question.path.len() > MAX_QUESTION {
            if self.place.is_named() {
                return Err(Failure::WrongUse(format!("{TOO_LONG}; name its file with -c")));
            }
            console.notice(format_args!("the files answer: {TOO_LONG}"));
            return self.by_files(&topic, console);
        }
        match self.by_daemon(question, console) {
            Ok(explanations) => {
                console.notice("the running daemon answers; -c FILE asks a file");
                Ok(explanations)
            }
            Err(Failure::Unreachable { at, reason, .. }) if !self.place.is_named() => {
                console.notice(format_args!("the files answer: no daemon at {at}: {reason}"));
                self.by_files(&topic, console)
            }
            Err(failure) => Err(failure),
        }
    }

    fn question(&self) -> Request {
        Request::get(&["explain"])
            .query("topic", Some(&self.topic))
            .query("broker", self.broker.as_deref())
            .query("message", Some(self.message.as_str()).filter(|message| !message.is_empty()))
            .query("retained", self.retained.then_some("true"))
    }

    fn by_daemon(&self, question: Request, console: &Console<'_>) -> Answer {
        let client = Client::new(self.place.connection(), console.environment);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::No(format!("no runtime: {error}")))?;
        let answer = runtime.block_on(client.send(question));
        // A name that is still being looked up must not hold up the end.
        runtime.shutdown_background();
        match answer {
            // As by the files, a broker that does not exist is wrong use.
            Err(Failure::Refused(problem)) if problem.status == NOT_FOUND => {
                let remedy = problem.remedy.as_deref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
                Err(Failure::WrongUse(format!("{}{remedy}", problem.detail)))
            }
            answer => answer?.read(),
        }
    }

    fn by_files(&self, topic: &TopicName, console: &mut Console<'_>) -> Answer {
        let config = match config::inspect(&configuration_file(self.config.clone())) {
            Ok(loaded) => {
                // Of the warnings, what may change the answer: something that was added is not seen.
                let added = loaded.sources.runtime_path().to_string_lossy();
                let unseen = loaded.warnings.iter().filter(|warning| warning.origin.place.file == added);
                unseen.for_each(|warning| console.notice(format_args!("warning: {warning}")));
                loaded.config
            }
            Err(problems) => return Err(Failure::Configuration(problems.to_string())),
        };
        let tables = self.brokers(&config)?.into_iter().map(|broker| table(&config, broker));
        let facts = Facts { payload: self.message.as_bytes(), retain: self.retained };
        Ok(tables.map(|table| explain(&table, topic, facts)).collect())
    }

    fn brokers(&self, config: &Config) -> Result<Vec<Arc<Broker>>, Failure> {
        let Some(name) = &self.broker else {
            return Ok(config.brokers.clone());
        };
        config.broker(name).map(|broker| vec![Arc::clone(broker)]).ok_or_else(|| {
            let known: Vec<&str> = config.brokers.iter().map(|broker| &*broker.name).collect();
            Failure::WrongUse(format!("there is no broker {name:?}; the configuration has {}", known.join(", ")))
        })
    }

    fn show(&self, explanations: &[Explanation], console: &mut Console<'_>) -> Result<u8, Failure> {
        if self.json {
            console.data(serde_json::to_string_pretty(explanations).expect("strings and numbers become JSON"))?;
        } else {
            let lines: Vec<String> = explanations.iter().flat_map(lines).collect();
            console.data(lines.join("\n"))?;
        }
        let runs = explanations.iter().any(|explanation| explanation.outcome == Verdict::Runs);
        Ok(if runs { DONE } else { NO })
    }
}

fn table(config: &Config, broker: Arc<Broker>) -> RouteTable {
    let subscriptions = of_broker(&config.subscriptions, broker.id);
    RouteTable::new(broker, subscriptions)
}

fn lines(explanation: &Explanation) -> Vec<String> {
    let Explanation { broker, topic, dispatch, .. } = explanation;
    let mut lines = vec![format!("{topic} from broker {broker} (dispatch = {dispatch}):")];
    for candidate in &explanation.subscriptions {
        let Candidate { subscription, filter, share, rank, reason, because, .. } = candidate;
        let share = share.as_ref().map(|share| format!(", shared by {share:?}")).unwrap_or_default();
        let action = candidate.on_message.as_deref().unwrap_or("nothing");
        let verdict = if candidate.runs { format!("runs {action}") } else { format!("does not run {action}") };
        lines.push(format!("  {rank}. {filter}  ({subscription}{share}; {reason})"));
        lines.push(format!("     {verdict}: {because}"));
        if candidate.runs && !candidate.captures.is_empty() {
            lines.push(format!("     captures: {:?}", candidate.captures));
        }
    }
    match explanation.outcome {
        Verdict::Runs => {}
        Verdict::Filtered => lines.push("  nothing runs: the conditions do not hold".to_owned()),
        Verdict::Unmatched => lines.push("  nothing runs: no subscription with on-message matches".to_owned()),
    }
    lines.iter().map(|line| printable(line, MAX_LINE).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};

    use super::super::client::testing::{Asked, Scripted, ScriptedDaemon};
    use super::super::table::Look;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        explain: Explain,
    }

    /// What the daemon knows: something that the file does not say.
    fn running() -> Value {
        let candidate = json!({"subscription": "plant:a", "filter": "a", "share": null, "rank": 1, "reason": "no wildcard",
            "on-message": "handler running", "captures": [], "runs": true, "because": "the best rank"});
        json!([{"broker": "plant", "topic": "a", "dispatch": "best", "outcome": "runs", "subscriptions": [candidate]}])
    }

    /// The exit code, the output and the notices, with a daemon that has these answers; `{file}` is a configuration file.
    #[track_caller]
    fn explained(arguments: &str, answers: Vec<Scripted>) -> (u8, String, String, Vec<Asked>) {
        let daemon = ScriptedDaemon::start(answers);
        let file = daemon.folder().join("file.toml");
        let toml = "[brokers.plant]\naddress = \"127.0.0.1\"\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a\"\non-message \
                    = { log = \"x\" }\n";
        std::fs::write(&file, toml).expect("our folder");
        let socket = daemon.socket();
        let arguments =
            arguments.replace("{file}", &file.display().to_string()).replace("{socket}", &socket.display().to_string());
        let line =
            Line::try_parse_from(std::iter::once("explain").chain(arguments.split(' '))).expect("a command line");
        let environment = |name: &str| (name == "TIDEGATE_SOCKET").then(|| socket.clone().into_os_string());
        let (mut output, mut notices) = (Vec::new(), Vec::new());
        let mut console = Console {
            input: &mut std::io::empty(),
            output: &mut output,
            notices: &mut notices,
            look: Look::default(),
            environment: &environment,
        };
        let code = line.explain.run_on(&mut console);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (code, text(output), text(notices), daemon.asked())
    }

    #[test]
    fn the_daemon_answers_where_it_runs() {
        let all = "a --broker plant --message x&y --retained";
        let (code, output, notices, asked) = explained(all, vec![Scripted::json(&running())]);
        assert_eq!((code, notices.as_str()), (0, "the running daemon answers; -c FILE asks a file\n"));
        assert!(output.contains("runs handler running: the best rank"), "{output}");
        assert_eq!(asked[0].line, "GET /api/v1/explain?topic=a&broker=plant&message=x%26y&retained=true");
        let (code, output, ..) = explained("a --json --socket {socket}", vec![Scripted::json(&running())]);
        assert_eq!((code, serde_json::from_str::<Value>(&output).expect("JSON")), (0, running()));
    }

    #[test]
    fn a_file_that_is_named_answers_whatever_runs() {
        let (code, output, notices, _) = explained("a -c {file}", Vec::new());
        assert_eq!((code, notices.as_str()), (0, ""));
        assert!(output.contains("runs log"), "{output}");
        let (code, output, ..) = explained("b -c {file}", Vec::new());
        assert_eq!(code, 1, "{output}");
    }

    #[test]
    fn a_daemon_that_is_named_must_answer() {
        let (code, output, notices, _) = explained("a --socket /nonexistent/admin.sock", Vec::new());
        assert_eq!((code, output.as_str()), (3, ""), "{notices}");
        assert!(notices.contains("cannot reach the daemon at /nonexistent/admin.sock"), "{notices}");
        let both = ["explain", "a", "-c", "f", "--socket", "s"];
        assert!(Line::try_parse_from(both).is_err());
    }

    #[test]
    fn wrong_use_is_2_whoever_answers() {
        let unknown = || Scripted::problem("404 Not Found", "there is no broker plan", "use plant");
        let (code, _, notices, _) = explained("a --broker plan", vec![unknown()]);
        assert_eq!((code, notices.as_str()), (2, "error: there is no broker plan; use plant\n"));
        let (code, _, notices, _) = explained("a --broker plan -c {file}", Vec::new());
        assert_eq!((code, notices.as_str()), (2, "error: there is no broker \"plan\"; the configuration has plant\n"));
        for arguments in ["a/+", "a/+ -c {file}"] {
            let (code, _, notices, _) = explained(arguments, Vec::new());
            assert!(code == 2 && notices.starts_with("error: the topic \"a/+\" "), "{notices}");
        }
        let long = format!("a --message {}", "x".repeat(HEADER_BYTES));
        let (code, _, notices, _) = explained(&format!("{long} --socket {{socket}}"), Vec::new());
        assert!(code == 2 && notices.contains("too long to ask the daemon; name its file with -c"), "{notices}");
        let (code, ..) = explained(&format!("{long} -c {{file}}"), Vec::new());
        assert_eq!(code, 0);
    }
}
