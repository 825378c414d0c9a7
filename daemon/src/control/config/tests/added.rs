//! What was added while the daemon ran: read as a further file, with rules of its own.

use super::*;

const MAIN: &str = "[brokers.plant]\naddress = \"mqtt.example\"\n";

fn with_added(added: &str) -> Result<Loaded, Problems> {
    let environment =
        Environment { variable, hostname: "host".into(), parallelism: NonZeroUsize::new(2).expect("not zero") };
    let runtime = |state_dir: &Path| Ok(SourceFile::runtime(state_dir.join("runtime.toml"), added));
    assemble(&[SourceFile::new("tidegate.toml", MAIN)], runtime, &environment, &BrokerNames::default())
}

#[track_caller]
fn check_added(added: &str, expected: &[&str]) {
    let found = with_added(added).err().map(|problems| lines(&problems.errors)).unwrap_or_default();
    assert_eq!(found, expected, "{added}");
}

#[test]
fn it_holds_brokers_subscriptions_and_handlers_alone() {
    check_added("[brokers.cloud]\naddress = \"a\"\n[[subscriptions]]\nbroker = \"plant\"\ntopic = \"t\"\n", &[]);
    check_added(
        "shutdown-grace = \"1s\"\n",
        &["tidegate-state/runtime.toml:1:1: shutdown-grace: unknown key; known here: brokers, handlers, subscriptions"],
    );
}

#[test]
fn it_contradicts_no_file() {
    check_added(
        "[brokers.plant]\naddress = \"b\"\n",
        &["tidegate-state/runtime.toml:1:1: brokers.plant: also defined at tidegate.toml:1:1; keep one of the two"],
    );
    check_added(
        "[[subscriptions]]\nbroker = \"gone\"\ntopic = \"t\"\n",
        &[
            "tidegate-state/runtime.toml:2:10: subscriptions[0].broker = \"gone\": no such broker; use \"plant\", or add \
           another [brokers.NAME]",
        ],
    );
}

#[test]
fn its_paths_are_absolute() {
    check_added("[brokers.cloud]\naddress = \"a\"\npassword-file = \"/no/such\"\n", &[]);
    check_added(
        "[brokers.cloud]\naddress = \"a\"\npassword-file = \"p\"\n",
        &[
            "tidegate-state/runtime.toml:3:17: brokers.cloud.password-file = \"p\": a relative path, in what is added while \
           the daemon runs; use an absolute path",
        ],
    );
}

#[test]
fn what_was_added_is_known_as_such_and_numbers_stay() {
    let names = BrokerNames::default();
    let gone = names.number("gone");
    let first = with_added("").expect("good");
    assert!(!first.origins.brokers[0].object.runtime);
    let loaded = first.sources.with_runtime("[brokers.cloud]\naddress = \"a\"\n".into(), &names).expect("good");
    let [plant, cloud] = &*loaded.config.brokers else { panic!("{:?}", loaded.config.brokers) };
    assert!(loaded.origins.brokers[1].object.runtime);
    assert_ne!(plant.id, gone);
    assert_ne!(cloud.id, gone);
    assert_eq!(first.origins.brokers[0].object.definition, loaded.origins.brokers[0].object.definition);
    assert_eq!(names.find("cloud"), None, "a configuration that is not used gives no numbers");
}

#[test]
fn what_is_interpolated_is_told_as_it_is_written() {
    let text = "[brokers.plant]\naddress = \"mqtt.example\"\nusername = \"${env:SITE}\"\nclient-id = \"a$${b}\"\n\
        will = { topic = \"t\", message = \"at ${env:SITE}\" }\n\
        [[subscriptions]]\nbroker = \"plant\"\ntopic = \"t\"\non-message = { log = \"x\" }\nwhen = { payload = '${env:SITE}' }\n";
    let found = good(text).shown.interpolated;
    let expected = [
        ("brokers.plant.username", "${env:SITE}"),
        ("brokers.plant.will.message", "at ${env:SITE}"),
        ("subscriptions[0].when.payload", "${env:SITE}"),
    ];
    assert_eq!(found, expected.map(|(key, text)| (key.to_owned(), text.to_owned())).into());
}
