//! A client that goes on where its broker does not: what [`crate::fault`] builds its senders and collectors from. The end of a
//! connection is an answer here, never a panic.

use std::io;
use std::time::Duration;

use super::Client;
use super::message::Message;
use crate::wait::PATIENCE;

impl Client {
    /// Publishes as soon as the window has room.
    ///
    /// # Errors
    /// The connection has ended, or the broker acknowledges nothing any more.
    pub(crate) fn offer(&self, message: &Message) -> Result<(), String> {
        self.start(message)
    }

    /// How many publishes of this connection are acknowledged; the broker acknowledges in order (MQTT-4.6.0-2).
    pub(crate) fn acknowledged(&self) -> usize {
        self.shared.lock().acknowledged
    }

    /// Waits until all publishes are acknowledged.
    ///
    /// # Errors
    /// As [`Client::offer`].
    pub(crate) fn settled(&self) -> Result<(), String> {
        self.shared.wait(PATIENCE, |state| match state.open.len() {
            0 => Ok(()),
            open => Err(format!("{open} publishes without acknowledgement")),
        })
    }

    /// What came and was not collected yet, as soon as there is some; empty when `limit` has passed.
    ///
    /// # Errors
    /// The connection has ended, and everything that came before is collected.
    pub(crate) fn take(&self, limit: Duration) -> Result<Vec<Message>, String> {
        let waited = self.shared.wait_even_ended(limit, |state| match (state.inbox.len(), &state.ended) {
            (0, None) => Err("nothing came"),
            (0, Some(end)) => Ok(Err(end.clone())),
            _ => Ok(Ok(Vec::from(std::mem::take(&mut state.inbox)))),
        });
        waited.unwrap_or(Ok(Vec::new()))
    }

    /// A new connection of the same session.
    ///
    /// # Errors
    /// Nobody listens, or the broker refuses.
    pub(crate) fn again(&self) -> io::Result<Client> {
        self.options.connect()
    }
}
