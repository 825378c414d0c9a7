//! A step of a message's way as a line for people. Pure.

use super::show;
use crate::cli::table::MAX_CELL;
use crate::control::admin::resource::{PublishResult, Step, TraceStep};
use crate::path::router::explain::{Candidate, Verdict};
use crate::printable::printable;

/// The line: time, number of the message, time since it was received, what happened.
pub fn line(step: &TraceStep) -> String {
    let text = format!("{} #{} +{} {}", step.time, step.sequence, milliseconds(step.elapsed), what(&step.step));
    printable(&text, MAX_CELL).into_owned()
}

fn milliseconds(microseconds: u64) -> String {
    format!("{}.{:03} ms", microseconds / 1_000, microseconds % 1_000)
}

fn what(step: &Step) -> String {
    match step {
        Step::Received { broker, topic, qos, retain, dup, bytes } => {
            let retain = if *retain { ", retained" } else { "" };
            let dup = if *dup { ", sent again" } else { "" };
            format!("received from {broker}: {topic} (QoS {qos}{retain}{dup}, {bytes} bytes)")
        }
        Step::Matched { outcome, subscriptions } => matched(*outcome, subscriptions),
        Step::Queued { handler, subscription } => format!("queued for {handler} by {subscription}"),
        Step::CallBegins { handler, version, attempt, .. } => {
            let attempt = if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
            format!("call of {handler} begins (version {}{attempt})", show::version(version))
        }
        Step::HeldBack { handler, broker, topic, qos, retain, bytes } => {
            let retain = if *retain { ", retain" } else { "" };
            format!("{handler} publishes to {broker}: {topic} (QoS {qos}{retain}, {bytes} bytes), held back")
        }
        Step::Denied { handler, broker, topic, reason } => {
            let broker = broker.as_deref().unwrap_or("the message's broker");
            format!("{handler} must not publish to {broker}: {topic}: {reason}")
        }
        Step::DeniedMore { handler, publishes } => format!("{handler}: {publishes} more publishes denied"),
        Step::CallEnded { handler, result, error, took, publishes } => {
            let error = error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            format!("call of {handler} ended after {}: {result}{error} ({publishes} published)", milliseconds(*took))
        }
        Step::Overtaken { handler } => {
            format!("another call changed what {handler} has read: what it did is dropped, and it is run again")
        }
        Step::WaitsForRetry { handler, wait } => format!("{handler} is called again in {}", milliseconds(*wait)),
        Step::DeadLetter { handler, broker, topic, reason } => {
            format!("becomes a dead letter of {handler} ({reason}) on {broker}: {topic}")
        }
        Step::KeptDeadLetter { handler, reason } => {
            format!("becomes a dead letter of {handler} ({reason}) in the store")
        }
        Step::NoDeadLetter { handler, reason } => format!("there is no dead letter of {handler}: {reason}"),
        Step::GoesInACircle { handler, hops } => {
            format!("{handler} is not called: it goes in a circle, and came from {hops} calls, one after the other")
        }
        Step::WaitsForRoom { publishes } => format!("waits for room in an outbox ({publishes} to publish)"),
        Step::NoRoom { publishes, reason } => format!("no room ({publishes} to publish): {reason}"),
        Step::Admitted { publishes } => format!("in the outboxes ({publishes} to publish)"),
        Step::Published { broker, topic, result, qos, reason } => {
            let qos = qos.map(|qos| format!(" with QoS {qos}")).unwrap_or_default();
            let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            match result {
                PublishResult::Kept => format!("kept on disk for {broker}: {topic}"),
                PublishResult::Delivered => format!("delivered to {broker}: {topic}{qos}"),
                PublishResult::Refused => format!("refused by {broker}: {topic}{reason}"),
                PublishResult::Poisoned => {
                    format!("given up: {broker} ends one connection after the other over {topic}{reason}")
                }
                PublishResult::Purged => format!("dropped: {broker} was removed before it had {topic}"),
                PublishResult::Expired => {
                    format!("dropped: in the outbox of {broker} for longer than max-age: {topic}")
                }
                PublishResult::Displaced => format!("dropped: made way for a newer one to {broker}: {topic}"),
            }
        }
        Step::Ended { outcome } => format!("ended: {outcome}"),
    }
}

