//! The HTTP API against its own description, by schemathesis: what it invents, valid and not, is answered as described.

use std::path::PathBuf;
use std::process::Command;

use tidegate_tests::config::ECHO;
use tidegate_tests::{Config, Daemon, Mosquitto, Protocol};

const TOKEN: &str = "0123456789abcdef";

/// Something to list and to run.
const SCHEDULE: &str =
    "[[schedules]]\nname = \"hourly\"\nevery = \"1h\"\npublish = { broker = \"plant\", topic = \"gw/1\" }\n";

/// Seconds of the whole run.
const TIME: &str = "120";

#[test]
#[ignore = "long: some minutes"]
fn every_answer_is_one_that_is_described() {
    let Some(program) = std::env::var_os("TIDEGATE_SCHEMATHESIS").map(PathBuf::from) else {
        panic!("schemathesis is not installed: run `cargo xtask test --long -- schemathesis`");
    };
    let broker = Mosquitto::start();
    let config = Config::new()
        .admin("token-file = \"token\"")
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("echo", "plant", ECHO, "")
        .subscription("plant", "in/#", 1, "echo", "")
        .handler("keeper", "misbehave.wasm", &format!("config = {{ {ECHO} }}\nallow = {{ kv = \"64KiB\" }}"))
        .table(SCHEDULE);
    let mut daemon = Daemon::start(&config);
    daemon.home().write("token", TOKEN);

    let settings = concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis.toml");
    let document = format!("http://127.0.0.1:{}/api/v1/openapi.json", daemon.admin());
    let authorization = format!("Authorization: Bearer {TOKEN}");
    let mut command = Command::new(program);
    command.args([
        "--config-file",
        settings,
        "run",
        &document,
        "--header",
        &authorization,
        "--max-time",
        TIME,
        "--no-color",
    ]);
    let output = command.current_dir(daemon.home().path()).output().expect("starts");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Stateful"), "all phases ran: {said}");

    // What it has done to the gateway was all permitted; the gateway still works, and stops well.
    let panicked = daemon.log_lines(&["panicked"]);
    assert!(panicked.is_empty(), "{panicked:?}");
    assert_eq!(daemon.get("/api/v1/status").status, 200);
    daemon.terminate();
}
