//! `dead-letters`: the local store of messages and publishes that failed for good.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Api, Failed};
use crate::control::admin::extract::{Name, Query};
use crate::control::admin::gate::Peer;
use crate::control::admin::limits;
use crate::control::admin::problem::HttpError;
use crate::control::admin::resource::{DeadLetterCount, DeadLetterList, WholeDeadLetter};
use crate::control::live::{LetterPage, Letters, Refusal, RefusalKind};

/// The highest id, as it stands in the document too: JSON of many languages has no larger whole number.
const MOST_ID: u64 = 9_223_372_036_854_775_807;

/// Which dead letters are listed.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Listing {
    /// Those of this handler alone.
    handler: Option<String>,
    /// Those alone with this reason, such as `reject`.
    reason: Option<String>,
    /// At most so many, the last ones; 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    last: Option<usize>,
    /// Those alone that are older than the one with this id.
    #[param(minimum = 0, maximum = 9223372036854775807_u64)]
    before: Option<u64>,
}

/// The last dead letters of the local store, oldest first, without their payloads; fewer than asked for where they are long.
#[utoipa::path(get, path = "/api/v1/dead-letters", params(Listing), responses((status = 200, body = DeadLetterList)))]
pub(super) async fn list_dead_letters(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Query(listing): Query<Listing>,
) -> Result<Json<DeadLetterList>, Failed> {
    let Listing { handler, reason, last, before } = listing;
    let last = super::page("last", last)?;
    if let Some(beyond) = before.filter(|before| *before > MOST_ID) {
        let why = format!("before: {beyond} is not between 0 and {MOST_ID}");
        return Err(HttpError::Malformed("query", why).into());
    }
    let _permit = api.turn(peer).await;
    Ok(Json(api.operations().dead_letters(LetterPage { handler, reason, before, last }).await?))
}

/// One dead letter, with its payload and its properties.
#[utoipa::path(
    get,
    path = "/api/v1/dead-letters/{id}",
    params(("id" = u64, Path, minimum = 0, maximum = 9223372036854775807_u64, description = "The dead letter's id")),
    responses((status = 200, body = WholeDeadLetter))
)]
pub(super) async fn get_dead_letter(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Name(id): Name<u64>,
) -> Result<Json<WholeDeadLetter>, Failed> {
    let _permit = api.turn(peer).await;
    Ok(Json(api.operations().dead_letter(id).await?))
}

/// Which dead letters are meant: exactly one of these.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Choice {
    /// Those with these ids, separated by commas; 500 at most.
    #[param(pattern = "^[0-9]{1,19}(,[0-9]{1,19}){0,499}$")]
    ids: Option<String>,
    /// Those of this handler.
    handler: Option<String>,
    /// All.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    all: bool,
}

impl Choice {
    fn letters(self) -> Result<Letters, Failed> {
        match self {
            Choice { ids: Some(ids), handler: None, all: false } => numbers(&ids).map(Letters::Ids),
            Choice { ids: None, handler: Some(handler), all: false } => Ok(Letters::Handler(handler)),
            Choice { ids: None, handler: None, all: true } => Ok(Letters::All),
            _ => Err(Refusal::new(
                RefusalKind::Invalid,
                "it must be said which dead letters are meant, in one way",
                "give one of ids, handler and all=true",
            )
            .into()),
        }
    }
}

fn numbers(ids: &str) -> Result<Vec<u64>, Failed> {
    let invalid = |why: String, remedy: &str| Refusal::new(RefusalKind::Invalid, format!("ids: {why}"), remedy);
    let number = |id: &str| {
        let none = || invalid(format!("{id:?} is not a dead letter's id"), "give numbers, separated by commas");
        id.parse().map_err(|_| none())
    };
    let numbers = ids.split(',').map(number).collect::<Result<Vec<u64>, _>>()?;
    if numbers.len() > limits::IDS {
        let why = format!("{} are given, and {} may be at a time", numbers.len(), limits::IDS);
        return Err(invalid(why, "use handler or all, or several requests").into());
    }
    Ok(numbers)
}

/// Handles dead letters again: a message by its handler, a publish by its broker. Each leaves the store once what comes of it is
/// safe; one that fails again stays, or comes back as a new one.
#[utoipa::path(
    post,
    path = "/api/v1/dead-letters/retry",
    params(Choice),
    responses((status = 200, body = DeadLetterCount))
)]
pub(super) async fn retry_dead_letters(
    State(api): State<Api>,
    Query(choice): Query<Choice>,
) -> Result<Json<DeadLetterCount>, Failed> {
    Ok(Json(api.operations().retry_dead_letters(choice.letters()?).await?))
}

/// Forgets dead letters.
#[utoipa::path(
    delete,
    path = "/api/v1/dead-letters",
    params(Choice),
    responses((status = 200, body = DeadLetterCount))
)]
pub(super) async fn clear_dead_letters(
    State(api): State<Api>,
    Query(choice): Query<Choice>,
) -> Result<Json<DeadLetterCount>, Failed> {
    Ok(Json(api.operations().clear_dead_letters(choice.letters()?).await?))
}
