//! The dead letters of the local store, as an operator sees them, has them handled again, or forgets them.
//!
//! Reading blocks on the disk, and is done where that may be. What is claimed here nobody else does anything with until it is let
//! go of: by the end of its clearing, or by `retry.rs`, to which what is to be handled again goes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::edit::unknown;
use super::{LetterPage, Letters, Live, Refusal, RefusalKind, Running, WAITING_RETRIES};
use crate::causes::with_causes;
use crate::control::admin::limits::PAGE_BYTES;
use crate::control::admin::received::told;
use crate::control::admin::resource::{
    self, DeadLetter, DeadLetterCount, DeadLetterKind, DeadLetterList, MessageProperties, WholeDeadLetter,
};
use crate::control::config::runtime::Section;
use crate::message::Properties;
use crate::path::dead_letter::Reason;
use crate::path::kept::{Busy, Claim, DEAD, Entry, Failure, Kept, Record};
use crate::store::{Health, StoreError};

/// Rows and bytes that are read at once.
const PIECE: (usize, usize) = (256, 1 << 20);

/// What the list says as the reason of one whose bytes say nothing.
const UNREADABLE: &str = "unreadable";

impl Live {
    /// Dead letters of the local store, oldest first.
    ///
    /// # Errors
    /// There is no such handler or reason, or the store cannot be read.
    pub async fn dead_letters(&self, page: LetterPage) -> Result<DeadLetterList, Refusal> {
        if let Some(reason) = page.reason.as_deref().filter(|reason| *reason != UNREADABLE)
            && !Reason::ALL.iter().any(|known| known.label() == reason)
        {
            let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.label()).collect();
            let remedy = format!("use one of {}", known.join(", "));
            return Err(Refusal::new(RefusalKind::Invalid, format!("there is no reason {reason:?}"), remedy));
        }
        let (kept, handler) = (self.kept.clone(), page.handler.clone());
        let listed = blocking(move || list(&kept, &page)).await?;
        if let Some(handler) = handler.filter(|_| listed.dead_letters.is_empty()) {
            known_handler(&self.running(), &handler)?;
        }
        Ok(DeadLetterList { kept: self.kept_dead_letters(), ..listed })
    }

    /// One dead letter with its payload.
    ///
    /// # Errors
    /// There is none with this id, or the store cannot be read.
    pub async fn dead_letter(&self, id: u64) -> Result<WholeDeadLetter, Refusal> {
        let kept = self.kept.clone();
        blocking(move || match kept.get(DEAD, id).map_err(|error| unreadable(&error))? {
            Some(entry) => Ok(whole(&entry)),
            None => Err(no_such(id)),
        })
        .await
    }

    /// Has dead letters handled again: so many. They are until then in progress, a bounded number of them at a time.
    ///
    /// # Errors
    /// One of them cannot be, or the store cannot be read; then it is begun with none.
    pub async fn retry_dead_letters(&self, which: Letters) -> Result<DeadLetterCount, Refusal> {
        let (kept, running) = (self.kept.clone(), self.running());
        let claims = blocking(move || {
            let claims = claim(&kept, &running, &which, |entry| can_be_handled(&running, entry))?;
            Ok(claims.into_iter().map(|(claim, _)| claim).collect::<Vec<Claim>>())
        })
        .await?;
        let dead_letters = claims.len() as u64;
        if self.stopping.is_cancelled() {
            return Err(stopping());
        }
        self.retries.try_send(claims).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refusal::new(
                RefusalKind::Busy,
                format!("{WAITING_RETRIES} requests to handle dead letters again wait already"),
                "try again when they are done",
            ),
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        Ok(DeadLetterCount { dead_letters })
    }

    /// Forgets dead letters: so many. Returns once that is synced.
    ///
    /// # Errors
    /// One of them is not there or in progress, or the store cannot be read; then none is forgotten.
    pub async fn clear_dead_letters(&self, which: Letters) -> Result<DeadLetterCount, Refusal> {
        let (kept, running) = (self.kept.clone(), self.running());
        let claims = blocking(move || claim(&kept, &running, &which, |_| Ok(()))).await?;
        let dead_letters = claims.len() as u64;
        let kept = self.kept.clone();
        let rows = claims.iter().map(|(claim, _)| Kept::removal(kept.dead(), claim.id())).collect();
        if let Health::Failed { why, .. } = self.kept.store().health() {
            let text = format!("they cannot be deleted: {why}");
            return Err(Refusal::new(RefusalKind::Storage, text, "the dead letters are still there"));
        }
        let (sender, synced) = oneshot::channel();
        self.kept.store().submit_removals(rows, move || {
            for (claim, weight) in claims {
                kept.removed(kept.dead(), weight);
                drop(claim);
            }
            // Whoever asked may have gone.
            let _ = sender.send(());
        });
        // Without a word, the daemon ends.
        synced.await.map_err(|_| stopping())?;
        Ok(DeadLetterCount { dead_letters })
    }

    /// Dead letters of the local store, and their size.
    pub(super) fn kept_dead_letters(&self) -> resource::Kept {
        let (total, _) = self.kept.held(DEAD);
        resource::Kept { messages: total.rows, bytes: total.weight }
    }
}

