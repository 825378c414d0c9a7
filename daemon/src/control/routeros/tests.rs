//! What becomes of RouterOS' exports: commands, properties and scripts, each with its lines of TOML and its remarks.

use proptest::prelude::*;

use super::lexer::{Part, Scanner, Token, statements};
use super::script::recognise;
use super::write::quote;
use super::*;
use crate::control::config::model::Config;

/// The import of a text.
fn imported(export: &str) -> Import {
    import(export.as_bytes())
}

/// The configuration that an import is.
#[track_caller]
fn loaded(toml: &str) -> Config {
    config::load_text(Path::new("tidegate.toml"), toml, "")
        .unwrap_or_else(|problems| panic!("{toml}\n{problems}"))
        .config
}

/// The remarks of an import as standard error shows them.
fn remarks(import: &Import) -> Vec<String> {
    let told = |remark: &Remark| format!("{}{}: {}", if remark.work { "TODO " } else { "" }, remark.line, remark.text);
    import.remarks.iter().map(told).collect()
}

/// A broker added with these properties is imported with these lines after its first two, and these remarks.
#[track_caller]
fn broker(properties: &str, keys: &[&str], expected: &[&str]) {
    let import = imported(&format!("/iot mqtt brokers\nadd address=a name=plant {properties}\n"));
    let toml: Vec<&str> = import.toml.lines().skip_while(|line| !line.contains("[brokers.plant]")).skip(2).collect();
    assert_eq!(toml, keys, "{}", import.toml);
    assert_eq!(remarks(&import), expected, "{}", import.toml);
    loaded(&import.toml);
}

/// A subscription to `a` added with these properties is imported with these lines after its first three, and these remarks.
#[track_caller]
fn subscription(properties: &str, keys: &[&str], expected: &[&str]) {
    let head = "/iot mqtt brokers\nadd address=a name=plant\n/iot mqtt subscriptions\n";
    let import = imported(&format!("{head}add broker=plant topic=a {properties}\n"));
    let toml: Vec<&str> = import.toml.lines().skip_while(|line| !line.contains("[[subscriptions]]")).skip(3).collect();
    assert_eq!(toml, keys, "{}", import.toml);
    assert_eq!(remarks(&import), expected, "{}", import.toml);
    loaded(&import.toml);
}

/// The names and ports of the brokers that an export becomes.
#[track_caller]
fn ports(export: &str, expected: &[(&str, u16)]) {
    let import = imported(export);
    let config = loaded(&import.toml);
    let found: Vec<(&str, u16)> = config.brokers.iter().map(|broker| (&*broker.name, broker.port.get())).collect();
    assert_eq!(found, expected, "{export}\n{}", import.toml);
}

#[test]
fn every_property_of_a_broker_has_its_key() {
    let defaults = ["port = 1883", "keep-alive = 60", "auto-connect = false"];
    broker("", &defaults, &[]);
    broker(
        "ssl=no certificate=none parallel-scripts-limit=off password=\"\" username=\"\" disabled=no",
        &defaults,
        &[],
    );
    broker(
        "port=8883 client-id=gw-1 username=u password=\"p\\\"\\\\\\$\" keep-alive=30 auto-connect=yes \
         parallel-scripts-limit=3 ssl=yes",
        &[
            "port = 8883",
            "client-id = \"gw-1\"",
            "username = \"u\"",
            "# safer: password-file = \"plant.password\", which only the daemon's user may read",
            "password = \"p\\\"\\\\$\"",
            "keep-alive = 30",
            "auto-connect = true",
            "parallel-limit = 3",
            "tls = true",
        ],
        &[],
    );
}

#[test]
fn what_looks_like_an_interpolation_is_none() {
    let import = imported("/iot mqtt brokers add name=b address=a username=u password=\"x\\${env:HOME}\\$\\${\"");
    let config = loaded(&import.toml);
    let password = config.brokers[0].password.as_ref().expect("it has one").read().expect("it is literal");
    assert_eq!(password.expose(), "x${env:HOME}$${");
}