fn matched(outcome: Verdict, subscriptions: &[Candidate]) -> String {
    let outcome = match outcome {
        Verdict::Runs => "matched",
        Verdict::Filtered => "matched, and nothing runs: the conditions do not hold",
        Verdict::Unmatched => "nothing runs: no subscription with on-message matches",
    };
    let told = subscriptions.iter().map(|candidate| {
        let Candidate { rank, filter, subscription, because, .. } = candidate;
        let action = candidate.on_message.as_deref().unwrap_or("nothing");
        let verb = if candidate.runs { "runs" } else { "does not run" };
        format!("; {rank}. {filter} ({subscription}) {verb} {action}: {because}")
    });
    std::iter::once(outcome.to_owned()).chain(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(step: Step, expected: &str) {
        assert_eq!(what(&step), expected);
    }

    fn text(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn a_line_has_time_number_and_one_line_only() {
        let step = Step::Denied { handler: text("h"), broker: None, topic: text("a\nb"), reason: text("why") };
        let whole = TraceStep { sequence: 7, time: text("T"), elapsed: 12_003, step };
        assert_eq!(line(&whole), "T #7 +12.003 ms h must not publish to the message's broker: a\\nb: why");
    }

    #[test]
    fn each_step_is_a_sentence() {
        let (b, t, h) = (|| text("b"), || text("t"), || text("h"));
        check(
            Step::Received { broker: b(), topic: t(), qos: 1, retain: true, dup: true, bytes: 3 },
            "received from b: t (QoS 1, retained, sent again, 3 bytes)",
        );
        check(
            Step::Received { broker: b(), topic: t(), qos: 0, retain: false, dup: false, bytes: 0 },
            "received from b: t (QoS 0, 0 bytes)",
        );
        let candidate = |rank, runs: bool, because: &str| Candidate {
            subscription: text("s"),
            filter: text("t/#"),
            share: None,
            rank,
            reason: text("r"),
            on_message: runs.then(|| text("handler h")),
            captures: vec![],
            runs,
            because: text(because),
        };
        check(
            Step::Matched {
                outcome: Verdict::Runs,
                subscriptions: vec![candidate(1, true, "the best"), candidate(2, false, "none")],
            },
            "matched; 1. t/# (s) runs handler h: the best; 2. t/# (s) does not run nothing: none",
        );
        let nothing = "nothing runs: no subscription with on-message matches";
        check(Step::Matched { outcome: Verdict::Unmatched, subscriptions: vec![] }, nothing);
        let begins = |attempt| Step::CallBegins {
            handler: h(),
            subscription: text("s"),
            version: text("0123456789abcdef"),
            attempt,
        };
        check(begins(1), "call of h begins (version 0123456789ab)");
        check(begins(2), "call of h begins (version 0123456789ab, attempt 2)");
        check(
            Step::HeldBack { handler: h(), broker: b(), topic: t(), qos: 1, retain: true, bytes: 4 },
            "h publishes to b: t (QoS 1, retain, 4 bytes), held back",
        );
        check(Step::DeniedMore { handler: h(), publishes: 3 }, "h: 3 more publishes denied");
        check(
            Step::CallEnded { handler: h(), result: text("reject"), error: Some(text("no")), took: 7, publishes: 0 },
            "call of h ended after 0.007 ms: reject: no (0 published)",
        );
        check(
            Step::Overtaken { handler: h() },
            "another call changed what h has read: what it did is dropped, and it is run again",
        );
        check(Step::WaitsForRetry { handler: h(), wait: 150_000 }, "h is called again in 150.000 ms");
        check(
            Step::DeadLetter { handler: h(), broker: b(), topic: t(), reason: text("reject") },
            "becomes a dead letter of h (reject) on b: t",
        );
        let none = Step::NoDeadLetter { handler: h(), reason: text("it is one") };
        check(none, "there is no dead letter of h: it is one");
        let kept = Step::KeptDeadLetter { handler: h(), reason: text("reject") };
        check(kept, "becomes a dead letter of h (reject) in the store");
        let circle = "h is not called: it goes in a circle, and came from 16 calls, one after the other";
        check(Step::GoesInACircle { handler: h(), hops: 16 }, circle);
        check(Step::WaitsForRoom { publishes: 2 }, "waits for room in an outbox (2 to publish)");
        check(Step::Admitted { publishes: 2 }, "in the outboxes (2 to publish)");
        let published = |result, qos, reason: Option<&str>| Step::Published {
            broker: b(),
            topic: t(),
            result,
            qos,
            reason: reason.map(text),
        };
        check(published(PublishResult::Kept, None, None), "kept on disk for b: t");
        check(published(PublishResult::Delivered, Some(1), None), "delivered to b: t with QoS 1");
        check(published(PublishResult::Refused, None, Some("not authorized")), "refused by b: t: not authorized");
        let poisoned = "given up: b ends one connection after the other over t";
        check(published(PublishResult::Poisoned, None, None), poisoned);
        check(published(PublishResult::Purged, None, None), "dropped: b was removed before it had t");
        let expired = "dropped: in the outbox of b for longer than max-age: t";
        check(published(PublishResult::Expired, None, None), expired);
        check(published(PublishResult::Displaced, None, None), "dropped: made way for a newer one to b: t");
        check(Step::Ended { outcome: text("handled") }, "ended: handled");
    }
}
