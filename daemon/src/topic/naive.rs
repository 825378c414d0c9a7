//! A matcher that has no code in common with the real one: what tests and fuzzing hold that against.
//!
//! Nothing in the daemon uses it. It recurses by level, which is why it never could.

/// MQTT 5 §4.7 as written down by somebody who has never seen `filter.rs`.
pub fn naive_match(filter: &str, topic: &str) -> bool {
    fn levels(filter: &[&str], topic: &[&str]) -> bool {
        match filter {
            ["#"] => true,
            [] => topic.is_empty(),
            ["+", filter @ ..] => !topic.is_empty() && levels(filter, &topic[1..]),
            [literal, filter @ ..] => topic.first() == Some(literal) && levels(filter, &topic[1..]),
        }
    }
    let filter = match filter.strip_prefix("$share/") {
        Some(shared) => shared.splitn(2, '/').last().unwrap_or_default(),
        None => filter,
    };
    let filter: Vec<&str> = filter.split('/').collect();
    if topic.starts_with('$') && matches!(filter[0], "+" | "#") {
        return false;
    }
    levels(&filter, &topic.split('/').collect::<Vec<_>>())
}
