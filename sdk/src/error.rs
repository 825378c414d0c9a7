//! What can go wrong in a handler, and what the daemon does about it.
//!
//! Owns: the outcome of a call and the translation of every other error into it. Returned by the author's functions; read
//! by the daemon through `wasm.rs`.

use std::fmt::Display;
use std::time::Duration;

/// What a handler returns: nothing, or why the message was not handled.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// Why a message was not handled.
///
/// The daemon logs and counts it and drops the publishes of the call. A message that asks for a retry is handled again, as the
/// handler's `retry` says, and so is one whose call panicked; later messages of its topic wait for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// This message will never work, however often it is tried: it goes to the handler's dead-letter topic, with this text, or
    /// is dropped where there is none. So does one whose retries are used up.
    #[error("{0}")]
    Reject(String),
    /// A passing fault: the same message may work later.
    #[error("{reason}")]
    Retry {
        /// For the daemon's log.
        reason: String,
        /// Not before this much time, to the millisecond; `None` leaves it to the daemon.
        after: Option<Duration>,
    },
}

impl Error {
    /// Asks for the retry not to come before this much time. A rejection stays one.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidegate_sdk::{Error, retry};
    /// let error = retry("the table is not here yet").after(Duration::from_secs(5));
    /// assert!(matches!(error, Error::Retry { after: Some(_), .. }));
    /// ```
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Error {
        if let Error::Retry { after, .. } = &mut self {
            *after = Some(delay);
        }
        self
    }
}

/// This message will never work.
///
/// ```
/// # use tidegate_sdk::{Error, reject};
/// assert_eq!(reject("no such device"), Error::Reject("no such device".into()));
/// ```
pub fn reject(reason: impl Into<String>) -> Error {
    Error::Reject(reason.into())
}

/// This message may work later.
pub fn retry(reason: impl Into<String>) -> Error {
    Error::Retry { reason: reason.into(), after: None }
}

/// Why the daemon did not take a publish.
///
/// As an [`Error`], what will not change (a denial, a topic, a limit of the call) is a rejection, the rest a retry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The handler's `allow.publish` does not grant this topic on this broker, or the call is `init`.
    #[error("the publish is denied: {0}")]
    Denied(String),
    /// Not a topic name: empty, too long, or with a wildcard.
    #[error("the topic is not valid: {0}")]
    InvalidTopic(String),
    /// The message alone is larger than the call's `max-publish-bytes`. The call fails, whatever it returns.
    #[error("the publishes of this call are larger than max-publish-bytes")]
    TooLarge,
    /// The call has used up its `max-publishes` or `max-publish-bytes`. It fails, whatever it returns.
    #[error("this call has used up its max-publishes")]
    Quota,
    /// No broker is configured with this name. Empty where the publish names none: on a schedule it then goes to the handler's
    /// `default-broker`, and there is no such.
    #[error("{}", unknown_broker(.0))]
    UnknownBroker(String),
    /// Too much waits for this broker already. Reserved: the daemon does not return it yet, since whether there is room is known
    /// once the call has returned `Ok`.
    #[error("the broker's outbox is full")]
    OutboxFull,
    /// In the daemon's words.
    #[error("{0}")]
    Other(String),
}

fn unknown_broker(name: &str) -> String {
    if name.is_empty() {
        "the publish names no broker, and the handler has no default-broker".to_owned()
    } else {
        format!("no broker is named \"{name}\"")
    }
}

impl From<PublishError> for Error {
    fn from(error: PublishError) -> Error {
        match error {
            PublishError::OutboxFull | PublishError::Other(_) => retry(error.to_string()),
            PublishError::Denied(_)
            | PublishError::InvalidTopic(_)
            | PublishError::TooLarge
            | PublishError::Quota
            | PublishError::UnknownBroker(_) => reject(error.to_string()),
        }
    }
}

/// Why the daemon did not read or write what the handler remembers: see [`kv`](crate::kv).
///
/// As an [`Error`], what may be otherwise later ([`Quota`](KvError::Quota), [`Unavailable`](KvError::Unavailable)) is a retry, the rest a
/// rejection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KvError {
    /// There is no room for it now: what the handler remembers would exceed its `allow.kv`.
    #[error("there is no room for it within allow.kv")]
    Quota,
    /// The key is longer than 512 bytes, or the entry alone exceeds `allow.kv`.
    #[error("the key is longer than 512 bytes, or the entry is larger than allow.kv")]
    TooLarge,
    /// The daemon's store has failed, or too much waits to be written. In the daemon's words.
    #[error("nothing can be kept now: {0}")]
    Unavailable(String),
    /// The value is not of the JSON that was asked for, or has none.
    #[error("{0}")]
    Json(String),
    /// In the daemon's words: no grant, a write in `init`, too many keys in one call.
    #[error("{0}")]
    Other(String),
}

