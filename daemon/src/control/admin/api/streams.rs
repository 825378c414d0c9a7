//! `received/stream` and `trace`: server-sent events, for as long as the client stays.
//!
//! A stream takes what it tells when its client has room for it, so that a slow client costs the others nothing: it misses
//! something, and is told how much.

use std::convert::Infallible;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use super::messages::wanted;
use super::{Api, Failed};
use crate::control::admin::extract::Query;
use crate::control::admin::gate::Peer;
use crate::control::admin::limits;
use crate::control::admin::problem::HttpError;
use crate::control::admin::received::received;
use crate::control::admin::resource::{Received, TraceStep};
use crate::telemetry::received::Followed;
use crate::telemetry::trace::Watched;

/// What a client that comes back brings.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The data of the event `missed`.
#[derive(Serialize, ToSchema)]
pub(super) struct Missed {
    /// So many messages or steps were not told.
    pub(super) count: u64,
}

/// Which messages are told.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Choice {
    /// Those of this broker alone.
    broker: Option<String>,
    /// Those alone whose topic this filter matches.
    topic: Option<String>,
}

/// Messages as they are received, an event each, with the sequence as its id. After the header `Last-Event-ID` those that came
/// since are told first. The event `missed` tells how many were received and cannot be told.
#[utoipa::path(
    get,
    path = "/api/v1/received/stream",
    params(
        Choice,
        ("Last-Event-ID" = Option<u64>, Header, description = "The id of the last event that the client has had")
    ),
    responses((status = 200, body = Received, content_type = "text/event-stream"))
)]
pub(super) async fn follow_received(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Query(choice): Query<Choice>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failed> {
    let wanted = wanted(&api, choice.broker.as_deref(), choice.topic.as_deref())?;
    let from = match headers.get(LAST_EVENT_ID) {
        None => None,
        Some(id) => {
            let id = id.to_str().ok().and_then(|id| id.trim().parse::<u64>().ok());
            Some(id.ok_or_else(|| HttpError::Malformed("header Last-Event-ID", "not a number".to_owned()))?)
        }
    };
    let permit = permit(&api, peer)?;
    let names = api.0.names.clone();
    let follower = api.0.received.follow(from.map(|last| last.saturating_add(1)), wanted);
    let events = stream::unfold(follower, move |mut follower| {
        let names = names.clone();
        async move {
            let event = match follower.next().await {
                Followed::Message(entry) => {
                    Event::default().id(entry.sequence.to_string()).data(json(&received(&entry, &names)))
                }
                Followed::Missed(count) => missed(count),
            };
            Some((event, follower))
        }
    });
    Ok(served(&api, permit, events))
}

/// Which messages are traced.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Traced {
    /// Those alone whose topic this filter matches.
    topic: Option<String>,
    /// Those of this broker alone.
    broker: Option<String>,
    /// The stream ends with the way of so many messages.
    count: Option<u32>,
}

/// The way of the next messages, an event a step: which subscriptions match, the handler's call, what it publishes or must not,
/// the outcome. The event `missed` tells how many steps came faster than they were read.
#[utoipa::path(
    get,
    path = "/api/v1/trace",
    params(Traced),
    responses((status = 200, body = TraceStep, content_type = "text/event-stream"))
)]
pub(super) async fn trace(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Query(traced): Query<Traced>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failed> {
    let wanted = wanted(&api, traced.broker.as_deref(), traced.topic.as_deref())?;
    let permit = permit(&api, peer)?;
    let watch = api.0.tracer.watch(wanted, traced.count);
    let events = stream::unfold(watch, |mut watch| async move {
        let event = match watch.next().await? {
            Watched::Step(step) => Event::default().data(json(&step)),
            Watched::Missed(count) => missed(count),
        };
        Some((event, watch))
    });
    Ok(served(&api, permit, events))
}

/// The right to one more stream.
fn permit(api: &Api, peer: Peer) -> Result<OwnedSemaphorePermit, Failed> {
    api.shares(peer).streams.clone().try_acquire_owned().map_err(|_| HttpError::Streams.into())
}

fn missed(count: u64) -> Event {
    Event::default().event("missed").data(json(&Missed { count }))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("resources have only strings as keys")
}

/// The answer, which gives the permit back at its end: the client's, the events', or the daemon's.
fn served<S>(
    api: &Api,
    permit: OwnedSemaphorePermit,
    events: S,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + use<S>>
where
    S: Stream<Item = Event> + Send + 'static,
{
    let stop = api.0.stop.clone().cancelled_owned();
    let events = events.take_until(stop).map(move |event| {
        let _held = &permit;
        Ok(event)
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(limits::KEEP_ALIVE))
}
