//! Errors of the keys outside of brokers, subscriptions and handlers.

use std::os::unix::fs::PermissionsExt as _;

use super::{check, check_warnings, private, root};

/// What an unknown key may have been.
const TOP_KEYS: &str = "admin, brokers, handlers, log, native, plugins-dir, recv-buffer, recv-bytes, schedules, shutdown-grace, state-dir, subscriptions, watch-config";

#[test]
fn sections() {
    check_warnings(
        "",
        &[
            "tidegate.toml: no broker is configured; add [brokers.NAME] with address = \"HOST\", or use tidegate brokers add",
        ],
    );
    check_warnings(
        "# nothing\n",
        &[
            "tidegate.toml: no broker is configured; add [brokers.NAME] with address = \"HOST\", or use tidegate brokers add",
        ],
    );
    check_warnings(
        "brokers = {}",
        &[
            "tidegate.toml: no broker is configured; add [brokers.NAME] with address = \"HOST\", or use tidegate brokers add",
        ],
    );
    check(
        "[[brokers]]\naddress = \"a\"",
        &["tidegate.toml:1:1: brokers: expected a table, got an array; use [brokers.NAME]"],
    );
    check(
        r#"brokers = "a""#,
        &[r#"tidegate.toml:1:11: brokers = "a": expected a table, got a string; use [brokers.NAME]"#],
    );
    check(
        "[subscriptions.a]\nbroker = \"plant\"\n[brokers.plant]\naddress = \"a\"",
        &["tidegate.toml:1:2: subscriptions: expected an array, got a table; use [[subscriptions]]"],
    );
    check(
        "handlers = []\n[brokers.plant]\naddress = \"mqtt.example\"\n",
        &["tidegate.toml:1:12: handlers: expected a table, got an array; use [handlers.NAME]"],
    );
}

#[test]
fn state_dir() {
    root("state-dir = 5", &[r#"tidegate.toml:1:13: state-dir = 5: expected a string, got an integer; use "5""#]);
    root(r#"state-dir = """#, &[r#"tidegate.toml:1:13: state-dir = "": not a path; use the path of a file or folder"#]);
    root(
        r#"state-dir = "${env:NONE}""#,
        &[
            r#"tidegate.toml:1:13: state-dir = "${env:NONE}": the environment variable NONE is not set; set it for the daemon"#,
        ],
    );
}

#[test]
fn plugins_dir() {
    root(
        "plugins-dir = true",
        &[r#"tidegate.toml:1:15: plugins-dir = true: expected a string, got a boolean; use "true""#],
    );
}

#[test]
fn native() {
    root("native = \"true\"", &[r#"tidegate.toml:1:10: native = "true": expected a boolean, got a string; use true"#]);
}

#[test]
fn log() {
    root(
        r#"log = "info""#,
        &[r#"tidegate.toml:1:7: log = "info": expected a table, got a string; use log = { level = "info" }"#],
    );
    root(
        r#"log = { level = "verbose" }"#,
        &[
            r#"tidegate.toml:1:17: log.level = "verbose": not a known value; use "trace", "debug", "info", "warn" or "error""#,
        ],
    );
    root(
        "log = { level = 3 }",
        &[
            r#"tidegate.toml:1:17: log.level = 3: expected a string, got an integer; use "trace", "debug", "info", "warn" or "error""#,
        ],
    );
    root(
        r#"log = { format = "xml" }"#,
        &[r#"tidegate.toml:1:18: log.format = "xml": not a known value; use "text" or "json""#],
    );
    root("log = { colour = true }", &["tidegate.toml:1:9: log.colour: unknown key; known here: format, level"]);
}

#[test]
fn watch_config() {
    root(
        "watch-config = \"true\"",
        &[r#"tidegate.toml:1:16: watch-config = "true": expected a boolean, got a string; use true"#],
    );
}

#[test]
fn shutdown_grace() {
    root(
        "shutdown-grace = 10",
        &[
            r#"tidegate.toml:1:18: shutdown-grace = 10: expected a duration, got an integer; use "10ms", "10s" or "10m""#,
        ],
    );
    root(
        r#"shutdown-grace = "10""#,
        &[r#"tidegate.toml:1:18: shutdown-grace = "10": a duration needs a unit; use "10ms", "10s" or "10m""#],
    );
    root(
        r#"shutdown-grace = "soon""#,
        &[
            r#"tidegate.toml:1:18: shutdown-grace = "soon": not a duration; use a number and a unit, such as "250ms", "10s" or "7d""#,
        ],
    );
    root(r#"shutdown-grace = "2h""#, &[r#"tidegate.toml:1:18: shutdown-grace = "2h": must be 0s to 1h; use "1h""#]);
    root(
        r#"shutdown-grace = "10 lightyears""#,
        &[
            r#"tidegate.toml:1:18: shutdown-grace = "10 lightyears": not a unit of time; use ms, s, m, h or d, such as "250ms""#,
        ],
    );
    root(
        "shutdown-grace = 1.5",
        &[
            r#"tidegate.toml:1:18: shutdown-grace = 1.5: expected a duration, got a float; use a number and a unit, such as "250ms""#,
        ],
    );
    root(
        "shutdown-grace = true",
        &[
            r#"tidegate.toml:1:18: shutdown-grace = true: expected a duration, got a boolean; use a number and a unit, such as "250ms""#,
        ],
    );
}

#[test]
fn recv_buffer() {
    root(
        r#"recv-buffer = "1024""#,
        &[r#"tidegate.toml:1:15: recv-buffer = "1024": expected an integer, got a string; use 1024"#],
    );
    root(
        r#"recv-buffer = "8MiB""#,
        &[
            r#"tidegate.toml:1:15: recv-buffer = "8MiB": expected an integer, got a string; use a number from 0 to 1000000, without quotes"#,
        ],
    );
    root("recv-buffer = -1", &["tidegate.toml:1:15: recv-buffer = -1: must be 0 to 1000000; use 0"]);
    root("recv-buffer = 1000001", &["tidegate.toml:1:15: recv-buffer = 1000001: must be 0 to 1000000; use 1000000"]);
    root(
        "recv-buffer = false",
        &[
            "tidegate.toml:1:15: recv-buffer = false: expected an integer, got a boolean; use a number from 0 to 1000000, without quotes",
        ],
    );
}

#[test]
fn recv_bytes() {
    root(
        "recv-bytes = 8388608",
        &[r#"tidegate.toml:1:14: recv-bytes = 8388608: expected a size, got an integer; use "8MiB""#],
    );
    root(r#"recv-bytes = "2GiB""#, &[r#"tidegate.toml:1:14: recv-bytes = "2GiB": must be 0B to 1GiB; use "1GiB""#]);
    root(
        r#"recv-bytes = "8""#,
        &[r#"tidegate.toml:1:14: recv-bytes = "8": a size needs a unit; use "8B", "8KiB" or "8MiB""#],
    );
}

#[test]
fn admin() {
    root(
        r#"admin = "127.0.0.1:9883""#,
        &[r#"tidegate.toml:1:9: admin = "127.0.0.1:9883": expected a table, got a string; use [admin]"#],
    );
    root(
        r#"admin.listen = "localhost:9000""#,
        &[
            r#"tidegate.toml:1:16: admin.listen = "localhost:9000": not an IP address with a port; use "127.0.0.1:9000""#,
        ],
    );
    root(
        r#"admin.listen = ":9000""#,
        &[r#"tidegate.toml:1:16: admin.listen = ":9000": not an IP address with a port; use "127.0.0.1:9000""#],
    );
    root(
        "admin.listen = 9883",
        &[r#"tidegate.toml:1:16: admin.listen = 9883: expected a string, got an integer; use "127.0.0.1:9883""#],
    );
    root(
        r#"admin.listen = "0.0.0.0:9000""#,
        &[
            r#"tidegate.toml:1:16: admin.listen = "0.0.0.0:9000": not a loopback address: whoever reaches it needs no token; use "127.0.0.1:9000", or add token-file"#,
        ],
    );
    root(
        r#"admin.listen = "[::]:9000""#,
        &[
            r#"tidegate.toml:1:16: admin.listen = "[::]:9000": not a loopback address: whoever reaches it needs no token; use "127.0.0.1:9000", or add token-file"#,
        ],
    );
    root(
        r#"admin.listen = "127.0.0.1""#,
        &[r#"tidegate.toml:1:16: admin.listen = "127.0.0.1": not an IP address with a port; use "127.0.0.1:9883""#],
    );
    root("admin.port = 9883", &["tidegate.toml:1:7: admin.port: unknown key; known here: listen, socket, token-file"]);
    root(
        r#"admin.socket = """#,
        &[r#"tidegate.toml:1:16: admin.socket = "": not a path; use the path of a file or folder"#],
    );
    let long = format!("/{}", "s".repeat(107));
    let (shown, _) = long.split_at(79);
    root(
        &format!("admin.socket = \"{long}\""),
        &[&format!(
            "tidegate.toml:1:16: admin.socket = \"{shown}…: a path of 108 bytes: more than the address of a Unix socket \
             can hold; use a shorter one, such as \"/run/tidegate/admin.sock\""
        )],
    );
    root(&format!("admin.socket = \"{}\"", &long[..107]), &[] as &[&str]);
    root(
        "admin.token-file = 1",
        &[r#"tidegate.toml:1:20: admin.token-file = 1: expected a string, got an integer; use "1""#],
    );
}

/// A token file is one that only its owner may read, and something asks for the token.
#[test]
fn admin_token_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    let check = |listen: &str, problem: &str| {
        let keys = format!("admin.token-file = \"{}\"\n{listen}", file.display());
        let expected = format!("tidegate.toml:1:20: admin.token-file = \"{}\": {problem}", file.display());
        let expected = if problem.is_empty() { vec![] } else { vec![expected.as_str()] };
        check_warnings(&format!("{keys}\n[brokers.plant]\naddress = \"mqtt.example\"\n"), &expected);
    };
    let listen = r#"admin.listen = "0.0.0.0:9883""#;
    check(
        listen,
        "cannot be read: no token opens the admin plane; write a token of at least 16 characters into it, readable for \
         the daemon",
    );
    private(&file, "0123456789abcdef");
    check(listen, "");
    for content in ["", "\n", "0123456789abcde\n", "0123456789abcdef\nfedcba9876543210\n", "0123456789 abcdef"] {
        private(&file, content);
        check(
            listen,
            "holds no token: none opens the admin plane; write one line of 16 to 4096 visible ASCII characters into it",
        );
    }
    private(&file, "0123456789abcdef\n");
    check("", "nothing asks for a token: the socket needs none; remove it, or add listen");
    for mode in [0o640, 0o604, 0o620] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("is ours");
        check(listen, "others than its owner may read or change it; make it private (chmod 600)");
    }
}

#[test]
fn unknown_keys() {
    root(
        "natives = true",
        &[&format!(r#"tidegate.toml:1:1: natives: unknown key; did you mean "native"? known here: {TOP_KEYS}"#)],
    );
    root("watch-plugins = true", &[&format!("tidegate.toml:1:1: watch-plugins: unknown key; known here: {TOP_KEYS}")]);
    root(
        r#"state_dir = "x""#,
        &[&format!(r#"tidegate.toml:1:1: state_dir: unknown key; did you mean "state-dir"? known here: {TOP_KEYS}"#)],
    );
    root(r#""a b" = 1"#, &[&format!(r#"tidegate.toml:1:1: "a b": unknown key; known here: {TOP_KEYS}"#)]);
}
