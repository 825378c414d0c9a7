//! The subscriber of all results: a thread that reads, checks and times them.
//!
//! Fed by the broker; feeds [`Observed`], which the measurements read. It takes whatever one read brings, under one lock,
//! with one look at the clock, and acknowledges it with one write.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};

use crate::clock::{Clock, SendTimes};
use crate::connection;
use crate::latency::Latencies;
use crate::packets::{self, Packet};
use crate::readings::{self, OUTPUT_FILTER};
use crate::tally::Tally;

/// Bytes that one read may bring.
const BUFFER: usize = 1 << 20;

/// What has come so far.
pub struct Observed {
    /// How many, and which defects.
    pub tally: Tally,
    /// How long each took.
    pub latencies: Latencies,
    /// When the first result of the phase came, on [`Clock`].
    pub first_at: Option<u64>,
}

/// A running receiver. Dropping it ends it.
pub struct Receiver {
    observed: Arc<Mutex<Observed>>,
    stream: TcpStream,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Receiver {
    /// Subscribes to all results, which are of this kind.
    ///
    /// # Errors
    /// The broker does not let it.
    pub fn start(port: u16, kind: readings::Result, clock: Clock, sent: Arc<SendTimes>) -> Result<Receiver> {
        let mut stream = connection::connect(port, "bench-receiver")?;
        connection::subscribe(&mut stream, OUTPUT_FILTER)?;
        stream.set_read_timeout(None)?;
        let observed = Observed { tally: Tally::new(), latencies: Latencies::new(), first_at: None };
        let observed = Arc::new(Mutex::new(observed));
        let reading = Reading { stream: stream.try_clone()?, observed: Arc::clone(&observed), kind, clock, sent };
        let thread = std::thread::Builder::new().name("receiver".to_owned()).spawn(move || reading.run())?;
        Ok(Receiver { observed, stream, thread: Some(thread) })
    }

    /// What has come so far; the receiver waits meanwhile.
    pub fn observed(&self) -> MutexGuard<'_, Observed> {
        // A panic in the receiving thread is told by `check`.
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether it still receives.
    ///
    /// # Errors
    /// It ended, and why.
    pub fn check(&mut self) -> Result<()> {
        match self.thread.take_if(|thread| thread.is_finished()) {
            None => Ok(()),
            Some(thread) => match thread.join() {
                Ok(Ok(())) => Err(anyhow!("the broker closed the receiver's connection")),
                Ok(Err(error)) => Err(error.context("the receiver failed")),
                Err(_) => Err(anyhow!("the receiver panicked")),
            },
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // An error means that the connection is gone already, which ends the thread as well.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            // Whoever drops it has its results: what the thread says about its end changes none.
            let _ = thread.join();
        }
    }
}

struct Reading {
    stream: TcpStream,
    observed: Arc<Mutex<Observed>>,
    kind: readings::Result,
    clock: Clock,
    sent: Arc<SendTimes>,
}

impl Reading {
    fn run(mut self) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        let mut filled = 0;
        let mut acknowledgements = Vec::new();
        loop {
            let read = match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("cannot read from the broker"),
            };
            let now = self.clock.now();
            filled += read;
            let taken = self.take(&buffer[..filled], now, &mut acknowledgements)?;
            buffer.copy_within(taken..filled, 0);
            filled -= taken;
            if !acknowledgements.is_empty() {
                self.stream.write_all(&acknowledgements).context("cannot acknowledge")?;
                acknowledgements.clear();
            }
        }
    }

    /// Takes every whole packet; how many bytes they had.
    fn take(&self, bytes: &[u8], now: u64, acknowledgements: &mut Vec<u8>) -> Result<usize> {
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = 0;
        while let Some((packet, length)) = packets::first(&bytes[taken..]).map_err(|_| anyhow!("not MQTT"))? {
            taken += length;
            let Packet::Publish { topic, packet, payload } = packet else { continue };
            if let Some(packet) = packet {
                packets::puback(packet, acknowledgements);
            }
            let topic = readings::topic_number(topic);
            let reading = readings::reading_of(self.kind, payload);
            let counts = observed.tally.receive(topic, reading);
            if let (true, Some(topic), Some(reading)) = (counts, topic, reading) {
                observed.latencies.add(now.saturating_sub(self.sent.get(topic, reading)));
                observed.first_at.get_or_insert(now);
            }
        }
        Ok(taken)
    }
}
