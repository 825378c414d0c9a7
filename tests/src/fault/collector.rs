//! Takes what comes out to the ledger, through every death of its broker.
//!
//! Owns: a thread, and a session that the broker keeps, so that nothing is missed between two connections.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{Ledger, STUCK};
use crate::client::message::Message;
use crate::client::{Client, Protocol};
use crate::wait;

/// How often it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Counts collectors and markers, so that no two of a process are the same.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A collector at work. Dropping it ends it.
pub struct Collector {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    port: u16,
    protocol: Protocol,
    marks: String,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Payloads of the markers that came. Written by the thread.
    marks: Vec<Vec<u8>>,
    /// Written by the collector's owner.
    stop: bool,
}

impl Collector {
    /// Subscribes to the outputs of a ledger at the broker on this port, and begins to collect.
    ///
    /// # Panics
    /// The broker is not there.
    #[track_caller]
    pub fn start(port: u16, protocol: Protocol, ledger: &Arc<Ledger>) -> Collector {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let marks = format!("collector/{number}");
        let session = format!("collector-{number}");
        let client = Client::options(port, protocol).session(&session).connect().expect("the broker lets it in");
        client.subscribe(&marks, 1);
        client.subscribe(&ledger.filter(), 1);
        let shared = Arc::<Shared>::default();
        let thread = {
            let (shared, ledger, marks) = (Arc::clone(&shared), Arc::clone(ledger), marks.clone());
            thread::spawn(move || collect(&shared, client, &ledger, &marks))
        };
        Collector { shared, thread: Some(thread), port, protocol, marks }
    }

    /// Waits until everything that the broker had acknowledged before is in the ledger.
    #[track_caller]
    pub fn drain(&self) {
        let payload = format!("{}", NEXT.fetch_add(1, Ordering::Relaxed)).into_bytes();
        Client::connect(self.port, self.protocol).publish(&Message::new(&*self.marks, payload.clone()));
        let missing = |state: &mut State| !state.marks.contains(&payload);
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), STUCK, missing);
        assert!(!waited.expect("no thread panics with the lock").1.timed_out(), "its marker did not come");
    }

    /// Ends it.
    ///
    /// # Panics
    /// Its thread could not connect again when its broker was back.
    #[track_caller]
    pub fn finish(mut self) {
        self.shared.lock().stop = true;
        let thread = self.thread.take().expect("it is taken here alone");
        thread.join().expect("the collector does not panic");
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the lock")
    }
}

/// The thread.
fn collect(shared: &Shared, mut client: Client, ledger: &Ledger, marks: &str) {
    while !shared.lock().stop {
        match client.take(LOOK) {
            Ok(messages) => messages.iter().for_each(|message| {
                if message.topic == marks {
                    shared.lock().marks.push(message.payload.clone());
                    shared.changed.notify_all();
                } else {
                    ledger.take(message);
                }
            }),
            Err(_ended) => {
                let again = wait::until_within(STUCK, "the collector connects again", || {
                    let connected = client.again();
                    if shared.lock().stop { Ok(None) } else { connected.map(Some) }
                });
                let Some(again) = again else { return };
                client = again;
            }
        }
    }
}
