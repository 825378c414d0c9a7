//! The OpenAPI document: its head, and what all operations have in common.
//!
//! Paths, parameters and bodies come from the handlers themselves. Problems are added here to every operation that can answer
//! with them, so that each response which a client may meet is described.

use axum::http::StatusCode;
use serde_json::{Map, Value};
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response, ResponseBuilder};

use super::streams::Missed;
use crate::control::admin::problem::MEDIA_TYPE;
use crate::control::admin::resource::ProblemDocument;

/// The scheme of the token.
const TOKEN: &str = "token";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Tidegate",
        description = "Watch and operate the gateway. Over TCP, changes need the token of admin.token-file; without it only \
                       programs on the same machine may read. On the Unix socket everything is permitted.",
    ),
    components(schemas(ProblemDocument, Missed))
)]
struct Head;

/// The document without paths.
pub(super) fn head() -> OpenApi {
    Head::openapi()
}

/// Describes what all operations have in common.
pub(super) fn complete(document: &mut OpenApi) {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("The text of admin.token-file"));
    let components = document.components.get_or_insert_default();
    components.add_security_scheme(TOKEN, SecurityScheme::Http(bearer.build()));
    for (path, item) in &mut document.paths.paths {
        for (operation, changes) in operations(item) {
            describe(path, operation, changes);
        }
    }
}

/// The document as it is served. utoipa 5.5 writes `operation_id` into links, where OpenAPI has `operationId` (§4.8.20).
pub(super) fn written(document: &OpenApi) -> Value {
    let mut written = serde_json::to_value(document).expect("the document has only strings as keys");
    let items = written["paths"].as_object_mut().into_iter().flat_map(Map::values_mut);
    let operations = items.filter_map(Value::as_object_mut).flat_map(Map::values_mut);
    let responses = operations.filter_map(|operation| operation["responses"].as_object_mut()).flat_map(Map::values_mut);
    let links = responses.filter_map(|response| response.get_mut("links")?.as_object_mut()).flat_map(Map::values_mut);
    for link in links.filter_map(Value::as_object_mut) {
        if let Some(id) = link.remove("operation_id") {
            link.insert("operationId".to_owned(), id);
        }
    }
    written
}

/// The operations of a path, and whether they change something.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (&mut Operation, bool)> {
    let PathItem { get, post, put, patch, delete, .. } = item;
    let reads = get.iter_mut().map(|operation| (operation, false));
    reads.chain(post.iter_mut().chain(put).chain(patch).chain(delete).map(|operation| (operation, true)))
}

fn describe(path: &str, operation: &mut Operation, changes: bool) {
    operation.tags = path.split('/').nth(3).map(|list| vec![list.to_owned()]);
    // Either with the token, or without one where that is permitted.
    operation.security =
        Some(vec![SecurityRequirement::new(TOKEN, Vec::<String>::new()), SecurityRequirement::default()]);
    let mut statuses = vec![
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::MISDIRECTED_REQUEST,
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    let reads_query = operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty());
    if reads_query || changes {
        statuses.extend([StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND, StatusCode::UNPROCESSABLE_ENTITY]);
    }
    if changes {
        statuses.extend([StatusCode::CONFLICT, StatusCode::BAD_GATEWAY]);
    }
    if operation.request_body.is_some() {
        statuses.extend([
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ]);
    }
    for status in statuses {
        let code = status.as_str().to_owned();
        operation.responses.responses.entry(code).or_insert_with(|| RefOr::T(problem(status)));
    }
}

fn problem(status: StatusCode) -> Response {
    let schema = RefOr::Ref(Ref::from_schema_name("ProblemDocument"));
    let reason = status.canonical_reason().unwrap_or_default();
    ResponseBuilder::new().description(reason).content(MEDIA_TYPE, Content::new(Some(schema))).build()
}
