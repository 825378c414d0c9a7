//! Secrets: values that can be used but not printed.
//!
//! Owns: the only types that hold a password. Made while the configuration is read; a session reads its password at each
//! connect, so that a rotated file takes effect without a restart. Neither type can be serialised.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::problem::MASK;

/// Longest password in bytes (MQTT 5 §1.5.6: binary data has a two-byte length).
const MAX_PASSWORD: usize = 65_535;

/// A text that never appears in logs, errors or JSON: `Debug` and `Display` print `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text into custody.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for the CONNECT packet and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Where a broker's password comes from: `password`, `password-file` or `password-env`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// Stands in the configuration.
    Literal(Secret),
    /// The whole file, without a newline at its end.
    File(PathBuf),
    /// An environment variable of the daemon.
    Variable(String),
}

impl PasswordSource {
    /// The password as it is now. Reads a small file: call it where a short wait for the disk is allowed.
    ///
    /// # Errors
    /// Says which file or variable has no usable password, never its content.
    pub fn read(&self) -> Result<Secret, PasswordError> {
        let secret = match self {
            PasswordSource::Literal(secret) => secret.clone(),
            PasswordSource::File(path) => read_file(path)?,
            PasswordSource::Variable(name) => match std::env::var(name) {
                Ok(text) => Secret(text),
                Err(std::env::VarError::NotPresent) => return Err(PasswordError::Unset { name: name.clone() }),
                Err(std::env::VarError::NotUnicode(_)) => return Err(PasswordError::NotUtf8(self.to_string())),
            },
        };
        if secret.0.len() > MAX_PASSWORD {
            return Err(PasswordError::TooLong(self.to_string()));
        }
        Ok(secret)
    }
}

impl fmt::Display for PasswordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PasswordSource::Literal(_) => f.write_str("the configured password"),
            PasswordSource::File(path) => write!(f, "the password file {}", path.display()),
            PasswordSource::Variable(name) => write!(f, "the environment variable {name}"),
        }
    }
}

fn read_file(path: &Path) -> Result<Secret, PasswordError> {
    let source = || PasswordSource::File(path.to_owned()).to_string();
    // The newline that editors put at the end may come on top of the longest password; one byte more tells "too long".
    let limit = MAX_PASSWORD + "\r\n".len() + 1;
    let mut bytes = Vec::new();
    regular_file(path)
        .and_then(|file| file.take(limit as u64).read_to_end(&mut bytes))
        .map_err(|cause| PasswordError::Unreadable { path: path.to_owned(), cause })?;
    if bytes.len() == limit {
        return Err(PasswordError::TooLong(source()));
    }
    let text = String::from_utf8(bytes).map_err(|_| PasswordError::NotUtf8(source()))?;
    Ok(Secret(without_newline(text)))
}

/// Opens a file that is one: a pipe or a device could be waited for without end.
pub(in crate::control) fn regular_file(path: &Path) -> io::Result<std::fs::File> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    std::fs::File::open(path)
}

/// A file's text without the one newline that ends its last line.
pub(in crate::control) fn without_newline(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// Why there is no password to connect with. Worth another attempt: the file or its rights may be mended meanwhile.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The file is missing, or may not be read.
    #[error("the password file {} cannot be read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// The environment has no such variable.
    #[error("the environment variable {name} is not set")]
    Unset {
        /// Its name.
        name: String,
    },
    /// MQTT allows any bytes, the client library only text.
    #[error("{0} is not UTF-8")]
    NotUtf8(String),
    /// MQTT 5 §1.5.6.
    #[error("{0} has more than 65535 bytes")]
    TooLong(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_cannot_be_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret} {secret:?} {:?}", PasswordSource::Literal(secret.clone())),
            "*** *** Literal(***)"
        );
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_password_file_is_read_again_each_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("password");
        let source = PasswordSource::File(path.clone());
        let check = |content: &[u8], expected: Result<&str, &str>| {
            std::fs::write(&path, content).expect("writes");
            let found = source.read().map(|secret| secret.expose().to_owned()).map_err(|error| error.to_string());
            let named = |text: &str| text.replace("FILE", &path.display().to_string());
            assert_eq!(found, expected.map(str::to_owned).map_err(named));
        };
        check(b"first", Ok("first"));
        check(b"second\n", Ok("second"));
        check(b"third\r\n", Ok("third"));
        check(b"two lines\n\n", Ok("two lines\n"));
        check(b"", Ok(""));
        check(b"\xff", Err("the password file FILE is not UTF-8"));
        check(&[b'x'; MAX_PASSWORD + 1], Err("the password file FILE has more than 65535 bytes"));
        check(&[b'x'; MAX_PASSWORD + 10], Err("the password file FILE has more than 65535 bytes"));
        std::fs::remove_file(&path).expect("removes");
        assert!(matches!(source.read(), Err(PasswordError::Unreadable { .. })));
    }

    #[test]
    fn a_password_variable_is_read_from_the_environment() {
        let check = |name: &str, expected: bool| {
            assert_eq!(PasswordSource::Variable(name.into()).read().is_ok(), expected, "{name}");
        };
        check("CARGO_MANIFEST_DIR", true);
        check("TIDEGATE_NO_SUCH_VARIABLE", false);
    }
}
