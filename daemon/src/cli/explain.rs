//! `tidegate explain`: which subscriptions match a topic, in order of rank, which of them run, and why.
//!
//! Decides with the router's own table and selection, so that it cannot tell anything else than the daemon does.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::{NO, WRONG_USE, configuration_file, output};
use crate::control::config;
use crate::control::config::model::{Broker, Config, DispatchMode, OnMessage, Otherwise, Subscription};
use crate::path::router::select::{Facts, Places, Selected, Unmet, domains, select_all};
use crate::path::router::{RouteTable, of_broker};
use crate::topic::{Rank, TopicName};

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

/// What happens with the message if it comes from one broker.
#[derive(Serialize)]
struct Explanation<'a> {
    broker: &'a str,
    topic: &'a str,
    dispatch: &'static str,
    /// `runs`, `filtered` or `unmatched`.
    outcome: &'static str,
    /// Best rank first.
    subscriptions: Vec<Candidate<'a>>,
}

/// One matching subscription.
#[derive(Serialize)]
struct Candidate<'a> {
    subscription: &'a str,
    filter: &'a str,
    /// The group that the broker chooses a member of.
    share: Option<&'a str>,
    rank: usize,
    /// The rank in plain words.
    reason: String,
    /// None without `on-message`.
    on_message: Option<String>,
    captures: Vec<String>,
    runs: bool,
    /// Why it runs, or why not.
    because: String,
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
        let config = match config::load(&configuration_file(self.config.clone())) {
            Ok(loaded) => loaded.config,
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
        let runs = explanations.iter().any(|explanation| explanation.outcome == "runs");
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

fn explain<'a>(table: &'a RouteTable, topic: &'a TopicName, facts: Facts<'_>) -> Explanation<'a> {
    let ranked = table.ranked(topic);
    let domains = domains(table.subscriptions(), &ranked);
    let selected = select_all(table.subscriptions(), &domains, table.broker.dispatch, facts);
    let (outcome, running) = match selected {
        Selected::Unmatched => ("unmatched", Places::new()),
        Selected::Filtered => ("filtered", Places::new()),
        Selected::Run(places) => ("runs", places),
    };
    let mut decided = vec![false; domains.len()];
    let candidates = ranked.iter().enumerate().map(|(index, place)| {
        let subscription = &*table.subscriptions()[*place];
        let runs = running.contains(place);
        let domain = domains.iter().position(|places| places.contains(place)).expect("each place is in a domain");
        let because = because(subscription, table.broker.dispatch, facts, runs, decided[domain]);
        decided[domain] |= decides(subscription, table.broker.dispatch, facts);
        Candidate {
            subscription: &subscription.name,
            filter: subscription.topic.unshared(),
            share: subscription.topic.share(),
            rank: index + 1,
            reason: Rank::of(&subscription.topic).to_string(),
            on_message: subscription.on_message.as_ref().map(action),
            captures: subscription.topic.captures(topic).unwrap_or_default(),
            runs,
            because,
        }
    });
    let subscriptions = candidates.collect();
    let dispatch = match table.broker.dispatch {
        DispatchMode::Best => "best",
        DispatchMode::All => "all",
    };
    Explanation { broker: &table.broker.name, topic: topic.as_str(), dispatch, outcome, subscriptions }
}

fn action(on_message: &OnMessage) -> String {
    match on_message {
        OnMessage::Handler(handler) => format!("handler {}", handler.name),
        OnMessage::Log(_) => "log".to_owned(),
    }
}

/// Whether no subscription of a lower rank is tried after this one.
fn decides(subscription: &Subscription, mode: DispatchMode, facts: Facts<'_>) -> bool {
    let passes_on =
        subscription.when.as_ref().is_some_and(|when| when.otherwise == Otherwise::Next && when.unmet(facts).is_some());
    mode == DispatchMode::Best && subscription.on_message.is_some() && !passes_on
}

fn because(subscription: &Subscription, mode: DispatchMode, facts: Facts<'_>, runs: bool, decided: bool) -> String {
    if subscription.on_message.is_none() {
        return "it has no on-message".to_owned();
    }
    if decided {
        return "a better rank decides".to_owned();
    }
    let unmet = subscription.when.as_ref().and_then(|when| Some((when.unmet(facts)?, when.otherwise)));
    if let Some((unmet, otherwise)) = unmet {
        let condition = match unmet {
            Unmet::Payload => "its when.payload does not match",
            Unmet::MinBytes => "the payload is shorter than its when.min-bytes",
            Unmet::Retained => "its when.retained does not hold",
        };
        return match (mode, otherwise) {
            (DispatchMode::All, _) => condition.to_owned(),
            (DispatchMode::Best, Otherwise::Next) => format!("{condition}: the next rank is tried"),
            (DispatchMode::Best, Otherwise::Stop) => format!("{condition}: nothing runs"),
        };
    }
    match (runs, mode) {
        (true, DispatchMode::Best) => "the best rank that has on-message and whose conditions hold".to_owned(),
        (true, DispatchMode::All) => "dispatch = \"all\"".to_owned(),
        (false, _) => "its handler runs already for a better rank".to_owned(),
    }
}

fn print(explanation: &Explanation<'_>) {
    let Explanation { broker, topic, dispatch, .. } = explanation;
    output::data(format_args!("{topic} from broker {broker} (dispatch = {dispatch}):"));
    for candidate in &explanation.subscriptions {
        let Candidate { subscription, filter, share, rank, reason, because, .. } = candidate;
        let share = share.map(|share| format!(", shared by {share:?}")).unwrap_or_default();
        let action = candidate.on_message.as_deref().unwrap_or("nothing");
        let verdict = if candidate.runs { format!("runs {action}") } else { format!("does not run {action}") };
        output::data(format_args!("  {rank}. {filter}  ({subscription}{share}; {reason})"));
        output::data(format_args!("     {verdict}: {because}"));
        if candidate.runs && !candidate.captures.is_empty() {
            output::data(format_args!("     captures: {:?}", candidate.captures));
        }
    }
    match explanation.outcome {
        "runs" => {}
        "filtered" => output::data("  nothing runs: the conditions do not hold"),
        _ => output::data("  nothing runs: no subscription with on-message matches"),
    }
}
