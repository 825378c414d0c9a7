//! Sends a flow, through every death of its broker: what is not acknowledged is sent again, in order.
//!
//! Owns: a thread and its connection, which is never proxied. What a broker has acknowledged and then forgets is sent again only
//! when the row says so ([`Sender::rewind`]).

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Flow, Ledger, STUCK};
use crate::client::{Client, Protocol};
use crate::wait;

/// How often a sender that waits for its pace looks whether something else is wanted of it.
const LOOK: Duration = Duration::from_millis(20);

/// How fast a flow is sent.
#[derive(Clone)]
pub enum Pace {
    /// As fast as it comes out: at most so many messages are on their way. The pace of most rows: what breaks then breaks in the
    /// middle of messages, on whatever machine.
    Ahead(Arc<Ledger>, usize),
    /// So many messages a second, whatever comes out.
    PerSecond(u32),
}

/// A flow that is being sent. Dropping it ends it early.
pub struct Sender {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Written by the thread: what it has done. By the sender's owner: what it is to do.
#[derive(Default)]
struct State {
    /// Messages from the beginning of the flow that the broker has acknowledged.
    acknowledged: usize,
    /// Messages that were sent once more than needed, as far as the sender knows.
    again: usize,
    /// The place from which on nothing is sent for now.
    hold: Option<usize>,
    held: bool,
    rewind: Option<usize>,
    finishing: bool,
    stop: bool,
}

impl State {
    /// Whether this place of the flow is not to be sent for now.
    fn holds(&self, place: usize) -> bool {
        self.hold.is_some_and(|from| place >= from)
    }
}

/// What the thread does next.
enum Step {
    Send,
    Hold,
    /// The connection is to be made anew, or everything ends.
    Leave,
}

impl Sender {
    /// Begins to send a flow to the broker on this port.
    pub fn start(flow: &Flow, port: u16, protocol: Protocol, pace: Pace) -> Sender {
        Sender::begin(flow, port, protocol, pace, None)
    }

    /// As [`Sender::start`], as far as this place of the flow, until it is told otherwise.
    pub fn start_until(place: usize, flow: &Flow, port: u16, protocol: Protocol, pace: Pace) -> Sender {
        Sender::begin(flow, port, protocol, pace, Some(place))
    }

    fn begin(flow: &Flow, port: u16, protocol: Protocol, pace: Pace, hold: Option<usize>) -> Sender {
        let state = State { hold, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let work =
            Work { shared: Arc::clone(&shared), flow: flow.clone(), port, protocol, pace, since: Instant::now() };
        Sender { shared, thread: Some(thread::spawn(move || work.run())) }
    }

    /// How many messages from the beginning of the flow the broker has acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.shared.lock().acknowledged
    }

    /// Waits until so many messages from the beginning of the flow are acknowledged, whatever has come out.
    ///
    /// # Panics
    /// None was acknowledged for [`STUCK`].
    #[track_caller]
    pub fn wait_acknowledged(&self, count: usize) {
        let mut state = self.shared.lock();
        while state.acknowledged < count {
            let before = state.acknowledged;
            let same = |state: &mut State| state.acknowledged == before;
            let waited = self.shared.changed.wait_timeout_while(state, STUCK, same);
            let (moved, timeout) = waited.expect("no thread panics with the lock");
            assert!(!timeout.timed_out(), "{count} messages are to be sent: nothing new for {STUCK:?} after {before}");
            state = moved;
        }
    }

    /// How many messages were sent again, since their acknowledgement was missing or by [`Sender::rewind`].
    pub fn again(&self) -> usize {
        self.shared.lock().again
    }

    /// Sends nothing more until [`Sender::release`], and waits until all that was sent is acknowledged, or the connection has
    /// ended; returns [`Sender::acknowledged`].
    #[track_caller]
    pub fn hold(&self) -> usize {
        self.change(|state| state.hold = Some(0));
        self.wait("the sender holds", |state| state.held);
        self.acknowledged()
    }

    /// Sends as far as this place of the flow and no further until it is told otherwise, and waits until the broker has
    /// acknowledged what comes before it.
    #[track_caller]
    pub fn send_until(&self, place: usize) {
        self.release_until(place);
        self.wait_acknowledged(place);
    }

    /// As [`Sender::send_until`], without waiting.
    pub fn release_until(&self, place: usize) {
        self.change(|state| state.hold = Some(place));
    }

    /// Goes on after [`Sender::hold`] or [`Sender::send_until`].
    pub fn release(&self) {
        self.change(|state| state.hold = None);
    }

    /// Goes back to this place of the flow, for a broker that has forgotten what it had acknowledged; and releases.
    pub fn rewind(&self, place: usize) {
        self.change(|state| (state.rewind, state.hold) = (Some(place), None));
    }

    /// Waits until the broker has acknowledged everything; returns [`Sender::again`].
    ///
    /// # Panics
    /// It does not within [`STUCK`].
    #[track_caller]
    pub fn finish(mut self) -> usize {
        self.change(|state| state.finishing = true);
        let thread = self.thread.take().expect("it is taken here alone");
        wait::until_within(STUCK, "everything is sent", || match thread.is_finished() {
            true => Ok(()),
            false => Err(format!("{} are acknowledged", self.acknowledged())),
        });
        thread.join().expect("the sender does not panic");
        self.again()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }

