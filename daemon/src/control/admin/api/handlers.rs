//! `handlers`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;

use super::keys::{HandlerKeys, NewHandler};
use super::{Api, Failed, Keys, created, given, name_among, named};
use crate::control::admin::extract::{Body, Name};
use crate::control::admin::resource::{Handler, Reloaded};
use crate::control::config::runtime::Section;
use crate::control::live::Edit;

fn find(api: &Api, name: &str) -> Result<Handler, Failed> {
    named(api.operations().handlers(), "handler", name, |handler| &handler.name)
}

/// All handlers, and what they have done.
#[utoipa::path(get, path = "/api/v1/handlers", responses((status = 200, body = [Handler])))]
pub(super) async fn list_handlers(State(api): State<Api>) -> Json<Vec<Handler>> {
    Json(api.operations().handlers())
}

/// Adds a handler: its plugin is compiled and started before this is confirmed.
#[utoipa::path(
    post,
    path = "/api/v1/handlers",
    request_body = NewHandler,
    responses((
        status = 201,
        body = Handler,
        headers(("Location" = String, description = "Where it is now")),
        links(
            ("get_handler" = (operation_id = "get_handler", parameters(("name" = "$response.body#/name")))),
            ("set_handler" = (operation_id = "set_handler", parameters(("name" = "$response.body#/name")))),
            ("remove_handler" = (operation_id = "remove_handler", parameters(("name" = "$response.body#/name"))))
        )
    ))
)]
pub(super) async fn add_handler(State(api): State<Api>, Body(keys): Body<Keys>) -> Result<impl IntoResponse, Failed> {
    let keys = given(keys);
    let name = name_among(&keys)?;
    let warnings = api.operations().change(Edit::Add { section: Section::Handlers, keys }).await?;
    Ok(created("handlers", &name, Handler { warnings, ..find(&api, &name)? }))
}

/// One handler.
#[utoipa::path(
    get,
    path = "/api/v1/handlers/{name}",
    params(("name" = String, Path, description = "The handler's name")),
    responses((status = 200, body = Handler))
)]
pub(super) async fn get_handler(State(api): State<Api>, Name(name): Name) -> Result<Json<Handler>, Failed> {
    find(&api, &name).map(Json)
}

/// Changes keys of a handler that was added while the daemon ran, as a merge patch (RFC 7396): null clears a key.
#[utoipa::path(
    patch,
    path = "/api/v1/handlers/{name}",
    params(("name" = String, Path, description = "The handler's name")),
    request_body(content((HandlerKeys = "application/merge-patch+json"), (HandlerKeys = "application/json"))),
    responses((status = 200, body = Handler))
)]
pub(super) async fn set_handler(
    State(api): State<Api>,
    Name(name): Name,
    Body(keys): Body<Keys>,
) -> Result<Json<Handler>, Failed> {
    let warnings = api.operations().change(Edit::Set { section: Section::Handlers, name: name.clone(), keys }).await?;
    Ok(Json(Handler { warnings, ..find(&api, &name)? }))
}

/// Removes a handler that was added while the daemon ran. Calls in progress finish.
#[utoipa::path(
    delete,
    path = "/api/v1/handlers/{name}",
    params(("name" = String, Path, description = "The handler's name")),
    responses((status = 204, description = "It is gone"))
)]
pub(super) async fn remove_handler(State(api): State<Api>, Name(name): Name) -> Result<StatusCode, Failed> {
    api.operations().change(Edit::Remove { section: Section::Handlers, name, discard: false }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a handler pause, also after a restart: its calls end, what waited and what comes is kept on the disk and acknowledged,
/// until it is resumed.
#[utoipa::path(
    post,
    path = "/api/v1/handlers/{name}/pause",
    params(("name" = String, Path, description = "The handler's name")),
    responses((status = 200, body = Handler))
)]
pub(super) async fn pause_handler(State(api): State<Api>, Name(name): Name) -> Result<Json<Handler>, Failed> {
    api.operations().pause(&name).await?;
    find(&api, &name).map(Json)
}

/// Gives a handler that was paused or is in quarantine what was kept for it, in its order, and then what comes.
#[utoipa::path(
    post,
    path = "/api/v1/handlers/{name}/resume",
    params(("name" = String, Path, description = "The handler's name")),
    responses((status = 200, body = Handler))
)]
pub(super) async fn resume_handler(State(api): State<Api>, Name(name): Name) -> Result<Json<Handler>, Failed> {
    api.operations().resume(&name).await?;
    find(&api, &name).map(Json)
}

/// Has a handler run what its plugin's file holds, also where that was refused before: as a file that changes is loaded by itself.
#[utoipa::path(
    post,
    path = "/api/v1/handlers/{name}/reload",
    params(("name" = String, Path, description = "The handler's name")),
    responses((status = 200, body = Reloaded))
)]
pub(super) async fn reload_handler(State(api): State<Api>, Name(name): Name) -> Result<Json<Reloaded>, Failed> {
    Ok(Json(api.operations().reload(&name).await?))
}
