//! Versions of the test guest, which differ in the name that its mode `version` tells.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::daemon::built_plugin;

/// The name of the built guest.
pub const ORIGINAL: &str = "original";

/// The inside of `config` that has the guest tell its name, behind what it echoes. One that is named `refuse` does not start, and one that
/// is named `trap` panics in its calls.
pub const NAMED: &str = "mode = \"version\", refuses-in = \"refuse\", panics-in = \"trap\"";

/// The guest with this name, of at most 10 bytes.
///
/// # Panics
/// The name is too long, or the guest is not built.
pub fn guest(name: &str) -> Vec<u8> {
    let file = built_plugin("misbehave.wasm");
    let mut bytes = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let (built, named) = [ORIGINAL, name].map(|name| format!("guest-version:{name:<10}")).into();
    let is_place = |place: &usize| bytes[*place..].starts_with(built.as_bytes());
    let places: Vec<usize> = (0..bytes.len()).filter(is_place).collect();
    let [place] = places[..] else { panic!("the name stands in {} at {places:?}", file.display()) };
    bytes[place..place + built.len()].copy_from_slice(named.as_bytes());
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
