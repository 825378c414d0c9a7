//! The HTTP API, `/api/v1`: one definition for its routes and for the document that describes them.
//!
//! Owns: paths, methods, parameters and the OpenAPI document. What is said is in `resource/`, what goes wrong in `problem.rs`,
//! who may ask in `gate.rs`. Every part translates between HTTP and [`Operations`], and decides nothing.

mod brokers;
mod config;
mod dead_letters;
mod document;
mod handlers;
mod keys;
mod kv;
mod live;
mod messages;
mod operations;
mod outbox;
mod schedules;
mod status;
mod streams;
mod subscriptions;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::routing::get;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt as _};
use utoipa_axum::routes;

#[cfg(test)]
pub use self::operations::Answer;
pub use self::operations::{Keys, Operations};
use super::gate::Peer;
use super::limits;
use super::problem::{HttpError, Problem};
use crate::brokers::BrokerNames;
use crate::control::live::{Refusal, RefusalKind};
use crate::telemetry::received::ReceivedRing;
use crate::telemetry::trace::Tracer;

/// Where messages are published.
const PUBLISH: &str = "/api/v1/publish";

/// Where what handlers remember is.
const KV: &str = "/api/v1/kv/";

/// Bytes that the body of a request to this path may have.
pub(super) fn most_bytes(path: &str) -> usize {
    match path {
        PUBLISH => limits::PUBLISH_BYTES,
        path if path.starts_with(KV) => limits::KV_BYTES,
        _ => limits::BODY_BYTES,
    }
}

/// Where the document is served.
const DOCUMENT: &str = "/api/v1/openapi.json";

/// What the API operates and watches. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Parts>);

struct Parts {
    operations: Arc<dyn Operations>,
    received: ReceivedRing,
    tracer: Tracer,
    names: BrokerNames,
    socket: Shares,
    tcp: Shares,
    /// Ends the streams, which would not end by themselves.
    stop: CancellationToken,
}

/// What the clients of one way in may have at the same time.
struct Shares {
    streams: Arc<Semaphore>,
    lists: Arc<Semaphore>,
}

impl Shares {
    fn new() -> Shares {
        let [streams, lists] = [limits::STREAMS, limits::LISTS].map(|most| Arc::new(Semaphore::new(most)));
        Shares { streams, lists }
    }
}

impl Api {
    /// The API of this gateway, until `stop`.
    pub fn new(
        operations: Arc<dyn Operations>,
        received: ReceivedRing,
        tracer: Tracer,
        names: BrokerNames,
        stop: CancellationToken,
    ) -> Api {
        let (socket, tcp) = (Shares::new(), Shares::new());
        Api(Arc::new(Parts { operations, received, tracer, names, socket, tcp, stop }))
    }

    /// Its routes.
    pub fn routes(self) -> Router {
        let (routes, document) = described().split_for_parts();
        let document = document::written(&document);
        let page = || async move { axum::Json(document) };
        routes.route(DOCUMENT, get(page)).with_state(self)
    }

    fn operations(&self) -> &dyn Operations {
        &*self.0.operations
    }

    /// What this client has a share in. Whoever may open the socket is never kept out by those who come over TCP, many of whom
    /// need no token.
    fn shares(&self, peer: Peer) -> &Shares {
        match peer {
            Peer::Socket => &self.0.socket,
            Peer::Tcp(_) => &self.0.tcp,
        }
    }

    /// Waits for the right to make an answer that may be long.
    async fn turn(&self, peer: Peer) -> OwnedSemaphorePermit {
        Arc::clone(&self.shares(peer).lists).acquire_owned().await.expect("it is never closed")
    }
}

