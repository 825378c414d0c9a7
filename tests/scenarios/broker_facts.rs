//! What the makes of broker do by themselves, without the daemon between: the facts that `docs/brokers.md` tells and that the
//! other scenarios `broker_*` build on. A broker that learns something fails here first.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_tests::broker::Keeps;
use tidegate_tests::client::stream::Stream;
use tidegate_tests::{Client, Make, Message, Protocol, on_every_broker, with_duplicates};

on_every_broker!(
    overlapping_filters_bring_as_many_copies_as_its_table_says,
    qos_2_is_taken_or_refused_as_its_table_says,
    wildcards_match_what_its_table_says,
    retained_messages_come_for_the_filters_that_its_table_says,
    topics_are_refused_or_renamed_as_its_table_says,
    a_session_is_kept_as_its_table_says,
    a_kept_session_misses_nothing_over_a_restart_where_its_table_says_so,
);
with_duplicates!(overlapping_filters_bring_as_many_copies_as_its_table_says);

/// Checks that nothing else has come for a client, as far as the broker has got.
fn nothing_else(client: &Client, what: &str) {
    client.flush();
    assert_eq!(client.waiting(), 0, "{what}");
}

fn overlapping_filters_bring_as_many_copies_as_its_table_says(make: &Make, protocol: Protocol) {
    const COUNT: usize = 5;
    let broker = (make.start)();
    let copies = make.copies(protocol);
    for filters in [["a/+", "+/b"], ["a/#", "a/+"]] {
        let client = broker.client(protocol);
        filters.iter().for_each(|filter| client.subscribe(filter, 1));
        let publisher = broker.client(protocol);
        publisher.publish_all(&(0..COUNT).map(|n| Message::new("a/b", format!("{n}"))).collect::<Vec<_>>());
        let mut came: BTreeMap<String, usize> = BTreeMap::new();
        for message in client.collect(COUNT * copies) {
            *came.entry(message.text().to_owned()).or_default() += 1;
        }
        assert_eq!(came, (0..COUNT).map(|n| (n.to_string(), copies)).collect(), "{filters:?}");
        nothing_else(&client, "a further copy");
    }
}

fn qos_2_is_taken_or_refused_as_its_table_says(make: &Make, protocol: Protocol) {
    let broker = (make.start)();
    let receiver = broker.client(protocol);
    assert_eq!(receiver.ask("a", 2), make.grants_for_2);
    let publisher = broker.client(protocol);
    let message = Message::new("a", "x").qos(2);
    if make.takes_2 {
        publisher.publish(&message);
        assert_eq!(receiver.collect(1)[0].qos, make.grants_for_2);
    } else {
        publisher.attempt(&message);
        publisher.ended();
    }
}

const TOPICS: [&str; 7] = ["w", "w/a", "w/a/b", "w/a/b/c", "/w", "w//b", "$w/a"];

/// Filters, what they match, and whether they match `$w/a` too where wildcards match such topics.
const FILTERS: [(&str, &[&str], bool); 8] = [
    ("w/#", &["w", "w/a", "w/a/b", "w/a/b/c", "w//b"], false),
    ("w/+", &["w/a"], false),
    ("w/+/b", &["w/a/b", "w//b"], false),
    ("+/a", &["w/a"], true),
    ("+/w", &["/w"], false),
    ("/#", &["/w"], false),
    ("$w/#", &["$w/a"], false),
    // The last, since NATS is of no use to anybody afterwards.
    ("#", &["w", "w/a", "w/a/b", "w/a/b/c", "/w", "w//b"], true),
];

fn wildcards_match_what_its_table_says(make: &Make, protocol: Protocol) {
    let broker = (make.start)();
    for (filter, matching, wild) in FILTERS {
        let client = broker.client(protocol);
        client.subscribe(filter, 1);
        let publisher = broker.client(protocol);
        TOPICS.iter().for_each(|topic| publisher.publish(&Message::new(*topic, "x")));
        let dollar = make.wildcards_match_dollar && wild;
        let expected: Vec<&str> = matching.iter().copied().chain(dollar.then_some("$w/a")).collect();
        if filter == "#" && make.talks_to_itself {
            let last = expected[expected.len() - 1];
            let came = client.collect_until("the last", |message| message.topic == last);
            let (ours, own): (Vec<_>, Vec<_>) =
                came.iter().map(|message| &*message.topic).partition(|topic| TOPICS.contains(topic));
            assert_eq!(ours, expected, "{filter}");
            assert!(!own.is_empty(), "the broker keeps to itself what it says to itself");
            continue;
        }
        let came: Vec<_> = client.collect(expected.len()).into_iter().map(|message| message.topic).collect();
        assert_eq!(came, expected, "{filter}");
        nothing_else(&client, filter);
    }
}

