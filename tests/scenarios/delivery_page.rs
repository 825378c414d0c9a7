//! The tables in `docs/delivery.md`: each tells of every state that a message can be in, and each of its cells names tests that
//! are there and run each time.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The heading of the tables that tell what becomes of a message.
const HEADING: [&str; 3] = ["in whose hands", "what becomes of it", "held by"];

/// A table, with the heading of its section.
struct Table {
    section: String,
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page() -> String {
    fs::read_to_string(repository().join("docs/delivery.md")).expect("the page is there")
}

fn tables(page: &str) -> Vec<Table> {
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let (mut tables, mut section, mut inside): (Vec<Table>, _, _) = (Vec::new(), String::new(), false);
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            heading.clone_into(&mut section);
        }
        match (line.starts_with('|'), inside) {
            (true, false) => tables.push(Table { section: section.clone(), heading: cells(line), rows: Vec::new() }),
            (true, true) if !line.starts_with("|---") => tables.last_mut().expect("has begun").rows.push(cells(line)),
            _ => {}
        }
        inside = line.starts_with('|');
    }
    tables
}

/// What stands between backquotes and has the form of a test's name.
fn tests_named(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|word| word.contains("::"))
}

/// The names that the program of the scenarios lists when it is asked for these.
fn listed(which: &[&str]) -> BTreeSet<String> {
    let program = env::current_exe().expect("it runs");
    let listed = Command::new(program).args(["--list", "--format", "terse"]).args(which).output().expect("it runs");
    let listed = String::from_utf8(listed.stdout).expect("names are UTF-8");
    listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// The names of the scenarios that run each time, each also without the protocol or broker that it runs on.
fn scenarios() -> BTreeSet<String> {
    let (all, ignored) = (listed(&[]), listed(&["--ignored"]));
    assert!(!ignored.is_empty() && ignored.is_subset(&all), "the long ones are told apart");
    let names = all.difference(&ignored).cloned();
    names
        .flat_map(|name| {
            let promise = name.rsplit_once("::on_").map(|(promise, _)| promise.to_owned());
            promise.into_iter().chain([name])
        })
        .collect()
}

/// Whether a file of the daemon has this test, and it is not left out.
fn is_test_of_the_daemon(name: &str) -> bool {
    let Some((file, test)) = name.split_once("::") else { return false };
    let Ok(text) = fs::read_to_string(repository().join("daemon/src").join(file)) else { return false };
    let mut attributes = text.lines().zip(text.lines().skip(1));
    attributes.any(|(attribute, function)| {
        let is_test = ["#[test]", "#[tokio::test"].iter().any(|test| attribute.trim_start().starts_with(test));
        is_test && function.trim_start().trim_start_matches("async ").starts_with(&format!("fn {test}("))
    })
}

#[test]
fn each_test_that_the_page_names_is_there() {
    let (page, scenarios) = (page(), scenarios());
    assert!(scenarios.contains("delivery_page::each_test_that_the_page_names_is_there"), "the list is read");
    let named: BTreeSet<&str> = tests_named(&page).filter(|name| *name != "file::test").collect();
    assert!(named.len() > 50, "{} tests are named", named.len());
    let missing: Vec<_> =
        named.into_iter().filter(|name| !scenarios.contains(*name) && !is_test_of_the_daemon(name)).collect();
    assert!(missing.is_empty(), "docs/delivery.md names tests that are not there: {missing:#?}");
}

#[test]
fn each_table_tells_of_every_state_and_each_cell_has_a_test() {
    let tables = tables(&page());
    let states = tables.iter().find(|table| table.heading[0] == "state").expect("the states are told");
    let states: BTreeSet<&str> = states.rows.iter().map(|row| row[0].trim_matches('*')).collect();
    assert_eq!(states.len(), 7);
    let events: Vec<_> = tables.iter().filter(|table| table.heading == HEADING).collect();
    assert!(events.len() > 12, "{} events", events.len());
    for Table { section, rows, .. } in events {
        let told: Vec<&str> = rows.iter().flat_map(|row| row[0].split(", ")).collect();
        assert_eq!(told.iter().copied().collect::<BTreeSet<_>>(), states, "{section}");
        assert_eq!(told.len(), states.len(), "{section}: a state is told twice");
        for row in rows {
            assert!(row.len() == 3 && row[1].ends_with('.'), "{section}: no sentence: {row:?}");
            assert!(tests_named(&row[2]).next().is_some(), "{section}: no test holds {row:?}");
        }
    }
}