/// Routes and document.
fn described() -> OpenApiRouter<Api> {
    let mut router = OpenApiRouter::with_openapi(document::head())
        .routes(routes!(status::status))
        .routes(routes!(brokers::list_brokers, brokers::add_broker))
        .routes(routes!(brokers::get_broker, brokers::set_broker, brokers::remove_broker))
        .routes(routes!(brokers::connect_broker))
        .routes(routes!(brokers::disconnect_broker))
        .routes(routes!(brokers::reset_session))
        .routes(routes!(subscriptions::list_subscriptions, subscriptions::subscribe))
        .routes(routes!(subscriptions::get_subscription, subscriptions::set_subscription, subscriptions::unsubscribe))
        .routes(routes!(handlers::list_handlers, handlers::add_handler))
        .routes(routes!(handlers::get_handler, handlers::set_handler, handlers::remove_handler))
        .routes(routes!(handlers::pause_handler))
        .routes(routes!(handlers::resume_handler))
        .routes(routes!(handlers::reload_handler))
        .routes(routes!(outbox::list_outboxes))
        .routes(routes!(outbox::purge_outbox))
        .routes(routes!(dead_letters::list_dead_letters, dead_letters::clear_dead_letters))
        .routes(routes!(dead_letters::get_dead_letter))
        .routes(routes!(dead_letters::retry_dead_letters))
        .routes(routes!(kv::list_states))
        .routes(routes!(kv::list_keys))
        .routes(routes!(kv::get_key, kv::set_key, kv::delete_key).layer(DefaultBodyLimit::max(limits::KV_BYTES)))
        .routes(routes!(schedules::list_schedules))
        .routes(routes!(schedules::get_schedule))
        .routes(routes!(schedules::run_schedule))
        .routes(routes!(messages::list_received, messages::clear_received))
        .routes(routes!(streams::follow_received))
        .routes(routes!(streams::trace))
        .routes(routes!(messages::publish).layer(DefaultBodyLimit::max(limits::PUBLISH_BYTES)))
        .routes(routes!(messages::explain))
        .routes(routes!(config::config))
        .routes(routes!(config::export_config))
        .routes(routes!(config::reload_configuration));
    document::complete(router.get_openapi_mut());
    router.layer(DefaultBodyLimit::max(limits::BODY_BYTES))
}

/// The document, for tests.
#[cfg(test)]
pub(super) fn document() -> serde_json::Value {
    document::written(&described().into_openapi())
}

/// What answers a request that came to nothing.
type Failed = Problem;

/// How many are told at once, of those that were asked for with this parameter.
fn page(parameter: &str, asked: Option<usize>) -> Result<usize, Failed> {
    match asked {
        None => Ok(limits::PAGE),
        Some(count @ 1..=limits::MOST_PAGE) => Ok(count),
        Some(count) => {
            let why = format!("{parameter}: {count} is not between 1 and {}", limits::MOST_PAGE);
            Err(HttpError::Malformed("query", why).into())
        }
    }
}

/// The object with this name, or the refusal that says that there is none.
fn named<T>(objects: Vec<T>, kind: &str, name: &str, of: impl Fn(&T) -> &str) -> Result<T, Failed> {
    match objects.iter().position(|object| of(object) == name) {
        Some(place) => Ok(objects.into_iter().nth(place).expect("was found there")),
        None => Err(unknown(kind, name, objects.iter().map(of)).into()),
    }
}

/// There is no object with this name, but these.
fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Refusal {
    let names: Vec<&str> = known.collect();
    let remedy = if names.is_empty() {
        format!("there is no {kind} at all")
    } else {
        format!("use one of {}", names.join(", "))
    };
    Refusal::new(RefusalKind::NotFound, format!("there is no {kind} {name:?}"), remedy)
}

/// The answer to what was added: it, and where it is now.
fn created<T>(list: &str, name: &str, object: T) -> (StatusCode, [(HeaderName, HeaderValue); 1], axum::Json<T>) {
    let path = format!("/api/v1/{list}/{}", utf8_percent_encode(name, NON_ALPHANUMERIC));
    let location = HeaderValue::try_from(path).expect("percent-encoded text is ASCII");
    (StatusCode::CREATED, [(header::LOCATION, location)], axum::Json(object))
}

/// Keys of an object that is added: null, which is how an absent value is told, sets nothing.
fn given(mut keys: Keys) -> Keys {
    keys.retain(|_, value| !value.is_null());
    keys
}

/// The name among the keys of an object that is added.
fn name_among(keys: &Keys) -> Result<String, Failed> {
    match keys.get("name").and_then(serde_json::Value::as_str) {
        Some(name) => Ok(name.to_owned()),
        None => Err(HttpError::Body("name: a string is missing".to_owned()).into()),
    }
}
