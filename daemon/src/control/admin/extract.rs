//! The parts of a request, and what is told where they cannot be read.

use axum::extract::rejection::{BytesRejection, FailedToBufferBody, JsonRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::limits;
use super::problem::{HttpError, Problem};

/// The body, as JSON.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Problem> {
        let limit = super::api::most_bytes(request.uri().path());
        let reading = tokio::time::timeout(limits::BODY_TIME, axum::Json::from_request(request, state));
        let read = reading.await.map_err(|_| HttpError::SlowBody)?;
        let axum::Json(body) = read.map_err(|rejection| match rejection {
            JsonRejection::JsonDataError(error) => HttpError::Body(cause(&error)),
            JsonRejection::JsonSyntaxError(error) => HttpError::Malformed("body", cause(&error)),
            JsonRejection::MissingJsonContentType(_) => HttpError::MediaType,
            JsonRejection::BytesRejection(BytesRejection::FailedToBufferBody(
                FailedToBufferBody::LengthLimitError(_),
            )) => HttpError::TooLarge(limit),
            other => HttpError::Malformed("body", other.body_text()),
        })?;
        Ok(Body(body))
    }
}

/// What the library found, without its preface.
fn cause(error: &impl std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// The query.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Query<T>, Problem> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Query(query)),
            Err(rejection) => Err(HttpError::Malformed("query", cause(&rejection)).into()),
        }
    }
}

/// The name in the path, decoded, or several.
pub struct Name<T = String>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Name<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Name<T>, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(name)) => Ok(Name(name)),
            Err(rejection) => Err(HttpError::Malformed("name", rejection.body_text()).into()),
        }
    }
}
