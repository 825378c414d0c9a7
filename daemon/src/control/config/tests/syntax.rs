//! Errors of interpolation and of TOML itself.

use super::{check, root};

#[test]
fn interpolation() {
    root(
        r#"state-dir = "${env:NONE}/${env:NONE_EITHER}""#,
        &[
            r#"tidegate.toml:1:13: state-dir = "${env:NONE}/${env:NONE_EITHER}": the environment variable NONE is not set; set it for the daemon"#,
            r#"tidegate.toml:1:13: state-dir = "${env:NONE}/${env:NONE_EITHER}": the environment variable NONE_EITHER is not set; set it for the daemon"#,
        ],
    );
    root(
        r#"state-dir = "${env:NOT_UTF8}""#,
        &[
            r#"tidegate.toml:1:13: state-dir = "${env:NOT_UTF8}": the environment variable NOT_UTF8 is not UTF-8; set it to a text"#,
        ],
    );
    root(
        r#"state-dir = "${env:}""#,
        &[
            r#"tidegate.toml:1:13: state-dir = "${env:}": "${env:}" names no known source; use "${env:NAME}" or "${file:PATH}", or "$${" for the characters themselves"#,
        ],
    );
    root(
        r#"state-dir = "${SITE}""#,
        &[
            r#"tidegate.toml:1:13: state-dir = "${SITE}": "${SITE}" names no known source; use "${env:NAME}" or "${file:PATH}", or "$${" for the characters themselves"#,
        ],
    );
    root(
        r#"state-dir = "${vault:x}""#,
        &[
            r#"tidegate.toml:1:13: state-dir = "${vault:x}": "${vault:x}" names no known source; use "${env:NAME}" or "${file:PATH}", or "$${" for the characters themselves"#,
        ],
    );
    root(
        r#"state-dir = "${env:SITE""#,
        &[
            r#"tidegate.toml:1:13: state-dir = "${env:SITE": "${" has no closing brace; use "${env:NAME}" or "${file:PATH}", or "$${" for the characters themselves"#,
        ],
    );
    root(
        r#"state-dir = "${file:no-such-file}""#,
        &[
            r#"tidegate.toml:1:13: state-dir = "${file:no-such-file}": the file no-such-file cannot be read: it does not exist; write it where the daemon's user can read it"#,
        ],
    );
    root(
        r#"state-dir = "${file:.}""#,
        &[
            r#"tidegate.toml:1:13: state-dir = "${file:.}": the file . cannot be read: it is a directory; write it where the daemon's user can read it"#,
        ],
    );
    root(
        "state-dir = \"\"\"\n${env:NONE}\"\"\"",
        &[r#"tidegate.toml:1:13: state-dir = """…: the environment variable NONE is not set; set it for the daemon"#],
    );
}

#[test]
fn toml() {
    check(
        r#"brokers.plant.address = "mqtt"#,
        &[r#"tidegate.toml:1:30: not valid TOML: invalid basic string, expected `"`"#],
    );
    check("[brokers.plant\naddress = \"a\"", &["tidegate.toml:1:15: not valid TOML: unclosed table, expected `]`"]);
    check(
        "[brokers.plant]\naddress = \"a\"\naddress = \"b\"",
        &["tidegate.toml:3:1: not valid TOML: duplicate key; keep one of the two"],
    );
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\n[brokers.plant]\nport = 1",
        &["tidegate.toml:3:10: not valid TOML: duplicate key; keep one of the two"],
    );
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\nport = \nkeep-alive = 5",
        &[
            "tidegate.toml:3:8: not valid TOML: string values must be quoted, expected literal string",
            "tidegate.toml:4:14: brokers.plant.keep-alive = 5: must be 30 to 64800 seconds; use 30",
        ],
    );
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\nport 1883",
        &["tidegate.toml:3:6: not valid TOML: key with no value, expected `=`"],
    );
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\npassword = \"hunter2\" x\n",
        &["tidegate.toml:3:22: not valid TOML: unexpected key or value, expected newline, `#`"],
    );
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\nprotocol = 3.1.1\n",
        &["tidegate.toml:3:15: not valid TOML: invalid float, expected nothing"],
    );
    check(
        "[brokers.plant]\naddress = \"hunter2\nport = 99999\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"a/b\"\n",
        &[
            r#"tidegate.toml:2:19: not valid TOML: invalid basic string, expected `"`"#,
            "tidegate.toml:3:8: brokers.plant.port = 99999: must be 1 to 65535; use 65535",
        ],
    );
    check(
        "[brokers.plant]\naddress = \"mqtt.example\"\nport = 18 83\nkeep-alive = 1",
        &[
            "tidegate.toml:3:8: not valid TOML: string values must be quoted, expected literal string",
            "tidegate.toml:4:14: brokers.plant.keep-alive = 1: must be 30 to 64800 seconds; use 30",
        ],
    );
}
