//! Files of the system: damaged ones, foreign ones, and those that cannot be used.

use std::fs;
use std::path::PathBuf;

use super::*;

/// The files of a folder that were set aside.
fn aside(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.to_string_lossy().contains("state.redb.corrupt-")).collect()
}

fn open(folder: &Path) -> Result<(Store, StoreWriter), StoreError> {
    Store::open(folder)
}

/// A file with a thousand rows, closed in order.
fn filled(folder: &Path) -> PathBuf {
    let (store, writer) = open(folder).expect("opens");
    write(&store, (0..1000).map(|number| put("a", number, &[7; 300])).collect());
    writer.close();
    drop(store);
    folder.join("state.redb")
}

#[test]
fn what_was_written_is_there_after_the_store_was_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, writer) = open(folder.path()).expect("opens");
    write(&store, vec![put("a", 1, b"one"), put("a", 2, b"two"), put("ab", 3, b"three")]);
    store.submit_later([delete("a", 1)]);
    writer.close();
    drop(store);
    let (store, _writer) = open(folder.path()).expect("opens again");
    let most = (10, 1000);
    assert_eq!(numbers(&store, "a", 0, most), [2]);
    assert_eq!(numbers(&store, "ab", 0, most), [3]);
    let totals = store.totals(Table::Outbox).expect("reads");
    let expected = [("a".into(), Total { rows: 1, weight: 3 }), ("ab".into(), Total { rows: 1, weight: 5 })];
    assert_eq!(totals, expected);
    assert_eq!(store.totals(Table::Kv).expect("reads"), []);
    assert_eq!(aside(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_damaged_or_foreign_file_is_set_aside_as_it_is_and_an_empty_one_begun() {
    let check = |what: &str, damage: &dyn Fn(&mut Vec<u8>)| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = filled(folder.path());
        let mut bytes = fs::read(&path).expect("is there");
        damage(&mut bytes);
        fs::write(&path, &bytes).expect("writes");
        let (store, writer) = open(folder.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(store.totals(Table::Outbox).expect("reads"), [], "{what}");
        let [aside] = &aside(folder.path())[..] else { panic!("{what}: nothing was set aside") };
        assert_eq!(fs::read(aside).expect("is there").len(), bytes.len(), "{what}");
        write(&store, vec![put("a", 1, b"one")]);
        writer.close();
        drop(store);
        let (store, _writer) = open(folder.path()).expect("opens");
        assert_eq!(numbers(&store, "a", 0, (9, 9)), [1], "{what}");
    };
    check("cut off", &|bytes| bytes.truncate(bytes.len() / 2));
    check("cut to a few bytes", &|bytes| bytes.truncate(5));
    check("junk", &|bytes| bytes.fill(0xa5));
    check("a text", &|bytes| *bytes = b"tidegate\n".repeat(1000));
    check("zeros", &|bytes| bytes.fill(0));
    check("the header", &|bytes| bytes[9..400].fill(0x5a));
    check("another format", &|bytes| bytes[64] = 9);
    check("all behind the header", &|bytes| bytes[4096..].fill(0x17));
    check("one byte of a row", &|bytes| {
        let at = bytes.windows(300).position(|bytes| bytes == [7; 300]).expect("a row");
        bytes[at + 100] = 8;
    });
}

#[test]
fn an_empty_file_is_a_new_one() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("state.redb"), b"").expect("writes");
    let (store, _writer) = open(folder.path()).expect("opens");
    write(&store, vec![put("a", 1, b"one")]);
    assert_eq!(aside(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_file_that_cannot_be_used_for_another_reason_stays_and_the_start_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.redb");
    fs::create_dir(&path).expect("creates");
    let error = open(folder.path()).err().expect("is a folder").to_string();
    assert!(error.starts_with(&format!("{} cannot be opened", path.display())), "{error}");
    assert!(path.is_dir());
    let error = open(&folder.path().join("state.redb/x/../../no\0name")).err().expect("is no name").to_string();
    assert!(error.contains("cannot be opened; the daemon must be able to write it"), "{error}");
}

#[test]
fn the_files_are_for_their_owner_alone_and_the_ballast_takes_its_room() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().expect("a folder");
    filled(&folder.path().join("state"));
    let state = folder.path().join("state");
    assert_eq!(fs::metadata(&state).expect("is there").mode() & 0o777, 0o700);
    for name in ["state.redb", "state.ballast"] {
        assert_eq!(fs::metadata(state.join(name)).expect("is there").mode() & 0o777, 0o600, "{name}");
    }
    let ballast = fs::metadata(state.join("state.ballast")).expect("is there");
    assert_eq!(ballast.len(), 4 << 20);
    assert!(ballast.blocks() * 512 >= ballast.len(), "is not sparse");
}

#[test]
fn the_room_of_what_was_removed_is_given_back_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state.redb");
    let size = || fs::metadata(&path).expect("is there").len() >> 20;
    let (store, writer) = open(folder.path()).expect("opens");
    for number in 0..20 {
        write(&store, vec![put("a", number, &vec![7; 4 << 20])]);
    }
    write(&store, (0..19).map(|number| delete("a", number)).collect());
    writer.close();
    drop(store);
    let before = size();
    let (store, _writer) = open(folder.path()).expect("opens");
    assert!(before > 75 && size() < 20, "{before} MiB before, {} MiB after", size());
    assert_eq!(numbers(&store, "a", 0, (99, 9)), [19]);
}
