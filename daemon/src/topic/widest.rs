//! Which of many topic filters no other one covers.
//!
//! Pure. Used by the sessions, which subscribe to no more than these, and by the configuration, which tells where they
//! still overlap.

use super::TopicFilter;

/// For each of these different filters whether no other one covers it; shared ones stand apart. Of filters that say the
/// same in other words (`#` and `+/#`) only the first by text is one.
pub fn widest(filters: &[&TopicFilter]) -> Vec<bool> {
    // Without a wildcard a filter covers none but itself.
    let wide = |filter: &&&TopicFilter| filter.share().is_none() && filter.has_wildcard();
    let wide: Vec<&TopicFilter> = filters.iter().filter(wide).copied().collect();
    let absorbs = |a: &TopicFilter, b: &TopicFilter| a != b && a.covers(b) && (a < b || !b.covers(a));
    filters.iter().map(|filter| filter.share().is_some() || !wide.iter().any(|other| absorbs(other, filter))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::testing::filter;

    #[test]
    fn shares_and_equal_meanings_are_told_apart() {
        let filters = ["$share/g/a/+", "#", "+/#", "$SYS/+", "a/b"].map(filter);
        assert_eq!(widest(&filters.each_ref()), [true, true, false, true, false]);
    }
}
