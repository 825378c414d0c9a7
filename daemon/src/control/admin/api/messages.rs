//! `received`, `publish` and `explain`: messages that came, one that goes, one that could come.

use std::convert::Infallible;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Api, Failed, unknown};
use crate::control::admin::extract::{Body, Query};
use crate::control::admin::gate::Peer;
use crate::control::admin::limits;
use crate::control::admin::pace::Pace;
use crate::control::admin::received::pieces;
use crate::control::admin::resource::{Publication, Published, ReceivedList};
use crate::control::live::{Refusal, RefusalKind};
use crate::path::router::explain::Explanation;
use crate::path::router::select::Facts;
use crate::telemetry::wanted::Wanted;
use crate::topic::{TopicFilter, TopicName};

/// The messages that somebody wants to see.
///
/// # Errors
/// There is no such broker, or the filter is none.
pub(super) fn wanted(api: &Api, broker: Option<&str>, topic: Option<&str>) -> Result<Wanted, Failed> {
    let broker = broker.map(|name| {
        let none = || unknown("broker", name, api.operations().brokers().iter().map(|broker| broker.name.as_str()));
        api.0.names.find(name).ok_or_else(none)
    });
    let topic = topic.map(|text| {
        let invalid =
            |error| Refusal::new(RefusalKind::Invalid, format!("topic {text:?}: {error}"), "use a topic filter");
        TopicFilter::new(text).map_err(invalid)
    });
    Ok(Wanted { broker: broker.transpose()?, topic: topic.transpose()? })
}

/// Which received messages are listed.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Listing {
    /// Those of this broker alone.
    broker: Option<String>,
    /// Those alone whose topic this filter matches.
    #[param(min_length = 1)]
    topic: Option<String>,
    /// At most so many, the last ones.
    last: Option<usize>,
}

/// The last messages received, handled or not, of all brokers together. Waits while many other lists are being read.
#[utoipa::path(get, path = "/api/v1/received", params(Listing), responses((status = 200, body = ReceivedList)))]
pub(super) async fn list_received(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Extension(pace): Extension<Pace>,
    Query(listing): Query<Listing>,
) -> Result<impl IntoResponse, Failed> {
    let wanted = wanted(&api, listing.broker.as_deref(), listing.topic.as_deref())?;
    let permit = api.turn(peer).await;
    let listed = api.0.received.list(&wanted, listing.last).await;
    let held = (permit, pace.within(limits::LIST_TIME));
    let pieces = stream::iter(pieces(listed, api.0.names.clone())).map(move |piece| {
        let _held = &held;
        Ok::<_, Infallible>(piece)
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], axum::body::Body::from_stream(pieces)))
}

/// What was cleared.
#[derive(Serialize, ToSchema)]
pub(super) struct Cleared {
    /// How many messages that were.
    messages: usize,
}

/// Forgets the messages received so far. They keep their way through the handlers.
#[utoipa::path(delete, path = "/api/v1/received", responses((status = 200, body = Cleared)))]
pub(super) async fn clear_received(State(api): State<Api>) -> Json<Cleared> {
    Json(Cleared { messages: api.0.received.clear() })
}

/// Publishes a message and waits until the broker has acknowledged it; at QoS 0, until it is written.
#[utoipa::path(
    post,
    path = "/api/v1/publish",
    request_body = Publication,
    responses((status = 200, body = Published))
)]
pub(super) async fn publish(
    State(api): State<Api>,
    Body(publication): Body<Publication>,
) -> Result<Json<Published>, Failed> {
    Ok(Json(api.operations().publish(publication).await?))
}

/// A message that could come.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Question {
    /// Its topic name.
    #[param(min_length = 1)]
    topic: String,
    /// The broker that it comes from; all of them unless given.
    broker: Option<String>,
    /// Its payload, for the conditions; empty unless given.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    message: String,
    /// It is a retained one that the broker replays.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    retained: bool,
}

/// Which subscriptions match a topic, in order of rank, which of them run, and why; for each broker.
#[utoipa::path(get, path = "/api/v1/explain", params(Question), responses((status = 200, body = [Explanation])))]
pub(super) async fn explain(
    State(api): State<Api>,
    Query(question): Query<Question>,
) -> Result<Json<Vec<Explanation>>, Failed> {
    let topic = TopicName::new(question.topic.as_str()).map_err(|error| {
        Refusal::new(RefusalKind::Invalid, format!("topic {:?}: {error}", question.topic), "use one topic such as a/b")
    })?;
    let facts = Facts { payload: question.message.as_bytes(), retain: question.retained };
    Ok(Json(api.operations().explain(question.broker.as_deref(), &topic, facts)?))
}
