//! Queues between the sessions and the handlers' instances.
//!
//! A handler has one queue, split into shards: one for each instance, chosen by (broker, topic) so that the messages of a
//! topic stay in order. Within a shard each broker has a lane, so that a broker at its parallel limit, or one whose
//! connection was just lost, holds back nobody else's messages. A message whose call failed is put off, and what comes
//! after it in its topic waits behind it. A runner takes jobs of any shard that no other works for.
//! While the handler is paused or quarantined, its messages go to the park (`gate.rs`, `parking.rs`, `quarantine.rs`).
//! Brokers and handlers come and go while it runs. Fed by `path/router`; read by `path/handler`.

mod crew;
mod gate;
mod held;
mod lanes;
mod parallel;
mod parking;
mod quarantine;
mod queue;
mod retry;
mod runs;

pub use self::parallel::{ParallelLimit, Permit};
pub use self::parking::{After, Standing};
pub use self::quarantine::Sign;
pub use self::queue::{HandlerQueue, Job, Turn, Work};
pub use self::retry::{GivenUp, Tries};
pub use self::runs::{RunEnd, RunJob};
