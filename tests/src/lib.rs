//! What the scenarios stand on: real brokers, the built `tidegate`, and an MQTT client of our own.
//!
//! Each scenario has its own broker, daemon and ports, so that all of them run beside each other. Nothing here shares
//! code with the daemon: a defect that both sides had would hide itself. Everything waits for something observable
//! ([`wait`]), never for a time to pass, but for short looks for what must not come; and panics with what it saw when that does not
//! come.

#![expect(clippy::missing_panics_doc, reason = "a scenario's harness fails its test by a panic, everywhere")]

pub mod broker;
pub mod certificates;
pub mod client;
pub mod component;
pub mod config;
pub mod daemon;
pub mod disk;
pub mod embedded;
pub mod fault;
pub mod gate;
pub mod http;
pub mod metrics;
pub mod mosquitto;
pub mod native;
pub mod nats;
pub mod numbered;
pub mod operator;
pub mod ports;
pub mod process;
pub mod rabbitmq;
pub mod script;
pub mod stranger;
pub mod versions;
pub mod wait;

pub use broker::{Broker, Make};
pub use client::message::{Message, Properties};
pub use client::{Client, Protocol};
pub use config::Config;
pub use daemon::{Daemon, Home};
pub use disk::Disk;
pub use mosquitto::Mosquitto;

/// Makes of each function `fn promise(protocol: Protocol)` two tests, `promise::on_3_1_1` and `promise::on_5`.
#[macro_export]
macro_rules! on_both_protocols {
    ($($promise:ident),+ $(,)?) => {$(
        mod $promise {
            #[test]
            fn on_3_1_1() {
                super::$promise($crate::Protocol::V311);
            }
            #[test]
            fn on_5() {
                super::$promise($crate::Protocol::V5);
            }
        }
    )+};
}
