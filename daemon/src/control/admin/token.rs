//! The token that permits changes over TCP.
//!
//! Owns: what a token file may hold, and how a token is compared. The file is read anew for each request that brings a token,
//! so that a new token counts at once. No token is ever printed.

use std::io::{self, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::control::config::secret::{Secret, regular_file, without_newline};

/// Fewest characters: what can be guessed is no token.
pub const LEAST: usize = 16;

/// Most characters.
pub const MOST: usize = 4096;

/// Why the token file opens nothing.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It is missing, or may not be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It holds something else.
    #[error("it must hold one line of {LEAST} to {MOST} visible ASCII characters")]
    NoToken,
}

/// Reads the token. Blocks for a small file.
///
/// # Errors
/// There is no usable token in the file.
pub fn read(file: &Path) -> Result<Secret, TokenFileError> {
    let mut bytes = Vec::new();
    let limit = MOST + "\r\n".len() + 1;
    regular_file(file)?.take(limit as u64).read_to_end(&mut bytes)?;
    let text = without_newline(String::from_utf8(bytes).map_err(|_| TokenFileError::NoToken)?);
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if visible && (LEAST..=MOST).contains(&text.len()) { Ok(Secret::new(text)) } else { Err(TokenFileError::NoToken) }
}

/// Whether both are the same, in a time that tells nothing about where they differ, nor about their lengths.
pub fn same(expected: &Secret, brought: &[u8]) -> bool {
    Sha256::digest(expected.expose().as_bytes()).ct_eq(&Sha256::digest(brought)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_token_is_the_same() {
        let token = Secret::new("0123456789abcdef");
        assert!(same(&token, b"0123456789abcdef"));
        for other in
            ["", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef0", "1123456789abcdef", " 0123456789abcdef"]
        {
            assert!(!same(&token, other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_file_holds_one_token() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        let check = |content: &[u8], expected: Option<&str>| {
            std::fs::write(&file, content).expect("writes");
            let found = read(&file).ok();
            assert_eq!(found.as_ref().map(Secret::expose), expected, "{content:?}");
        };
        check(b"0123456789abcdef", Some("0123456789abcdef"));
        check(b"0123456789abcdef\n", Some("0123456789abcdef"));
        check(b"0123456789abcdef\r\n", Some("0123456789abcdef"));
        check(b"fedcba9876543210/+=\n", Some("fedcba9876543210/+="));
        check(b"0123456789abcde\n", None);
        check(b"0123456789abcdef\n\n", None);
        check(b"0123456789 abcdef", None);
        check("0123456789abcdéf".as_bytes(), None);
        check(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None);
        check(&[b'x'; MOST], Some(&"x".repeat(MOST)));
        check(&[b'x'; MOST + 1], None);
        check(&[b'x'; MOST + 100], None);
        check(b"", None);
        std::fs::remove_file(&file).expect("removes");
        assert!(matches!(read(&file), Err(TokenFileError::Unreadable(_))));
        assert!(matches!(read(folder.path()), Err(TokenFileError::Unreadable(_))));
    }
}
