//! One handler source as a component and as a native plugin: both do the same, word for word.
//!
//! Each scenario runs both in one daemon, each fed by a broker of its own, and compares what they report.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidegate_tests::{Client, Config, Daemon, Home, Message, Mosquitto, Properties, Protocol, ports, wait};

/// The handler, its broker and its plugin, of both kinds.
const SIDES: [(&str, &str, &str); 2] =
    [("component", "left", "conformance.wasm"), ("library", "right", "conformance.so")];

/// A daemon with both.
struct Both {
    daemon: Daemon,
    publishers: [Client; 2],
    collectors: [Client; 2],
    _brokers: [Mosquitto; 2],
}

/// A configuration of both, with these keys for each; `BROKER` stands for its broker.
fn config(ports: [u16; 2], keys: &str, subscription: &str) -> Config {
    let config = Config::new().top("native = true");
    SIDES.iter().zip(ports).fold(config, |config, ((handler, broker, plugin), port)| {
        config
            .broker(broker, port, Protocol::V5, "")
            .handler(handler, plugin, &keys.replace("BROKER", broker))
            .subscription(broker, "in/+/#", 1, handler, &format!("name = \"inputs of {broker}\"\n{subscription}"))
    })
}

const ALLOW: &str = "allow = { publish = [\"BROKER:report\", \"BROKER:out/#\"], kv = \"4KiB\" }\n";

fn start(keys: &str, subscription: &str) -> Both {
    start_with(keys, subscription, "")
}

fn start_with(keys: &str, subscription: &str, tables: &str) -> Both {
    let brokers = [Mosquitto::start(), Mosquitto::start()];
    let config = config([brokers[0].port(), brokers[1].port()], keys, subscription).table(tables);
    let collectors = [&brokers[0], &brokers[1]].map(|broker| {
        let collector = broker.client(Protocol::V5);
        collector.subscribe("report", 1);
        collector
    });
    let daemon = Daemon::start(&config);
    let publishers = [&brokers[0], &brokers[1]].map(|broker| broker.client(Protocol::V5));
    Both { daemon, publishers, collectors, _brokers: brokers }
}

/// Names that differ between the sides.
fn alike(text: &str, (handler, broker, plugin): (&str, &str, &str)) -> String {
    text.replace(plugin, "PLUGIN").replace(handler, "HANDLER").replace(broker, "BROKER")
}

/// What both say, which is the same.
#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(seen: [T; 2]) -> T {
    let [component, library] = seen;
    assert_eq!(component, library, "the component, and the native plugin");
    library
}

impl Both {
    fn publish(&self, message: &Message) {
        self.publishers.iter().for_each(|publisher| publisher.publish(message));
    }

    /// The next report of both.
    #[track_caller]
    fn report(&self) -> Value {
        let report = |side: usize| alike(self.collectors[side].collect(1).remove(0).text(), SIDES[side]);
        serde_json::from_str(&same([report(0), report(1)])).expect("is JSON")
    }

    /// What both report of these steps.
    #[track_caller]
    fn steps(&self, steps: &Value) -> Value {
        self.publish(&Message::new("in/7/x", steps.to_string()));
        self.report()
    }

    /// The log lines of both handlers that have this message: level, and what else the handler wrote.
    #[track_caller]
    fn lines(&self, message: &str, count: usize) -> Vec<(String, String)> {
        let of = |side: usize| {
            let lines: Vec<_> = self
                .daemon
                .events()
                .into_iter()
                .filter(|event| event["handler"] == SIDES[side].0 && event["message"] == message)
                .collect();
            let text = |value: &Value| alike(value.as_str().unwrap_or_default(), SIDES[side]);
            lines.iter().map(|line| (text(&line["level"]), text(&line["fields"]))).collect::<Vec<_>>()
        };
        wait::until(format!("{count} lines {message:?} of each"), || {
            let found = [of(0), of(1)];
            if found.iter().all(|lines| lines.len() == count) { Ok(()) } else { Err(format!("{found:?}")) }
        });
        same([of(0), of(1)])
    }

