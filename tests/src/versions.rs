//! Versions of the test guest, which differ in the mark that its mode `marked` tells.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::daemon::built_plugin;

/// What stands in the built guest: the mark of its first version.
pub const FIRST: &str = "tidegate-mark-00";

/// The inside of `config` that has the guest tell its version, behind what it echoes.
pub const MARKED: &str = "mode = \"marked\"";

/// The guest with this mark, of at most 16 bytes. One that begins with `refuse` does not start, one that begins with `trap` panics in its
/// calls.
///
/// # Panics
/// The mark is too long, or the guest is not built.
pub fn guest(mark: &str) -> Vec<u8> {
    let file = built_plugin("misbehave.wasm");
    let mut bytes = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let is_place = |place: &usize| bytes[*place..].starts_with(FIRST.as_bytes());
    let places: Vec<usize> = (0..bytes.len()).filter(is_place).collect();
    let [place] = places[..] else { panic!("the mark stands in {} at {places:?}", file.display()) };
    bytes[place..place + FIRST.len()].copy_from_slice(format!("{mark:<16}").as_bytes());
    bytes
}

/// The version of these bytes, as the log and `handlers list` show it.
pub fn version(bytes: &[u8]) -> String {
    let mut version = hash(bytes);
    version.truncate(12);
    version
}

/// The SHA-256 of these bytes, by a program that shares no code with the daemon.
pub fn hash(bytes: &[u8]) -> String {
    let mut command = Command::new("sha256sum");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("coreutils are installed");
    child.stdin.take().expect("is piped").write_all(bytes).expect("it reads all");
    let output = child.wait_with_output().expect("is our child");
    String::from_utf8_lossy(&output.stdout).split(' ').next().expect("a hash").to_owned()
}
