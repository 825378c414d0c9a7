//! MQTT topics: validated names and filters, their order of rank, and the trie that finds a name's filters.
//!
//! Pure: no I/O, no clock, no knowledge of brokers or handlers. Fed by the configuration (filters) and the sessions
//! (names); used by the router, by grants and by `tidegate topic match`.

mod characters;
mod filter;
pub mod naive;
mod name;
mod rank;
#[cfg(test)]
pub mod testing;
mod trie;
mod widest;

pub use characters::{refusable, refused};
pub use filter::{FilterError, TopicFilter};
pub use name::TopicName;
pub use rank::Rank;
pub use trie::Trie;
pub use widest::widest;
