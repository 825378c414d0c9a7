//! `subscriptions`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use super::keys::{NewSubscription, SubscriptionKeys};
use super::{Api, Failed, Keys, created, given, named};
use crate::control::admin::extract::{Body, Name, Query};
use crate::control::admin::resource::Subscription;
use crate::control::config::runtime::{Section, subscription_name};
use crate::control::live::Edit;

fn find(api: &Api, name: &str) -> Result<Subscription, Failed> {
    named(api.operations().subscriptions(), "subscription", name, |subscription| &subscription.name)
}

/// All subscriptions, and what their brokers have answered.
#[utoipa::path(get, path = "/api/v1/subscriptions", responses((status = 200, body = [Subscription])))]
pub(super) async fn list_subscriptions(State(api): State<Api>) -> Json<Vec<Subscription>> {
    Json(api.operations().subscriptions())
}

/// How a subscription is added.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Force {
    /// Connect a broker that is not connected; true unless given. With false, such a subscription is refused.
    #[param(value_type = Option<bool>)]
    #[serde(default = "yes")]
    force: bool,
}

fn yes() -> bool {
    true
}

/// Subscribes, on an open session too, and waits for the broker's answer. Without a name it is called BROKER:TOPIC.
#[utoipa::path(
    post,
    path = "/api/v1/subscriptions",
    params(Force),
    request_body = NewSubscription,
    responses((
        status = 201,
        body = Subscription,
        headers(("Location" = String, description = "Where it is now")),
        links(
            ("get_subscription" = (operation_id = "get_subscription", parameters(("name" = "$response.body#/name")))),
            ("set_subscription" = (operation_id = "set_subscription", parameters(("name" = "$response.body#/name")))),
            ("unsubscribe" = (operation_id = "unsubscribe", parameters(("name" = "$response.body#/name"))))
        )
    ))
)]
pub(super) async fn subscribe(
    State(api): State<Api>,
    Query(query): Query<Force>,
    Body(keys): Body<Keys>,
) -> Result<impl IntoResponse, Failed> {
    let (name, warnings) = api.operations().subscribe(given(keys), query.force).await?;
    Ok(created("subscriptions", &name, Subscription { warnings, ..find(&api, &name)? }))
}

/// One subscription.
#[utoipa::path(
    get,
    path = "/api/v1/subscriptions/{name}",
    params(("name" = String, Path, description = "The subscription's name, percent-encoded")),
    responses((status = 200, body = Subscription))
)]
pub(super) async fn get_subscription(State(api): State<Api>, Name(name): Name) -> Result<Json<Subscription>, Failed> {
    find(&api, &name).map(Json)
}

/// Changes keys of a subscription that was added while the daemon ran, as a merge patch (RFC 7396): null clears a key.
#[utoipa::path(
    patch,
    path = "/api/v1/subscriptions/{name}",
    params(("name" = String, Path, description = "The subscription's name, percent-encoded")),
    request_body(content((SubscriptionKeys = "application/merge-patch+json"), (SubscriptionKeys = "application/json"))),
    responses((status = 200, body = Subscription))
)]
pub(super) async fn set_subscription(
    State(api): State<Api>,
    Name(name): Name,
    Body(keys): Body<Keys>,
) -> Result<Json<Subscription>, Failed> {
    let renamed = find(&api, &name).ok().and_then(|before| renamed(&before, &keys));
    let edit = Edit::Set { section: Section::Subscriptions, name: name.clone(), keys };
    let warnings = api.operations().change(edit).await?;
    let found = renamed.and_then(|renamed| find(&api, &renamed).ok());
    let changed = found.map_or_else(|| find(&api, &name), Ok)?;
    Ok(Json(Subscription { warnings, ..changed }))
}

/// The name that a subscription has after a change, if it is another one: unless it was given, it follows from other keys.
fn renamed(before: &Subscription, changes: &Keys) -> Option<String> {
    let share = before.share.clone().map(|share| ("share", share));
    let own = [("broker", before.broker.clone()), ("topic", before.topic.clone())].into_iter().chain(share);
    let mut keys: Keys = own.map(|(key, value)| (key.to_owned(), value.into())).collect();
    if name_of(&keys).as_deref() != Some(before.name.as_str()) {
        keys.insert("name".to_owned(), before.name.clone().into());
    }
    for (key, value) in changes.iter().filter(|(key, _)| ["name", "broker", "topic", "share"].contains(&key.as_str())) {
        match value.is_null() {
            true => keys.remove(key),
            false => keys.insert(key.clone(), value.clone()),
        };
    }
    name_of(&keys).filter(|name| *name != before.name)
}

fn name_of(keys: &Keys) -> Option<String> {
    subscription_name(|key| keys.get(key).and_then(Value::as_str).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_follows_from_other_keys_unless_it_was_given() {
        let check = |name: &str, share: Option<&str>, changes: serde_json::Value, expected: Option<&str>| {
            let before = json!({
                "name": name, "origin": {"source": "runtime", "file": "f", "line": 1}, "broker": "b", "topic": "t", "qos": 0,
                "share": share, "on-message": null, "when": null, "state": "granted", "reason": null, "last-message": null,
            });
            let before: Subscription = serde_json::from_value(before).expect("a subscription");
            let changes: Keys = serde_json::from_value(changes).expect("an object");
            assert_eq!(renamed(&before, &changes).as_deref(), expected, "{name}: {changes:?}");
        };
        check("b:t", None, json!({"topic": "u"}), Some("b:u"));
        check("b:t", None, json!({"broker": "c"}), Some("c:t"));
        check("b:t", None, json!({"share": "g"}), Some("b:$share/g/t"));
        check("b:$share/g/t", Some("g"), json!({"share": null}), Some("b:t"));
        check("b:t", None, json!({"name": "n"}), Some("n"));
        check("n", None, json!({"topic": "u"}), None);
        check("n", None, json!({"topic": "u", "name": null}), Some("b:u"));
        check("b:t", None, json!({"qos": 1}), None);
    }
}

/// Unsubscribes: removes a subscription that was added while the daemon ran.
#[utoipa::path(
    delete,
    path = "/api/v1/subscriptions/{name}",
    params(("name" = String, Path, description = "The subscription's name, percent-encoded")),
    responses((status = 204, description = "It is gone"))
)]
pub(super) async fn unsubscribe(State(api): State<Api>, Name(name): Name) -> Result<StatusCode, Failed> {
    api.operations().change(Edit::Remove { section: Section::Subscriptions, name, discard: false }).await?;
    Ok(StatusCode::NO_CONTENT)
}
