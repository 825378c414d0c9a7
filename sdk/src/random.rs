//! Random numbers from the daemon's operating system, fit for keys and tokens.

use crate::host;

/// So many random bytes.
pub fn bytes(len: u32) -> Vec<u8> {
    host::random_bytes(len)
}

/// A random number.
///
/// ```
/// let one_in_ten = tidegate_sdk::random::number() % 10 == 0;
/// # let _ = one_in_ten;
/// ```
pub fn number() -> u64 {
    let mut number = [0; size_of::<u64>()];
    for (place, byte) in number.iter_mut().zip(bytes(size_of::<u64>() as u32)) {
        *place = byte;
    }
    u64::from_le_bytes(number)
}