fn retained_messages_come_for_the_filters_that_its_table_says(make: &Make, protocol: Protocol) {
    let broker = (make.start)();
    let publisher = broker.client(protocol);
    publisher.publish(&Message::new("r/a/b", "kept").retained());
    for (filter, comes) in [("r/a/b", true), ("r/a/+", make.retained_by_wildcard), ("r/#", make.retained_by_wildcard)] {
        let client = broker.client(protocol);
        client.subscribe(filter, 1);
        for message in client.collect(usize::from(comes)) {
            assert_eq!((&*message.topic, message.text(), message.retain), ("r/a/b", "kept", true), "{filter}");
        }
        nothing_else(&client, filter);
    }
    publisher.publish(&Message::new("r/a/b", "").retained());
    let client = broker.client(protocol);
    client.subscribe("r/a/b", 1);
    nothing_else(&client, "an empty one clears it");
}

fn topics_are_refused_or_renamed_as_its_table_says(make: &Make, protocol: Protocol) {
    let broker = (make.start)();
    let receiver = broker.client(protocol);
    receiver.subscribe("in/#", 1);
    for topic in ["in/a.b", "in/a b", "in/a*b", "in/ä>"] {
        let publisher = broker.client(protocol);
        if make.refused_topics.contains(&topic) {
            assert_eq!(publisher.ask(topic, 1), 0x80, "{topic}");
            publisher.attempt(&Message::new(topic, "x"));
            publisher.ended();
            continue;
        }
        let renamed = make.renamed_topics.iter().find(|(from, _)| *from == topic).map_or(topic, |(_, to)| to);
        publisher.publish(&Message::new(topic, "x"));
        assert_eq!(receiver.collect(1)[0].topic, renamed);
    }
    nothing_else(&receiver, "what was refused");
}

fn a_session_is_kept_as_its_table_says(make: &Make, protocol: Protocol) {
    let broker = (make.start)();
    let session = Client::options(broker.port(), protocol).session("receiver");
    session.connect().expect("is let in").subscribe("a", 1);
    broker.client(protocol).publish(&Message::new("a", "meanwhile"));
    let receiver = session.connect().expect("is let in");
    let kept = receiver.collect(usize::from(make.keeps_sessions));
    assert!(kept.iter().all(|message| message.text() == "meanwhile"), "{kept:?}");
    nothing_else(&receiver, "a session that is not kept");
}

/// Where a stream may lose messages, nothing is on its way when the broker ends.
fn a_kept_session_misses_nothing_over_a_restart_where_its_table_says_so(make: &Make, protocol: Protocol) {
    let mut broker = (make.start)();
    let session = Client::options(broker.port(), protocol).session("receiver");
    let mut receiver = session.connect().expect("is let in");
    receiver.subscribe("a", 1);
    let sent: Vec<_> = (0..600).map(|n| Message::new("a", format!("{n}"))).collect();
    let (before, over) = sent.split_at(if make.keeps == Keeps::Idle { 300 } else { 0 });
    // Some come after it in any case.
    let (over, after) = over.split_at(over.len() - 100);
    broker.client(protocol).publish_all(before);
    let mut came = receiver.collect(before.len());
    let stream = (make.keeps != Keeps::Idle).then(|| Stream::start(broker.port(), protocol, over.to_vec()));
    came.extend(receiver.collect(if stream.is_some() { 100 } else { 0 }));
    broker.stop();
    receiver.ended();
    came.extend(receiver.collect(receiver.waiting()));
    broker.restart();
    receiver.reconnect();
    stream.unwrap_or_else(|| Stream::start(broker.port(), protocol, over.to_vec())).finish();
    Stream::start(broker.port(), protocol, after.to_vec()).finish();

    let mut missing: BTreeSet<_> = sent.iter().map(|message| message.payload.clone()).collect();
    came.iter().map(|message| missing.remove(&message.payload)).for_each(drop);
    if make.keeps == Keeps::Nothing {
        nothing_else(&receiver, "a session that is not kept");
    } else {
        receiver.collect_until("the rest", |message| {
            missing.remove(&message.payload);
            missing.is_empty()
        });
    }
}
