//! What the fuzz targets in `tests/fuzz/` may call: what must hold for any bytes at all.
//!
//! Wrappers rather than re-exports, as in `benchmarks.rs`. Nothing in the daemon uses them. A promise that is broken is a
//! panic, which is how a target tells of it.

mod api;

use std::path::Path;

use serde_json::Map;

pub use self::api::api;
use crate::control::config::runtime::{RuntimeFile, Section};
use crate::control::config::{Loaded, Problems};
use crate::control::live::Edit;
use crate::control::{config, routeros};
use crate::topic::naive::naive_match;
use crate::topic::{TopicFilter, TopicName, Trie};

/// A topic name and two filters, a line each: the trie, [`TopicFilter`] and a naive matcher agree, and what one filter says of
/// the other holds for the name.
///
/// # Panics
/// They do not.
pub fn topic(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let Some(Ok(name)) = lines.next().map(TopicName::new) else { return };
    let filters: Vec<TopicFilter> = lines.filter_map(|line| TopicFilter::new(line).ok()).collect();
    let mut trie = Trie::new();
    for (place, filter) in filters.iter().enumerate() {
        trie.insert(filter, place);
        let matches = filter.matches(&name);
        assert_eq!(matches, naive_match(filter.as_str(), name.as_str()), "{filter:?} {name:?}");
        let wildcards = filter.levels().filter(|level| matches!(*level, "+" | "#")).count();
        let captures = filter.captures(&name).map(|captures| captures.len());
        assert_eq!(captures, matches.then_some(wildcards), "{filter:?} {name:?}");
        assert!(filter.covers(filter), "{filter:?}");
    }
    let mut found: Vec<usize> = trie.ranked(&name).into_iter().copied().collect();
    found.sort_unstable();
    let matching = filters.iter().enumerate().filter(|(_, filter)| filter.matches(&name)).map(|(place, _)| place);
    assert_eq!(found, matching.collect::<Vec<_>>(), "{filters:?} {name:?}");
    if let [one, other] = filters.as_slice() {
        let (first, second) = (one.matches(&name), other.matches(&name));
        assert!(!(one.covers(other) && second) || first, "{one:?} covers {other:?}, but not {name:?}");
        assert!(!(first && second) || one.overlaps(other), "{one:?} and {other:?} overlap in {name:?}");
        assert_eq!(one.overlaps(other), other.overlaps(one), "{one:?} {other:?}");
    }
}

/// A configuration loads, or is refused in lines for people.
///
/// # Panics
/// It is refused without a reason, or a reason has a line break.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // What is refused was judged: there is no more to ask of it.
    drop(judge(config::load_text(Path::new("tidegate.toml"), text, "")));
}

/// What STATE-DIR/runtime.toml may hold beside a file that has everything: it counts, or is refused in lines for people. What
/// counts can be written anew, and each object in it can be changed and removed.
///
/// # Panics
/// It is not so.
pub fn runtime(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(loaded) = judge(config::load_text(Path::new("tidegate.toml"), FILE, text)) else { return };
    let as_is = RuntimeFile::parse(loaded.sources.runtime()).expect("it was loaded").text();
    let again =
        loaded.sources.with_runtime(as_is.clone(), &loaded.names).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(again.shown.export, loaded.shown.export);
    let (objects, origins) = (&loaded.config, &loaded.origins);
    let brokers = objects.brokers.iter().zip(&origins.brokers);
    let brokers = brokers.map(|(broker, origins)| (Section::Brokers, &*broker.name, origins.object.runtime));
    let handlers = objects.handlers.iter().zip(&origins.handlers);
    let handlers = handlers.map(|(handler, origins)| (Section::Handlers, &*handler.name, origins.object.runtime));
    let subscriptions = objects.subscriptions.iter().zip(&origins.subscriptions);
    let subscriptions = subscriptions.map(|(one, origin)| (Section::Subscriptions, &*one.name, origin.runtime));
    for (section, name, _) in brokers.chain(handlers).chain(subscriptions).filter(|(_, _, runtime)| *runtime) {
        let name = name.to_owned();
        let unchanged = Edit::Set { section, name: name.clone(), keys: Map::new() }.applied(&loaded);
        assert_eq!(unchanged.as_ref(), Ok(&as_is), "{section:?} {name:?}");
        let removed = Edit::Remove { section, name: name.clone(), discard: false }.applied(&loaded);
        let removed = removed.unwrap_or_else(|refusal| panic!("{section:?} {name:?}: {refusal}"));
        assert_ne!(removed, as_is, "{section:?} {name:?}");
    }
}

/// A configuration with an object of each kind.
const FILE: &str = "[brokers.plant]\naddress = \"a\"\n[handlers.celsius]\nplugin = \"celsius.wasm\"\n\
                    [[subscriptions]]\nbroker = \"plant\"\ntopic = \"a/+\"\non-message = \"celsius\"\n";

