//! A TCP proxy on the loopback interface, between the daemon and a broker, whose connections a row breaks as it likes.
//!
//! Owns: the listening port and what is to happen to connections. Two threads a connection pass the bytes on (`pump.rs`); what
//! passes is watched by a [`Tap`](super::Tap). It never invents or repairs a byte.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::pump::{self, Connection};
use crate::client::Protocol;
use crate::client::message::Message;
use crate::wait;

/// The way of bytes through a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the daemon to the broker.
    Up,
    /// From the broker to the daemon.
    Down,
}

/// How a connection is cut. Either way both sides lose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// In order, as when a process ends (FIN): what was passed on before still arrives.
    Close,
    /// As when a router forgets it (RST).
    Reset,
}

/// What becomes of the bytes of a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They pass.
    #[default]
    Pass,
    /// They are neither read nor passed on, so that the windows of TCP fill. At most one buffer was read before.
    Stall,
    /// They pass this much later.
    Delay(Duration),
    /// They are read and thrown away.
    Discard,
}

/// What a proxy has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were made through it.
    pub connections: usize,
    /// Connections that it turned away: as told, or since nobody listens at its target.
    pub turned_away: usize,
    /// Connections that it has cut.
    pub cuts: usize,
    /// Connections that ended, for whatever reason, with a message sent and not acknowledged, in either direction.
    pub interrupted: usize,
    /// Messages, of either direction, that were sent and not acknowledged when their connections ended: what may rightly come
    /// again, beside that whose acknowledgement was on its way.
    pub unacknowledged: usize,
    /// Acknowledgements of the daemon.
    pub acknowledged: usize,
}

/// A proxy. Dropping it cuts all its connections.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free port for connections to `target`, a port on 127.0.0.1 that speaks `protocol`.
    ///
    /// # Panics
    /// There is no free port.
    pub fn start(target: u16, protocol: Protocol) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared { target, protocol, closing: AtomicBool::new(false), state: Mutex::default() });
        let accepting = {
            let shared = Arc::clone(&shared);
            Some(thread::spawn(move || accept(&listener, &shared)))
        };
        Proxy { port, shared, accepting }
    }

    /// Its port on 127.0.0.1, for the daemon.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts every connection that stands, now; returns how many.
    pub fn cut(&self, how: Cut) -> usize {
        let standing = self.standing();
        standing.iter().filter(|connection| self.shared.cut(connection, how)).count()
    }

    /// Lets `bytes` more of this direction pass, over whatever connections, and then cuts the one that they end in. Replaces
    /// what was planned before.
    pub fn cut_after(&self, direction: Direction, bytes: u64, how: Cut) {
        self.shared.lock().planned = Some(Planned { direction, left: bytes, how });
    }

    /// Changes what becomes of this direction of the connections that stand. Those made from now on are not touched.
    pub fn set(&self, direction: Direction, mode: Mode) {
        self.standing().iter().for_each(|connection| connection.set(direction, mode));
    }

    /// Changes what becomes of this direction of all connections, those made from now on too.
    pub fn set_all(&self, direction: Direction, mode: Mode) {
        self.shared.lock().modes[direction as usize] = mode;
        self.set(direction, mode);
    }

    /// Turns new connections away from now on, or no longer. Those that stand are not touched.
    pub fn turn_away(&self, away: bool) {
        self.shared.lock().away = away;
    }

    /// Messages that are sent and not acknowledged, in either direction, on connections that stand.
    pub fn open(&self) -> usize {
        self.standing().iter().map(|connection| connection.tap().open()).sum()
    }

    /// How many connections stand, as the proxy sees it.
    pub fn connected(&self) -> usize {
        self.standing().len()
    }

    /// What it has seen so far.
    pub fn counts(&self) -> Counts {
        let standing: usize = self.standing().iter().map(|connection| connection.tap().acknowledged()).sum();
        let counts = self.shared.lock().counts;
        Counts { acknowledged: counts.acknowledged + standing, ..counts }
    }

    /// Waits until the counts satisfy `condition`, and returns them.
    #[track_caller]
    pub fn wait(&self, limit: Duration, what: &str, condition: impl Fn(&Counts) -> bool) -> Counts {
        wait::until_within(limit, what, || {
            let counts = self.counts();
            if condition(&counts) { Ok(counts) } else { Err(format!("{counts:?}")) }
        })
    }

    /// Waits until no connection stands: everything that came in has been passed on, or had nowhere to go.
    #[track_caller]
    pub fn wait_ended(&self, limit: Duration) {
        wait::until_within(limit, "every connection has ended", || match self.connected() {
            0 => Ok(()),
            standing => Err(format!("{standing} stand")),
        });
    }

    /// The QoS 1 messages that were passed on to the daemon, all of each, in order and with repetitions. None of those of a
    /// connection that is still being written to is missing once [`Proxy::connected`] is 0.
    pub fn delivered(&self) -> Vec<Message> {
        self.shared.lock().delivered.clone()
    }

    /// The QoS 1 messages that the daemon has acknowledged, where there was one connection: acknowledgements leave in the order
    /// of arrival, as [`Proxy::violations`] holds.
    ///
    /// # Panics
    /// There were several connections: what was acknowledged on an earlier one is not the beginning of all that came.
    #[track_caller]
    pub fn acknowledged(&self) -> Vec<Message> {
        let counts = self.counts();
        assert_eq!(counts.connections, 1, "connections");
        // A message counts as delivered after it was written, which its acknowledgement may overtake.
        wait::until("what is acknowledged was delivered", || match self.delivered() {
            delivered if delivered.len() >= counts.acknowledged => Ok(delivered[..counts.acknowledged].to_vec()),
            delivered => Err(format!("{} of {}", delivered.len(), counts.acknowledged)),
        })
    }

    /// The QoS 1 messages of a direction that may have reached their side, each with the number of its connection.
    pub fn passed(&self, direction: Direction) -> Vec<(usize, Message)> {
        self.shared.lock().passed[direction as usize].clone()
    }

    /// Acknowledgements of the daemon that left out of order [MQTT-4.6.0-2] or for nothing, packets that cannot be read.
    pub fn violations(&self) -> Vec<String> {
        let mut all = self.shared.lock().violations.clone();
        for connection in self.standing() {
            all.extend(connection.violations());
        }
        all
    }

    fn standing(&self) -> Vec<Arc<Connection>> {
        self.shared.lock().standing.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        // What the accepting thread waits for. An error means that it has ended.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        self.cut(Cut::Close);
    }
}

