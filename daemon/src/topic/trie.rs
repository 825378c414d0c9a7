//! The trie that finds the filters of a topic name among many.
//!
//! Owns: filters with their values. Fed by the router's wiring; asked by the router for every message. It does not decide
//! which of the found values runs: it gives them in order of rank. No part of it recurses, because a topic may have
//! 65,536 levels; the nodes lie in one vector, so that dropping the trie does not recurse either.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::{Rank, TopicFilter, TopicName};

/// The place of the node above the first level, which is always there.
const ROOT: usize = 0;

/// A map from topic filters to values, asked by topic name. One filter may hold many values, in the order of insertion;
/// a shared subscription is filed under its filter without the share.
#[derive(Debug)]
pub struct Trie<V> {
    nodes: Vec<Node<V>>,
    /// Places in `nodes` that hold no node any more and are taken first.
    free: Vec<usize>,
}

/// What follows after the levels that lead here.
#[derive(Debug)]
struct Node<V> {
    literals: HashMap<Box<str>, usize>,
    single_level: Option<usize>,
    /// The filter that ends here.
    here: Option<Box<Leaf<V>>>,
    /// The filter that goes on with `#`.
    below: Option<Box<Leaf<V>>>,
}

/// A filter's values.
#[derive(Debug)]
struct Leaf<V> {
    rank: Rank,
    /// In the order of insertion, at least one.
    values: Vec<V>,
}

impl<V> Node<V> {
    fn new() -> Node<V> {
        Node { literals: HashMap::new(), single_level: None, here: None, below: None }
    }

    fn child(&self, level: &str) -> Option<usize> {
        if level == "+" { self.single_level } else { self.literals.get(level).copied() }
    }

    fn leaf_mut(&mut self, filter: &TopicFilter) -> &mut Option<Box<Leaf<V>>> {
        if filter.is_multi_level() { &mut self.below } else { &mut self.here }
    }

    fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.single_level.is_none() && self.here.is_none() && self.below.is_none()
    }
}

/// The levels that have a node: all but `#`.
fn node_levels(filter: &TopicFilter) -> impl Iterator<Item = &str> {
    filter.levels().take_while(|level| *level != "#")
}

impl<V> Trie<V> {
    /// A trie without filters.
    pub fn new() -> Trie<V> {
        Trie { nodes: vec![Node::new()], free: Vec::new() }
    }

    /// Adds a value to a filter, after those that it has.
    pub fn insert(&mut self, filter: &TopicFilter, value: V) {
        let mut at = ROOT;
        for level in node_levels(filter) {
            at = self.nodes[at].child(level).unwrap_or_else(|| self.add_child(at, level));
        }
        let leaf = self.nodes[at].leaf_mut(filter);
        leaf.get_or_insert_with(|| Box::new(Leaf { rank: Rank::of(filter), values: Vec::new() })).values.push(value);
    }

    /// Every value of every matching filter: best rank first, within a filter in the order of insertion.
    pub fn ranked(&self, topic: &TopicName) -> SmallVec<[&V; 8]> {
        let mut leaves: SmallVec<[&Leaf<V>; 8]> = SmallVec::new();
        self.visit_leaves(topic, |leaf| leaves.push(leaf));
        // Two filters that match the same name never rank alike: stability would change nothing.
        leaves.sort_unstable_by(|a, b| a.rank.cmp(&b.rank));
        leaves.into_iter().flat_map(|leaf| &leaf.values).collect()
    }

    fn visit_leaves<'t>(&'t self, topic: &TopicName, mut visit: impl FnMut(&'t Leaf<V>)) {
        // Each step takes one node and adds at most two, one level deeper: on the heap only past 16 levels.
        let mut open: SmallVec<[(usize, Option<&str>); 16]> = SmallVec::new();
        open.push((ROOT, Some(topic.as_str())));
        while let Some((at, rest)) = open.pop() {
            let node = &self.nodes[at];
            // A wildcard in the first level matches no name that starts with `$` (MQTT 5 §4.7.2).
            let wildcards = at != ROOT || !topic.is_system();
            if let Some(leaf) = node.below.as_deref().filter(|_| wildcards) {
                visit(leaf);
            }
            let Some(rest) = rest else {
                node.here.as_deref().into_iter().for_each(&mut visit);
                continue;
            };
            let (level, rest) = rest.split_once('/').map_or((rest, None), |(level, rest)| (level, Some(rest)));
            if let Some(child) = node.single_level.filter(|_| wildcards) {
                open.push((child, rest));
            }
            if let Some(&child) = node.literals.get(level) {
                open.push((child, rest));
            }
        }
    }

