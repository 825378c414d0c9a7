//! The gateway as an operator sees and changes it while it runs.
//!
//! Owns: the running configuration, and the one task that changes it, a change at a time. Fed by the admin plane; feeds the
//! gateway's wiring. A change is made whole or not at all: it is validated as part of the whole configuration, applied, and
//! written to STATE-DIR/runtime.toml before it is confirmed.

mod edit;
mod refusal;

pub use self::edit::Edit;
pub use self::refusal::{Refusal, RefusalKind};