/// Does what blocks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Result<T, Refusal> {
    let cut = |_| Refusal::new(RefusalKind::Stopping, "the step was cut short", "see the daemon's log");
    tokio::task::spawn_blocking(work).await.map_err(cut)?
}

fn stopping() -> Refusal {
    Refusal::new(RefusalKind::Stopping, "the daemon is stopping", "start it again")
}

fn unreadable(error: &StoreError) -> Refusal {
    Refusal::new(RefusalKind::Storage, with_causes(error), "see the daemon's log")
}

fn no_such(id: u64) -> Refusal {
    let remedy = "see which there are with tidegate dead-letters list";
    Refusal::new(RefusalKind::NotFound, format!("there is no dead letter {id}"), remedy)
}

fn known_handler(running: &Running, name: &str) -> Result<(), Refusal> {
    let known = running.handlers.iter().any(|handler| *handler.handler().name == *name);
    if known { Ok(()) } else { Err(unknown(&running.loaded, Section::Handlers, name)) }
}

fn is_of(record: &Record, handler: &str) -> bool {
    record.handler().is_some_and(|known| **known == *handler)
}

fn list(kept: &Kept, page: &LetterPage) -> Result<DeadLetterList, Refusal> {
    let mut letters: Vec<DeadLetter> = Vec::new();
    let (mut before, mut bytes, mut more) = (page.before.unwrap_or(u64::MAX), 0, false);
    'reading: loop {
        let piece = kept.read_back(DEAD, before, PIECE).map_err(|error| unreadable(&error))?;
        let Some(last) = piece.last() else { break };
        before = last.id;
        for entry in &piece {
            let letter = letter(entry);
            let of_handler = page.handler.as_ref().is_none_or(|handler| letter.handler.as_ref() == Some(handler));
            if !of_handler || page.reason.as_ref().is_some_and(|reason| letter.reason != *reason) {
                continue;
            }
            if letters.len() >= page.last || bytes >= PAGE_BYTES {
                more = true;
                break 'reading;
            }
            bytes += letter.topic.len() + letter.error.len() + letter.subscription.as_ref().map_or(0, String::len);
            letters.push(letter);
        }
    }
    letters.reverse();
    Ok(DeadLetterList { dead_letters: letters, more, kept: resource::Kept::default() })
}

/// Claims dead letters, each with its weight. Of those that are named by their numbers each must be there and fit; of the others
/// those are left out that something is done with already.
fn claim(
    kept: &Kept,
    running: &Running,
    which: &Letters,
    fits: impl Fn(&Entry) -> Result<(), Refusal>,
) -> Result<Vec<(Claim, u32)>, Refusal> {
    let mut claims = Vec::new();
    let handler = match which {
        Letters::Ids(ids) => {
            let mut ids = ids.clone();
            ids.sort_unstable();
            ids.dedup();
            for id in ids {
                let claim = kept.claim(kept.dead(), id).map_err(|Busy| in_progress(id))?;
                let entry = kept.get(DEAD, id).map_err(|error| unreadable(&error))?.ok_or_else(|| no_such(id))?;
                fits(&entry)?;
                claims.push((claim, entry.weight));
            }
            return Ok(claims);
        }
        Letters::Handler(handler) => Some(handler),
        Letters::All => None,
    };
    let (mut after, mut seen) = (0, false);
    loop {
        let piece = kept.read(DEAD, after, PIECE).map_err(|error| unreadable(&error))?;
        let Some(last) = piece.last() else { break };
        after = last.id;
        for Entry { id, record, .. } in &piece {
            let of_handler = |handler| record.as_ref().is_ok_and(|record| is_of(record, handler));
            if !handler.is_none_or(|handler| of_handler(handler)) {
                continue;
            }
            seen = true;
            let Ok(claim) = kept.claim(kept.dead(), *id) else { continue };
            // It may have ended between its reading and its claim.
            let Some(entry) = kept.get(DEAD, *id).map_err(|error| unreadable(&error))? else { continue };
            fits(&entry)?;
            claims.push((claim, entry.weight));
        }
    }
    if let Some(handler) = handler.filter(|_| !seen) {
        known_handler(running, handler)?;
    }
    Ok(claims)
}