    fn add_child(&mut self, parent: usize, level: &str) -> usize {
        // A freed node is an empty one.
        let child = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node::new());
            self.nodes.len() - 1
        });
        let node = &mut self.nodes[parent];
        if level == "+" {
            node.single_level = Some(child);
        } else {
            node.literals.insert(level.into(), child);
        }
        child
    }
}

// A running router only asks for the order: its table is built once and replaced as a whole.
#[cfg_attr(not(test), expect(dead_code, reason = "for subscriptions that change while the daemon runs"))]
impl<V> Trie<V> {
    /// Takes the first equal value away from a filter and gives it back. The memory of levels that lead nowhere any more is
    /// kept for later filters.
    pub fn remove(&mut self, filter: &TopicFilter, value: &V) -> Option<V>
    where
        V: PartialEq,
    {
        let mut at = ROOT;
        let mut path = Vec::new();
        for level in node_levels(filter) {
            path.push((at, level));
            at = self.nodes[at].child(level)?;
        }
        let leaf = self.nodes[at].leaf_mut(filter);
        let values = &mut leaf.as_mut()?.values;
        let removed = values.remove(values.iter().position(|kept| kept == value)?);
        if values.is_empty() {
            *leaf = None;
        }
        while let Some((parent, level)) = path.pop()
            && self.nodes[at].is_empty()
        {
            self.remove_child(parent, level);
            self.free.push(at);
            at = parent;
        }
        Some(removed)
    }

    /// Visits every value of every matching filter: the values of one filter in the order of insertion, the filters in no
    /// particular order.
    pub fn matches<'t>(&'t self, topic: &TopicName, mut visit: impl FnMut(&'t V)) {
        self.visit_leaves(topic, |leaf| leaf.values.iter().for_each(&mut visit));
    }

    /// The value of the best-ranked matching filter, the first inserted of several.
    pub fn best(&self, topic: &TopicName) -> Option<&V> {
        let mut best: Option<&Leaf<V>> = None;
        self.visit_leaves(topic, |leaf| {
            if best.is_none_or(|best| leaf.rank < best.rank) {
                best = Some(leaf);
            }
        });
        best.and_then(|leaf| leaf.values.first())
    }

    fn remove_child(&mut self, parent: usize, level: &str) {
        let node = &mut self.nodes[parent];
        if level == "+" {
            node.single_level = None;
        } else {
            node.literals.remove(level);
        }
    }
}

