//! Runs a command line of the operator against a scripted daemon.

use clap::Parser;
use serde_json::Value;

use super::Operator;
use crate::cli::client::testing::{Asked, Scripted, ScriptedDaemon};
use crate::cli::console::Console;
use crate::cli::table::Look;

#[derive(Parser)]
#[command(name = "tidegate")]
struct Line {
    #[command(subcommand)]
    command: Operator,
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: u8,
    pub output: String,
    pub notices: String,
}

/// Runs words with an input; a command line that cannot be parsed ends as `main` would, with 2.
pub fn run<'a>(words: impl IntoIterator<Item = &'a str>, mut input: &[u8], socket: &std::path::Path) -> Ran {
    let line = match Line::try_parse_from(std::iter::once("tidegate").chain(words)) {
        Ok(line) => line,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).expect("a small one");
            return Ran { code, output: String::new(), notices: error.to_string() };
        }
    };
    let (mut output, mut notices) = (Vec::new(), Vec::new());
    let environment = |name: &str| (name == "TIDEGATE_SOCKET").then(|| socket.as_os_str().to_owned());
    let mut console = Console {
        input: &mut input,
        output: &mut output,
        notices: &mut notices,
        look: Look::default(),
        environment: &environment,
    };
    let code = line.command.run_on(&mut console);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran { code, output: text(output), notices: text(notices) }
}

/// Runs words that are separated by blanks against a daemon with these answers.
pub fn run_against(arguments: &str, input: &[u8], answers: Vec<Scripted>) -> (Ran, Vec<Asked>) {
    let daemon = ScriptedDaemon::start(answers);
    let ran = run(arguments.split(' '), input, &daemon.socket());
    (ran, daemon.asked())
}

/// Checks what a command line asks for, of a daemon that answers with nothing.
#[track_caller]
pub fn check_request(arguments: &str, input: &[u8], line: &str, body: Value) {
    let (ran, asked) = run_against(arguments, input, vec![Scripted::problem("404 Not Found", "scripted", "")]);
    assert_eq!(ran.code, 4, "{arguments}: {ran:?}");
    assert_eq!((asked[0].line.as_str(), &asked[0].body), (line, &body), "{arguments}");
}

/// Checks that a command line is refused before anything is sent: nobody listens.
#[track_caller]
pub fn check_refused(arguments: &str, code: u8, reason: &str) {
    let ran = run(arguments.split(' '), b"", std::path::Path::new("/nonexistent/admin.sock"));
    assert_eq!(ran.code, code, "{arguments}: {ran:?}");
    assert!(ran.notices.contains(reason), "{arguments}: {ran:?}");
}

/// Checks what is shown for an answer.
#[track_caller]
pub fn check_shown(arguments: &str, answer: &Value, output: &str) {
    let (ran, _) = run_against(arguments, b"", vec![Scripted::json(answer)]);
    assert_eq!((ran.code, ran.output.as_str(), ran.notices.as_str()), (0, output, ""), "{arguments}");
}
