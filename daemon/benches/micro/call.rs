//! One call of the sample handler `celsius` in a warm instance: 256 bytes of JSON in, one publish out.

use std::path::PathBuf;
use std::time::Instant;

use criterion::Criterion;
use tidegate::benchmarks::Handler;

/// Measures the call.
pub fn bench(criterion: &mut Criterion) {
    let plugins = std::env::var_os("TIDEGATE_PLUGINS").map(PathBuf::from);
    let plugins = plugins.expect("TIDEGATE_PLUGINS names the folder of the built handlers: use `cargo xtask bench`");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let configuration = folder.path().join("tidegate.toml");
    let text = format!(
        "plugins-dir = {plugins:?}\n[brokers.local]\naddress = \"127.0.0.1\"\n\
         [handlers.celsius]\nplugin = \"celsius.wasm\"\nallow = {{ publish = [\"local:bench/in/+/fahrenheit\"] }}\n"
    );
    std::fs::write(&configuration, text).expect("the folder is ours");
    let mut handler = Handler::start(&configuration).expect("the handler starts");
    let start = r#"{"c":21.5,"seq":1,"t":1,"pad":""#;
    let reading = format!("{start}{}\"}}", "x".repeat(256 - start.len() - 2));

    criterion.bench_function("warm call of celsius", |bencher| {
        bencher.iter_custom(|calls| {
            let start = Instant::now();
            let last = handler.calls("bench/in/7", reading.as_bytes(), calls).expect("every call publishes");
            let took = start.elapsed();
            assert_eq!(&last[..], br#"{"f":70.7}"#);
            took
        });
    });
}
