//! Free TCP ports on the loopback interface.

use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports are taken from here up to [`END`]: below the range from which Linux picks ports for outgoing connections, so
/// that no connection of another scenario takes a port between two uses of it (a broker that is restarted).
const BEGIN: u32 = 15_000;
const END: u32 = 32_000;

/// Counts on from a start that differs between processes. Written by every scenario.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port that nothing listens on, and that no other scenario of this process gets.
pub fn free() -> u16 {
    let start = process::id().wrapping_mul(251);
    for _ in BEGIN..END {
        let place = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (END - BEGIN);
        let port = u16::try_from(BEGIN + place).expect("END is a port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {BEGIN} to {END} on 127.0.0.1");
}
