//! Errors as one line for people: what the command line, the HTTP API and the log tell of them.

use std::error::Error;

/// Errors of plugins that are told of one start or reload, at most: each may be as long as a guest's words.
const MOST_TOLD: usize = 10;

/// The first lines of many, and how many more there are.
pub fn first_of(lines: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let more = lines.len().saturating_sub(MOST_TOLD);
    let more = (more > 0).then(|| format!("and {more} more"));
    lines.take(MOST_TOLD).chain(more).collect()
}

/// An error and its causes, in one line.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_of_many_are_told_and_how_many_more_there_are() {
        let lines = |count: usize| (0..count).map(|n| n.to_string());
        for few in [0, 1, 10] {
            assert_eq!(first_of(lines(few)), lines(few).collect::<Vec<_>>());
        }
        for (many, more) in [(11, 1), (1_000, 990)] {
            let told = first_of(lines(many));
            assert_eq!(told[..10], lines(10).collect::<Vec<_>>());
            assert_eq!(told[10..], [format!("and {more} more")]);
        }
    }
}