/// What the accepting thread, the pumps and the proxy's owner share.
pub(super) struct Shared {
    target: u16,
    pub(super) protocol: Protocol,
    closing: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    standing: Vec<Arc<Connection>>,
    counts: Counts,
    planned: Option<Planned>,
    /// Of connections made from now on, by direction.
    modes: [Mode; 2],
    away: bool,
    delivered: Vec<Message>,
    /// By direction, each with its connection's number. Unlike `delivered`, with what a write that failed may have passed on.
    passed: [Vec<(usize, Message)>; 2],
    /// Of connections that have ended.
    violations: Vec<String>,
}

/// A cut at a certain byte.
#[derive(Clone, Copy)]
struct Planned {
    direction: Direction,
    left: u64,
    how: Cut,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the lock")
    }

    /// How many of the next `count` bytes of this direction may pass, and the cut that is to follow them.
    pub(super) fn admit(&self, direction: Direction, count: usize) -> (usize, Option<Cut>) {
        let mut state = self.lock();
        let Some(planned) = state.planned.as_mut().filter(|planned| planned.direction == direction) else {
            return (count, None);
        };
        let wanted = count as u64;
        if planned.left > wanted {
            planned.left -= wanted;
            return (count, None);
        }
        let (left, how) = (planned.left, planned.how);
        state.planned = None;
        (usize::try_from(left).expect("at most count"), Some(how))
    }

    /// Cuts a connection; false if it was cut or had ended before.
    pub(super) fn cut(&self, connection: &Connection, how: Cut) -> bool {
        let cut = connection.cut(how);
        if cut {
            self.lock().counts.cuts += 1;
        }
        cut
    }

    /// These messages were passed on to the daemon.
    pub(super) fn delivered(&self, messages: Vec<Message>) {
        self.lock().delivered.extend(messages);
    }

    /// These messages are about to be passed on.
    pub(super) fn passed(&self, connection: usize, direction: Direction, messages: &[Message]) {
        self.lock().passed[direction as usize].extend(messages.iter().map(|message| (connection, message.clone())));
    }

    /// A connection has begun to end, with so many messages unacknowledged.
    pub(super) fn ending(&self, open: usize) {
        let mut state = self.lock();
        state.counts.interrupted += usize::from(open > 0);
        state.counts.unacknowledged += open;
    }

    /// Both directions of a connection have ended. `ending` was told of as many unacknowledged messages.
    pub(super) fn ended(&self, connection: &Arc<Connection>, told: usize) {
        let (acknowledged, open) = {
            let tap = connection.tap();
            (tap.acknowledged(), tap.open())
        };
        let violations = connection.violations();
        let mut state = self.lock();
        state.standing.retain(|standing| !Arc::ptr_eq(standing, connection));
        state.counts.acknowledged += acknowledged;
        state.counts.unacknowledged += open.saturating_sub(told);
        state.violations.extend(violations);
    }
}

/// The accepting thread.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for daemon in listener.incoming() {
        if shared.closing.load(Ordering::SeqCst) {
            return;
        }
        // A connection that failed before it was accepted is none.
        let Ok(daemon) = daemon else { continue };
        if shared.lock().away || meet(daemon, shared).is_err() {
            shared.lock().counts.turned_away += 1;
        }
    }
}

/// Connects a new connection of the daemon through.
fn meet(daemon: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let broker = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.target))?;
    let mut state = shared.lock();
    state.counts.connections += 1;
    let number = state.counts.connections;
    let connection = Arc::new(Connection::new(number, daemon, broker, shared.protocol, state.modes)?);
    state.standing.push(Arc::clone(&connection));
    drop(state);
    for direction in [Direction::Up, Direction::Down] {
        let (shared, connection) = (Arc::clone(shared), Arc::clone(&connection));
        thread::spawn(move || pump::run(&shared, &connection, direction));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
