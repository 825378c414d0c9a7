//! A stream beside the one that breaks: through the same daemon, from and to a third broker, and never broken.
//!
//! It must not notice anything: a session that waits must not hold up another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Collector, Flow, Ledger, PATIENT, Pace, Sender, bench};
use crate::client::Protocol;
use crate::config::ECHO;
use crate::{Config, Daemon, Mosquitto};

/// Messages a second: few, so that they are spread evenly.
const RATE: u32 = 250;

/// More than it will ever send: it ends when it is told to.
const MESSAGES: usize = 250_000;

/// How long nothing may come out, on a machine that is loaded besides. What waited for the broken session would wait for its
/// keep alive, 30 s.
const GAP: Duration = Duration::from_secs(20);

/// A stream beside. Its broker has the name `field`.
pub struct Bystander {
    protocol: Protocol,
    broker: Mosquitto,
    ledger: Arc<Ledger>,
    work: Option<(Sender, Collector)>,
    moved: (usize, Instant),
}

impl Bystander {
    /// Starts its broker.
    pub fn new(protocol: Protocol) -> Bystander {
        let flow = Flow::new("beside", 4, MESSAGES);
        let (broker, ledger) = (Mosquitto::start(), Ledger::new(&flow, "out/"));
        Bystander { protocol, broker, ledger, work: None, moved: (0, Instant::now()) }
    }

    /// What adds its broker and its handler to a configuration.
    pub fn tables(&self) -> impl FnOnce(Config) -> Config + 'static {
        let (port, protocol, filter) = (self.broker.port(), self.protocol, self.ledger.flow().filter());
        move |config| {
            config
                .broker("field", port, protocol, "")
                .guest("echo", "field", ECHO, &format!("instances = 1\n{PATIENT}"))
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
    /// Nothing new has come out for some seconds.
    #[track_caller]
    pub fn goes_on(&mut self) {
        let distinct = self.ledger.distinct();
        if distinct > self.moved.0 {
            self.moved = (distinct, Instant::now());
        }
        let sent = self.work.as_ref().map_or(0, |(sender, _)| sender.acknowledged());
        let gap = self.moved.1.elapsed();
        assert!(gap < GAP, "the stream beside stands still for {GAP:?}, after {distinct} of {sent} messages");
    }

    /// Ends it, while the daemon still runs; each message has come exactly once, in order.
    #[track_caller]
    pub fn finish(mut self, daemon: &Daemon) {
        let (sender, collector) = self.work.take().expect("it was started");
        let sent = sender.hold();
        bench::reach(daemon, &self.ledger, sent);
        collector.drain();
        collector.finish();
        let verdict = self.ledger.verdict_until(sent);
        verdict.hold();
        assert_eq!(verdict.duplicates, 0, "nothing of it was ever broken");
    }
}
