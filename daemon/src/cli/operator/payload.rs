//! Bytes that a command gives to the daemon, or gets from it: read from files and standard input, put into JSON and taken out.
//!
//! Knows no resource: `publish` and `kv` say what the bytes are and how many there may be.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::cli::client::Failure;
use crate::control::admin::resource::Encoding;

/// The largest request that the daemon takes.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Bytes of JSON: those of a text, or a third more than those of base64.
    pub bytes: usize,
    /// What else is in it.
    pub beside: &'static str,
    /// What to do with more.
    pub remedy: &'static str,
}

impl Most {
    /// Refuses a body that is too large because of so many bytes of its payload.
    ///
    /// # Errors
    /// It is.
    pub fn holds(self, body: &Value, what: &str, bytes: usize) -> Result<(), Failure> {
        match body.to_string().len() > self.bytes {
            true => Err(self.exceeded(&format!("the {what} has {bytes} bytes"))),
            false => Ok(()),
        }
    }

    fn exceeded(self, what: &str) -> Failure {
        let Most { bytes, beside, remedy } = self;
        let others = bytes / 4 * 3;
        Failure::WrongUse(format!(
            "{what}; the daemon takes {bytes} bytes of text at most, or {others} of others, {beside}; {remedy}"
        ))
    }

    /// What was read, if that is all of it.
    fn whole(self, read: io::Result<Vec<u8>>, name: &str, remedy: &str) -> Result<Vec<u8>, Failure> {
        match read {
            Ok(bytes) if bytes.len() > self.bytes => {
                Err(self.exceeded(&format!("{name} holds more than {} bytes", self.bytes)))
            }
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(Failure::WrongUse(format!("{name}: {error}{remedy}"))),
        }
    }

    /// What can be read, but not much more than can be sent: a device has no end.
    fn bounded(self, source: &mut dyn Read) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        source.take(self.bytes as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The bytes of a file.
///
/// # Errors
/// It cannot be read, or holds too much.
pub fn from_file(name: &Path, most: Most) -> Result<Vec<u8>, Failure> {
    let read = File::open(name).and_then(|mut file| most.bounded(&mut file));
    most.whole(read, &name.display().to_string(), "; name a file that you may read")
}

/// The bytes of standard input.
///
/// # Errors
/// It cannot be read, or holds too much.
pub fn from_input(input: &mut dyn Read, most: Most) -> Result<Vec<u8>, Failure> {
    most.whole(most.bounded(input), "standard input", "; give it the payload, such as with `< FILE`")
}

/// As text or as base64, whichever takes the bytes as they are and is the shorter.
pub fn in_json(bytes: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(bytes) {
        // JSON needs six bytes for a control character.
        Ok(text) if !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) => (Some(text), None),
        Ok(text) => (None, Some(STANDARD.encode(text))),
        Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
    }
}

/// The bytes that an answer tells.
///
/// # Errors
/// They are no base64, though the daemon says so.
pub fn bytes(data: &str, encoding: Encoding) -> Result<Vec<u8>, Failure> {
    match encoding {
        Encoding::Utf8 => Ok(data.as_bytes().to_vec()),
        Encoding::Base64 => {
            STANDARD.decode(data).map_err(|error| Failure::No(format!("the answer is no base64: {error}")))
        }
    }
}

/// Bytes for people: text, or hexadecimal digits.
pub fn shown(data: &str, encoding: Encoding) -> String {
    match bytes(data, encoding) {
        Ok(bytes) if encoding == Encoding::Base64 => {
            bytes.iter().fold("0x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
        }
        // Also what is no base64: shown as it came.
        _ => data.to_owned(),
    }
}
