//! `tidegate explain`: which subscriptions match a topic, in order of rank, which of them run, and why.
//!
//! Decides nothing itself: `path/router/explain.rs` does, with the router's own table and selection.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::{NO, WRONG_USE, configuration_file, output};
use crate::control::config;
use crate::control::config::model::{Broker, Config};
use crate::path::router::explain::{Candidate, Explanation, Verdict, explain};
use crate::path::router::select::Facts;
use crate::path::router::{RouteTable, of_broker};
use crate::topic::TopicName;

/// The arguments of `explain`.
#[derive(Args)]
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
    /// The configuration file [default: ./tidegate.toml, then /etc/tidegate/tidegate.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print a JSON array, an object a broker
    #[arg(long)]
    json: bool,
}

impl Explain {
    /// Exits with 0 if something runs, 1 if nothing does, 2 on a bad topic, broker or configuration.
    pub fn run(self) -> ExitCode {
        let topic = match TopicName::new(self.topic.as_str()) {
            Ok(topic) => topic,
            Err(error) => {
                output::notice(format_args!("error: the topic {:?} {error}", self.topic));
                return ExitCode::from(WRONG_USE);
            }
        };
        let config = match config::inspect(&configuration_file(self.config.clone())) {
            Ok(loaded) => {
                // Of the warnings, what may change the answer: something that was added is not seen.
                let added = loaded.sources.runtime_path().to_string_lossy();
                let unseen = loaded.warnings.iter().filter(|warning| warning.origin.place.file == added);
                unseen.for_each(|warning| output::notice(format_args!("warning: {warning}")));
                loaded.config
            }
            Err(problems) => {
                output::notice(problems);
                return ExitCode::from(WRONG_USE);
            }
        };
        let brokers = match self.brokers(&config) {
            Ok(brokers) => brokers,
            Err(unknown) => {
                output::notice(unknown);
                return ExitCode::from(WRONG_USE);
            }
        };
        let tables: Vec<RouteTable> = brokers.into_iter().map(|broker| table(&config, broker)).collect();
        let facts = Facts { payload: self.message.as_bytes(), retain: self.retained };
        let explanations: Vec<Explanation> = tables.iter().map(|table| explain(table, &topic, facts)).collect();
        if self.json {
            output::data(serde_json::to_string_pretty(&explanations).expect("strings and numbers become JSON"));
        } else {
            explanations.iter().for_each(print);
        }
        let runs = explanations.iter().any(|explanation| explanation.outcome == Verdict::Runs);
        if runs { ExitCode::SUCCESS } else { ExitCode::from(NO) }
    }

    fn brokers(&self, config: &Config) -> Result<Vec<Arc<Broker>>, String> {
        let Some(name) = &self.broker else {
            return Ok(config.brokers.clone());
        };
        config.broker(name).map(|broker| vec![Arc::clone(broker)]).ok_or_else(|| {
            let known: Vec<&str> = config.brokers.iter().map(|broker| &*broker.name).collect();
            format!("error: there is no broker {name:?}; the configuration has {}", known.join(", "))
        })
    }
}

fn table(config: &Config, broker: Arc<Broker>) -> RouteTable {
    let subscriptions = of_broker(&config.subscriptions, broker.id);
    RouteTable::new(broker, subscriptions)
}

fn print(explanation: &Explanation) {
    let Explanation { broker, topic, dispatch, .. } = explanation;
    output::data(format_args!("{topic} from broker {broker} (dispatch = {dispatch}):"));
    for candidate in &explanation.subscriptions {
        let Candidate { subscription, filter, share, rank, reason, because, .. } = candidate;
        let share = share.as_ref().map(|share| format!(", shared by {share:?}")).unwrap_or_default();
        let action = candidate.on_message.as_deref().unwrap_or("nothing");
        let verdict = if candidate.runs { format!("runs {action}") } else { format!("does not run {action}") };
        output::data(format_args!("  {rank}. {filter}  ({subscription}{share}; {reason})"));
        output::data(format_args!("     {verdict}: {because}"));
        if candidate.runs && !candidate.captures.is_empty() {
            output::data(format_args!("     captures: {:?}", candidate.captures));
        }
    }
    match explanation.outcome {
        Verdict::Runs => {}
        Verdict::Filtered => output::data("  nothing runs: the conditions do not hold"),
        Verdict::Unmatched => output::data("  nothing runs: no subscription with on-message matches"),
    }
}