#[test]
fn a_value_that_the_configuration_does_not_take_is_told_and_has_its_default() {
    let otherwise = "RouterOS' default is written";
    let defaults = ["port = 1883", "keep-alive = 60", "auto-connect = false"];
    broker("port=0", &defaults, &[&format!("TODO 2: port is not a number from 1 to 65535; {otherwise}")]);
    broker("port=4294967295", &defaults, &[&format!("TODO 2: port is not a number from 1 to 65535; {otherwise}")]);
    broker("keep-alive=5", &defaults, &[&format!("TODO 2: keep-alive is not a number from 30 to 64800; {otherwise}")]);
    broker(
        "parallel-scripts-limit=2",
        &defaults,
        &["TODO 2: parallel-scripts-limit is not a number from 3 to 1000; no limit is set"],
    );
    broker("auto-connect=maybe", &defaults, &["TODO 2: auto-connect is neither yes nor no, and taken as no"]);
    broker("colour=red", &defaults, &["TODO 2: the property colour is not known, and is left out"]);
    subscription(
        "qos=3",
        &["qos = 0"],
        &[&format!("TODO 2: qos is not a number from 0 to 2; {otherwise}").replace("2:", "4:")],
    );
    subscription("qos=2", &["qos = 2"], &[]);
}

#[test]
fn a_login_without_its_password_is_told() {
    let told = "TODO 2: the export has no password (RouterOS writes it with show-sensitive): if there is one, put it into the \
                file below";
    let keys = [
        "port = 1883",
        "username = \"u\"",
        "# password-file = \"plant.password\"",
        "keep-alive = 60",
        "auto-connect = false",
    ];
    broker("username=u", &keys, &[told]);
}

#[test]
fn a_certificate_is_a_table_to_fill_in() {
    let import = imported("/iot mqtt brokers add name=b address=a port=8883 ssl=yes certificate=gw");
    assert!(loaded(&import.toml).brokers[0].tls.as_ref().is_some_and(|tls| tls.identity.is_none()), "{}", import.toml);
    assert!(import.remarks[0].work && import.remarks[0].text.contains("export it there with its key"));
    let filled = import.toml.replace("# certificate = ", "certificate = ").replace("# key = ", "key = ");
    let tls = loaded(&filled).brokers[0].tls.clone().expect("it is on");
    let identity = tls.identity.expect("both files are named");
    assert_eq!((identity.certificate.to_str(), identity.key.to_str()), (Some("cert_export_gw.crt"), Some("gw.key")));
    let import = imported("/iot mqtt brokers add name=b address=a certificate=gw");
    assert_eq!(remarks(&import), ["1: a certificate has no effect without ssl=yes"]);
    assert!(loaded(&import.toml).brokers[0].tls.is_none());
}

#[test]
fn commands_are_understood_in_each_of_their_forms() {
    let one = [("plant", 1884)];
    ports("/iot mqtt brokers\nadd address=a name=plant port=1884\n", &one);
    ports("/iot/mqtt/brokers\r\nadd address=a name=plant port=1884\r\n", &one);
    ports("/iot mqtt brokers add address=a name=plant port=1884", &one);
    ports("/iot/mqtt/brokers/add address=a name=plant port=1884", &one);
    ports("/iot mqtt\nbrokers add address=a name=plant port=1884\n", &one);
    ports("/iot mqtt subscriptions\n.. brokers add address=a name=plant port=1884\n", &one);
    ports("{ /iot mqtt brokers; add address=a name=plant port=1884; }", &one);
    ports("/iot mqtt brokers\nadd address=a name=\"pl\\\n    ant\" \\\n    port=1884\n", &one);
    ports("/iot mqtt brokers\nadd address=a name=\\\n    plant port=1884", &one);
    ports("/iot mqtt brokers\nadd address=a name=plant\nset [ find name=plant ] port=1884\n", &one);
    ports("/iot mqtt brokers\nadd address=a name=plant\nset [find where name=\"plant\" ssl=no] port=1884\n", &one);
    ports("/iot mqtt brokers\nadd address=a name=plant\nset plant port=1884\n", &one);
    ports("/iot mqtt brokers\nadd address=a name=plant\nset numbers=0 port=1884\n", &one);
    ports("/iot mqtt brokers\nadd addr=a na=plant\nset 0 por=1884\n", &one);
    ports("/iot mqtt brokers\nadd address=a name=plant\nadd address=a name=b\nset [find] port=1884\ndisable b\n", &one);
    ports(
        "# x\n/ip address\nadd address=10.0.0.1/24 name=x\n/iot mqtt brokers\n#y\nadd address=a name=plant port=1884",
        &one,
    );
}

