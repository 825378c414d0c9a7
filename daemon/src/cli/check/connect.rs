//! `tidegate check --connect`: one real connection to each broker, and what its limits mean for the configuration.
//!
//! Owns: the words. The connections are made by `path/session/probe.rs`, which tells how little they do.

use std::error::Error;
use std::fmt::Display;
use std::sync::Arc;

use serde::Serialize;

use crate::control::config::model::{Broker, Config, Protocol, StatusMessage, Subscription};
use crate::control::config::{BrokerOrigins, Loaded, ObjectOrigin, Problem};
use crate::message::Qos;
use crate::path::session::probe::{Facts, NoConnection, identifier, probe};
use crate::telemetry::metrics::Metrics;

/// What became of one connection, as `--json` prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Connection {
    broker: String,
    connected: bool,
    /// Of this check alone.
    client_id: String,
    protocol: &'static str,
    /// Why it is not connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    limits: Option<Limits>,
}

/// What a broker takes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Limits {
    milliseconds: u128,
    max_qos: u8,
    retain: bool,
    wildcards: bool,
    shared_subscriptions: bool,
    /// None is no limit but MQTT's.
    max_packet: Option<u32>,
    /// Seconds; none is the configured one.
    keep_alive: Option<u64>,
}

/// What all connections together have shown.
#[derive(Debug, Default)]
pub struct Findings {
    /// One for each broker, in the order of the configuration.
    pub connections: Vec<Connection>,
    /// Brokers that could not be connected to.
    pub errors: Vec<Problem>,
    /// Settings that cannot take effect.
    pub warnings: Vec<Problem>,
}

/// Connects to every broker, to all at the same time.
///
/// # Errors
/// Nothing can be tried at all.
pub fn connect(loaded: &Loaded) -> Result<Findings, Box<dyn Error>> {
    let metrics = Metrics::new()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Config { brokers, subscriptions, .. } = &loaded.config;
    let probes = brokers.iter().map(|broker| {
        let (broker, meters) = (Arc::clone(broker), metrics.broker(&broker.name));
        let client_id = identifier(&broker);
        let probing = runtime.spawn({
            let client_id = client_id.clone();
            async move { probe(&broker, client_id, &meters).await }
        });
        (client_id, probing)
    });
    let probes: Vec<_> = probes.collect();
    let mut findings = Findings::default();
    for ((broker, origins), (client_id, probing)) in brokers.iter().zip(&loaded.origins.brokers).zip(probes) {
        let outcome = runtime.block_on(probing)?;
        match &outcome {
            Ok(facts) => {
                findings.warnings.extend(contradictions(broker, origins, facts));
                let own = subscriptions.iter().zip(&loaded.origins.subscriptions);
                let own = own.filter(|(subscription, _)| subscription.broker == broker.id);
                findings.warnings.extend(own.flat_map(|(subscription, origin)| ungranted(subscription, origin, facts)));
            }
            Err(failure) => findings.errors.push(refusal(origins, &client_id, failure)),
        }
        findings.connections.push(connection(broker, client_id, outcome));
    }
    // A look-up of a name that hangs must not hold up the end.
    runtime.shutdown_background();
    Ok(findings)
}

impl Connection {
    /// The broker has accepted it.
    pub fn is_made(&self) -> bool {
        self.connected
    }
}

impl Display for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Connection { broker, protocol, .. } = self;
        let Some(limits) = &self.limits else { return write!(f, "broker {broker}: not connected") };
        write!(f, "broker {broker}: connected in {} ms, protocol {protocol}", limits.milliseconds)?;
        let none = |has: bool, what: &str| (!has).then(|| format!("no {what}"));
        let takes = [
            (limits.max_qos < 2).then(|| format!("QoS {} at most", limits.max_qos)),
            none(limits.retain, "retained messages"),
            none(limits.wildcards, "wildcards"),
            none(limits.shared_subscriptions, "shared subscriptions"),
            limits.max_packet.map(|bytes| format!("packets of {bytes} bytes at most")),
        ];
        let takes: Vec<String> = takes.into_iter().flatten().collect();
        if takes.is_empty() { Ok(()) } else { write!(f, "; it takes {}", takes.join(", ")) }
    }
}

