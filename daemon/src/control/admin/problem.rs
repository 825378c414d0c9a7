//! What a request that is not done is told: a problem document (RFC 9457) with a remedy.
//!
//! Owns: the one table from kinds of refusals to status codes, problem types and titles. Fed by the gateway's refusals and by
//! what is wrong with the request itself; feeds every answer with a status of 400 or more, except for those that the HTTP
//! library gives to bytes that are no request.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::resource::ProblemDocument;
use super::{limits, token};
use crate::control::live::{Refusal, RefusalKind};

/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// What the type of every problem begins with.
const PREFIX: &str = "urn:tidegate:problem:";

/// A request that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    row: Row,
    detail: String,
    remedy: String,
    problems: Vec<String>,
}

/// What all problems of one kind share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The end of its type.
    pub slug: &'static str,
    /// The status.
    pub status: StatusCode,
    /// What it is, in a few words.
    pub title: &'static str,
}

const fn row(slug: &'static str, status: StatusCode, title: &'static str) -> Row {
    Row { slug, status, title }
}

/// What the gateway refuses.
pub fn refusal_row(kind: RefusalKind) -> Row {
    match kind {
        RefusalKind::NotFound => row("not-found", StatusCode::NOT_FOUND, "there is no such object"),
        RefusalKind::Exists => row("exists", StatusCode::CONFLICT, "it exists already"),
        RefusalKind::Invalid => row("invalid", StatusCode::UNPROCESSABLE_ENTITY, "what is asked for is not valid"),
        RefusalKind::InFile => row("in-file", StatusCode::CONFLICT, "it stands in a file of the configuration"),
        RefusalKind::InUse => row("in-use", StatusCode::CONFLICT, "something else depends on it"),
        RefusalKind::NotConnected => row("not-connected", StatusCode::CONFLICT, "the broker is not connected"),
        RefusalKind::Connected => row("connected", StatusCode::CONFLICT, "the broker is connected"),
        RefusalKind::CannotConnect => {
            row("cannot-connect", StatusCode::BAD_GATEWAY, "the connection to the broker cannot be made")
        }
        RefusalKind::RefusedByBroker => row("refused-by-broker", StatusCode::BAD_GATEWAY, "the broker refuses it"),
        RefusalKind::NoAnswer => row("no-answer", StatusCode::GATEWAY_TIMEOUT, "the broker has not answered in time"),
        RefusalKind::Changed => row("changed", StatusCode::CONFLICT, "it was changed or removed meanwhile"),
        RefusalKind::Busy => row("busy", StatusCode::SERVICE_UNAVAILABLE, "too much waits already"),
        RefusalKind::OutboxFull => row("outbox-full", StatusCode::SERVICE_UNAVAILABLE, "the broker's outbox is full"),
        RefusalKind::Dropped => {
            row("dropped", StatusCode::SERVICE_UNAVAILABLE, "it was dropped before the broker had it")
        }
        RefusalKind::UnderWay => row("under-way", StatusCode::CONFLICT, "it is being done already"),
        RefusalKind::Quota => row("quota", StatusCode::CONFLICT, "the handler may not remember more"),
        RefusalKind::NeedsRestart => row("needs-restart", StatusCode::CONFLICT, "the daemon must be restarted for it"),
        RefusalKind::Plugin => row("plugin", StatusCode::UNPROCESSABLE_ENTITY, "the plugin does not load or start"),
        RefusalKind::Storage => row("storage", StatusCode::INTERNAL_SERVER_ERROR, "it cannot be kept"),
        RefusalKind::Stopping => row("stopping", StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping"),
    }
}

/// What is wrong with a request, whatever it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpError {
    /// A page of another site is behind it.
    CrossSite,
    /// It brings another token than the file holds.
    WrongToken,
    /// It needs a token.
    TokenMissing,
    /// It needs a token, and none is configured.
    ReadOnly,
    /// As that, for one that comes from elsewhere.
    OnlyLocal,
    /// The host is a name that anyone could make lead here.
    StrangeHost,
    /// The token file is of no use.
    TokenFile,
    /// There is no such path.
    NoPath,
    /// The path has no such method.
    Method,
    /// The body is longer than the limit, in bytes.
    TooLarge(usize),
    /// The body has not come in time.
    SlowBody,
    /// The body is not said to be JSON.
    MediaType,
    /// What cannot be read at all: this part, for this reason.
    Malformed(&'static str, String),
    /// The body is JSON, and not what is asked for.
    Body(String),
    /// As many streams are open as may be on the way that the request came.
    Streams,
    /// No answer was found in time.
    TooSlow,
    /// A defect of the daemon.
    Defect(String),
}

impl HttpError {
    fn row(&self) -> Row {
        match self {
            HttpError::CrossSite => row("cross-site", StatusCode::FORBIDDEN, "the request comes from another site"),
            HttpError::WrongToken => row("token", StatusCode::UNAUTHORIZED, "the token is not the right one"),
            HttpError::TokenMissing => row("token", StatusCode::UNAUTHORIZED, "a token is needed"),
            HttpError::ReadOnly | HttpError::OnlyLocal => row("no-token", StatusCode::FORBIDDEN, "this needs a token"),
            HttpError::StrangeHost => {
                row("host", StatusCode::MISDIRECTED_REQUEST, "the daemon is not known under this name")
            }
            HttpError::TokenFile => row("token-file", StatusCode::SERVICE_UNAVAILABLE, "the token file is of no use"),
            HttpError::NoPath => row("path", StatusCode::NOT_FOUND, "there is no such path"),
            HttpError::Method => row("method", StatusCode::METHOD_NOT_ALLOWED, "the path has no such method"),
            HttpError::TooLarge(_) => row("too-large", StatusCode::PAYLOAD_TOO_LARGE, "the body is too long"),
            HttpError::SlowBody => row("slow-body", StatusCode::REQUEST_TIMEOUT, "the body has not come in time"),
            HttpError::MediaType => {
                row("media-type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be said to be JSON")
            }
            HttpError::Malformed(..) => row("malformed", StatusCode::BAD_REQUEST, "the request cannot be read"),
            HttpError::Body(_) => row("invalid", StatusCode::UNPROCESSABLE_ENTITY, "what is asked for is not valid"),
            HttpError::Streams => row("streams", StatusCode::SERVICE_UNAVAILABLE, "too many streams are open"),
            HttpError::TooSlow => row("too-slow", StatusCode::GATEWAY_TIMEOUT, "no answer was found in time"),
            HttpError::Defect(_) => row("defect", StatusCode::INTERNAL_SERVER_ERROR, "the daemon has a defect"),
        }
    }

    /// What is in the way, and what to do.
    fn told(&self) -> (String, String) {
        let (detail, remedy) = match self {
            HttpError::CrossSite => (
                "the Origin or Sec-Fetch-Site of the request names another site than its Host",
                "send it from a page of this daemon, or from a program that is no browser",
            ),
            HttpError::WrongToken => (
                "the token of the Authorization header is not the one in the daemon's admin.token-file",
                "send \"Authorization: Bearer TOKEN\" with the text of that file (the commands: --token-file FILE), or use the \
                 Unix socket",
            ),
            HttpError::TokenMissing => (
                "over TCP only reading from this machine needs no token",
                "send \"Authorization: Bearer TOKEN\" with the text of admin.token-file (the commands: --token-file FILE), or \
                 use the Unix socket",
            ),
            HttpError::ReadOnly => (
                "changes over TCP need a token, and admin.token-file is not set",
                "use the Unix socket, or set admin.token-file",
            ),
            HttpError::OnlyLocal => (
                "requests from other machines and through proxies need a token, and admin.token-file is not set",
                "set admin.token-file, or send the request from the daemon's machine itself",
            ),
            HttpError::StrangeHost => (
                "without a token the Host must be an IP address or localhost, so that no web page can lead a browser here",
                "use the daemon's IP address, or send a token (the commands: --token-file FILE)",
            ),
            HttpError::TokenFile => {
                return (
                    "the daemon cannot use its admin.token-file: the log says why".to_owned(),
                    format!(
                        "write one line of at least {} visible characters into it, readable for the daemon",
                        token::LEAST
                    ),
                );
            }
            HttpError::NoPath => ("nothing is served under this path", "see /api/v1/openapi.json for what is"),
            HttpError::Method => ("this path cannot be used so", "use a method of the Allow header"),
            HttpError::TooLarge(limit) => {
                return (format!("the body has more than {limit} bytes"), "send less".to_owned());
            }
            HttpError::SlowBody => {
                let limit = limits::BODY_TIME.as_secs();
                return (format!("the body was not complete within {limit} s"), "send it faster, or less".to_owned());
            }
            HttpError::MediaType => (
                "the Content-Type says something else than JSON, or is missing",
                "send \"Content-Type: application/json\"",
            ),
            HttpError::Malformed(part, why) => {
                return (format!("the {part}: {why}"), "see /api/v1/openapi.json for what is expected".to_owned());
            }
            HttpError::Body(why) => {
                return (format!("the body: {why}"), "see /api/v1/openapi.json for what is expected".to_owned());
            }
            HttpError::Streams => {
                return (
                    format!("{} streams are open, as many as may be on the socket, or over TCP", limits::STREAMS),
                    "end one, or try again later".to_owned(),
                );
            }
            HttpError::TooSlow => {
                return (
                    format!("nothing came of it within {} s", limits::REQUEST_TIME.as_secs()),
                    "look with a GET whether it has happened meanwhile, then try again".to_owned(),
                );
            }
            HttpError::Defect(what) => return (what.clone(), "see the daemon's log, and report it".to_owned()),
        };
        (detail.to_owned(), remedy.to_owned())
    }
}

impl From<HttpError> for Problem {
    fn from(error: HttpError) -> Problem {
        let (detail, remedy) = error.told();
        Problem { row: error.row(), detail, remedy, problems: Vec::new() }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let Refusal { kind, detail, remedy, problems } = refusal;
        let problems = problems.iter().map(ToString::to_string).collect();
        Problem { row: refusal_row(kind), detail, remedy, problems }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Problem { row: Row { slug, status, title }, detail, remedy, problems } = self;
        let document = ProblemDocument {
            kind: format!("{PREFIX}{slug}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail,
            remedy: (!remedy.is_empty()).then_some(remedy),
            problems,
        };
        let mut response = (status, Json(document)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer realm=\"tidegate\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const REFUSALS: [RefusalKind; 20] = [
        RefusalKind::NotFound,
        RefusalKind::Exists,
        RefusalKind::Invalid,
        RefusalKind::InFile,
        RefusalKind::InUse,
        RefusalKind::NotConnected,
        RefusalKind::Connected,
        RefusalKind::CannotConnect,
        RefusalKind::RefusedByBroker,
        RefusalKind::NoAnswer,
        RefusalKind::Changed,
        RefusalKind::Busy,
        RefusalKind::OutboxFull,
        RefusalKind::Dropped,
        RefusalKind::UnderWay,
        RefusalKind::Quota,
        RefusalKind::NeedsRestart,
        RefusalKind::Plugin,
        RefusalKind::Storage,
        RefusalKind::Stopping,
    ];

    fn http_errors() -> [HttpError; 17] {
        [
            HttpError::CrossSite,
            HttpError::WrongToken,
            HttpError::TokenMissing,
            HttpError::ReadOnly,
            HttpError::OnlyLocal,
            HttpError::StrangeHost,
            HttpError::TokenFile,
            HttpError::NoPath,
            HttpError::Method,
            HttpError::TooLarge(1),
            HttpError::SlowBody,
            HttpError::MediaType,
            HttpError::Malformed("query", "is odd".to_owned()),
            HttpError::Body("is odd".to_owned()),
            HttpError::Streams,
            HttpError::TooSlow,
            HttpError::Defect("is odd".to_owned()),
        ]
    }

    /// One type, one status, here and in the documentation.
    #[test]
    fn every_kind_has_a_row_that_is_documented() {
        let page = include_str!("../../../../docs/http-api.md");
        let mut known: HashMap<&str, StatusCode> = HashMap::new();
        let rows = REFUSALS.into_iter().map(refusal_row).chain(http_errors().map(|error| error.row()));
        for Row { slug, status, title } in rows {
            assert!(status.is_client_error() || status.is_server_error(), "{slug}: {status}");
            assert_eq!(*known.entry(slug).or_insert(status), status, "{slug} has two statuses");
            assert!(!title.is_empty() && !title.ends_with('.'), "{slug}: {title:?}");
            let line = format!("| `{slug}` | {} |", status.as_u16());
            assert!(page.contains(&line), "docs/http-api.md lacks {line}");
        }
        let documented = page.lines().filter(|line| line.starts_with("| `") && line.contains("` | ")).filter(|line| {
            line.split(" | ").nth(1).is_some_and(|status| status.len() == 3 && status.parse::<u16>().is_ok())
        });
        assert_eq!(documented.count(), known.len(), "rows of docs/http-api.md");
    }

    #[test]
    fn every_error_says_what_to_do() {
        for error in http_errors() {
            let (detail, remedy) = error.told();
            for text in [&detail, &remedy] {
                assert!(!text.is_empty() && !text.ends_with('.'), "{error:?}: {text:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_refusal_becomes_a_document() {
        let refusal = Refusal::new(RefusalKind::InFile, "broker plant stands in tidegate.toml:3", "change it there");
        let response = Problem::from(refusal).into_response();
        assert_eq!(response.status(), StatusCode::CONFLICT);
        assert_eq!(response.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("is in memory");
        let document: serde_json::Value = serde_json::from_slice(&body).expect("is JSON");
        let expected = serde_json::json!({
            "type": "urn:tidegate:problem:in-file",
            "title": "it stands in a file of the configuration",
            "status": 409,
            "detail": "broker plant stands in tidegate.toml:3",
            "remedy": "change it there",
        });
        assert_eq!(document, expected);
        let silent = Problem::from(Refusal::new(RefusalKind::Busy, "full", "")).into_response();
        let body = axum::body::to_bytes(silent.into_body(), usize::MAX).await.expect("is in memory");
        assert!(String::from_utf8_lossy(&body).contains("\"remedy\":null"), "an empty remedy is none");
    }

    #[test]
    fn a_missing_token_is_asked_for() {
        for error in [HttpError::WrongToken, HttpError::TokenMissing] {
            assert!(error.into_response().headers().contains_key(header::WWW_AUTHENTICATE));
        }
        assert!(!HttpError::ReadOnly.into_response().headers().contains_key(header::WWW_AUTHENTICATE));
    }
}
