//! What the fuzz targets in `tests/fuzz/` may call: what must hold for any bytes at all.
//!
//! Wrappers rather than re-exports, as in `benchmarks.rs`. Nothing in the daemon uses them. A promise that is broken is a
//! panic, which is how a target tells of it.

use std::path::Path;

use crate::control::config::runtime::Section;
use crate::control::config::{Loaded, Problems};
use crate::control::live::{Edit, named};
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
    judge(config::load_text(Path::new("tidegate.toml"), text, ""));
}

/// What STATE-DIR/runtime.toml may hold beside a file that has everything: it counts, or is refused in lines for people.
///
/// # Panics
/// As [`configuration`].
pub fn runtime(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    judge(config::load_text(Path::new("tidegate.toml"), FILE, text));
}

/// An object that a request's body describes is added, or refused in lines for people; once added it can be removed, and then
/// it is as if it had never been there.
///
/// # Panics
/// It is not so.
pub fn api(data: &[u8]) {
    let Ok(keys) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(data) else { return };
    let file = config::load_text(Path::new("tidegate.toml"), FILE, "").expect("it is a good configuration");
    for section in [Section::Brokers, Section::Subscriptions, Section::Handlers] {
        let Ok(text) = (Edit::Add { section, keys: keys.clone() }).applied(&file) else { continue };
        let loaded = match file.sources.with_runtime(text, &file.names) {
            Ok(loaded) => loaded,
            refused @ Err(_) => {
                judge(refused);
                continue;
            }
        };
        let name = named(section, &keys).expect("what is added has a name");
        let removed = (Edit::Remove { section, name, discard: false }).applied(&loaded).expect("it was added before");
        let left = loaded.sources.with_runtime(removed, &file.names).expect("it was good without it");
        assert_eq!(left.sources.export(), file.sources.export());
    }
}

/// A configuration with an object of each kind.
const FILE: &str = "[brokers.plant]\naddress = \"a\"\n[handlers.celsius]\nplugin = \"celsius.wasm\"\n\
                    [[subscriptions]]\nbroker = \"plant\"\ntopic = \"a/+\"\non-message = \"celsius\"\n";

fn judge(loaded: Result<Loaded, Problems>) {
    let problems = match loaded {
        Ok(loaded) => loaded.warnings,
        Err(problems) => {
            assert!(!problems.errors.is_empty(), "refused without a reason");
            problems.errors.into_iter().chain(problems.warnings).collect()
        }
    };
    for problem in problems {
        let told = problem.to_string();
        assert!(!told.contains(char::is_control), "{told:?}");
    }
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