    #[track_caller]
    fn wait(&self, what: &str, condition: impl Fn(&State) -> bool) {
        let unmet = |state: &mut State| !condition(state);
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), STUCK, unmet);
        assert!(!waited.expect("no thread panics with the lock").1.timed_out(), "{what}: not within {STUCK:?}");
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.change(|state| state.stop = true);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the lock")
    }
}

/// What the thread works with.
struct Work {
    shared: Arc<Shared>,
    flow: Flow,
    port: u16,
    protocol: Protocol,
    pace: Pace,
    since: Instant,
}

impl Work {
    fn run(&self) {
        let mut base = 0;
        while self.wanted(base) {
            let client = wait::until_within(STUCK, "the sender connects", || {
                let connected = Client::options(self.port, self.protocol).connect();
                if self.shared.lock().stop { Ok(None) } else { connected.map(Some) }
            });
            let Some(client) = client else { return };
            let sent = self.send(&client, base);
            // An error is the end of the connection, which the next round mends.
            let _ = client.settled();
            let acknowledged = base + client.acknowledged();
            let mut state = self.shared.lock();
            base = state.rewind.take().unwrap_or(acknowledged);
            state.acknowledged = base;
            state.again += sent - base;
        }
    }

    /// Whether something is left to be sent, now or when it is rewound.
    fn wanted(&self, base: usize) -> bool {
        let waits = |state: &mut State| {
            state.held = state.holds(base);
            self.shared.changed.notify_all();
            base == self.flow.count() && !state.finishing && !state.stop && state.rewind.is_none()
        };
        let state = self.shared.changed.wait_while(self.shared.lock(), waits).expect("no thread panics with the lock");
        !state.stop && (base < self.flow.count() || state.rewind.is_some())
    }

    /// Sends from this place on over one connection, until all is sent or the connection is to end; gives the place after
    /// the last one that was sent.
    fn send(&self, client: &Client, base: usize) -> usize {
        let mut place = base;
        while place < self.flow.count() {
            self.shared.lock().acknowledged = base + client.acknowledged();
            match self.step(place) {
                Step::Leave => break,
                Step::Send if client.offer(&self.flow.message(place)).is_err() => break,
                Step::Send => {
                    place += 1;
                    self.acknowledged(base + client.acknowledged());
                }
                Step::Hold => {
                    // As in `run`.
                    let _ = client.settled();
                    self.held(place, base + client.acknowledged());
                }
            }
        }
        place
    }

    /// Waits for the pace.
    fn step(&self, place: usize) -> Step {
        loop {
            let state = self.shared.lock();
            if state.stop || state.rewind.is_some() {
                return Step::Leave;
            }
            if state.holds(place) {
                return Step::Hold;
            }
            match &self.pace {
                Pace::Ahead(ledger, ahead) => {
                    drop(state);
                    if ledger.wait_room(place, *ahead, LOOK) {
                        return Step::Send;
                    }
                }
                Pace::PerSecond(rate) => {
                    let due = Duration::from_secs_f64(place as f64 / f64::from(*rate));
                    let Some(left) = due.checked_sub(self.since.elapsed()).filter(|left| !left.is_zero()) else {
                        return Step::Send;
                    };
                    drop(
                        self.shared
                            .changed
                            .wait_timeout(state, left.min(LOOK))
                            .expect("no thread panics with the lock"),
                    );
                }
            }
        }
    }

    /// The broker has acknowledged so many.
    fn acknowledged(&self, count: usize) {
        self.shared.lock().acknowledged = count;
        self.shared.changed.notify_all();
    }

    /// Waits until it is released.
    fn held(&self, place: usize, acknowledged: usize) {
        let mut state = self.shared.lock();
        (state.acknowledged, state.held) = (acknowledged, true);
        self.shared.changed.notify_all();
        let holds = |state: &mut State| state.holds(place) && !state.stop;
        self.shared.changed.wait_while(state, holds).expect("no thread panics with the lock").held = false;
    }
}

/// The sender checked, with mosquitto alone.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mosquitto;
    use crate::fault::Collector;

    #[test]
    fn nothing_is_missing_after_deaths_and_a_rewind_in_order() {
        for protocol in [Protocol::V311, Protocol::V5] {
            let (mut source, flow) = (Mosquitto::persistent(), Flow::new("in", 4, 2000));
            let ledger = Ledger::new(&flow, "");
            let collector = Collector::start(source.port(), protocol, &ledger);
            let sender = Sender::start(&flow, source.port(), protocol, Pace::Ahead(Arc::clone(&ledger), 200));
            ledger.wait_distinct(500);
            let saved = sender.hold();
            source.save();
            sender.release();
            ledger.wait_distinct(1000);
            source.kill();
            sender.rewind(saved);
            source.restart();
            ledger.wait_distinct(flow.count());
            assert!(sender.again() > 0, "nothing was sent again");
            sender.finish();
            collector.finish();
            ledger.verdict().hold();
        }
    }
}
