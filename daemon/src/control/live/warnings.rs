//! Which warnings of a configuration come with a change.
//!
//! Pure. Fed with the warnings before and after by `change.rs`, which tells what is left. It decides nothing about changes: what is
//! warned of is made all the same.

use super::Edit;
use crate::control::config::{Problem, UNUSED};

/// The sentences of those that were not there before. None of a removal: where less is configured, less is told, in other words.
pub(super) fn new_with(edit: &Edit, before: &[Problem], after: &[Problem]) -> Vec<String> {
    if matches!(edit, Edit::Remove { .. }) {
        return Vec::new();
    }
    // A handler that is added is there before any subscription can lead to it.
    let early = |warning: &&Problem| matches!(edit, Edit::Add { .. }) && warning.message == UNUSED;
    fresh(before, after.iter().filter(|warning| !early(warning)))
}

/// The sentences of those that were not there before.
pub(super) fn fresh<'a>(before: &[Problem], after: impl IntoIterator<Item = &'a Problem>) -> Vec<String> {
    let known: Vec<String> = before.iter().map(|warning| unplaced(&warning.to_string())).collect();
    let sentences = after.into_iter().map(Problem::to_string);
    sentences.filter(|sentence| !known.contains(&unplaced(sentence))).collect()
}

/// A sentence without lines, columns and places in a list, which a change moves.
fn unplaced(sentence: &str) -> String {
    let mut text = String::with_capacity(sentence.len());
    let mut characters = sentence.chars().peekable();
    while let Some(character) = characters.next() {
        text.push(character);
        if matches!(character, ':' | '[') {
            while characters.next_if(char::is_ascii_digit).is_some() {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::control::config::load_text;
    use crate::control::config::runtime::Section;

    const FILE: &str =
        "brokers.plant.address = \"a\"\n[handlers.a]\nplugin = \"p.wasm\"\nallow.publish = [\"plant:out\"]\n";

    fn subscriptions(topics: &[&str]) -> String {
        let one =
            |topic: &&str| format!("[[subscriptions]]\nbroker = \"plant\"\ntopic = \"{topic}\"\non-message = \"a\"\n");
        topics.iter().map(one).collect()
    }

    /// What is told of a change from one text of runtime.toml to another.
    #[track_caller]
    fn check(edit: &Edit, before: &str, after: &str, expected: &[&str]) {
        let warnings =
            |runtime| load_text(Path::new("/nowhere/tidegate.toml"), FILE, runtime).expect("is good").warnings;
        let told = new_with(edit, &warnings(before), &warnings(after));
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn only_what_is_new_is_told_wherever_it_stands_now() {
        let set = Edit::Set { section: Section::Subscriptions, name: "x".to_owned(), keys: serde_json::Map::new() };
        let circle = "in a circle";
        check(&set, "", &subscriptions(&["in"]), &[]);
        check(&set, &subscriptions(&["in"]), "", &[UNUSED]);
        let add = Edit::Add { section: Section::Handlers, keys: serde_json::Map::new() };
        check(&add, &subscriptions(&["in"]), "", &[]);
        check(&set, &subscriptions(&["in"]), &subscriptions(&["in", "out"]), &[circle]);
        check(&set, &subscriptions(&["out"]), &subscriptions(&["in", "out"]), &[]);
        let remove = Edit::Remove { section: Section::Subscriptions, name: "x".to_owned(), discard: false };
        check(&remove, "", &subscriptions(&["in"]), &[]);
    }
}