#[test]
fn what_is_not_imported_stays_as_a_comment() {
    let head = "/iot mqtt brokers add address=a name=plant\n";
    let check = |command: &str, expected: &[&str]| {
        let import = imported(&format!("{head}{command}\n"));
        assert_eq!(remarks(&import), expected, "{}", import.toml);
        let kept = expected.is_empty() || command.lines().all(|line| import.toml.contains(&format!("#   {line}")));
        assert!(kept, "{}", import.toml);
        loaded(&import.toml);
    };
    let by_hand = "TODO 2: it is not understood; do by hand what it does";
    check("/iot mqtt brokers remove [find]", &[by_hand]);
    check("/iot mqtt unsubscribe broker=plant topic=a", &[by_hand]);
    check("/iot mqtt brokers :put x", &[by_hand]);
    check("/iot mqtt subscriptions recv clear", &[by_hand]);
    check(
        "/iot mqtt brokers add address=b oops",
        &["TODO 2: one of its words is not understood; do by hand what it does"],
    );
    let unclear = "TODO 2: which entries it means is not understood; do by hand what it does";
    check("/iot mqtt brokers set port=1", &[unclear]);
    check("/iot mqtt brokers set [find name~\"x\"] port=1", &[unclear]);
    check("/iot mqtt brokers set [:put x] port=1", &[unclear]);
    let absent = "TODO 2: the entry that it means is not in the export; do by hand what it does";
    check("/iot mqtt brokers set [find name=x] port=1", &[absent]);
    check("/iot mqtt brokers set 7 port=1", &[absent]);
    check("/iot mqtt brokers print", &["2: it changes nothing"]);
    let later = "2: it is no configuration; once the daemon runs, `tidegate publish` does it";
    check("/iot mqtt publish broker=plant topic=a message=b", &[later]);
    let script = "TODO 2: this command of another menu uses MQTT, and is not imported";
    check("/system script add name=s source=\":put x\\r\\\n    \\n/iot mqtt publish broker=x\"", &[script]);
    check("/system script add name=s source=\"/iot mq\\\n    tt publish broker=x\"", &[script]);
    check("/system script add name=s source=\":put x\"", &[]);
    let rest = "TODO 2: the \" of line 3 is not closed, so nothing after it can be understood";
    check("/iot mqtt brokers add \\\naddress=\"b\nadd address=c", &[rest]);
    let rest = "TODO 2: the { of line 2 is not closed, so nothing after it can be understood";
    check("/iot mqtt brokers add x={[}\nadd address=c", &[rest]);
}

#[test]
fn names_are_those_that_the_configuration_takes() {
    let import = imported(
        "/iot mqtt brokers\nadd address=a name=\"Plant 1\"\nadd address=b name=\"Plant: 1\"\nadd address=c name=\"\"\n\
         add address=d name=\"Plant 1\"\n/iot mqtt subscriptions\nadd broker=\"Plant 1\" topic=a\nadd broker=\"Plant: 1\" topic=a\n",
    );
    let config = loaded(&import.toml);
    let names: Vec<&str> = config.brokers.iter().map(|broker| &*broker.name).collect();
    assert_eq!(names, ["Plant-1", "Plant-1-2", "broker", "Plant-1-3"]);
    let named: Vec<&str> = config.subscriptions.iter().map(|subscription| &*subscription.name).collect();
    assert_eq!(named, ["Plant-1:a", "Plant-1-2:a"]);
    let told = "TODO 5: another broker is called \"Plant 1\" too; this one is \"Plant-1-3\", and has no subscriptions";
    assert!(remarks(&import).iter().any(|remark| remark == told), "{:?}", remarks(&import));
}

