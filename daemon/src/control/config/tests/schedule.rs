//! Errors of `[[schedules]]`.

use std::time::Duration;

use super::{BROKER_AND_HANDLER, NONE, assemble_text, check, check_warnings, good, lines};
use crate::control::config::model::{ScheduleAction, ScheduledPayload};

/// Checks the keys of a schedule: line 6 and on.
#[track_caller]
fn schedule<E: AsRef<str>>(keys: &str, expected: &[E]) {
    check(&format!("{BROKER_AND_HANDLER}[[schedules]]\n{keys}\n"), expected);
}

/// Checks when a schedule is due: line 6.
#[track_caller]
fn timing(keys: &str, expected: &[&str]) {
    schedule(&format!("{keys}\nname = \"s\"\non-schedule = \"celsius\""), expected);
}

/// Checks what a schedule publishes: line 6.
#[track_caller]
fn publish(keys: &str, expected: &[&str]) {
    schedule(&format!("publish = {{ {keys} }}\nname = \"s\"\nevery = \"1s\""), expected);
}

#[test]
fn the_model_has_what_is_written() {
    let loaded = good(&format!(
        "{BROKER_AND_HANDLER}[[schedules]]\nname = \"stats\"\nevery = \"60s\"\njitter = \"5s\"\n\
         publish = {{ broker = \"plant\", topic = \"t\", payload = {{ builtin = \"system-stats\" }}, qos = 1, retain = true }}\n\
         [[schedules]]\nname = \"report\"\ncron = \"0 */5 * * * *\"\ntime-zone = \"Europe/Riga\"\non-schedule = \"celsius\"\n\
         [[schedules]]\nname = \"clear\"\ncron = \"*/5 * * * *\"\njitter = \"off\"\npublish = {{ broker = \"plant\", topic = \"t\" }}\n"
    ));
    let timings: Vec<String> = loaded.config.schedules.iter().map(|one| one.timing.to_string()).collect();
    assert_eq!(timings, ["every 1m", "cron 0 */5 * * * * (Europe/Riga)", "cron */5 * * * * (UTC)"]);
    let jitters: Vec<u64> = loaded.config.schedules.iter().map(|one| one.jitter.as_secs()).collect();
    assert_eq!(jitters, [5, 0, 0]);
    let ScheduleAction::Publish(publish) = &loaded.config.schedules[0].action else { panic!("it publishes") };
    assert_eq!(
        (publish.payload.clone(), publish.qos.number(), publish.retain),
        (ScheduledPayload::SystemStats, 1, true)
    );
    assert!(matches!(&loaded.config.schedules[1].action, ScheduleAction::Handler(name) if **name == *"celsius"));
    let ScheduleAction::Publish(publish) = &loaded.config.schedules[2].action else { panic!("it publishes") };
    assert_eq!((publish.qos.number(), publish.retain), (0, false));
    assert_eq!(publish.payload, ScheduledPayload::Message(bytes::Bytes::new()));
    let table = &loaded.origins.schedules[1].table;
    assert_eq!((table.place.to_string().as_str(), table.field.as_str()), ("tidegate.toml:10:1", "schedules[1]"));
    assert_eq!(lines(&loaded.warnings), NONE, "the handler is used");
    assert_eq!(loaded.config.schedules[0].jitter, Duration::from_secs(5));
}

#[test]
fn a_handler_that_nothing_runs_is_warned_of() {
    let rest = "[[schedules]]\nname = \"s\"\nevery = \"1s\"\npublish = { broker = \"plant\", topic = \"t\" }\n";
    let warning = "tidegate.toml:3:1: handlers.celsius: no subscription and no schedule runs it; add on-message = \"celsius\" to one";
    check_warnings(&format!("{BROKER_AND_HANDLER}{rest}"), &[warning]);
}

#[test]
fn name() {
    schedule(
        "every = \"1s\"\non-schedule = \"celsius\"",
        &["tidegate.toml:5:1: schedules[0].name: missing; add name = \"NAME\""],
    );
    for name in ["", "a b", "a:b", &"a".repeat(65)] {
        schedule(
            &format!("name = \"{name}\"\nevery = \"1s\"\non-schedule = \"celsius\""),
            &[&format!(
                "tidegate.toml:6:8: schedules[0].name = \"{name}\": not a name: 1 to 64 letters, digits, \"-\" and \"_\"; use another name"
            )],
        );
    }
    let one = "name = \"s\"\nevery = \"1s\"\non-schedule = \"celsius\"\n";
    schedule(
        &format!("{one}[[schedules]]\n{one}"),
        &[
            "tidegate.toml:10:8: schedules[1].name = \"s\": also the name of the schedule at tidegate.toml:6:8; use another name",
        ],
    );
}

#[test]
fn every() {
    timing("every = \"1s\"", &[]);
    timing("every = \"500ms\"", &["tidegate.toml:6:9: schedules[0].every = \"500ms\": must be 1s to 365d; use \"1s\""]);
    timing(
        "every = 60",
        &[
            "tidegate.toml:6:9: schedules[0].every = 60: expected a duration, got an integer; use \"60ms\", \"60s\" or \"60m\"",
        ],
    );
    timing(
        "cron = \"* * * * *\"\nevery = \"1s\"",
        &[
            "tidegate.toml:6:8: schedules[0].cron = \"* * * * *\": a schedule has one of every and cron, and this one has both; \
             keep one of the two",
        ],
    );
    timing("", &["tidegate.toml:5:1: schedules[0]: is never due; add every = \"60s\" or cron = \"0 */5 * * * *\""]);
}

