//! The order of rank: which of several filters that match a topic name is the best.
//!
//! Owns: the order, precomputed for one filter, and its reason in plain words. Fed by filters; used by the trie to sort
//! what it finds, and by whatever tells people why a subscription won.

use std::cmp::Reverse;
use std::fmt;

use smallvec::SmallVec;

use super::TopicFilter;

/// Levels that one word of the mask of literal levels holds.
const WORD: usize = u64::BITS as usize;

/// The rank of a topic filter; **the smallest is the best**.
///
/// 1. No wildcard.
/// 2. `+` only: more literal levels are better, then the one whose first differing level is literal.
/// 3. Ends in `#`: more levels before it are better, then as in 2.
///
/// The share of a shared subscription does not count.
///
/// Two different filters that match the same topic name never rank alike. Filters that can match no common name may.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    // The order of the fields is the order of comparison.
    class: Class,
    /// Levels before `#`; zero in the other classes, where the number of levels does not count.
    before_hash: Reverse<u32>,
    /// Literal levels; zero without a wildcard.
    literals: Reverse<u32>,
    /// A bit for each level before `#`, the first level in the highest bit, set for a literal one: where two masks first
    /// differ, the greater has the literal. Empty without a wildcard. On the heap only past 128 levels.
    literal_levels: Reverse<SmallVec<[u64; 2]>>,
}

/// The coarse order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    NoWildcard,
    SingleLevel,
    MultiLevel,
}

impl Rank {
    /// The rank of this filter.
    pub fn of(filter: &TopicFilter) -> Rank {
        let mut class = Class::NoWildcard;
        let (mut levels, mut literals) = (0, 0);
        let mut mask = SmallVec::new();
        for level in filter.levels() {
            if level == "#" {
                class = Class::MultiLevel;
                break;
            }
            if levels % WORD == 0 {
                mask.push(0);
            }
            if level == "+" {
                class = Class::SingleLevel;
            } else {
                mask[levels / WORD] |= 1 << (WORD - 1 - levels % WORD);
                literals += 1;
            }
            levels += 1;
        }
        let before_hash = u32::try_from(levels).expect("a filter has at most 65,536 levels");
        let (before_hash, literals, mask) = match class {
            Class::NoWildcard => (0, 0, SmallVec::new()),
            Class::SingleLevel => (0, literals, mask),
            Class::MultiLevel => (before_hash, literals, mask),
        };
        Rank { class, before_hash: Reverse(before_hash), literals: Reverse(literals), literal_levels: Reverse(mask) }
    }

    /// The number of the first level that is a `+`, counted from 1, in a filter that has one.
    fn first_single_level(&self) -> u32 {
        let mut number = 1;
        for word in &self.literal_levels.0 {
            number += word.leading_ones();
            if *word != u64::MAX {
                break;
            }
        }
        number
    }
}