#[test]
fn what_cannot_load_is_left_out() {
    let check = |brokers: &str, subscriptions: &str, expected: &[&str]| {
        let import = imported(&format!(
            "/iot mqtt brokers\nadd address=good name=good client-id=c\n{brokers}\n/iot mqtt subscriptions\n{subscriptions}\n"
        ));
        assert_eq!(remarks(&import), expected, "{}", import.toml);
        assert_eq!(import.left_out, expected.len(), "{}", import.toml);
        loaded(&import.toml);
    };
    check("", "add broker=good topic=a\n", &[]);
    check(
        "add name=b",
        "add broker=b topic=a",
        &["TODO 3: left out: it has no address", "TODO 5: left out: its broker is left out"],
    );
    check(
        "add name=b address=c disabled=yes",
        "add broker=b topic=a",
        &["3: left out: it is disabled", "5: left out: its broker is disabled"],
    );
    check(
        "add name=b address=tcp://x",
        "add broker=b topic=a",
        &[
            "TODO 3: left out: address: must not have a prefix: a name or address alone; use \"x\"",
            "TODO 5: left out: its broker is left out",
        ],
    );
    check(
        "add name=b address=GOOD client-id=c",
        "",
        &["TODO 3: left out: it has the address and client-id of the broker of line 2; give it its own"],
    );
    check("", "add topic=a", &["TODO 5: left out: it names no broker"]);
    check("", "add broker=b topic=a", &["TODO 5: left out: the export has no broker of the name that it has"]);
    check(
        "",
        "add broker=good topic=a/#/b",
        &["TODO 5: left out: topic: '#' must be the last level (MQTT 5 §4.7.1.2); use \"a/#\""],
    );
    check(
        "",
        "add broker=good",
        &[
            "TODO 5: left out: topic: must not be empty (MQTT 5 §4.7.3); use a topic filter such as \"a/+/b\" or \"a/#\"",
        ],
    );
    check("", "add broker=good topic=a disabled=yes", &["5: left out: it is disabled"]);
    check(
        "",
        "add broker=good topic=a\nadd broker=good topic=a",
        &["6: left out: line 5 subscribes to the same topic of the same broker"],
    );
}

#[test]
fn a_shared_subscription_has_its_key() {
    let import = imported(
        "/iot mqtt brokers add address=a name=b\n/iot mqtt subscribe broker=b topic=\"\\$share/g/a/+\" force=no",
    );
    let config = loaded(&import.toml);
    assert_eq!(config.subscriptions[0].topic.as_str(), "$share/g/a/+");
    let told = "2: force says nothing here: a subscription is made whenever its broker is connected";
    assert_eq!(remarks(&import), [told]);
}

#[test]
fn a_variable_or_another_encoding_is_told() {
    let import = imported("/iot mqtt brokers add address=\"x\\E4\" name=b username=$user password=(\"a\".$b)");
    let told = remarks(&import);
    assert_eq!(told[0], "TODO 1: address is not UTF-8, and was read as Latin-1; correct it if need be");
    assert_eq!(told[1], "TODO 1: username has a variable, which only RouterOS could fill in; correct it");
    assert_eq!(told[2], "TODO 1: password has a variable, which only RouterOS could fill in; correct it");
    let import = super::import(b"/iot mqtt brokers add address=a name=b comment=\"W\xe4rme\"");
    assert!(import.toml.contains("#   Wärme\n"), "{}", import.toml);
    assert_eq!(remarks(&import), ["TODO 1: the export is not UTF-8, and was read as Latin-1"]);
}

#[test]
fn a_secret_is_in_no_remark() {
    let import = imported(
        "/iot mqtt brokers\nadd address=a name=b username=u password=hunter2 oops\nadd name=c username=u password=hunter2\n\
         add address=a name=d password=$hunter2\nset [find name=x] password=hunter2\nadd password=\"hunter2",
    );
    assert!(import.toml.contains("hunter2") && import.remarks.len() >= 5, "{import:?}");
    assert!(!remarks(&import).concat().contains("hunter2"), "{:?}", import.remarks);
}

#[test]
fn an_export_without_brokers_says_so() {
    for export in ["", "/interface bridge\nadd name=b\n", "/iot mqtt brokers\n"] {
        let import = imported(export);
        assert_eq!((import.brokers, import.subscriptions, import.left_out), (0, 0, 0));
    }
    assert_eq!(imported("/interface bridge\nadd name=b\n/ip dns\nset x=y\n").skipped, 2);
}