    /// The calls of both by their result, once so many have ended.
    #[track_caller]
    fn calls(&self, count: f64) -> BTreeMap<String, u32> {
        let name = "tidegate_handler_calls_total";
        let metrics = self.daemon.wait_metrics("the calls have ended", |metrics| {
            SIDES.iter().all(|(handler, ..)| metrics.sum(name, &[("handler", handler)]) == count)
        });
        let of = |side: usize| {
            let results = ["ok", "reject", "retry", "trap", "deadline", "memory", "limit"];
            let calls = results.map(|result| (result.to_owned(), metrics.calls(SIDES[side].0, result) as u32));
            calls.into_iter().filter(|(_, calls)| *calls > 0).collect()
        };
        same([of(0), of(1)])
    }
}

#[test]
fn both_get_the_message() {
    let both = start(&format!("{ALLOW}instances = 1"), "");
    let steps = json!([{ "do": "describe" }, { "do": "calls" }, { "do": "clocks" }, { "do": "random" }]);
    let text = steps.to_string();
    let properties = Properties {
        utf8_payload: true,
        message_expiry: Some(3600),
        content_type: Some("application/json".to_owned()),
        response_topic: Some("answers/1".to_owned()),
        correlation_data: Some(vec![0, 255]),
        user: vec![("k".to_owned(), "v".to_owned()), ("k".to_owned(), String::new())],
    };
    let expected = |captures: Value, topic: &str, properties: Value| {
        json!({
            "broker": "BROKER", "subscription": "inputs of BROKER", "topic": topic, "payload-bytes": text.len(), "qos": 1,
            "retain": false, "dup": false, "attempt": 1, "captures": captures, "properties": properties,
        })
    };
    both.publish(&Message::new("in/7/a/b", text.clone()).with(properties));
    let seen = both.report();
    let all = json!({
        "content-type": "application/json", "response-topic": "answers/1", "correlation-data": [0, 255],
        "message-expiry": seen[0]["properties"]["message-expiry"], "utf8-payload": true, "user": [["k", "v"], ["k", ""]],
    });
    assert!(all["message-expiry"].as_u64().is_some_and(|left| left <= 3600), "{seen}");
    assert_eq!(seen, json!([expected(json!(["7", "a/b"]), "in/7/a/b", all), seen[1], true, true]));

    both.publish(&Message::new("in//", text.clone()));
    let bare = both.report();
    assert_eq!(bare[0]["captures"], json!(["", ""]));
    assert_eq!(bare[0]["payload-bytes"], text.len());
}

#[test]
fn both_publish_and_are_refused_alike() {
    let both = start(
        &format!("{ALLOW}max-publishes = 6\nmax-publish-bytes = \"64KiB\"\ninstances = 1\nretry = {{ max = 0 }}"),
        "",
    );
    let publish = |topic: &str, more: Value| {
        let mut step = json!({ "do": "publish", "topic": topic });
        step.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        step
    };
    both.collectors.iter().for_each(|collector| collector.subscribe("out/#", 2));
    let properties = json!({
        "content-type": "text/plain", "response-topic": "r", "correlation-data": [7], "message-expiry": 99, "utf8-payload": true,
        "user": [["a", "1"], ["a", "2"]],
    });
    let steps = json!([
        publish("out/a", json!({ "payload": "one", "qos": 1, "properties": properties })),
        publish("out/b", json!({ "payload": "two", "qos": 0 })),
        publish("elsewhere", json!({})),
        publish("out/#", json!({})),
        publish("", json!({})),
        publish("out/a", json!({ "broker": "nobody" })),
        publish("out/a", json!({ "properties": { "content-type": "a\u{0}" } })),
        publish("out/a", json!({ "properties": { "response-topic": "a/+" } })),
    ]);
    both.publish(&Message::new("in/7/x", steps.to_string()));
    let collected = |side: usize| {
        let mut all = both.collectors[side].collect(3);
        all.sort_by(|one, other| one.topic.cmp(&other.topic));
        let shown = |message: &Message| {
            let Message { topic, qos, retain, properties, .. } = message;
            format!("{topic} {qos} {retain} {properties:?} {}", alike(message.text(), SIDES[side]))
        };
        all.iter().map(shown).collect::<Vec<_>>()
    };
    let seen = same([collected(0), collected(1)]);
    assert!(seen[0].contains("one") && seen[0].contains("text/plain") && seen[0].contains("Some([7])"), "{seen:?}");
    assert!(seen[1].contains("two"), "{seen:?}");
    for words in [
        r#""ok","ok",{"denied":"handler \"HANDLER\" must not publish to \"BROKER:elsewhere\": allow.publish grants"#,
        r##"{"invalid-topic":"the topic has the wildcard '#' at byte 4"##,
        r#"{"invalid-topic":"the topic must not be empty"#,
        r#"{"unknown-broker":"nobody"}"#,
        r#"{"other":"content-type has the character U+0000"#,
        r#"{"other":"response-topic has the wildcard '+'"#,
    ] {
        assert!(seen[2].contains(words), "{} lacks {words}", seen[2]);
    }

    // These are past a limit: the call fails by it, whatever it returns.
    let limits = json!([
        { "do": "many", "times": 1, "bytes": 70_000, "topic": "out/c" },
        { "do": "many", "times": 7, "bytes": 1, "topic": "out/c" },
    ]);
    both.publish(&Message::new("in/8/x", limits.to_string()));
    let told = both.lines("report", 2);
    assert!(told[1].1.contains("too-large") && told[1].1.contains("quota"), "{told:?}");
    assert_eq!(both.calls(2.0), BTreeMap::from([("ok".to_owned(), 1), ("limit".to_owned(), 1)]));
}

