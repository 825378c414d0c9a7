//! What the property tests of this folder share: generators, beside the matcher in `naive.rs`.

use proptest::prelude::*;

pub use super::naive::naive_match;
use super::{TopicFilter, TopicName};

/// A filter that is known to be valid.
pub fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).expect(text)
}

/// A name that is known to be valid.
pub fn name(text: &str) -> TopicName {
    TopicName::new(text).expect(text)
}

/// Few different levels, so that filters and names meet often.
fn literal() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "", "$x"])
}

/// The text of a topic name of one to five levels.
pub fn name_text() -> impl Strategy<Value = String> {
    let levels = prop::collection::vec(literal(), 1..=5).prop_map(|levels| levels.join("/"));
    levels.prop_filter("a name is not empty", |text| !text.is_empty())
}

/// The text of a topic filter of one to six levels, now and then a shared one.
pub fn filter_text() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => literal(), 2 => Just("+")];
    (prop::collection::vec(level, 0..=5), any::<bool>(), prop::bool::weighted(0.1))
        .prop_map(|(mut levels, hash, shared)| {
            if hash {
                levels.push("#");
            }
            let text = levels.join("/");
            if shared && !text.is_empty() { format!("$share/g/{text}") } else { text }
        })
        .prop_filter("a filter is not empty", |text| !text.is_empty())
}

/// A topic name and two filters that match it, which chance alone seldom brings together.
pub fn name_with_two_filters() -> impl Strategy<Value = (String, [String; 2])> {
    let choices = || (prop::collection::vec(any::<bool>(), 5), prop::option::of(0..=5_usize));
    (name_text(), choices(), choices()).prop_map(|(topic, a, b)| {
        let filters = [a, b].map(|(singles, cut)| generalise(&topic, &singles, cut));
        (topic, filters)
    })
}

/// Puts `+` in the place of some levels, and `#` in the place of all levels from `cut` on.
fn generalise(topic: &str, singles: &[bool], cut: Option<usize>) -> String {
    let system = usize::from(topic.starts_with('$'));
    let mut levels: Vec<&str> = topic.split('/').collect();
    for (level, _) in levels.iter_mut().zip(singles).skip(system).filter(|(_, single)| **single) {
        *level = "+";
    }
    if let Some(cut) = cut {
        levels.truncate(cut.max(system));
        levels.push("#");
    }
    levels.join("/")
}