#[test]
fn cron() {
    let remedy = "use SECOND MINUTE HOUR DAY MONTH WEEKDAY, such as \"0 */5 * * * *\"";
    timing(
        "cron = \"0 0 0 30 2 *\"",
        &[&format!(
            "tidegate.toml:6:8: schedules[0].cron = \"0 0 0 30 2 *\": never comes: no day matches it; {remedy}"
        )],
    );
    let problems = assemble_text("[[schedules]]\nname = \"s\"\ncron = \"61 * * * * *\"\non-schedule = \"h\"\n");
    let problems = lines(&problems.expect_err("is no pattern").errors);
    let cron = problems.iter().find(|line| line.contains("schedules[0].cron")).expect("is told");
    assert!(
        cron.starts_with("tidegate.toml:3:8: schedules[0].cron = \"61 * * * * *\": not a cron pattern: "),
        "{cron}"
    );
    assert!(cron.ends_with(remedy), "{cron}");
}

#[test]
fn time_zone() {
    timing(
        "cron = \"* * * * *\"\ntime-zone = \"Europe/Atlantis\"",
        &[
            "tidegate.toml:7:13: schedules[0].time-zone = \"Europe/Atlantis\": no such time zone; use a name of the IANA database, \
             such as \"Europe/Riga\" or \"UTC\"",
        ],
    );
    timing(
        "every = \"1s\"\ntime-zone = \"UTC\"",
        &[
            "tidegate.toml:7:13: schedules[0].time-zone = \"UTC\": belongs to a cron, and there is none; remove it, or use cron = \
             \"0 */5 * * * *\"",
        ],
    );
}

#[test]
fn jitter() {
    timing("every = \"10s\"\njitter = \"10s\"", &[]);
    timing(
        "every = \"10s\"\njitter = \"11s\"",
        &["tidegate.toml:7:10: schedules[0].jitter = \"11s\": longer than every = \"10s\"; use \"10s\" or less"],
    );
    timing(
        "every = \"10s\"\njitter = \"0s\"",
        &["tidegate.toml:7:10: schedules[0].jitter = \"0s\": must be 1ms to 1d; use \"1ms\""],
    );
}

#[test]
fn what_it_does() {
    let what = "publish = { broker = \"BROKER\", topic = \"TOPIC\" } or on-schedule = \"HANDLER\"";
    schedule("name = \"s\"\nevery = \"1s\"", &[&format!("tidegate.toml:5:1: schedules[0]: does nothing; add {what}")]);
    schedule(
        "name = \"s\"\nevery = \"1s\"\non-schedule = \"celsius\"\npublish = { broker = \"plant\", topic = \"t\" }",
        &[
            "tidegate.toml:8:15: schedules[0].on-schedule = \"celsius\": a schedule publishes or runs a handler, and this one has \
             publish too; keep one of both",
        ],
    );
    schedule(
        "name = \"s\"\nevery = \"1s\"\non-schedule = \"celcius\"",
        &["tidegate.toml:8:15: schedules[0].on-schedule = \"celcius\": no such handler; did you mean \"celsius\"?"],
    );
}

#[test]
fn what_it_publishes() {
    publish("broker = \"plant\", topic = \"t\"", &[]);
    publish("topic = \"t\"", &["tidegate.toml:6:11: schedules[0].publish.broker: missing; add broker = \"plant\""]);
    publish("broker = \"plant\"", &["tidegate.toml:6:11: schedules[0].publish.topic: missing; add topic = \"TOPIC\""]);
    publish(
        "broker = \"plnt\", topic = \"t\"",
        &["tidegate.toml:6:22: schedules[0].publish.broker = \"plnt\": no such broker; did you mean \"plant\"?"],
    );
    publish(
        "broker = \"plant\", topic = \"t/#\"",
        &[
            "tidegate.toml:6:39: schedules[0].publish.topic = \"t/#\": has the wildcard '#' at byte 2, which only a topic filter may \
             have (MQTT 5 §4.7.1); use one topic such as \"gateway/1/stats\"",
        ],
    );
    publish(
        "broker = \"plant\", topic = \"t\", message = \"x\", payload = { builtin = \"system-stats\" }",
        &[
            "tidegate.toml:6:69: schedules[0].publish.payload: a publish has one of message and payload, and this one has both; keep one of the two",
        ],
    );
    publish(
        "broker = \"plant\", topic = \"t\", payload = { builtin = \"stats\" }",
        &[
            "tidegate.toml:6:66: schedules[0].publish.payload.builtin = \"stats\": not a known value; use \"system-stats\"",
        ],
    );
    publish(
        "broker = \"plant\", topic = \"t\", payload = {}",
        &["tidegate.toml:6:54: schedules[0].publish.payload.builtin: missing; add builtin = \"system-stats\""],
    );
    publish(
        "broker = \"plant\", topic = \"t\", payload = \"x\"",
        &[
            "tidegate.toml:6:54: schedules[0].publish.payload = \"x\": expected a table, got a string; use payload = { builtin = \
             \"system-stats\" }",
        ],
    );
}

#[test]
fn unknown_keys() {
    schedule(
        "name = \"s\"\nevery = \"1s\"\non-schedule = \"celsius\"\nqos = 1",
        &[
            "tidegate.toml:9:1: schedules[0].qos: unknown key; known here: cron, every, jitter, name, on-schedule, publish, \
             time-zone",
        ],
    );
}