#[test]
fn scripts_that_log_are_recognised() {
    let check = |script: &str, when: Option<&str>, log: Option<&str>| {
        let found = recognise(script).map(|suggestion| (suggestion.when, suggestion.log));
        let when = when.map(|when| format!("{{ payload = {} }}", quote(when)));
        let log = log.map(|log| format!("{{ log = {} }}", quote(log)));
        let expected = (when.is_some() || log.is_some()).then_some((when, log));
        assert_eq!(found, expected, "{script}");
    };
    let got = Some("Got data {{{payload}}} from topic {{{topic}}}");
    let log = r#":log info "Got data {$msgData} from topic {$msgTopic}""#;
    check(log, None, got);
    check(&format!("{{{log}}}"), None, got);
    check(&format!("\r\n  {log} ;\n"), None, got);
    check(":log info (\"Got data {\" . $msgData . \"} from topic {\".$msgTopic.\"}\")", None, got);
    check("/log info message=$msgData", None, Some("{payload}"));
    check(r#":log info "\$msgData costs \C2\A7 5\_\"$""#, None, Some("$msgData costs § 5 \"$"));
    check(&format!(r#":if ($msgData~"\\{{\"test\":\"123\"\\}}") do={{{log}}}"#), Some(r#"\{"test":"123"\}"#), got);
    check(&format!(":if ($msgData ~ \"test\") do={{ {log} }}"), Some("test"), got);
    check(&format!(":if ($msgData=\"a.b\") do={{{log}}}"), Some(r"\Aa\.b\z"), got);
    check(&format!(":if (\"$msgData\" = \"on\") do={{{log}}}"), Some(r"\Aon\z"), got);
    check(":if ($msgData~\"test\") do={/system reboot}", Some("test"), None);

    check(":log info \"x $other\"", None, None);
    check(":log info \"x $[/system identity get name]\"", None, None);
    check(":log loud \"x\"", None, None);
    check(&format!("{log}; /system reboot"), None, None);
    check(&format!(":if ($msgData~\"test\") do={{{log}}} else={{{log}}}"), None, None);
    check(&format!(":if ($msgTopic~\"test\") do={{{log}}}"), None, None);
    check(&format!(":if ($msgData~\"a(\") do={{{log}}}"), None, None);
    check(&format!(":if ($msgData~$x) do={{{log}}}"), None, None);
    check("/system script run x", None, None);
    check("", None, None);
}

#[test]
fn a_script_becomes_a_suggestion_that_loads() {
    let handler = "TODO 4: it has a script: write a handler that does the same (docs/writing-handlers.md)";
    subscription("on-message={/system script run x}", &["qos = 0", "# on-message = \"HANDLER\""], &[handler]);
    subscription("on-message=\"\"", &["qos = 0"], &[]);
    let log = "TODO 4: its script writes to the log (at level info, where RouterOS has error): if that is wanted, uncomment \
               on-message";
    let keys = ["qos = 0", "# on-message = { log = \"{payload}\" }"];
    subscription("on-message=\":log error \\$msgData\"", &keys, &[log]);
    let both =
        "TODO 4: its script writes to the log under a condition: if that is wanted, uncomment when and on-message";
    let keys = ["qos = 0", "# when = { payload = \"a{2}\" }", "# on-message = { log = \"$${{{payload}}}\" }"];
    subscription(
        "on-message={:if (\\$msgData~\"a{2}\") do={:log info \"x\"}}",
        &["qos = 0", "# on-message = \"HANDLER\""],
        &[handler],
    );
    subscription("on-message={:if ($msgData~\"a{2}\") do={:log info \"\\${$msgData}\"}}", &keys, &[both]);
}

/// A quoted text as RouterOS exports it.
fn exported(text: &[u8], broken: bool) -> String {
    let mut quoted = String::from("\"");
    for (place, byte) in text.iter().enumerate() {
        match byte {
            b'\n' => quoted += "\\n",
            b'\r' => quoted += "\\r",
            b'\t' => quoted += "\\t",
            b'"' | b'\\' | b'$' | b'?' => quoted.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => quoted.push(char::from(*byte)),
            byte => quoted += &format!("\\{byte:02X}"),
        }
        // A space that follows a broken line is written so that it is none of the indentation.
        if broken && place % 7 == 6 && text.get(place + 1) != Some(&b' ') {
            quoted += "\\\r\n    ";
        }
    }
    quoted + "\""
}

proptest! {
    #[test]
    fn quoted_texts_are_read_as_they_were(text in prop::collection::vec(any::<u8>(), 0..60), broken: bool) {
        let quoted = exported(&text, broken);
        let parts = Scanner::new(&quoted).quoted().expect("it is closed");
        let expected = if text.is_empty() { vec![] } else { vec![Part::Text(text)] };
        prop_assert_eq!(parts, expected);
    }

    #[test]
    fn every_password_arrives(password in any::<String>().prop_filter("one that is there", |text| !text.is_empty())) {
        let quoted = exported(password.as_bytes(), true);
        let import = imported(&format!("/iot mqtt brokers add address=a name=b username=u password={quoted}\n"));
        let config = loaded(&import.toml);
        let read = config.brokers[0].password.as_ref().expect("it has one").read().expect("it is literal");
        prop_assert_eq!(read.expose(), password);
    }

    #[test]
    fn anything_at_all_is_imported(
        beginning in prop::sample::select(vec![
            "",
            "/iot mqtt brokers\nadd name=b address=",
            "/iot mqtt brokers\nadd name=b address=a client-id=",
            "/iot mqtt brokers\nadd name=b address=a\n/iot mqtt subscriptions\nadd broker=b topic=",
            "/iot mqtt brokers\nadd name=b address=a\n/iot mqtt subscriptions\nadd broker=b topic=x on-message=",
        ]),
        pieces in prop::collection::vec(prop::sample::select(vec![
            "/iot mqtt brokers", "/iot mqtt subscriptions", "\nadd ", "\nset ", "[ find ", "]", "name=", "address=", "broker=",
            "topic=", "on-message=", "password=", "b ", "a/# ", "#/a", "+x ", "\"", "\\", "\n", "{", "}", "(", "$msgData",
            ":log info ", ":if ", "~", "do=", "# ", "${", "\u{7f}", "\\00", "é", ";", "port=99999 ", "ssl=yes certificate=c ",
            "disabled=yes ", "\\\n", "\r\n", "\u{1}", "=", "/iot mqtt subscribe ", "qos=7 ", "://",
        ]), 0..20),
    ) {
        crate::fuzzing::routeros((beginning.to_owned() + &pieces.concat()).as_bytes());
    }

    #[test]
    fn no_text_is_too_odd(text in any::<Vec<u8>>()) {
        crate::fuzzing::routeros(&text);
    }
}

/// RouterOS' manual, scripting, "Constant Escape Sequences".
#[test]
fn each_escape_and_variable_is_what_it_says() {
    let check = |written: &str, expected: &[Part]| {
        let parts = Scanner::new(&format!("\"{written}\"")).quoted().expect("it is closed");
        assert_eq!(parts, expected, "{written}");
    };
    let text = |bytes: &[u8]| Part::Text(bytes.to_vec());
    check(r#"\"\\\$\?\_"#, &[text(b"\"\\$? ")]);
    check(r"\n\r\t\a\b\f\v", &[text(b"\n\r\t\x07\x08\x0c\x0b")]);
    check(r"\41\C3\A4\0A", &[text(b"A\xc3\xa4\n")]);
    // Hexadecimal digits are large letters, since small ones are escapes.
    check(r"\aB\b0\fa", &[text(b"\x07B\x080\x0ca")]);
    check(r"\x\4", &[text(br"\x\4")]);
    check("a$user2-b", &[text(b"a"), Part::Variable("user2".into()), text(b"-b")]);
    check("$ $-", &[text(b"$ $-")]);
}

#[test]
fn statements_have_their_lines() {
    let (statements, rest) = statements("a\n\n# x\nb c=\"\\\n  d\"; e\n[f]");
    let found: Vec<(usize, &str, usize)> =
        statements.iter().map(|statement| (statement.line, statement.raw, statement.tokens.len())).collect();
    assert_eq!(found, [(1, "a", 1), (4, "b c=\"\\\n  d\"", 2), (5, "e", 1), (6, "[f]", 1)]);
    assert_eq!((rest, &statements[3].tokens[0]), (None, &Token::Brackets("f")));
}