fn in_progress(id: u64) -> Refusal {
    let detail = format!("the dead letter {id} is in progress already");
    Refusal::new(RefusalKind::UnderWay, detail, "see what comes of it with tidegate dead-letters list")
}

/// Whether a dead letter can be handled again as things are configured now.
fn can_be_handled(running: &Running, entry: &Entry) -> Result<(), Refusal> {
    let id = entry.id;
    let gone = |what: &str, name: &str| {
        let detail = format!("the dead letter {id} is {what} {name}, which is not configured");
        Err(Refusal::new(RefusalKind::NotFound, detail, "add it again, or clear the dead letter"))
    };
    let handler = |name: &str| running.handlers.iter().any(|handler| *handler.handler().name == *name);
    let broker = |name: &str| running.brokers.iter().any(|broker| *broker.config.name == *name);
    match &entry.record {
        Err(error) => {
            let detail = format!("the dead letter {id} cannot be read: {error}");
            Err(Refusal::new(RefusalKind::Storage, detail, ""))
        }
        Ok(Record::DeadLetter(message, _) | Record::Parked(message)) => match message {
            message if !handler(&message.handler) => gone("for the handler", &message.handler),
            message if !broker(&message.broker) => gone("from the broker", &message.broker),
            _ => Ok(()),
        },
        Ok(Record::Publish(publish, _)) if !broker(&publish.broker) => gone("for the broker", &publish.broker),
        Ok(Record::Publish(..)) => Ok(()),
    }
}

/// A dead letter as it is listed.
fn letter(entry: &Entry) -> DeadLetter {
    let none = Failure { reason: Reason::Reject, error: String::new(), attempts: 0, time: std::time::UNIX_EPOCH };
    let (kind, failure) = match &entry.record {
        Ok(Record::Publish(_, failure)) => (DeadLetterKind::Publish, failure),
        Ok(Record::DeadLetter(_, failure)) => (DeadLetterKind::Message, failure),
        Ok(Record::Parked(_)) | Err(_) => (DeadLetterKind::Message, &none),
    };
    let mut letter = DeadLetter {
        id: entry.id,
        kind,
        time: humantime::format_rfc3339_millis(failure.time).to_string(),
        handler: None,
        subscription: None,
        broker: String::new(),
        topic: String::new(),
        qos: 0,
        retain: false,
        reason: failure.reason.label().to_owned(),
        error: failure.error.clone(),
        attempts: failure.attempts,
        bytes: 0,
    };
    match &entry.record {
        Ok(Record::DeadLetter(message, _) | Record::Parked(message)) => {
            letter.handler = Some(message.handler.to_string());
            letter.subscription = Some(message.subscription.to_string());
            letter.broker = message.broker.to_string();
            (letter.topic, letter.qos, letter.retain) =
                (message.topic.to_string(), message.qos.number(), message.retain);
            letter.bytes = message.payload.len() as u64;
        }
        Ok(Record::Publish(publish, _)) => {
            letter.handler = publish.handler.as_ref().map(|handler| handler.to_string());
            letter.broker = publish.broker.to_string();
            let message = &publish.message;
            (letter.topic, letter.qos, letter.retain) =
                (message.topic.to_string(), message.qos.number(), message.retain);
            letter.bytes = message.payload.len() as u64;
        }
        Err(error) => {
            (letter.reason, letter.error) = (UNREADABLE.to_owned(), error.to_string());
            letter.bytes = u64::from(entry.weight);
        }
    }
    letter
}

fn whole(entry: &Entry) -> WholeDeadLetter {
    let none = Bytes::new();
    let (received, properties, payload) = match &entry.record {
        Ok(Record::DeadLetter(message, _) | Record::Parked(message)) => {
            let received = humantime::format_rfc3339_millis(message.received).to_string();
            (Some(received), message.properties.as_deref(), &message.payload)
        }
        Ok(Record::Publish(publish, _)) => (None, publish.message.properties.as_deref(), &publish.message.payload),
        Err(_) => (None, None, &none),
    };
    let (data, encoding) = told(payload);
    WholeDeadLetter { letter: letter(entry), received, properties: properties.map(shown), data, encoding }
}

fn shown(properties: &Properties) -> MessageProperties {
    MessageProperties {
        content_type: properties.content_type.clone(),
        response_topic: properties.response_topic.clone(),
        correlation_data_base64: properties.correlation_data.as_ref().map(|data| STANDARD.encode(data)),
        message_expiry: properties.message_expiry,
        utf8_payload: properties.utf8_payload,
        user: properties.user.clone(),
    }
}
