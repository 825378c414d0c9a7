//! The load generator: two publishers that keep to a rate.
//!
//! Each owns half of the topics and publishes on them in turn. When a message is due is computed from the start of the
//! phase, never from the message before, so that no delay adds up; what is due at the same time leaves in one write. Fed by
//! the measurements; feeds the broker and [`SendTimes`].
//!
//! Whether it limits the figures is shown by the column "broker alone" of the same run: with nothing between, the same generator and
//! receiver must sustain clearly more than whatever is measured. On two cores it is no free load: at 10,000 messages a second, each its
//! own write, publishers and receiver took 42 µs of processor time a message (measured), nearly all in system calls. At
//! higher rates the messages that are due share a write. So a highest rate is that of the whole machine, not of the subject.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::clock::{Clock, SendTimes};
use crate::connection;
use crate::packets;
use crate::readings::{self, PAYLOAD_BYTES, TOPICS};

/// Publishers, each with its own connection and thread.
const PUBLISHERS: usize = 2;

/// Topics of a publisher.
const SHARE: usize = TOPICS / PUBLISHERS;

/// Messages in one write, at most.
const BATCH: u64 = 256;

/// Unacknowledged messages of one publisher, at most: packet identifiers in use must differ.
const UNACKNOWLEDGED: u64 = 60_000;

/// How long to leave a broker alone that takes nothing more at the moment.
const FULL: Duration = Duration::from_micros(100);

/// How long the broker may take to acknowledge the last messages.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is published.
#[derive(Clone)]
pub struct Spec {
    /// The broker's port on 127.0.0.1.
    pub port: u16,
    /// The topic of each number.
    pub topic: fn(usize) -> String,
    /// QoS 1 rather than 0.
    pub at_least_once: bool,
    /// Messages a second, of all publishers together.
    pub rate: f64,
    /// Of each topic the number of the first reading.
    pub first: [u64; TOPICS],
}

/// A running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    publishers: Vec<JoinHandle<Result<Published>>>,
}

/// What was published.
pub struct Published {
    /// Of each topic the number after that of the last reading.
    pub end: [u64; TOPICS],
    /// The longest that a message left after it was due: long, where the broker takes less than it is offered.
    pub latest: Duration,
}

impl Load {
    /// Connects the publishers and starts them.
    ///
    /// # Errors
    /// The broker does not let them.
    pub fn start(spec: &Spec, clock: Clock, times: &Arc<SendTimes>) -> Result<Load> {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut publishers = Vec::new();
        for number in 0..PUBLISHERS {
            let stream = connection::connect(spec.port, &format!("bench-publisher-{number}"))?;
            stream.set_nonblocking(true)?;
            let starts = (number * SHARE..(number + 1) * SHARE)
                .map(|topic| packets::publish_start(&(spec.topic)(topic), spec.at_least_once, PAYLOAD_BYTES));
            let publisher = Publisher {
                stream,
                starts: starts.collect(),
                first_topic: number * SHARE,
                at_least_once: spec.at_least_once,
                first: spec.first,
                published: 0,
                acknowledged: 0,
                buffer: vec![0; 16 * 1024],
                partial: 0,
                clock,
                times: Arc::clone(times),
            };
            let pace = Pace { interval: 1e9 * PUBLISHERS as f64 / spec.rate, place: number as f64 / PUBLISHERS as f64 };
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            let thread = std::thread::Builder::new().name(format!("publisher-{number}"));
            publishers.push(thread.spawn(move || publisher.run(pace, &stop, &sent))?);
        }
        Ok(Load { stop, sent, publishers })
    }

    /// Messages that were handed to the system so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops once the broker has what was published.
    ///
    /// # Errors
    /// A connection was lost meanwhile, or the broker does not acknowledge.
    pub fn stop(self) -> Result<Published> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all: Option<Published> = None;
        for publisher in self.publishers {
            let one = publisher.join().map_err(|_| anyhow!("a publisher panicked"))??;
            let latest = all.as_ref().map_or(one.latest, |all| all.latest.max(one.latest));
            let ends = all.map_or(one.end, |all| std::array::from_fn(|topic| all.end[topic].max(one.end[topic])));
            all = Some(Published { end: ends, latest });
        }
        all.context("there are publishers")
    }
}

/// When messages are due.
#[derive(Clone, Copy)]
struct Pace {
    /// Nanoseconds between two.
    interval: f64,
    /// Where in the interval the first is due, so that the publishers take turns.
    place: f64,
}

impl Pace {
    /// When a message is due, in nanoseconds after the start.
    fn due(self, message: u64) -> u64 {
        ((message as f64 + self.place) * self.interval) as u64
    }

    /// Messages that are due by this time after the start.
    fn count(self, elapsed: u64) -> u64 {
        (elapsed as f64 / self.interval - self.place + 1.0).max(0.0) as u64
    }
}

