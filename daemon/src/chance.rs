//! Chance, for waits that must not fall together.

/// A number uniform in 0..1.
pub fn random() -> f64 {
    // Without randomness waits lose their jitter, nothing else.
    let bits = getrandom::u64().unwrap_or(u64::MAX / 2);
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