impl<V> Default for Trie<V> {
    fn default() -> Trie<V> {
        Trie::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic::name::MAX_BYTES;
    use crate::topic::testing::{filter, filter_text, naive_match, name, name_text};

    fn trie(filters: &[&'static str]) -> Trie<&'static str> {
        let mut trie = Trie::new();
        filters.iter().for_each(|text| trie.insert(&filter(text), *text));
        trie
    }

    #[track_caller]
    fn check(filters: &[&'static str], topic: &str, expected: &[&str]) {
        let trie = trie(filters);
        let ranked: Vec<&str> = trie.ranked(&name(topic)).into_iter().copied().collect();
        assert_eq!(ranked, expected, "{topic}");
        assert_eq!(trie.best(&name(topic)).copied(), expected.first().copied(), "{topic}");
        let mut visited = Vec::new();
        trie.matches(&name(topic), |value| visited.push(*value));
        visited.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(visited, expected, "{topic}");
    }

    #[test]
    fn the_contracts_four_topics_go_to_their_best_filter() {
        let filters = ["some/sort/of/topic", "some/#", "some/sort/of/+", "some/thing/#"];
        check(&filters, "some/sort/of/topic", &["some/sort/of/topic", "some/sort/of/+", "some/#"]);
        check(&filters, "some/sort/of/thing", &["some/sort/of/+", "some/#"]);
        check(&filters, "some/name", &["some/#"]);
        check(&filters, "some/thing/else", &["some/thing/#", "some/#"]);
    }

    #[test]
    fn hash_matches_its_parent_level() {
        check(&["a/#", "a", "a/+"], "a", &["a", "a/#"]);
        check(&["+/#", "#"], "a", &["+/#", "#"]);
    }

    #[test]
    fn wildcards_do_not_match_system_topics_at_the_first_level() {
        check(&["#", "+/x", "+/#", "$SYS/#", "$SYS/+"], "$SYS/x", &["$SYS/+", "$SYS/#"]);
        check(&["a/+", "a/#", "#"], "a/$SYS", &["a/+", "a/#", "#"]);
    }

    #[test]
    fn empty_levels_are_levels() {
        check(&["/", "+/+", "/+", "+", "a", "//", "/#"], "/", &["/", "/+", "+/+", "/#"]);
        check(&["a//b", "a/+/b", "a/b"], "a//b", &["a//b", "a/+/b"]);
    }

    #[test]
    fn values_of_one_filter_keep_their_order() {
        let mut trie = Trie::new();
        for value in [3, 1, 2] {
            trie.insert(&filter("a/+"), value);
        }
        trie.insert(&filter("$share/g/a/+"), 0);
        let ranked = |trie: &Trie<i32>| trie.ranked(&name("a/b")).into_iter().copied().collect::<Vec<_>>();
        assert_eq!(ranked(&trie), [3, 1, 2, 0]);
        assert_eq!(trie.remove(&filter("a/+"), &1), Some(1));
        assert_eq!(ranked(&trie), [3, 2, 0]);
        assert_eq!(trie.remove(&filter("a/+"), &1), None);
        assert_eq!(trie.remove(&filter("a/#"), &2), None);
        assert_eq!(trie.remove(&filter("b"), &2), None);
    }

    #[test]
    fn removing_leaves_no_nodes_behind_and_reuses_them() {
        let mut trie = trie(&["a/b/c", "a/b/+", "a/#"]);
        let nodes = trie.nodes.len();
        for text in ["a/b/c", "a/b/+", "a/#"] {
            assert_eq!(trie.remove(&filter(text), &text), Some(text));
        }
        assert!(trie.nodes[ROOT].is_empty());
        assert_eq!(trie.free.len(), nodes - 1);
        trie.insert(&filter("x/y/z/+"), "x/y/z/+");
        assert_eq!(trie.nodes.len(), nodes);
        assert_eq!(trie.best(&name("x/y/z/w")), Some(&"x/y/z/+"));
    }

    /// On a stack as small as a test thread's this fails at once if anything recurses by level.
    #[test]
    fn the_deepest_topic_overflows_no_stack() {
        let deepest = "/".repeat(MAX_BYTES);
        let pluses = format!("{}+", "+/".repeat(MAX_BYTES / 2));
        let mut trie = Trie::new();
        trie.insert(&filter(&deepest), 1);
        trie.insert(&filter(&pluses), 2);
        trie.insert(&filter("#"), 3);
        assert_eq!(trie.ranked(&name(&deepest)).as_slice(), [&1, &3]);
        assert_eq!(trie.remove(&filter(&deepest), &1), Some(1));
        assert_eq!(trie.ranked(&name(&"/".repeat(MAX_BYTES / 2))).as_slice(), [&2, &3]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(String),
        /// The place in the model of what to remove, modulo its length.
        Remove(usize),
        RemoveAbsent(String),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => filter_text().prop_map(Step::Insert),
            3 => any::<usize>().prop_map(Step::Remove),
            1 => filter_text().prop_map(Step::RemoveAbsent),
        ];
        prop::collection::vec(step, 1..40)
    }

    proptest! {
        #[test]
        fn any_history_finds_what_a_list_finds(
            steps in steps(), topics in prop::collection::vec(name_text(), 1..8)
        ) {
            let mut trie = Trie::new();
            let mut model: Vec<(String, usize)> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(text) => {
                        trie.insert(&filter(&text), number);
                        model.push((text, number));
                    }
                    Step::Remove(place) if !model.is_empty() => {
                        let (text, value) = model.remove(place % model.len());
                        prop_assert_eq!(trie.remove(&filter(&text), &value), Some(value));
                    }
                    Step::Remove(_) => {}
                    Step::RemoveAbsent(text) => prop_assert_eq!(trie.remove(&filter(&text), &number), None),
                }
                for topic in &topics {
                    let mut expected: Vec<&(String, usize)> =
                        model.iter().filter(|(text, _)| naive_match(text, topic)).collect();
                    expected.sort_by_key(|(text, _)| Rank::of(&filter(text)));
                    let expected: Vec<usize> = expected.into_iter().map(|(_, value)| *value).collect();
                    let ranked: Vec<usize> = trie.ranked(&name(topic)).into_iter().copied().collect();
                    prop_assert_eq!(&ranked, &expected);
                    prop_assert_eq!(trie.best(&name(topic)), expected.first());
                    let mut visited = Vec::new();
                    trie.matches(&name(topic), |value| visited.push(*value));
                    visited.sort_unstable();
                    let mut expected = expected;
                    expected.sort_unstable();
                    prop_assert_eq!(visited, expected);
                }
            }
            for (text, value) in model {
                prop_assert_eq!(trie.remove(&filter(&text), &value), Some(value));
            }
            prop_assert!(trie.nodes[ROOT].is_empty());
            prop_assert_eq!(trie.free.len(), trie.nodes.len() - 1);
        }
    }
}