fn connection(broker: &Broker, client_id: String, outcome: Result<Facts, NoConnection>) -> Connection {
    let protocol = match broker.protocol {
        Protocol::V5 => "5",
        Protocol::V311 => "3.1.1",
    };
    let (limits, error) = match outcome {
        Ok(facts) => {
            let limits = Limits {
                milliseconds: facts.took.as_millis(),
                max_qos: facts.max_qos as u8,
                retain: facts.retain,
                wildcards: facts.wildcards,
                shared_subscriptions: facts.shares,
                max_packet: facts.max_packet,
                keep_alive: facts.keep_alive,
            };
            (Some(limits), None)
        }
        Err(failure) => (None, Some(failure.told)),
    };
    Connection { broker: broker.name.to_string(), connected: limits.is_some(), client_id, protocol, error, limits }
}

/// A broker that cannot be connected to, told at its address.
fn refusal(origins: &BrokerOrigins, client_id: &str, failure: &NoConnection) -> Problem {
    let (message, remedy) = failure.told.split_once("; ").unwrap_or((&failure.told, ""));
    if !failure.identifier {
        return origins.address.problem(message, remedy);
    }
    let listed =
        format!("if it permits only listed client identifiers, it refuses {client_id:?}, which this check uses");
    let remedy = if remedy.is_empty() { listed } else { format!("{remedy}; {listed}") };
    origins.address.problem(message, remedy)
}

/// Settings of a broker that its limits keep from taking effect.
fn contradictions(broker: &Broker, origins: &BrokerOrigins, facts: &Facts) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut tell = |message: String, remedy: String| found.push(origins.object.table.problem(message, remedy));
    let own = [("will", &broker.will), ("birth", &broker.birth), ("close", &broker.close)];
    for (key, message) in own.into_iter().filter_map(|(key, message)| Some((key, message.as_ref()?))) {
        let StatusMessage { qos, retain, .. } = message;
        let refuses = if key == "will" { ", and refuses the connection" } else { "" };
        if *qos > facts.max_qos {
            let highest = facts.max_qos;
            tell(
                format!("{key}.qos is {qos}, but the broker takes {highest} at most{refuses}"),
                format!("set it to {highest}"),
            );
        }
        if *retain && !facts.retain {
            tell(format!("{key}.retain is true, but the broker keeps no messages{refuses}"), "remove it".to_owned());
        }
        let bytes = message.topic.as_str().len() + message.message.len();
        if let Some(limit) = facts.max_packet.filter(|limit| bytes > *limit as usize) {
            tell(
                format!("{key} has {bytes} bytes, but the broker takes packets of {limit} at most"),
                "shorten it".to_owned(),
            );
        }
    }
    if let Some(imposed) = facts.keep_alive.filter(|imposed| *imposed > 0 && *imposed != u64::from(broker.keep_alive)) {
        let message = format!("keep-alive is {}, but the broker imposes {imposed}", broker.keep_alive);
        // It may impose what no configuration can have.
        let remedy = if (30..=64_800).contains(&imposed) { format!("set it to {imposed}") } else { String::new() };
        tell(message, remedy);
    }
    found
}

/// What a broker does not grant a subscription.
fn ungranted(subscription: &Subscription, origin: &ObjectOrigin, facts: &Facts) -> Vec<Problem> {
    let (filter, qos) = (&subscription.topic, subscription.qos);
    let mut found = Vec::new();
    let mut tell = |message: &str, remedy: &str| found.push(origin.table.problem(message, remedy));
    if facts.max_qos == Qos::AtMostOnce && qos > Qos::AtMostOnce {
        tell(&format!("qos is {qos}, but the broker knows QoS 0 alone, and its messages may be lost"), "set it to 0");
    }
    if filter.has_wildcard() && !facts.wildcards {
        tell("the broker takes no wildcards in topics, and will refuse it", "name each topic");
    }
    if filter.share().is_some() && !facts.shares {
        tell("the broker has no shared subscriptions, and will refuse it", "remove share");
    }
    found
}
