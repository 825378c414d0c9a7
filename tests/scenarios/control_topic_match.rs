//! `tidegate topic match`: the answer is the exit code, with the reason.

use tidegate_tests::Home;

#[track_caller]
fn check(filter: &str, topic: &str, code: i32, words: &str) {
    let ran = Home::empty().run(&["topic", "match", filter, topic]);
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert!(ran.text().contains(words), "{ran:?}");
}

#[test]
fn a_match_is_0_and_tells_what_the_wildcards_took() {
    check("sensors/+/temperature", "sensors/hall/temperature", 0, "\"hall\"");
    check("sensors/#", "sensors", 0, "match");
}

#[test]
fn a_mismatch_is_1_and_tells_where() {
    check("sensors/+", "sensors/hall/temperature", 1, "no match");
    check("#", "$SYS/broker", 1, "'$'");
}

#[test]
fn what_is_not_valid_is_2_and_named() {
    check("a/#/b", "a/b", 2, "'#' must be the last level");
    check("a/b", "a/+", 2, "the topic");
}
