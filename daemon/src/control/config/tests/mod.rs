//! What the configuration answers to good and bad files: each error with its exact message.
//!
//! The lists in `daemon`, `broker`, `transport`, `subscription`, `handler`, `capacity`, `dead_letter` and `syntax` are part of the
//! product's specification.

mod added;
mod broker;
mod capacity;
mod daemon;
mod dead_letter;
mod examples;
mod files;
mod handler;
mod model;
mod reference;
mod schedule;
mod subscription;
mod syntax;
mod transport;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// The environment of these tests: what a variable stands for must never show in a problem.
fn variable(name: &str) -> Option<OsString> {
    match name {
        "SITE" => Some("north".into()),
        "NUMBER" => Some("1234".into()),
        "BAD_FILTER" => Some("hidden/#/x".into()),
        "BAD_LEVEL" => Some("hidden+".into()),
        "SHARED" => Some("$share/hidden/a".into()),
        "SECRET" | "TIDEGATE_REFERENCE_PASSWORD" => Some("hunter2".into()),
        "NOT_UTF8" => Some(OsString::from_vec(vec![0xff])),
        _ => None,
    }
}

fn assemble_with(variable: fn(&str) -> Option<OsString>, files: &[SourceFile]) -> Result<Loaded, Problems> {
    let environment =
        Environment { variable, hostname: "host".into(), parallelism: NonZeroUsize::new(2).expect("not zero") };
    let nothing_added = |state_dir: &Path| Ok(SourceFile::runtime(state_dir.join("runtime.toml"), ""));
    assemble(files, nothing_added, &environment, &BrokerNames::default())
}

fn assemble_text(toml: &str) -> Result<Loaded, Problems> {
    assemble_with(variable, &[SourceFile::new("tidegate.toml", toml)])
}

/// Writes a file that only its owner may read.
fn private(file: &Path, content: &str) {
    std::fs::write(file, content).expect("writes");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).expect("is ours");
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(Problem::to_string).collect()
}

/// No errors.
const NONE: &[&str] = &[];

/// A file's errors are exactly these; none is a good file.
#[track_caller]
fn check<E: AsRef<str>>(toml: &str, expected: &[E]) {
    let found = assemble_text(toml).err().map(|problems| lines(&problems.errors)).unwrap_or_default();
    let expected: Vec<&str> = expected.iter().map(AsRef::as_ref).collect();
    assert_eq!(found, expected, "{toml}");
}

/// A good file's warnings are exactly these.
#[track_caller]
fn check_warnings(toml: &str, expected: &[&str]) {
    assert_eq!(lines(&good(toml).warnings), expected, "{toml}");
}

/// Loads a good file.
#[track_caller]
fn good(toml: &str) -> Loaded {
    assemble_text(toml).unwrap_or_else(|problems| panic!("{toml}\n{problems}"))
}

/// Checks keys at the top of a file: line 1.
#[track_caller]
fn root<E: AsRef<str>>(keys: &str, expected: &[E]) {
    check(&format!("{keys}\n[brokers.plant]\naddress = \"mqtt.example\"\n"), expected);
}

/// Checks further keys of a broker: line 3.
#[track_caller]
fn broker<E: AsRef<str>>(keys: &str, expected: &[E]) {
    check(&format!("[brokers.plant]\naddress = \"mqtt.example\"\n{keys}\n"), expected);
}

/// Checks an address.
#[track_caller]
fn address<E: AsRef<str>>(address: &str, expected: &[E]) {
    check(&format!("[brokers.plant]\naddress = \"{address}\"\n"), expected);
}

/// The head of files that have a broker `plant` and a handler `celsius`, four lines.
const BROKER_AND_HANDLER: &str =
    "[brokers.plant]\naddress = \"mqtt.example\"\n[handlers.celsius]\nplugin = \"celsius.wasm\"\n";

/// Checks further keys of a subscription: line 8.
#[track_caller]
fn subscription<E: AsRef<str>>(keys: &str, expected: &[E]) {
    let subscription = "[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a/b\"\n";
    check(&format!("{BROKER_AND_HANDLER}{subscription}{keys}\n"), expected);
}

/// Checks the topic of a subscription.
#[track_caller]
fn topic<E: AsRef<str>>(topic: &str, expected: &[E]) {
    let subscription = "[[subscriptions]]\nbroker = \"plant\"\n";
    check(&format!("[brokers.plant]\naddress = \"a\"\n{subscription}topic = \"{topic}\"\n"), expected);
}

/// Checks further keys of a handler: line 5.
#[track_caller]
fn handler<E: AsRef<str>>(keys: &str, expected: &[E]) {
    check(&format!("{BROKER_AND_HANDLER}{keys}\n"), expected);
}

/// Checks the plugin of a handler.
#[track_caller]
fn plugin<E: AsRef<str>>(plugin: &str, expected: &[E]) {
    check(&format!("[brokers.plant]\naddress = \"a\"\n[handlers.celsius]\nplugin = \"{plugin}\"\n"), expected);
}
