//! `config/examples/`: each file loads, with the files that it names and before they are there.

use std::fs;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};

use super::*;

/// Every example, with its text.
fn examples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples");
    let files =
        fs::read_dir(&folder).expect("is part of the repository").map(|entry| entry.expect("can be listed").path());
    let examples = files.map(|file| {
        let name = file.file_name().expect("has one").to_string_lossy().into_owned();
        (name, fs::read_to_string(&file).expect("is text"))
    });
    examples.collect()
}

#[test]
fn each_loads_without_warnings_once_its_files_are_there() {
    let key = KeyPair::generate().expect("a key");
    let parameters = CertificateParams::new(vec!["plant-7".to_owned()]).expect("a host name");
    let certificate = parameters.self_signed(&key).expect("signs").pem();
    let folder = tempfile::tempdir().expect("a folder");
    let files = [
        ("AmazonRootCA1.pem", &certificate),
        ("plant-7.pem.crt", &certificate),
        ("plant-7.pem.key", &key.serialize_pem()),
        ("plant-7.sas", &"SharedAccessSignature sr=x".to_owned()),
        ("cloud.password", &"hunter2".to_owned()),
    ];
    for (name, content) in files {
        fs::write(folder.path().join(name), content).expect("writes");
    }
    let examples = examples();
    assert!(examples.len() >= 4, "{examples:?}");
    for (name, text) in examples {
        let file = SourceFile::new(folder.path().join(&name), &text);
        let loaded = assemble_with(variable, &[file]).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        assert_eq!(lines(&loaded.warnings), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn each_loads_before_its_files_are_there() {
    for (name, text) in examples() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = SourceFile::new(folder.path().join(&name), &text);
        let loaded = assemble_with(variable, &[file]).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        for warning in lines(&loaded.warnings) {
            assert!(warning.contains(": there is no such file yet; "), "{name}: {warning}");
        }
    }
}
