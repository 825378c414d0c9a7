//! `config/reference.toml` and `config/minimal.toml` against the code.

use proptest::prelude::*;

use super::*;

const REFERENCE: &str = include_str!("../../../../../config/reference.toml");
const MINIMAL: &str = include_str!("../../../../../config/minimal.toml");

/// Loads a text as if it stood in a folder with the files that the reference names.
fn load_reference(text: &str) -> Result<Loaded, Problems> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("reference.password"), "hunter2\n").expect("writes");
    private(&folder.path().join("reference.token"), "of-16-characters-or-more\n");
    let key = rcgen::KeyPair::generate().expect("a key");
    let parameters = rcgen::CertificateParams::new(vec!["gateway".to_owned()]).expect("a host name");
    let certificate = parameters.self_signed(&key).expect("signs").pem();
    for (name, content) in
        [("ca.pem", &certificate), ("gateway.pem", &certificate), ("gateway.key", &key.serialize_pem())]
    {
        std::fs::write(folder.path().join(name), content).expect("writes");
    }
    let file = folder.path().join("tidegate.toml");
    assemble_with(variable, &[SourceFile::new(file, text)])
}

#[test]
fn both_load_without_errors_and_warnings() {
    for text in [REFERENCE, MINIMAL] {
        let loaded = load_reference(text).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(lines(&loaded.warnings), Vec::<String>::new());
    }
    assert!(MINIMAL.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count() <= 10);
}

/// Every key that the code knows, by table: an unknown key's error lists them.
#[test]
fn the_reference_shows_every_key() {
    let reference: toml::Table = REFERENCE.parse().expect("is TOML");
    let tables = [
        ("", "", "x = 1"),
        ("log", "/log", "log.x = 1"),
        ("admin", "/admin", "admin.x = 1"),
        ("brokers.*", "/brokers/plant", "brokers.plant.x = 1"),
        ("brokers.*.tls", "/brokers/cloud/tls", "brokers.plant.tls.x = 1"),
        ("brokers.*.transport", "/brokers/lab/transport", "brokers.plant.transport.x = 1"),
        ("brokers.*.outbox", "/brokers/plant/outbox", "brokers.plant.outbox.x = 1"),
        ("brokers.*.will", "/brokers/plant/will", "brokers.plant.will.x = 1"),
        ("brokers.*.birth", "/brokers/plant/birth", "brokers.plant.birth.x = 1"),
        ("brokers.*.close", "/brokers/plant/close", "brokers.plant.close.x = 1"),
        ("subscriptions", "/subscriptions/0", "subscriptions = [{ x = 1 }]"),
        ("subscriptions.when", "/subscriptions/0/when", "subscriptions = [{ when = { x = 1 } }]"),
        ("subscriptions.on-message", "/subscriptions/1/on-message", "subscriptions = [{ on-message = { x = 1 } }]"),
        ("schedules", "/schedules/0", "schedules = [{ x = 1 }]"),
        ("schedules.publish", "/schedules/0/publish", "schedules = [{ publish = { x = 1 } }]"),
        (
            "schedules.publish.payload",
            "/schedules/0/publish/payload",
            "schedules = [{ publish = { payload = { x = 1 } } }]",
        ),
        ("handlers.*", "/handlers/celsius", "handlers.celsius.x = 1"),
        ("handlers.*.dead-letter", "/handlers/celsius/dead-letter", "handlers.celsius.dead-letter.x = 1"),
        ("handlers.*.quarantine", "/handlers/celsius/quarantine", "handlers.celsius.quarantine.x = 1"),
        ("handlers.*.reload", "/handlers/celsius/reload", "handlers.celsius.reload.x = 1"),
        ("handlers.*.allow", "/handlers/celsius/allow", "handlers.celsius.allow.x = 1"),
    ];
    let shown = serde_json::to_value(&reference).expect("is JSON as well");
    // The reference gives a password in each of the three ways, which one broker cannot have; likewise what a schedule does and when.
    let elsewhere = ["password-file", "password-env", "cron", "time-zone", "message", "on-schedule"];
    for (table, pointer, mistake) in tables {
        let problems = assemble_text(mistake).expect_err(mistake);
        let unknown = problems.errors.iter().find(|problem| problem.message == "unknown key").expect(mistake);
        let known = unknown.remedy.split_once("known here: ").expect("lists them").1;
        let shown = shown.pointer(pointer).unwrap_or_else(|| panic!("the reference has no {table}"));
        for key in known.split(", ").filter(|key| !elsewhere.contains(key)) {
            assert!(shown.get(key).is_some(), "the reference does not show {key} in {table}");
        }
    }
    for key in elsewhere {
        assert!(REFERENCE.contains(&format!("\n{key} = ")), "the reference does not show {key}");
    }
}

