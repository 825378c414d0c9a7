//! What the daemon promises of delivery, how each promise is broken, and which scenarios must notice.
//!
//! Data alone, fed to the rest of `sabotage`. A promise of `docs/delivery.md` belongs here when a scenario claims to hold
//! it. An edit is the smallest that breaks its promise and nothing else; a test below finds those that the sources have left
//! behind.

mod change;
mod messages;
mod state;

/// One promise.
pub struct Promise {
    /// What the sabotage does, as a name.
    pub name: &'static str,
    /// The promise that it breaks.
    pub sentence: &'static str,
    /// How.
    pub edits: &'static [Edit],
    /// The scenarios that must fail, each of them.
    pub rows: &'static [Row],
}

/// A scenario that must notice.
pub struct Row {
    /// Its name.
    pub test: &'static str,
    /// Words of its failure: it must fail over this and nothing else. Where it may notice in several ways, with `|` between them.
    pub red: &'static str,
}

impl Row {
    /// Whether it is of the fault bench, where what is lost shows only once nothing has come for a minute.
    pub fn is_long(&self) -> bool {
        self.test.starts_with("fault_")
    }
}

/// A change of one file.
#[derive(Clone, Copy)]
pub struct Edit {
    /// From the top of the repository.
    pub file: &'static str,
    /// What stands there, exactly once.
    pub old: &'static str,
    /// What stands there instead.
    pub new: &'static str,
}

const CALLS: &str = "daemon/src/path/handler/instance.rs";
const INSTANCE: &str = "daemon/src/path/handler/wasm/instance.rs";
const OUTBOXES: &str = "daemon/src/path/outbox/mod.rs";

/// What a row of the fault bench says of outputs that do not come.
const LOST: &str = "lost:|stands still before";

/// All of them.
pub fn promises() -> impl Iterator<Item = &'static Promise> {
    [messages::PROMISES, state::PROMISES, change::PROMISES].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;
    use crate::shell::root;

    #[test]
    fn each_edit_fits_the_sources_once() {
        let mut misfits = Vec::new();
        for promise in promises() {
            assert!(!promise.edits.is_empty(), "{}", promise.name);
            let mut seen = BTreeSet::new();
            for edit in promise.edits {
                let text = fs::read_to_string(root().join(edit.file)).expect(edit.file);
                match edit.apply(&text) {
                    Ok(edited) => assert_ne!(text, edited, "{}: an edit that changes nothing", promise.name),
                    Err(error) => misfits.push(format!("{}: {error}", promise.name)),
                }
                assert!(seen.insert(edit.old), "{}", promise.name);
            }
        }
        assert!(misfits.is_empty(), "{}", misfits.join("\n"));
    }

    #[test]
    fn each_row_is_a_scenario() {
        for Row { test: path, red } in promises().flat_map(|promise| promise.rows) {
            let mut path = path.split("::");
            let file = root()
                .join("tests/scenarios")
                .join(path.next().expect("splits into one at least"))
                .with_extension("rs");
            let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let test = path.next().expect("a test of the file");
            assert!(text.contains(&format!("fn {test}(")), "{}: {test}", file.display());
            assert!(!red.is_empty(), "{test}");
        }
    }

    #[test]
    fn each_promise_has_a_name_of_its_own_and_a_row_that_is_quick() {
        assert!(promises().all(|promise| promise.rows.iter().any(|row| !row.is_long())), "for --quick");
        let names: BTreeSet<_> = promises().map(|promise| promise.name).collect();
        assert_eq!(names.len(), promises().count());
    }
}
