//! Streams of the API that a command follows until it is interrupted: items, and how many were missed.

use std::future::Future;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::client::{Client, Event, Events, Failure, Request};

/// An open stream of `T`s.
#[derive(Debug)]
pub struct Feed<T> {
    at: String,
    events: Events,
    item: PhantomData<T>,
}

/// What comes next.
#[derive(Debug, PartialEq)]
pub enum Arrival<T> {
    /// One of them.
    Item {
        /// What was sent, on one line.
        raw: String,
        /// And what it is.
        item: T,
    },
    /// So many came faster than they were taken.
    Missed(u64),
}

impl<T: DeserializeOwned> Feed<T> {
    /// Opens the stream.
    ///
    /// # Errors
    /// The client's errors.
    pub async fn open(client: &Client<'_>, request: Request) -> Result<Feed<T>, Failure> {
        let events = client.stream(request).await?;
        Ok(Feed { at: events.at().to_owned(), events, item: PhantomData })
    }

    /// Where the daemon is, for errors.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// The next one; none at the end of the stream. Nothing is lost when it is dropped while it waits.
    ///
    /// # Errors
    /// The connection breaks, or something else comes than should.
    pub async fn try_next(&mut self) -> Result<Option<Arrival<T>>, Failure> {
        self.events.next().await?.map(|event| arrival(&self.at, event)).transpose()
    }

    /// As [`Feed::try_next`], for a stream that ends only when the daemon does.
    ///
    /// # Errors
    /// The end is one, too.
    pub async fn next(&mut self) -> Result<Arrival<T>, Failure> {
        self.try_next().await?.ok_or_else(|| ended(&self.at))
    }
}

/// The data of the event `missed`.
#[derive(Deserialize)]
struct Missed {
    count: u64,
}

/// The daemon has ended a stream.
pub fn ended(at: &str) -> Failure {
    Failure::Unreachable {
        at: at.to_owned(),
        reason: "the stream has ended, as at its stop".to_owned(),
        remedy: "look whether it runs with `tidegate status`, and begin again".to_owned(),
    }
}

fn arrival<T: DeserializeOwned>(at: &str, event: Event) -> Result<Arrival<T>, Failure> {
    let not_understood = |error: serde_json::Error| Failure::Unreachable {
        at: at.to_owned(),
        reason: format!("an event is not understood: {error}"),
        remedy: "use the tidegate of the daemon's version".to_owned(),
    };
    if event.kind == "missed" {
        return serde_json::from_str(&event.data)
            .map(|Missed { count }| Arrival::Missed(count))
            .map_err(not_understood);
    }
    let item = serde_json::from_str(&event.data).map_err(not_understood)?;
    // A newline in JSON stands between values only.
    Ok(Arrival::Item { raw: event.data.replace('\n', " "), item })
}

/// Ends with SIGINT or SIGTERM, from now on.
///
/// # Errors
/// The signals cannot be listened to.
pub fn until_interrupted() -> Result<impl Future<Output = ()>, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::No(format!("no signals: {error}")));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, data: &str) -> Event {
        Event { kind: kind.into(), data: data.into() }
    }

    #[test]
    fn events_become_items() {
        let item = arrival::<Vec<u8>>("x", event("message", "[1,\n2]")).expect("an item");
        assert_eq!(item, Arrival::Item { raw: "[1, 2]".into(), item: vec![1, 2] });
        assert_eq!(arrival::<u8>("x", event("missed", "{\"count\":7}")).expect("a count"), Arrival::Missed(7));
        assert_eq!(arrival::<u8>("x", event("message", "no")).expect_err("no number").code(), 3);
    }
}
