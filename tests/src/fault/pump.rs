//! One connection of a proxy: the threads that pass its bytes on, one a direction.
//!
//! Owns: both sockets and their end. Fed by `proxy.rs` with what is to happen. Holds one buffer a direction, so that a side that
//! does not read stops the other one, as it would without a proxy.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::TcpSocket;

use super::proxy::Shared;
use super::{Cut, Direction, Mode, Tap};
use crate::client::Protocol;
use crate::client::message::Message;

/// Bytes that one direction holds.
const BUFFER: usize = 16 * 1024;

/// How often a write to a side that does not read looks whether the connection was cut meanwhile: a reset wakes no writer.
const LOOK: Duration = Duration::from_millis(100);

/// A connection that is passed on.
pub(super) struct Connection {
    number: usize,
    daemon: TcpStream,
    broker: TcpStream,
    fate: Mutex<Fate>,
    changed: Condvar,
    tap: Mutex<Tap>,
}

/// What is to happen to a connection, and how far it has come.
struct Fate {
    modes: [Mode; 2],
    cut: bool,
    /// How many messages were unacknowledged when the first direction ended; none while both pass.
    ending: Option<usize>,
}

impl Connection {
    pub(super) fn new(
        number: usize,
        daemon: TcpStream,
        broker: TcpStream,
        protocol: Protocol,
        modes: [Mode; 2],
    ) -> io::Result<Connection> {
        for side in [&daemon, &broker] {
            side.set_nodelay(true)?;
            side.set_write_timeout(Some(LOOK))?;
        }
        let fate = Mutex::new(Fate { modes, cut: false, ending: None });
        let tap = Mutex::new(Tap::new(protocol));
        Ok(Connection { number, daemon, broker, fate, changed: Condvar::new(), tap })
    }

    pub(super) fn set(&self, direction: Direction, mode: Mode) {
        self.fate().modes[direction as usize] = mode;
        self.changed.notify_all();
    }

    /// False if it was cut or had begun to end before.
    pub(super) fn cut(&self, how: Cut) -> bool {
        let mut fate = self.fate();
        let stood = !fate.cut && fate.ending.is_none();
        if fate.cut {
            return false;
        }
        fate.cut = true;
        for side in [&self.daemon, &self.broker] {
            // Errors mean that the side has gone already.
            let _ = match how {
                Cut::Close => side.shutdown(Shutdown::Both),
                Cut::Reset => reset_when_closed(side).and_then(|()| side.shutdown(Shutdown::Read)),
            };
        }
        self.changed.notify_all();
        stood
    }

    pub(super) fn tap(&self) -> MutexGuard<'_, Tap> {
        self.tap.lock().expect("no thread panics with the lock")
    }

    /// What the daemon did wrong on it.
    pub(super) fn violations(&self) -> Vec<String> {
        self.tap().violations().iter().map(|what| format!("connection {}: {what}", self.number)).collect()
    }

    fn fate(&self) -> MutexGuard<'_, Fate> {
        self.fate.lock().expect("no thread panics with the lock")
    }

    /// Waits for as long as the direction is stalled; none once the connection is cut.
    fn mode(&self, direction: Direction) -> Option<Mode> {
        let stalled = |fate: &mut Fate| !fate.cut && fate.modes[direction as usize] == Mode::Stall;
        let fate = self.changed.wait_while(self.fate(), stalled).expect("no thread panics with the lock");
        (!fate.cut).then(|| fate.modes[direction as usize])
    }

    /// Waits for this long; false once the connection is cut.
    fn delay(&self, delay: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.fate(), delay, |fate| !fate.cut);
        !waited.expect("no thread panics with the lock").0.cut
    }

    /// Writes all, unless the connection is cut or the side has gone.
    fn write(&self, mut side: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match side.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if self.fate().cut {
                        return Err(error);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Makes the end of a socket a reset.
fn reset_when_closed(side: &TcpStream) -> io::Result<()> {
    // A second handle on the same socket: the option is the socket's.
    TcpSocket::from_std_stream(side.try_clone()?).set_zero_linger()
}

/// The thread of one direction, to its end.
pub(super) fn run(shared: &Shared, connection: &Arc<Connection>, direction: Direction) {
    let cut = pass(shared, connection, direction);
    let open = connection.tap().open();
    if let Some(how) = cut {
        shared.cut(connection, how);
    }
    let before = connection.fate().ending.replace(open);
    match before {
        None => shared.ending(open),
        Some(told) => shared.ended(connection, told),
    }
}

/// Passes bytes on until the connection is cut or its source has ended; gives the cut that is to follow.
fn pass(shared: &Shared, connection: &Connection, direction: Direction) -> Option<Cut> {
    let (mut from, to) = match direction {
        Direction::Up => (&connection.daemon, &connection.broker),
        Direction::Down => (&connection.broker, &connection.daemon),
    };
    let mut buffer = vec![0; BUFFER];
    let mut gone = false;
    while connection.mode(direction).is_some() {
        let count = match from.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        // Again: it may have been stalled, or cut, while the thread waited for these bytes.
        match connection.mode(direction) {
            None => return None,
            Some(Mode::Discard) => {
                connection.tap().blind(direction);
                continue;
            }
            Some(Mode::Delay(delay)) if !connection.delay(delay) => return None,
            Some(_) => {}
        }
        let (admitted, cut) = shared.admit(direction, count);
        if !gone {
            let bytes = &buffer[..admitted];
            let messages: Vec<Message> = connection.tap().passes(direction, bytes);
            shared.passed(connection.number, direction, &messages);
            // A side that has gone ends the other direction. What still comes in this one is thrown away, so that its end comes in
            // order: closing with something unread would reset the connection, and what was passed on before be lost with it.
            match connection.write(to, bytes) {
                Ok(()) if direction == Direction::Down => shared.delivered(messages),
                Ok(()) => {}
                Err(_) => gone = true,
            }
        }
        if cut.is_some() {
            return cut;
        }
    }
    // Half of a connection may end alone: the rest of the other half still passes. An error means that the side has gone.
    if !connection.fate().cut {
        let _ = to.shutdown(Shutdown::Write);
    }
    None
}
