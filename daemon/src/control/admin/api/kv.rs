//! `kv`: what handlers remember.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Api, Failed};
use crate::control::admin::extract::{Body, Name, Query};
use crate::control::admin::gate::Peer;
use crate::control::admin::resource::{KvEntry, KvList, KvTotals, KvValue};
use crate::control::live::{KvPage, KvSet};

/// How much each handler remembers, also those that are not configured any more.
#[utoipa::path(get, path = "/api/v1/kv", responses((status = 200, body = [KvTotals])))]
pub(super) async fn list_states(State(api): State<Api>) -> Json<Vec<KvTotals>> {
    Json(api.operations().kv())
}

/// Which keys are listed.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Listing {
    /// Those alone that begin with this.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    prefix: String,
    /// Those alone that come after this one.
    after: Option<String>,
    /// At most so many, the first ones; 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// The keys that a handler remembers, in order.
#[utoipa::path(
    get,
    path = "/api/v1/kv/{handler}",
    params(("handler" = String, Path, description = "The handler's name"), Listing),
    responses((status = 200, body = KvList))
)]
pub(super) async fn list_keys(
    State(api): State<Api>,
    Name(handler): Name,
    Query(listing): Query<Listing>,
) -> Result<Json<KvList>, Failed> {
    let Listing { prefix, after, limit } = listing;
    let page = KvPage { prefix, after, limit: super::page("limit", limit)? };
    Ok(Json(api.operations().kv_list(&handler, page)?))
}

/// What a handler remembers under a key.
#[utoipa::path(
    get,
    path = "/api/v1/kv/{handler}/{key}",
    params(
        ("handler" = String, Path, description = "The handler's name"),
        ("key" = String, Path, description = "The key, percent-encoded")
    ),
    responses((status = 200, body = KvEntry))
)]
pub(super) async fn get_key(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Name((handler, key)): Name<(String, String)>,
) -> Result<Json<KvEntry>, Failed> {
    let _permit = api.turn(peer).await;
    Ok(Json(api.operations().kv_get(&handler, &key)?))
}

/// Lets a handler remember a value, in place of the one before. It is on the disk once this is answered.
#[utoipa::path(
    put,
    path = "/api/v1/kv/{handler}/{key}",
    params(
        ("handler" = String, Path, description = "The handler's name"),
        ("key" = String, Path, description = "The key, percent-encoded")
    ),
    request_body = KvValue,
    responses((status = 204, description = "It is remembered"))
)]
pub(super) async fn set_key(
    State(api): State<Api>,
    Name((handler, key)): Name<(String, String)>,
    Body(value): Body<KvValue>,
) -> Result<StatusCode, Failed> {
    api.operations().kv_set(KvSet { handler, key, value }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets a handler forget a key.
#[utoipa::path(
    delete,
    path = "/api/v1/kv/{handler}/{key}",
    params(
        ("handler" = String, Path, description = "The handler's name"),
        ("key" = String, Path, description = "The key, percent-encoded")
    ),
    responses((status = 204, description = "It is forgotten"))
)]
pub(super) async fn delete_key(
    State(api): State<Api>,
    Name((handler, key)): Name<(String, String)>,
) -> Result<StatusCode, Failed> {
    api.operations().kv_delete(&handler, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}
