//! The guided tour in `docs/operate.md`: every command of it runs, in its order, and prints what the page says.

use std::fs;
use std::path::Path;
use std::process::Command;

use regex::Regex;
use tidegate_tests::daemon::binary;
use tidegate_tests::process::Process;
use tidegate_tests::{Home, Mosquitto, wait};

/// The port that the page uses, a broker's usual one.
const PORT: &str = "1883";

/// Commands that change nothing.
const LOOKS: [&str; 5] = [
    "grep ",
    "tidegate recv list",
    "tidegate subscriptions list",
    "tidegate handlers list",
    "tidegate dead-letters list",
];

/// A command of the page and the lines that it prints.
struct Example {
    command: String,
    prints: Vec<String>,
}

/// The commands of all `console` blocks, in their order.
fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(language) => inside = !inside && language == "console",
            None if !inside => {}
            None => match line.strip_prefix("$ ") {
                Some(command) => examples.push(Example { command: command.to_owned(), prints: Vec::new() }),
                None => examples.last_mut().expect("output follows a command").prints.push(line.to_owned()),
            },
        }
    }
    examples
}

/// What differs from run to run becomes the same: times, durations, and the widths that follow from them.
struct Normal(Vec<(Regex, &'static str)>);

impl Normal {
    fn new() -> Normal {
        let rules = [
            (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
            (r"for \d+m?s\b", "for N s"),
            (r"in \d+ ms", "in N ms"),
            // A plugin's version: it is built anew.
            (r"\b[0-9a-f]{12}\b", "VERSION"),
            (r"[ \t]+", " "),
        ];
        Normal(rules.map(|(pattern, word)| (Regex::new(pattern).expect("valid"), word)).into())
    }

    fn line(&self, line: &str) -> String {
        let replaced =
            self.0.iter().fold(line.to_owned(), |line, (pattern, word)| pattern.replace_all(&line, *word).into());
        replaced.trim_end().to_owned()
    }
}

fn shell(home: &Home, command: &str) -> Command {
    let path = std::env::var("PATH").expect("there is one");
    let binary = binary();
    let folder = binary.parent().map(Path::display).expect("is in a folder");
    let mut shell = Command::new("bash");
    shell.args(["-c", command]).current_dir(home.path()).env("PATH", format!("{folder}:{path}")).env("NO_COLOR", "1");
    shell
}

#[test]
fn every_command_of_the_guide_prints_what_the_guide_says() {
    let mosquitto = Mosquitto::start();
    let home = Home::empty();
    home.plugin("celsius.wasm");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operate.md");
    let page = fs::read_to_string(page).expect("the guide is there");
    let examples = examples(&page);
    assert!(examples.len() > 30, "the guide has {} commands", examples.len());
    let (normal, port) = (Normal::new(), mosquitto.port().to_string());
    let (mut daemons, mut untrue) = (Vec::new(), Vec::new());
    for Example { command, prints } in examples {
        let command = command.replace(PORT, &port);
        if let Some(daemon) = command.strip_suffix(" &") {
            // The shell becomes the daemon, which so ends with its owner.
            daemons.push(Process::start("tidegate", &mut shell(&home, &format!("exec {daemon}"))));
            wait::until_true("the daemon answers", || {
                shell(&home, "tidegate status").output().expect("runs").status.success()
            });
            continue;
        }
        let expected: Vec<String> = prints.iter().map(|line| normal.line(&line.replace(PORT, &port))).collect();
        let run = || {
            let output = shell(&home, &format!("exec 2>&1; {command}")).output().expect("there is a shell");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let found: Vec<String> = text.lines().map(|line| normal.line(line)).collect();
            if found == expected { Ok(()) } else { Err(format!("prints:\n{text}in place of:\n{}", prints.join("\n"))) }
        };
        // A message takes a moment from the broker back to here: who only looks may look again.
        if LOOKS.iter().any(|look| command.starts_with(look)) {
            wait::until(format!("$ {command}"), run);
        } else {
            untrue.extend(run().err().map(|found| format!("$ {command}\n{found}")));
        }
    }
    assert!(untrue.is_empty(), "{}", untrue.join("\n\n"));
    assert_eq!(daemons.len(), 1, "the guide starts the daemon once");
}
