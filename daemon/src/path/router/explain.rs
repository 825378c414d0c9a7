//! What a broker's routing table does with a message, told: which subscriptions match, in order of rank, which of them
//! run, and why.
//!
//! Decides with the router's own table and selection, so that it cannot tell anything else than the daemon does. Used by
//! `tidegate explain` and by the HTTP API; it runs nothing.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::RouteTable;
use super::select::{Facts, Places, Selected, Unmet, domains, select_all};
use crate::control::config::model::{DispatchMode, OnMessage, Otherwise, Subscription};
use crate::topic::{Rank, TopicName};

/// What happens with the message if it comes from one broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Explanation {
    /// The broker's name.
    pub broker: String,
    /// The message's topic name.
    pub topic: String,
    /// `best` or `all`.
    pub dispatch: String,
    /// Whether something runs.
    pub outcome: Verdict,
    /// Those that match, best rank first.
    pub subscriptions: Vec<Candidate>,
}

/// Whether something runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// At least one subscription's action.
    Runs,
    /// Nothing: the conditions do not hold.
    Filtered,
    /// Nothing: no matching subscription has `on-message`.
    Unmatched,
}

/// One matching subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Candidate {
    /// Its name.
    pub subscription: String,
    /// Its topic filter, without its share.
    pub filter: String,
    /// The group that the broker chooses a member of.
    pub share: Option<String>,
    /// From 1, the best.
    pub rank: usize,
    /// The rank in plain words.
    pub reason: String,
    /// `handler NAME` or `log`; none without `on-message`.
    pub on_message: Option<String>,
    /// What the wildcards stand for.
    pub captures: Vec<String>,
    /// Whether it runs.
    pub runs: bool,
    /// Why it runs, or why not.
    pub because: String,
}

/// What this broker's subscriptions do with a message of this topic.
pub fn explain(table: &RouteTable, topic: &TopicName, facts: Facts<'_>) -> Explanation {
    let ranked = table.ranked(topic);
    explain_domains(table, topic, &ranked, &domains(table.subscriptions(), &ranked), facts)
}

/// The same for one copy of a message, which concerns these dispatch domains alone. `ranked` holds their places, best rank
/// first, and may hold others.
pub fn explain_domains(
    table: &RouteTable,
    topic: &TopicName,
    ranked: &[usize],
    domains: &[Places],
    facts: Facts<'_>,
) -> Explanation {
    let selected = select_all(table.subscriptions(), domains, table.broker.dispatch, facts);
    let (outcome, running) = match selected {
        Selected::Unmatched => (Verdict::Unmatched, Places::new()),
        Selected::Filtered => (Verdict::Filtered, Places::new()),
        Selected::Run(places) => (Verdict::Runs, places),
    };
    let mut decided = vec![false; domains.len()];
    let concerned =
        ranked.iter().filter_map(|place| Some((place, domains.iter().position(|places| places.contains(place))?)));
    let candidates = concerned.enumerate().map(|(index, (place, domain))| {
        let subscription = &*table.subscriptions()[*place];
        let runs = running.contains(place);
        let because = because(subscription, table.broker.dispatch, facts, runs, decided[domain]);
        decided[domain] |= decides(subscription, table.broker.dispatch, facts);
        Candidate {
            subscription: subscription.name.to_string(),
            filter: subscription.topic.unshared().to_owned(),
            share: subscription.topic.share().map(str::to_owned),
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
    Explanation {
        broker: table.broker.name.to_string(),
        topic: topic.as_str().to_owned(),
        dispatch: dispatch.to_owned(),
        outcome,
        subscriptions,
    }
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
