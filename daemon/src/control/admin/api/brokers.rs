//! `brokers`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;

use super::keys::{BrokerKeys, NewBroker};
use super::{Api, Failed, Keys, created, given, name_among, named};
use crate::control::admin::extract::{Body, Name, Query};
use crate::control::admin::resource::{Broker, Removed};
use crate::control::config::runtime::Section;
use crate::control::live::Edit;

fn find(api: &Api, name: &str) -> Result<Broker, Failed> {
    named(api.operations().brokers(), "broker", name, |broker| &broker.name)
}

/// All brokers, and how their sessions stand.
#[utoipa::path(get, path = "/api/v1/brokers", responses((status = 200, body = [Broker])))]
pub(super) async fn list_brokers(State(api): State<Api>) -> Json<Vec<Broker>> {
    Json(api.operations().brokers())
}

/// Adds a broker with these keys of the configuration. It connects at once with `auto-connect`, which is off unless given here.
#[utoipa::path(
    post,
    path = "/api/v1/brokers",
    request_body = NewBroker,
    responses((
        status = 201,
        body = Broker,
        headers(("Location" = String, description = "Where it is now")),
        links(
            ("get_broker" = (operation_id = "get_broker", parameters(("name" = "$response.body#/name")))),
            ("set_broker" = (operation_id = "set_broker", parameters(("name" = "$response.body#/name")))),
            ("remove_broker" = (operation_id = "remove_broker", parameters(("name" = "$response.body#/name")))),
            ("connect_broker" = (operation_id = "connect_broker", parameters(("name" = "$response.body#/name")))),
            ("disconnect_broker" = (operation_id = "disconnect_broker", parameters(("name" = "$response.body#/name")))),
            ("reset_session" = (operation_id = "reset_session", parameters(("name" = "$response.body#/name"))))
        )
    ))
)]
pub(super) async fn add_broker(State(api): State<Api>, Body(keys): Body<Keys>) -> Result<impl IntoResponse, Failed> {
    let keys = given(keys);
    let name = name_among(&keys)?;
    let warnings = api.operations().change(Edit::Add { section: Section::Brokers, keys }).await?;
    Ok(created("brokers", &name, Broker { warnings, ..find(&api, &name)? }))
}

/// One broker.
#[utoipa::path(
    get,
    path = "/api/v1/brokers/{name}",
    params(("name" = String, Path, description = "The broker's name")),
    responses((status = 200, body = Broker))
)]
pub(super) async fn get_broker(State(api): State<Api>, Name(name): Name) -> Result<Json<Broker>, Failed> {
    find(&api, &name).map(Json)
}

/// Changes keys of a broker that was added while the daemon ran, as a merge patch (RFC 7396): null clears a key.
#[utoipa::path(
    patch,
    path = "/api/v1/brokers/{name}",
    params(("name" = String, Path, description = "The broker's name")),
    request_body(content((BrokerKeys = "application/merge-patch+json"), (BrokerKeys = "application/json"))),
    responses((status = 200, body = Broker))
)]
pub(super) async fn set_broker(
    State(api): State<Api>,
    Name(name): Name,
    Body(keys): Body<Keys>,
) -> Result<Json<Broker>, Failed> {
    let warnings = api.operations().change(Edit::Set { section: Section::Brokers, name: name.clone(), keys }).await?;
    Ok(Json(Broker { warnings, ..find(&api, &name)? }))
}

/// How a broker is removed.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Removal {
    /// Drop what waits to be published to it; without this, such a broker is not removed.
    #[serde(default)]
    discard: bool,
}

/// Removes a broker that was added while the daemon ran.
#[utoipa::path(
    delete,
    path = "/api/v1/brokers/{name}",
    params(("name" = String, Path, description = "The broker's name"), Removal),
    responses(
        (status = 200, body = Removed, description = "It is gone, and what waits for it on the disk is left"),
        (status = 204, description = "It is gone")
    )
)]
pub(super) async fn remove_broker(
    State(api): State<Api>,
    Name(name): Name,
    Query(removal): Query<Removal>,
) -> Result<Response, Failed> {
    let edit = Edit::Remove { section: Section::Brokers, name, discard: removal.discard };
    let warnings = api.operations().change(edit).await?;
    match warnings.is_empty() {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Ok(Json(Removed { warnings }).into_response()),
    }
}

/// Connects a broker, also one that was disconnected by hand, and waits for the result.
#[utoipa::path(
    post,
    path = "/api/v1/brokers/{name}/connect",
    params(("name" = String, Path, description = "The broker's name")),
    responses((status = 200, body = Broker))
)]
pub(super) async fn connect_broker(State(api): State<Api>, Name(name): Name) -> Result<Json<Broker>, Failed> {
    api.operations().connect(&name).await?;
    find(&api, &name).map(Json)
}

/// Disconnects a broker once its messages in progress are finished. It stays so until it is connected by hand or by force; the
/// answer's `outbox` tells what waits for it meanwhile.
#[utoipa::path(
    post,
    path = "/api/v1/brokers/{name}/disconnect",
    params(("name" = String, Path, description = "The broker's name")),
    responses((status = 200, body = Broker))
)]
pub(super) async fn disconnect_broker(State(api): State<Api>, Name(name): Name) -> Result<Json<Broker>, Failed> {
    api.operations().disconnect(&name).await?;
    find(&api, &name).map(Json)
}

/// Makes a broker forget the session: what it kept for it is dropped there.
#[utoipa::path(
    post,
    path = "/api/v1/brokers/{name}/reset-session",
    params(("name" = String, Path, description = "The broker's name")),
    responses((status = 200, body = Broker))
)]
pub(super) async fn reset_session(State(api): State<Api>, Name(name): Name) -> Result<Json<Broker>, Failed> {
    api.operations().reset_session(&name).await?;
    find(&api, &name).map(Json)
}
