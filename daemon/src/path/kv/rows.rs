//! A key's value as it stands on disk: a version byte, a header, the value.
//!
//! Pure. Used when rows are written, and when they are read at the start.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::mirror::Value;

/// The layout that is written. Another one is not read: a newer daemon wrote it.
const LAYOUT: u8 = 1;

/// What stands before the value.
#[derive(Serialize, Deserialize)]
struct Header {
    /// In milliseconds since the Unix epoch.
    expires: Option<u64>,
}

/// Why a row cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Another layout.
    #[error("its layout has the number {0}, and this daemon knows {LAYOUT} alone; start the daemon that wrote it")]
    Layout(u8),
    /// It ends too soon.
    #[error("it is cut short")]
    Short,
}

/// What is written for a value.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut body = Vec::with_capacity(1 + 11 + value.bytes.len());
    body.push(LAYOUT);
    let mut body =
        postcard::to_extend(&Header { expires: value.expires }, body).expect("memory takes all that is written");
    body.extend_from_slice(&value.bytes);
    body
}

/// The value that was written.
///
/// # Errors
/// It is none.
pub fn decode(body: &[u8]) -> Result<Value, RowError> {
    let (layout, rest) = body.split_first().ok_or(RowError::Short)?;
    if *layout != LAYOUT {
        return Err(RowError::Layout(*layout));
    }
    let (Header { expires }, value) = postcard::take_from_bytes(rest).map_err(|_| RowError::Short)?;
    Ok(Value { bytes: Bytes::copy_from_slice(value), expires })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_is_this_one() {
        let value = |expires| Value { bytes: Bytes::from_static(b"21"), expires };
        assert_eq!(encode(&value(None)), [1, 0, b'2', b'1']);
        assert_eq!(encode(&value(Some(300))), [1, 1, 0xac, 0x02, b'2', b'1']);
    }

    #[test]
    fn what_is_no_row_is_refused() {
        assert_eq!(decode(&[]), Err(RowError::Short));
        assert_eq!(decode(&[1]), Err(RowError::Short));
        assert_eq!(decode(&[1, 1, 0x80]), Err(RowError::Short));
        assert_eq!(decode(&[2, 0]), Err(RowError::Layout(2)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: Vec<u8>, expires: Option<u64>) {
            let value = Value { bytes: bytes.into(), expires };
            prop_assert_eq!(decode(&encode(&value)), Ok(value));
        }

        #[test]
        fn any_bytes_are_read_or_refused(body: Vec<u8>) {
            let _ = decode(&body);
        }
    }
}