/// A line that is marked as a default changes nothing when it is taken away.
#[test]
fn the_reference_marks_the_defaults() {
    let model = |text: &str| format!("{:#?}", load_reference(text).expect("is good").config);
    let comparable = |text: &str| {
        // Each load has a folder of its own, which the paths of these files name.
        let names = ["reference.password", "reference.token", "ca.pem", "gateway.pem", "gateway.key"];
        let model = model(text);
        model
            .lines()
            .filter(|line| !names.iter().any(|name| line.contains(name)))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let whole = comparable(REFERENCE);
    let mut marked = 0;
    for (place, line) in REFERENCE.lines().enumerate().filter(|(_, line)| line.contains("#=") && !line.starts_with('#'))
    {
        let without: Vec<&str> =
            REFERENCE.lines().enumerate().filter(|(other, _)| *other != place).map(|(_, line)| line).collect();
        assert_eq!(comparable(&without.join("\n")), whole, "not the default: {line}");
        marked += 1;
    }
    assert!(marked > 20, "{marked} defaults are marked");
}

/// The configurations that readers copy.
#[test]
fn the_documentation_shows_good_configurations() {
    let pages = [
        include_str!("../../../../../README.md"),
        include_str!("../../../../../docs/schedules.md"),
        include_str!("../../../../../docs/writing-handlers.md"),
        include_str!("../../../../../plugins/celsius/README.md"),
        include_str!("../../../../../plugins/envelope/README.md"),
        include_str!("../../../../../plugins/heartbeat/README.md"),
        include_str!("../../../../../plugins/native-c/README.md"),
        include_str!("../../../../../plugins/native-rust/README.md"),
        include_str!("../../../../../plugins/relay/README.md"),
        include_str!("../../../../../plugins/threshold/README.md"),
    ];
    for page in pages {
        let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let configurations: Vec<&str> = blocks.filter(|block| block.contains("[brokers.")).collect();
        assert!(!configurations.is_empty(), "{page}");
        for configuration in configurations {
            assert_eq!(lines(&good(configuration).warnings), Vec::<String>::new(), "{configuration}");
        }
    }
}

/// Pieces that damage a file in ways that people do.
fn piece() -> impl Strategy<Value = &'static str> {
    let pieces =
        ["", "\"", "'", "[", "]", "{", "}", "=", "\n", "#", ",", "${", "[[", "\"\"\"", "é", "\r", "x = 1\n", "-1"];
    prop::sample::select(pieces.to_vec())
}

proptest! {
    /// However a file is damaged: problems or a model, at places that are in the file, and never a secret.
    #[test]
    fn a_damaged_file_is_told_without_secrets(edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..20, piece()), 1..4)) {
        let mut text = REFERENCE.replace("${file:reference.password}", "hunter2");
        for (place, length, piece) in edits {
            let starts: Vec<usize> = text.char_indices().map(|(start, _)| start).collect();
            let from = place.index(starts.len());
            let to = starts.get(from + length).copied().unwrap_or(text.len());
            text.replace_range(starts[from]..to, piece);
        }
        if let Err(problems) = load_reference(&text) {
            prop_assert!(!problems.errors.is_empty());
            for problem in problems.errors.iter().chain(&problems.warnings) {
                prop_assert!(!problem.to_string().contains("hunter2"), "{problem}");
                prop_assert!(!problem.to_string().contains('\n'), "{problem}");
                if let Some(position) = problem.origin.place.position {
                    prop_assert!((1..=text.lines().count() + 1).contains(&position.line), "{problem}");
                }
            }
        }
    }
}