impl KvError {
    pub(crate) fn json(key: &str, error: &serde_json::Error) -> KvError {
        KvError::Json(format!("the value of the key \"{key}\": {error}"))
    }
}

impl From<KvError> for Error {
    fn from(error: KvError) -> Error {
        match error {
            KvError::Quota | KvError::Unavailable(_) => retry(error.to_string()),
            KvError::TooLarge | KvError::Json(_) | KvError::Other(_) => reject(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Error {
        reject(error.to_string())
    }
}

/// Turns any error, or a missing value, into a rejection or a retry.
///
/// ```
/// use tidegate_sdk::{Message, OrFail, Result};
///
/// fn handle(message: &Message) -> Result {
///     let degrees: f64 = message.text()?.trim().parse().or_reject("the payload is not a number")?;
///     let device = message.captures.first().or_reject("the subscription has no wildcard")?;
///     # let _ = (degrees, device);
///     Ok(())
/// }
/// # let message = tidegate_sdk::testing::message("a", "warm");
/// # let outcome = tidegate_sdk::testing::call(handle, &message);
/// # assert_eq!(outcome.result.unwrap_err().to_string(), "the payload is not a number: invalid float literal");
/// ```
pub trait OrFail<T>: Sized {
    /// The value, or a rejection that opens with these words.
    ///
    /// # Errors
    /// [`Error::Reject`] where there is no value.
    fn or_reject(self, what: &str) -> Result<T>;

    /// The value, or a retry that opens with these words.
    ///
    /// # Errors
    /// [`Error::Retry`] where there is no value.
    fn or_retry(self, what: &str) -> Result<T>;
}

impl<T, E: Display> OrFail<T> for std::result::Result<T, E> {
    fn or_reject(self, what: &str) -> Result<T> {
        self.map_err(|error| reject(format!("{what}: {error}")))
    }

    fn or_retry(self, what: &str) -> Result<T> {
        self.map_err(|error| retry(format!("{what}: {error}")))
    }
}

impl<T> OrFail<T> for Option<T> {
    fn or_reject(self, what: &str) -> Result<T> {
        self.ok_or_else(|| reject(what))
    }

    fn or_retry(self, what: &str) -> Result<T> {
        self.ok_or_else(|| retry(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: PublishError, expected: Error) {
        assert_eq!(Error::from(error), expected);
    }

    #[test]
    fn what_will_not_change_is_a_rejection() {
        check(PublishError::Denied("a/b".into()), reject("the publish is denied: a/b"));
        check(PublishError::InvalidTopic("#".into()), reject("the topic is not valid: #"));
        check(PublishError::TooLarge, reject("the publishes of this call are larger than max-publish-bytes"));
        check(PublishError::Quota, reject("this call has used up its max-publishes"));
        check(PublishError::UnknownBroker("x".into()), reject("no broker is named \"x\""));
        let none = "the publish names no broker, and the handler has no default-broker";
        check(PublishError::UnknownBroker(String::new()), reject(none));
    }

    #[test]
    fn what_passes_is_a_retry() {
        check(PublishError::OutboxFull, retry("the broker's outbox is full"));
        check(PublishError::Other("stopping".into()), retry("stopping"));
    }

    #[test]
    fn an_error_of_kv_is_a_retry_where_it_may_pass() {
        let check = |error: KvError, expected: Error| assert_eq!(Error::from(error), expected);
        check(KvError::Quota, retry("there is no room for it within allow.kv"));
        check(KvError::Unavailable("full".into()), retry("nothing can be kept now: full"));
        check(KvError::TooLarge, reject("the key is longer than 512 bytes, or the entry is larger than allow.kv"));
        check(KvError::Other("no grant".into()), reject("no grant"));
    }

    #[test]
    fn a_delay_belongs_to_retries_only() {
        let second = Duration::from_secs(1);
        assert_eq!(retry("x").after(second), Error::Retry { reason: "x".into(), after: Some(second) });
        assert_eq!(reject("x").after(second), reject("x"));
    }
}