/// Everything that the order looks at, in plain words.
impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: u32| if count == 1 { "level" } else { "levels" };
        let Reverse(literals) = self.literals;
        match (self.class, self.before_hash) {
            (Class::NoWildcard, _) => f.write_str("no wildcard"),
            (Class::SingleLevel, _) => {
                let first = self.first_single_level();
                write!(f, "+ only, {literals} literal {}, the first + at level {first}", plural(literals))
            }
            (Class::MultiLevel, Reverse(before)) => {
                write!(f, "ends in #, {before} {} before it", plural(before))?;
                if literals < before {
                    write!(f, ", {literals} of them literal, the first + at level {}", self.first_single_level())?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;
    use crate::topic::testing::{filter, filter_text, name, name_with_two_filters};

    #[track_caller]
    fn check(better: &str, worse: &str) {
        let (better, worse) = (Rank::of(&filter(better)), Rank::of(&filter(worse)));
        assert_eq!(better.cmp(&worse), Ordering::Less, "{better:?} {worse:?}");
        assert_eq!(worse.cmp(&better), Ordering::Greater);
    }

    #[test]
    fn the_order_is_that_of_the_contract() {
        check("a", "+");
        check("a/b", "a/#");
        check("+/+", "a/b/#");
        check("a/b/+", "a/+/+");
        check("+/b/c", "a/+/+");
        check("a/+", "+/b");
        check("a/+/c/d/+", "a/+/c/+/e");
        check("+/+/#", "a/#");
        check("a/#", "#");
        check("+/#", "#");
        check("a/+/#", "+/b/#");
        check("a/b/#", "a/+/#");
    }

    #[test]
    fn the_order_holds_past_one_word_of_the_mask() {
        for at in [62, 63, 64, 65, 127, 128, 200] {
            let with_single_at = |at: usize| {
                let level = |place| if place == at { "+" } else { "a" };
                (0..260).map(level).collect::<Vec<_>>().join("/")
            };
            check(&with_single_at(at + 1), &with_single_at(at));
            assert_eq!(
                Rank::of(&filter(&with_single_at(at))).to_string(),
                format!("+ only, 259 literal levels, the first + at level {}", at + 1)
            );
        }
    }

    #[test]
    fn a_filter_of_ordinary_depth_needs_no_heap() {
        let Reverse(mask) = Rank::of(&filter(&format!("{}+", "a/".repeat(127)))).literal_levels;
        assert!(!mask.spilled());
    }

    #[test]
    fn the_share_does_not_count() {
        assert_eq!(Rank::of(&filter("$share/g/a/+")), Rank::of(&filter("a/+")));
    }

    #[test]
    fn the_reason_is_in_plain_words() {
        for (text, reason) in [
            ("a/b", "no wildcard"),
            ("a/b/+", "+ only, 2 literal levels, the first + at level 3"),
            ("+/b", "+ only, 1 literal level, the first + at level 1"),
            ("a/b/#", "ends in #, 2 levels before it"),
            ("a/+/#", "ends in #, 2 levels before it, 1 of them literal, the first + at level 2"),
            ("#", "ends in #, 0 levels before it"),
        ] {
            assert_eq!(Rank::of(&filter(text)).to_string(), reason);
        }
    }

    /// The contract's text, taken literally, on two filters that match a common name.
    fn by_the_text(a: &str, b: &str) -> Ordering {
        let levels = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
        let (a, b) = (levels(a), levels(b));
        let has = |levels: &[String], wildcard: &str| levels.iter().any(|level| level == wildcard);
        let class = |levels: &[String]| if has(levels, "#") { 3 } else { 1 + u8::from(has(levels, "+")) };
        let literals = |levels: &[String]| levels.iter().filter(|level| *level != "+" && *level != "#").count();
        let more_levels = if class(&a) == 3 { b.len().cmp(&a.len()) } else { Ordering::Equal };
        let first_difference = a.iter().zip(&b).find(|(a, b)| a != b);
        class(&a).cmp(&class(&b)).then(more_levels).then(literals(&b).cmp(&literals(&a))).then(match first_difference {
            Some((a, _)) if a == "+" => Ordering::Greater,
            Some(_) => Ordering::Less,
            None => Ordering::Equal,
        })
    }

    proptest! {
        #[test]
        fn filters_of_one_name_are_strictly_ordered_by_the_text(
            (topic, [a, b]) in name_with_two_filters()
        ) {
            let (a, b) = (filter(&a), filter(&b));
            prop_assert!(a.matches(&name(&topic)) && b.matches(&name(&topic)));
            let found = Rank::of(&a).cmp(&Rank::of(&b));
            prop_assert_eq!(found, by_the_text(a.unshared(), b.unshared()));
            prop_assert_eq!(found == Ordering::Equal, a.unshared() == b.unshared());
        }

        #[test]
        fn the_order_is_total(a in filter_text(), b in filter_text(), c in filter_text()) {
            let [a, b, c] = [a, b, c].map(|text| Rank::of(&filter(&text)));
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a.cmp(&b) == Ordering::Equal, a == b);
            prop_assert!(!(a <= b && b <= c) || a <= c);
        }
    }
}