struct Publisher {
    stream: TcpStream,
    /// How a PUBLISH to each of its topics begins.
    starts: Vec<Vec<u8>>,
    first_topic: usize,
    at_least_once: bool,
    first: [u64; TOPICS],
    published: u64,
    acknowledged: u64,
    /// What was read last.
    buffer: Vec<u8>,
    /// Bytes in front of it: the begin of a PUBACK whose end has not come.
    partial: usize,
    clock: Clock,
    times: Arc<SendTimes>,
}

impl Publisher {
    fn run(mut self, pace: Pace, stop: &AtomicBool, sent: &AtomicU64) -> Result<Published> {
        let start = self.clock.now();
        let mut batch = Vec::new();
        let mut latest = 0;
        while !stop.load(Ordering::Relaxed) {
            let now = self.clock.now();
            let due = pace.count(now - start).saturating_sub(self.published).min(BATCH).min(self.room());
            if due == 0 {
                let next = start + pace.due(self.published);
                // Where it is due already there is no room: the broker has to acknowledge first.
                std::thread::sleep(if next > now { Duration::from_nanos(next - now) } else { FULL });
            } else {
                latest = latest.max((now - start).saturating_sub(pace.due(self.published)));
                (0..due).for_each(|_| self.add(now, &mut batch));
                self.write(&batch)?;
                batch.clear();
                sent.fetch_add(due, Ordering::Relaxed);
            }
            self.read_acknowledgements()?;
        }
        self.finish()?;
        Ok(Published { end: std::array::from_fn(|topic| self.end(topic)), latest: Duration::from_nanos(latest) })
    }

    fn room(&self) -> u64 {
        if self.at_least_once { UNACKNOWLEDGED - (self.published - self.acknowledged) } else { BATCH }
    }

    /// Adds the next message to a batch.
    fn add(&mut self, now: u64, batch: &mut Vec<u8>) {
        let place = (self.published % SHARE as u64) as usize;
        let topic = self.first_topic + place;
        let reading = self.first[topic] + self.published / SHARE as u64;
        batch.extend_from_slice(&self.starts[place]);
        if self.at_least_once {
            let packet = (self.published % u64::from(u16::MAX)) as u16 + 1;
            batch.extend_from_slice(&packet.to_be_bytes());
        }
        readings::write_reading(reading, now, batch);
        self.times.set(topic, reading, now);
        self.published += 1;
    }

    /// The number after that of a topic's last reading; zero for another publisher's topic.
    fn end(&self, topic: usize) -> u64 {
        let Some(place) = topic.checked_sub(self.first_topic).filter(|place| *place < SHARE) else { return 0 };
        let (rounds, rest) = (self.published / SHARE as u64, self.published % SHARE as u64);
        self.first[topic] + rounds + u64::from((place as u64) < rest)
    }

    fn write(&mut self, mut batch: &[u8]) -> Result<()> {
        while !batch.is_empty() {
            match self.stream.write(batch) {
                Ok(written) => batch = &batch[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.read_acknowledgements()?;
                    std::thread::sleep(FULL);
                }
                Err(error) => return Err(error).context("a publisher cannot write"),
            }
        }
        Ok(())
    }

    /// Takes the acknowledgements that have come, without waiting.
    fn read_acknowledgements(&mut self) -> Result<()> {
        if !self.at_least_once {
            return Ok(());
        }
        let read = match self.stream.read(&mut self.buffer[self.partial..]) {
            Ok(0) => bail!("the broker closed a publisher's connection"),
            Ok(read) => self.partial + read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(error) => return Err(error).context("a publisher cannot read"),
        };
        let (whole, rest) = self.buffer[..read].as_chunks::<4>();
        ensure!(whole.iter().all(|packet| packet[..2] == [0x40, 2]), "the broker sent a publisher no PUBACK");
        self.acknowledged += whole.len() as u64;
        self.partial = rest.len();
        self.buffer.copy_within(read - self.partial..read, 0);
        Ok(())
    }

    /// Waits until the broker has everything, and says goodbye.
    fn finish(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.at_least_once && self.acknowledged < self.published {
            ensure!(
                Instant::now() < deadline,
                "the broker does not acknowledge what was published within {PATIENCE:?}"
            );
            std::thread::sleep(FULL);
            self.read_acknowledgements()?;
        }
        self.write(&packets::DISCONNECT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_does_not_drift() {
        let pace = Pace { interval: 1e9 / 3.0, place: 0.5 };
        for message in [0, 1, 1_000, 1_000_000_007] {
            let due = pace.due(message);
            assert_eq!(pace.count(due + 1_000), message + 1, "the message is due");
            assert_eq!(pace.count(due - 1_000), message, "not before");
        }
    }
}