#[test]
fn both_remember() {
    let both = start(ALLOW, "");
    let set = |key: &str, value: &str| json!({ "do": "kv-set", "key": key, "value": value });
    let get = |key: &str| json!({ "do": "kv-get", "key": key });
    let steps = json!([
        get("a"), set("a", "1"), get("a"), set("b/1", ""), set("b/2", "zwei"), get("b/1"),
        { "do": "kv-keys", "limit": 10 }, { "do": "kv-keys", "prefix": "b/", "after": "b/1", "limit": 10 }, { "do": "kv-keys", "limit": 2 },
        { "do": "kv-delete", "key": "b/2" }, { "do": "kv-delete", "key": "absent" }, get("b/2"),
        { "do": "kv-set", "key": "short", "value": "x", "ttl-ms": 1 }, { "do": "kv-add", "key": "sum" },
        set("large", &"x".repeat(3_000)), set("larger", &"x".repeat(5_000)), set(&"k".repeat(513), "v"), set("more", &"x".repeat(2_000)),
    ]);
    let seen = both.steps(&steps);
    assert_eq!(
        seen,
        json!([
            null, "ok", "1", "ok", "ok", "", ["a", "b/1", "b/2"], ["b/2"], ["a", "b/1"], "ok", "ok", null, "ok", 1,
            "ok", { "kv": "too-large" }, { "kv": "too-large" }, { "kv": "quota" },
        ])
    );
    // What the call wrote is there for the next one, but for what has expired.
    let later = json!([get("a"), get("short"), { "do": "kv-add", "key": "sum" }, { "do": "kv-keys", "limit": 10 }]);
    wait::until_true("what was short has expired", || {
        both.daemon.ask(&["kv", "get", "library", "short"]).code != Some(0)
            && both.daemon.ask(&["kv", "get", "component", "short"]).code != Some(0)
    });
    assert_eq!(both.steps(&later), json!(["1", null, 2, ["a", "b/1", "large", "sum"]]));
    // A call that fails leaves nothing.
    both.publish(&Message::new("in/7/x", json!([set("a", "2"), { "do": "reject", "reason": "no" }]).to_string()));
    assert_eq!(both.steps(&json!([get("a")])), json!(["1"]));
    let many = both.steps(&json!([{ "do": "kv-many", "keys": 10_001 }]));
    assert!(many[0]["kv-other"].as_str().is_some_and(|words| words.contains("more than 10000 keys")), "{many}");
}