/// What loads can be shown, and what does not is told in lines for people.
fn judge(loaded: Result<Loaded, Problems>) -> Result<Loaded, Problems> {
    match &loaded {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|problem| line(&problem.to_string()));
            loaded.shown.settings.iter().for_each(|setting| line(&setting.key));
            let export = &loaded.shown.export;
            assert!(export.parse::<toml::Table>().is_ok(), "{export}");
        }
        Err(problems) => {
            assert!(!problems.errors.is_empty(), "refused without a reason");
            problems.errors.iter().chain(&problems.warnings).for_each(|problem| line(&problem.to_string()));
        }
    }
    loaded
}

/// What a person is told is one line.
fn line(told: &str) {
    assert!(!told.contains(char::is_control), "{told:?}");
}

/// Any bytes are imported as a configuration that loads, also with every suggestion taken.
///
/// # Panics
/// It does not load, or a remark has a line break.
pub fn routeros(data: &[u8]) {
    let import = routeros::import(data);
    let refused = |toml: &str| {
        let problems = config::load_text(Path::new("tidegate.toml"), toml, "").err().map(|problems| problems.errors);
        problems.unwrap_or_default().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let none: &[&str] = &[];
    assert_eq!(refused(&import.toml), none, "{}", import.toml);
    let suggested = import.toml.replace("\n# when = {", "\nwhen = {").replace("\n# on-message = {", "\non-message = {");
    assert_eq!(refused(&suggested), none, "{suggested}");
    for remark in import.remarks {
        assert!(!remark.text.contains(|c: char| c.is_control() && c != '\t'), "{remark:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    type Target = fn(&[u8]);

    /// Values that keys may have, and others.
    fn values() -> impl Strategy<Value = Value> {
        let leaves = prop::sample::select(vec![
            json!(null),
            json!(true),
            json!([0, -1, 1.5, 1e300, u64::MAX]),
            json!(30),
            json!(""),
            json!("a"),
            json!("plant"),
            json!("cloud"),
            json!("a/+"),
            json!("celsius"),
            json!("${env:PATH}"),
            json!("$${file:/x}"),
            json!("$"),
            json!("a\r\n'''\"\u{7f}"),
            json!("1s"),
            json!({"log": "{payload}"}),
            json!({"payload": "${"}),
            json!({"publish": ["plant:#"]}),
            json!([{"a": null}]),
        ]);
        leaves.prop_recursive(3, 12, 3, |inner| {
            let keys = prop::sample::select(vec!["topic", "message", "a\nb", "${", "alpn", ""]).prop_map(str::to_owned);
            let keys = prop::collection::hash_map(keys, inner.clone(), 0..3);
            prop_oneof![
                prop::collection::vec(inner, 0..3).prop_map(Value::from),
                keys.prop_map(|keys| Value::Object(keys.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_body_is_taken_or_refused(
            base in prop::sample::select(vec![
                json!({}),
                json!({"name": "n", "address": "b"}),
                json!({"name": "n", "plugin": "x.wasm"}),
                json!({"broker": "plant", "topic": "b"}),
                json!({"broker": "cloud", "topic": "b/#", "share": "g", "name": "s"}),
            ]),
            keys in prop::collection::hash_map(prop::sample::select(vec![
                "name", "address", "plugin", "broker", "topic", "share", "on-message", "when", "qos", "username", "password",
                "tls", "will", "config", "allow", "instances", "keep-alive", "auto-connect", "message", "message-base64",
                "a\nb",
            ]), values(), 0..4),
        ) {
            let mut body = base.as_object().cloned().expect("each is one");
            body.extend(keys.into_iter().map(|(key, value)| (key.to_owned(), value)));
            api(Value::Object(body).to_string().as_bytes());
        }

        #[test]
        fn any_text_may_be_what_was_added(pieces in prop::collection::vec(prop::sample::select(vec![
            "[brokers.cloud]\naddress = \"a\"\n", "[handlers.more]\nplugin = \"m.wasm\"\n", "[[subscriptions]]\n",
            "broker = \"plant\"\n", "topic = \"b\"\n", "topic = \"c/$${x}\"\n", "name = \"${env:PATH}\"\n",
            "share = \"g\"\n", "config.a.\"b c\" = [1, 1979-05-27, { d = [[]] }]\n", "tls = true\n", "qos = 0x1\n",
            "name = \"\"\"a\\\n b\"\"\"\n", "when.min-bytes = 1_0\n", "[brokers]\n", "subscriptions = []\n",
            "broker = \"cloud\"\n", "[[subscriptions]]\nbroker = \"plant\"\ntopic = \"d\"\n", "= [", "\"\"\"",
        ]), 0..8)) {
            runtime(pieces.concat().as_bytes());
        }
    }

    /// The fuzzer begins with the seeds, and leaves behind those that were finds.
    #[test]
    fn every_seed_holds() {
        let targets: [(&str, Target); 5] = [
            ("api", api),
            ("configuration", configuration),
            ("routeros", routeros),
            ("runtime", runtime),
            ("topic", topic),
        ];
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        assert_eq!(corpus.read_dir().expect("it is part of the repository").count(), targets.len());
        for (name, target) in targets {
            let seeds = corpus.join(name).read_dir().expect("it is part of the repository");
            for seed in seeds {
                let seed = seed.expect("it can be listed").path();
                let held = std::panic::catch_unwind(|| target(&std::fs::read(&seed).expect("it can be read")));
                assert!(held.is_ok(), "{}", seed.display());
            }
        }
    }
}
