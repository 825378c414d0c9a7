//! A stream beside the one that breaks: through the same daemon, from and to a third broker, and never broken.
//!
//! It must not notice anything: a session that waits must not hold up another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Collector, Flow, Ledger, Pace, Sender};
use crate::client::Protocol;
use crate::config::ECHO;
use crate::{Config, Mosquitto};

/// Messages a second, spread evenly: few, so that it lasts.
const RATE: u32 = 250;

/// How long nothing may come out, on a machine that is loaded besides. It is far below the time for which anything stalls.
const GAP: Duration = Duration::from_secs(5);

/// A stream beside. Its broker has the name `field`.
pub struct Bystander {
    protocol: Protocol,
    broker: Mosquitto,
    ledger: Arc<Ledger>,
    work: Option<(Sender, Collector)>,
    moved: (usize, Instant),
}

impl Bystander {
    /// Starts its broker, for a stream that lasts so long.
    pub fn new(protocol: Protocol, lasts: Duration) -> Bystander {
        let count = usize::try_from(lasts.as_secs() * u64::from(RATE)).expect("fits");
        let flow = Flow::new("beside", 4, count);
        let (broker, ledger) = (Mosquitto::start(), Ledger::new(&flow, "out/"));
        Bystander { protocol, broker, ledger, work: None, moved: (0, Instant::now()) }
    }

    /// What adds its broker and its handler to a configuration.
    pub fn tables(&self) -> impl FnOnce(Config) -> Config + 'static {
        let (port, protocol, filter) = (self.broker.port(), self.protocol, self.ledger.flow().filter());
        move |config| {
            config
                .broker("field", port, protocol, "")
                .guest("echo", "field", ECHO, "instances = 1")
                .subscription("field", &filter, 1, "echo", "")
        }
    }

    /// Begins to send; the daemon must be ready.
    pub fn start(&mut self) {
        let (port, flow) = (self.broker.port(), self.ledger.flow());
        let collector = Collector::start(port, self.protocol, &self.ledger);
        let sender = Sender::start(flow, port, self.protocol, Pace::PerSecond(RATE));
        self.work = Some((sender, collector));
        self.moved = (0, Instant::now());
    }

    /// Holds that it goes on. To be called again and again.
    ///
    /// # Panics
    /// Nothing new has come out for some seconds, though it is not at its end.
    #[track_caller]
    pub fn goes_on(&mut self) {
        let distinct = self.ledger.distinct();
        if distinct > self.moved.0 || distinct == self.ledger.flow().count() {
            self.moved = (distinct, Instant::now());
        }
        assert!(self.moved.1.elapsed() < GAP, "the stream beside stands still for {GAP:?}, after {distinct} messages");
    }

    /// Waits for its end; each message has come exactly once, in order.
    #[track_caller]
    pub fn finish(mut self) {
        let (sender, collector) = self.work.take().expect("it was started");
        self.ledger.wait_distinct(self.ledger.flow().count());
        sender.finish();
        collector.drain();
        collector.finish();
        let verdict = self.ledger.verdict();
        verdict.hold();
        assert_eq!(verdict.duplicates, 0, "nothing of it was ever broken");
    }
}