#[test]
fn calls_that_meet_in_what_they_remember_run_again() {
    const MESSAGES: usize = 40;
    let both = start(&format!("{ALLOW}instances = 2\ncall-deadline = \"20s\""), "");
    let steps = json!([{ "do": "kv-add", "key": "sum" }, { "do": "spin", "ms": 3 }]).to_string();
    let messages: Vec<_> = (0..MESSAGES).map(|topic| Message::new(format!("in/{topic}/x"), steps.clone())).collect();
    both.publishers.iter().for_each(|publisher| publisher.publish_all(&messages));
    let sums = |side: usize| {
        let reports = both.collectors[side].collect(MESSAGES);
        let mut sums: Vec<_> = reports.iter().map(|report| report.json()[0].as_u64().expect("a number")).collect();
        sums.sort_unstable();
        sums
    };
    assert_eq!(same([sums(0), sums(1)]), (1..=MESSAGES as u64).collect::<Vec<_>>());
    let metrics = both.daemon.metrics();
    let conflicts = |handler| metrics.sum("tidegate_handler_conflicts_total", &[("handler", handler)]);
    assert!(conflicts("library") > 0.0, "no calls of the native plugin met: the scenario shows nothing");
}

#[test]
fn both_write_to_the_log_read_their_configuration_and_what_they_may_of_the_machine() {
    let both = start(&format!("{ALLOW}config = {{ any = {{ unit = \"F\", list = [1, 2.5] }} }}"), "");
    let line = |level: &str| json!({ "do": "log", "level": level, "text": format!("a line of {level}"), "fields": [["k", "v \"w\""], ["k", ""]] });
    let steps = json!([line("trace"), line("debug"), line("info"), line("warn"), line("error"), { "do": "config" }, { "do": "system" }]);
    let seen = both.steps(&steps);
    let denied =
        "handler \"HANDLER\" must not read the machine; to permit it, set allow.system = true of [handlers.HANDLER]";
    assert_eq!(seen, json!([false, true, true, true, true, { "unit": "F", "list": [1, 2.5] }, { "error": denied }]));
    for level in ["debug", "info", "warn", "error"] {
        let expected = (level.to_uppercase(), r#"k="v \"w\"" k="""#.to_owned());
        assert_eq!(both.lines(&format!("a line of {level}"), 1), [expected]);
    }
    assert!(both.daemon.log_lines(&["a line of trace"]).is_empty());
}

#[test]
fn both_read_the_machine_where_they_may() {
    let both = start(&ALLOW.replace("kv = ", "system = true, kv = "), "");
    let names = ["model", "serial-number", "os-version", "cpu-load", "used-memory", "free-memory", "uptime"];
    assert_eq!(both.steps(&json!([{ "do": "system" }])), json!([names]));
}

#[test]
fn both_run_on_schedules_and_on_silence() {
    let keys = format!(
        "{ALLOW}default-broker = \"BROKER\"\ninstances = 1\nconfig = {{ on-schedule = [{{ do = \"describe\" }}] }}"
    );
    let schedule = |(handler, ..): (&str, &str, &str)| {
        format!("[[schedules]]\nname = \"hourly-{handler}\"\nevery = \"1h\"\non-schedule = \"{handler}\"\n")
    };
    let both = start_with(&keys, "silence = \"2s\"", &SIDES.map(schedule).concat());
    let silence = both.report();
    assert_eq!(silence, json!([{ "trigger": "silence", "name": "inputs of BROKER", "due-before-now": true }, null]));
    SIDES.iter().for_each(|(handler, ..)| _ = both.daemon.done(&["schedules", "run", &format!("hourly-{handler}")]));
    let scheduled = |side: usize| {
        let reports =
            both.collectors[side].collect_until("a run of the schedule", |report| report.text().contains("hourly"));
        alike(reports.last().expect("one at least").text(), SIDES[side])
    };
    let seen: Value = serde_json::from_str(&same([scheduled(0), scheduled(1)])).expect("is JSON");
    assert_eq!(seen, json!([{ "trigger": "schedule", "name": "hourly-HANDLER", "due-before-now": true }, null]));
}

/// What `check` says of both, with these words in their configuration.
fn refused(config_table: &str) -> String {
    let config = config([ports::free(), ports::free()], &format!("{ALLOW}config = {{ {config_table} }}"), "");
    let ran = Home::new(&config, ports::free()).run(&["check", "tidegate.toml"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let of = |(handler, broker, plugin): (&str, &str, &str)| {
        let line = ran.stderr.lines().find(|line| line.contains(plugin)).unwrap_or_else(|| panic!("{plugin}: {ran:?}"));
        let words = line.split_once(": handlers.").expect("names the key").1;
        alike(words, (handler, broker, plugin))
    };
    let [component, library] = SIDES.map(of);
    // A panic's place in the source is told by both, each in the words of its kind.
    if config_table.contains("panic") { library } else { same([component, library]) }
}

#[test]
fn init_of_both_may_refuse_and_fail() {
    assert_eq!(refused("refuse = \"not today\""), "HANDLER.plugin = \"PLUGIN\": init refused: not today");
    let panicked = refused("panic = \"no unit\"");
    assert!(panicked.contains("the handler does not start: it panicked") && panicked.contains("no unit"), "{panicked}");
}

#[test]
fn init_of_both_reads_and_does_nothing_else() {
    let init = r#"{ do = "kv-get", key = "a" }, { do = "kv-set", key = "a", value = "1" }, { do = "publish", topic = "out/a" }, { do = "config" }"#;
    let both = start(&format!("{ALLOW}instances = 1\nconfig = {{ init = [{init}], any = 7 }}"), "");
    let told = both.lines("report", 1);
    for words in ["must not write to kv in init", "must not publish in init", "[null,", "7]"] {
        assert!(told[0].1.contains(words), "{told:?} lacks {words}");
    }
    assert_eq!(both.steps(&json!([{ "do": "calls" }])), json!([1]));
}

#[test]
fn calls_of_both_fail_alike() {
    let keys = format!(
        "{ALLOW}instances = 1\nretry = {{ max = 2, backoff = \"10ms..20ms\" }}\nquarantine = \"off\"\ncall-deadline = \"3s\""
    );
    let both = start(&keys, "");
    both.collectors.iter().for_each(|collector| collector.subscribe("out/#", 1));
    let dropped = json!({ "do": "publish", "topic": "out/dropped" });
    // So many calls of each have ended then; how the last one failed.
    let fails = |step: Value, calls: f64| {
        both.publish(&Message::new("in/7/x", json!([dropped, step]).to_string()));
        both.calls(calls);
        let last = |side: usize| {
            let failure = both.daemon.json(&["handlers", "list", SIDES[side].0])["last-failure"].take();
            let text = |key: &str| failure[key].as_str().expect("one failed").to_owned();
            (text("result"), text("error"))
        };
        [last(0), last(1)]
    };
    let failed = |result: &str, error: &str| (result.to_owned(), error.to_owned());
    let rejected = same(fails(json!({ "do": "reject", "reason": "no such unit" }), 1.0));
    assert_eq!(rejected, failed("reject", "the handler rejected the message: no such unit"));
    let retried = same(fails(json!({ "do": "retry", "reason": "later" }), 4.0));
    assert_eq!(retried, failed("retry", "the handler asks for a retry: later"));
    // Each says it in the words of its kind, and both say which panic it was.
    for (result, error) in fails(json!({ "do": "panic", "reason": "broken pipe" }), 7.0) {
        let said = error.starts_with("the handler trapped: it panicked") && error.contains("broken pipe");
        assert!(result == "trap" && said, "{result} {error}");
    }
    let calls = [("reject", 1), ("retry", 3), ("trap", 3)].map(|(result, calls)| (result.to_owned(), calls));
    assert_eq!(both.calls(7.0), BTreeMap::from(calls));

    // A panic has cost the instance; the handler goes on. What was published in calls that failed never came.
    assert_eq!(both.steps(&json!([{ "do": "calls" }])), json!([1]));
    // It asks for more time than the backoff would give.
    let after = json!([{ "do": "retry-until", "attempt": 2 }, { "do": "calls" }]);
    assert_eq!(both.steps(&after), json!([2, 3]));
    // Two calls went through since, one of them the second time.
    let too_late = same(fails(json!({ "do": "retry", "reason": "too late", "after-ms": 3_600_000 }), 11.0));
    assert_eq!(too_late, failed("retry", "the handler asks for a retry: too late"));
    for (result, error) in fails(json!({ "do": "spin", "ms": 6_500 }), 14.0) {
        let said = error.starts_with("the call took longer than call-deadline = 3s");
        assert!(result == "deadline" && said, "{result} {error}");
    }
    both.daemon
        .wait_metrics("no thread hangs any more", |metrics| metrics.sum("tidegate_handler_threads_stuck", &[]) == 0.0);
    assert_eq!(both.steps(&json!([{ "do": "calls" }])), json!([1]));
}
