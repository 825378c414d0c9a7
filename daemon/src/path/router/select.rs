//! Which of the matching subscriptions run for a message (contract: dispatch).
//!
//! Pure: the router and `tidegate explain` both decide here.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::control::config::model::{DispatchMode, OnMessage, Otherwise, Subscription, When};

/// Places of subscriptions in their broker's list; almost always few.
pub type Places = SmallVec<[usize; 8]>;

/// What the conditions look at.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The message's payload.
    pub payload: &'a [u8],
    /// Whether it is a replayed retained message.
    pub retain: bool,
}

/// What happens with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selected {
    /// No matching subscription has `on-message`.
    Unmatched,
    /// The conditions let nothing run.
    Filtered,
    /// These subscriptions run, best first: exactly one with [`DispatchMode::Best`].
    Run(Places),
}

/// The condition that does not hold, in plain words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// The payload does not match the regular expression.
    Payload,
    /// The payload is shorter than `min-bytes`.
    MinBytes,
    /// The message is, or is not, a replayed retained one.
    Retained,
}

impl When {
    /// The first condition that does not hold for a message.
    pub fn unmet(&self, facts: Facts<'_>) -> Option<Unmet> {
        if self.retained.is_some_and(|retained| retained != facts.retain) {
            return Some(Unmet::Retained);
        }
        if self.min_bytes.is_some_and(|least| (facts.payload.len() as u64) < least) {
            return Some(Unmet::MinBytes);
        }
        self.payload.as_ref().filter(|regex| !regex.is_match(facts.payload)).map(|_| Unmet::Payload)
    }
}

/// Chooses among the matching subscriptions that have `on-message`, given best first.
pub fn select<'a>(
    ranked: impl IntoIterator<Item = (usize, &'a Subscription)>,
    mode: DispatchMode,
    facts: Facts<'_>,
) -> Selected {
    let mut matched = false;
    let mut run = Places::new();
    let mut called: SmallVec<[&str; 8]> = SmallVec::new();
    for (place, subscription) in ranked {
        let Some(action) = &subscription.on_message else { continue };
        matched = true;
        if let Some(when) = &subscription.when
            && when.unmet(facts).is_some()
        {
            match (mode, when.otherwise) {
                (DispatchMode::Best, Otherwise::Stop) => return Selected::Filtered,
                (DispatchMode::Best, Otherwise::Next) | (DispatchMode::All, _) => continue,
            }
        }
        if let OnMessage::Handler(handler) = action {
            if called.contains(&&*handler.name) {
                continue;
            }
            called.push(&handler.name);
        }
        run.push(place);
        if mode == DispatchMode::Best {
            break;
        }
    }
    match (matched, run.is_empty()) {
        (false, _) => Selected::Unmatched,
        (true, true) => Selected::Filtered,
        (true, false) => Selected::Run(run),
    }
}

/// Splits the places of matching subscriptions, given best first, by dispatch domain: the ordinary subscriptions are one,
/// and each topic filter of a share is one of its own (MQTT 5 §4.8.2).
pub fn domains(subscriptions: &[Arc<Subscription>], ranked: &[usize]) -> SmallVec<[Places; 1]> {
    let mut domains: SmallVec<[Places; 1]> = SmallVec::new();
    let alike = |a: usize, b: usize| {
        let (a, b) = (&subscriptions[a].topic, &subscriptions[b].topic);
        if a.share().is_none() { b.share().is_none() } else { a == b }
    };
    for place in ranked {
        match domains.iter_mut().find(|domain| alike(domain[0], *place)) {
            Some(domain) => domain.push(*place),
            None => domains.push(Places::from_slice(&[*place])),
        }
    }
    domains
}

/// Chooses in each domain on its own; what runs in any of them runs.
pub fn select_all(
    subscriptions: &[Arc<Subscription>],
    domains: &[Places],
    mode: DispatchMode,
    facts: Facts<'_>,
) -> Selected {
    let mut all = Selected::Unmatched;
    for places in domains {
        let candidates = places.iter().map(|place| (*place, &*subscriptions[*place]));
        all = match (all, select(candidates, mode, facts)) {
            (Selected::Run(mut first), Selected::Run(more)) => {
                first.extend(more);
                Selected::Run(first)
            }
            (run @ Selected::Run(_), _) | (_, run @ Selected::Run(_)) => run,
            (Selected::Unmatched, Selected::Unmatched) => Selected::Unmatched,
            _ => Selected::Filtered,
        };
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::config::template::LogTemplate;
    use crate::message::{BrokerId, Qos};
    use crate::topic::TopicFilter;

    fn subscription(condition: Option<(&str, Otherwise)>, acts: bool) -> Subscription {
        let when = condition.map(|(payload, otherwise)| When {
            payload: Some(regex::bytes::Regex::new(payload).expect("valid")),
            min_bytes: None,
            retained: None,
            otherwise,
        });
        Subscription {
            name: Arc::from("s"),
            broker: BrokerId(0),
            topic: TopicFilter::new("#").expect("valid"),
            qos: Qos::AtMostOnce,
            on_message: acts.then(|| OnMessage::Log(LogTemplate::new("{payload}").expect("valid"))),
            when,
            silence: None,
        }
    }

    fn check(subscriptions: &[Subscription], mode: DispatchMode, payload: &str, expected: Selected) {
        let facts = Facts { payload: payload.as_bytes(), retain: false };
        assert_eq!(select(subscriptions.iter().enumerate(), mode, facts), expected);
    }

    fn run(places: &[usize]) -> Selected {
        Selected::Run(Places::from_slice(places))
    }

    #[test]
    fn best_runs_the_first_that_has_an_action() {
        let plain = || subscription(None, true);
        check(&[subscription(None, false), plain(), plain()], DispatchMode::Best, "x", run(&[1]));
        check(&[subscription(None, false)], DispatchMode::Best, "x", Selected::Unmatched);
        check(&[], DispatchMode::Best, "x", Selected::Unmatched);
    }

    #[test]
    fn a_failed_condition_stops_or_passes_on() {
        let conditional = |otherwise| [subscription(Some(("alarm", otherwise)), true), subscription(None, true)];
        check(&conditional(Otherwise::Stop), DispatchMode::Best, "alarm", run(&[0]));
        check(&conditional(Otherwise::Stop), DispatchMode::Best, "calm", Selected::Filtered);
        check(&conditional(Otherwise::Next), DispatchMode::Best, "calm", run(&[1]));
        let alone = [subscription(Some(("alarm", Otherwise::Next)), true)];
        check(&alone, DispatchMode::Best, "calm", Selected::Filtered);
    }

    #[test]
    fn all_runs_each_whose_condition_holds() {
        let subscriptions = [
            subscription(Some(("alarm", Otherwise::Stop)), true),
            subscription(None, true),
            subscription(None, false),
            subscription(None, true),
        ];
        check(&subscriptions, DispatchMode::All, "calm", run(&[1, 3]));
        check(&subscriptions, DispatchMode::All, "alarm", run(&[0, 1, 3]));
        check(&subscriptions[..1], DispatchMode::All, "calm", Selected::Filtered);
    }
}
