//! "Did you mean": the known word that is nearest to a mistyped one.

/// The candidate nearest to `word`, if it is near enough to be meant: a third of its characters may differ.
///
/// A swap of neighbours counts as one difference, since it is the commonest slip.
pub(in crate::control) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().replace('_', "-").chars().collect();
    let (distance, best) = candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.chars().collect::<Vec<_>>()), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= best.chars().count().div_ceil(3)).then_some(best)
}

/// Optimal string alignment distance: insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before_at(&before, j - 2) + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

fn before_at(row: &[usize], place: usize) -> usize {
    row.get(place).copied().expect("two rows exist once two characters are compared")
}

/// Words as a list for people: `"a", "b" or "c"`.
pub(super) fn either<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let check = |word: &str, expected: Option<&str>| {
            assert_eq!(nearest(word, ["port", "protocol", "keep-alive", "client-id"]), expected, "{word}");
        };
        check("prot", Some("port"));
        check("protcol", Some("protocol"));
        check("keep_alive", Some("keep-alive"));
        check("clientid", Some("client-id"));
        check("Port", Some("port"));
        check("share", None);
        check("", None);
    }

    #[test]
    fn distances() {
        let check = |a: &str, b: &str, expected: usize| {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            assert_eq!(distance(&chars(a), &chars(b)), expected, "{a} {b}");
        };
        check("", "", 0);
        check("abc", "", 3);
        check("kitten", "sitting", 3);
        check("ab", "ba", 1);
        check("cba", "abc", 2);
    }

    #[test]
    fn lists_for_people() {
        let check = |words: &[&str], expected: &str| assert_eq!(either(words.iter().copied()), expected);
        check(&[], "");
        check(&["a"], "\"a\"");
        check(&["a", "b", "c"], "\"a\", \"b\" or \"c\"");
    }
}
