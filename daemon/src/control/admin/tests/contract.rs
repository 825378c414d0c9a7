//! Paths, methods, bodies, statuses: what clients rely on.

use serde_json::json;

use super::*;
use crate::control::live::{Refusal, RefusalKind};

#[tokio::test]
async fn an_object_of_each_kind_comes_changes_and_goes() {
    let plane = Plane::start().await;
    let kinds = [
        ("brokers", "Brokers", json!({ "name": "lab", "address": "mqtt.example", "port": 1884, "username": null })),
        ("handlers", "Handlers", json!({ "name": "lab", "plugin": "a.wasm", "instances": 2, "queue": null })),
    ];
    for (list, section, keys) in kinds {
        let (all, one) = (format!("/api/v1/{list}"), format!("/api/v1/{list}/lab"));
        assert_eq!(plane.ask(get(&all)).await.json(), json!([]));
        let added = plane.ask(request("POST", &all).json(&keys)).await;
        assert_eq!((added.status, added.header("location")), (201, Some(one.as_str())));
        assert_eq!(added.json()["name"], "lab");
        let [asked] = &plane.gateway.asked()[..] else { panic!("one change") };
        assert!(asked.starts_with(&format!("Add {{ section: {section}, ")), "{asked}");
        assert!(!asked.contains("Null"), "null sets nothing: {asked}");
        assert_eq!(plane.ask(get(&all)).await.json().as_array().map(Vec::len), Some(1));
        assert_eq!(plane.ask(get(&one)).await.json()["name"], "lab");

        let patch = request("PATCH", &one).header("content-type", "application/merge-patch+json");
        let changed = plane.ask(patch.body("{\"queue\":null,\"port\":1}")).await;
        assert_eq!((changed.status, &changed.json()["name"]), (200, &json!("lab")));
        let [asked] = &plane.gateway.asked()[..] else { panic!("one change") };
        assert!(asked.starts_with(&format!("Set {{ section: {section}, name: \"lab\", ")), "{asked}");
        assert!(asked.contains("Null"), "null clears a key: {asked}");

        let gone = plane.ask(request("DELETE", &one)).await;
        assert_eq!((gone.status, gone.body.len()), (204, 0));
        let expected = format!("Remove {{ section: {section}, name: \"lab\", discard: false }}");
        assert_eq!(plane.gateway.asked(), [expected]);
        assert_eq!(plane.ask(get(&one)).await.problem(), (404, "not-found".into()));
    }
    let discard = request("DELETE", "/api/v1/brokers/lab?discard=true");
    assert_eq!(plane.ask(discard).await.status, 204);
    assert_eq!(plane.gateway.asked(), ["Remove { section: Brokers, name: \"lab\", discard: true }"]);
}

#[tokio::test]
async fn what_is_warned_of_since_a_change_is_in_its_answer_alone() {
    let plane = Plane::start().await;
    let objects = [
        ("brokers", "lab", json!({ "name": "lab", "address": "mqtt.example" })),
        ("handlers", "lab", json!({ "name": "lab", "plugin": "a.wasm" })),
        ("subscriptions", "plant%3Aa%2F%23", json!({ "broker": "plant", "topic": "a/#" })),
    ];
    for (list, name, keys) in objects {
        let (all, one) = (format!("/api/v1/{list}"), format!("/api/v1/{list}/{name}"));
        let warns = || plane.gateway.memory().warnings = vec!["mind this".into()];
        warns();
        assert_eq!(
            plane.ask(request("POST", &all).json(&keys)).await.json()["warnings"],
            json!(["mind this"]),
            "{list}"
        );
        assert_eq!(plane.ask(get(&one)).await.json().get("warnings"), None);
        warns();
        let patch = || request("PATCH", &one).json(&json!({}));
        assert_eq!(plane.ask(patch()).await.json()["warnings"], json!(["mind this"]), "{list}");
        assert_eq!(plane.ask(patch()).await.json().get("warnings"), None);
    }
}

#[tokio::test]
async fn what_a_removed_broker_leaves_behind_is_told() {
    let plane = Plane::start().await;
    plane.gateway.memory().warnings = vec!["2 messages stay".into()];
    let gone = plane.ask(request("DELETE", "/api/v1/brokers/lab")).await;
    assert_eq!((gone.status, gone.json()), (200, json!({ "warnings": ["2 messages stay"] })));
    assert_eq!(plane.ask(request("DELETE", "/api/v1/brokers/lab")).await.status, 204);
}

#[tokio::test]
async fn a_subscription_has_a_name_that_no_path_has() {
    let plane = Plane::start().await;
    let post =
        |target: &str| request("POST", target).json(&json!({ "broker": "plant", "topic": "a/#", "share": null }));
    let added = plane.ask(post("/api/v1/subscriptions")).await;
    let location = "/api/v1/subscriptions/plant%3Aa%2F%23";
    assert_eq!((added.status, added.header("location")), (201, Some(location)));
    assert_eq!(plane.gateway.asked(), [r##"subscribe {"broker":"plant","topic":"a/#"} true"##]);
    assert_eq!(plane.ask(get(location)).await.json()["name"], "plant:a/#");
    assert_eq!(plane.ask(request("PATCH", location).json(&json!({ "qos": 1 }))).await.status, 200);
    let [asked] = &plane.gateway.asked()[..] else { panic!("one change") };
    assert!(asked.contains("name: \"plant:a/#\""), "{asked}");
    assert_eq!(plane.ask(request("DELETE", location)).await.status, 204);
    assert_eq!(plane.gateway.asked(), ["Remove { section: Subscriptions, name: \"plant:a/#\", discard: false }"]);
    assert_eq!(plane.ask(post("/api/v1/subscriptions?force=false")).await.status, 201);
    assert_eq!(plane.gateway.asked(), [r##"subscribe {"broker":"plant","topic":"a/#"} false"##]);
    assert_eq!(plane.ask(get("/api/v1/subscriptions/%ff")).await.problem(), (400, "malformed".into()));
}

#[tokio::test]
async fn brokers_are_connected_disconnected_and_reset() {
    let plane = Plane::start().await;
    plane.gateway.memory().brokers.push("plant".into());
    for command in ["connect", "disconnect", "reset-session"] {
        let answer = plane.ask(request("POST", &format!("/api/v1/brokers/plant/{command}"))).await;
        assert_eq!((answer.status, &answer.json()["name"]), (200, &json!("plant")));
        assert_eq!(plane.gateway.asked(), [format!("{command} plant")]);
    }
}

#[tokio::test]
async fn handlers_pause_and_resume() {
    let plane = Plane::start().await;
    plane.gateway.memory().handlers.push("celsius".into());
    for command in ["pause", "resume"] {
        let answer = plane.ask(request("POST", &format!("/api/v1/handlers/celsius/{command}"))).await;
        assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("open")));
        assert_eq!(plane.gateway.asked(), [format!("{command} celsius")]);
    }
}

#[tokio::test]
async fn the_configuration_is_read_again() {
    let plane = Plane::start().await;
    let reload = |query: &str| request("POST", &format!("/api/v1/reload{query}"));
    let done = plane.ask(reload("")).await;
    assert_eq!((done.status, &done.json()["dry-run"]), (200, &json!(false)));
    let told = plane.ask(reload("?dry-run=true")).await.json();
    assert_eq!((&told["dry-run"], &told["brokers"][0]["change"]), (&json!(true), &json!("reconnected")));
    assert_eq!(plane.gateway.asked(), ["reload false", "reload true"]);
    assert_eq!(plane.ask(reload("?dry_run=true")).await.problem(), (400, "malformed".into()));
    plane.gateway.refuse(Refusal::new(RefusalKind::NeedsRestart, "t.toml:1:1: state-dir: cannot change", "restart it"));
    assert_eq!(plane.ask(reload("")).await.problem(), (409, "needs-restart".into()));
}

#[tokio::test]
async fn a_handler_is_reloaded() {
    let plane = Plane::start().await;
    let answer = plane.ask(request("POST", "/api/v1/handlers/celsius/reload")).await;
    let expected = json!({ "name": "celsius", "before": "0", "version": "1", "on-trial": null });
    assert_eq!((answer.status, answer.json()), (200, expected));
    assert_eq!(plane.gateway.asked(), ["reload celsius"]);
}

#[tokio::test]
async fn what_the_gateway_refuses_is_told_with_its_remedy() {
    let plane = Plane::start().await;
    plane.gateway.memory().brokers.push("plant".into());
    let cases = [
        (RefusalKind::InFile, 409, "in-file"),
        (RefusalKind::Invalid, 422, "invalid"),
        (RefusalKind::CannotConnect, 502, "cannot-connect"),
        (RefusalKind::NoAnswer, 504, "no-answer"),
        (RefusalKind::Changed, 409, "changed"),
        (RefusalKind::Stopping, 503, "stopping"),
        (RefusalKind::Storage, 500, "storage"),
        (RefusalKind::UnderWay, 409, "under-way"),
        (RefusalKind::Quota, 409, "quota"),
    ];
    for (kind, status, slug) in cases {
        plane.gateway.refuse(Refusal::new(kind, "this is in the way", "do that"));
        let answer = plane.ask(request("POST", "/api/v1/brokers/plant/connect")).await;
        assert_eq!(answer.problem(), (status, slug.into()));
        assert_eq!(
            (&answer.json()["detail"], &answer.json()["remedy"]),
            (&json!("this is in the way"), &json!("do that"))
        );
    }
    let unknown = plane.ask(get("/api/v1/brokers/plan")).await;
    assert_eq!(unknown.problem(), (404, "not-found".into()));
    assert_eq!(unknown.json()["remedy"], "use one of plant");
}

#[tokio::test]
async fn what_is_no_good_request_is_told_as_a_problem() {
    let plane = Plane::start().await;
    let post = |body: &str| request("POST", "/api/v1/brokers").header("content-type", "application/json").body(body);
    let check = async |request: Request, status: u16, slug: &str| {
        let answer = plane.ask(request.clone()).await;
        assert_eq!(answer.problem(), (status, slug.into()), "{} {}", request.method, request.target);
        answer
    };
    check(get("/api/v1/nothing"), 404, "path").await;
    check(get("/nothing"), 404, "path").await;
    let method = check(request("PUT", "/api/v1/brokers"), 405, "method").await;
    let mut allowed: Vec<&str> = method.header("allow").expect("is required").split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
    check(request("POST", "/metrics"), 405, "method").await;
    check(request("OPTIONS", "/api/v1/brokers"), 405, "method").await;
    check(request("POST", "/api/v1/brokers").body("{}"), 415, "media-type").await;
    check(request("POST", "/api/v1/brokers").header("content-type", "text/plain").body("{}"), 415, "media-type").await;
    check(post("{"), 400, "malformed").await;
    check(post(""), 400, "malformed").await;
    check(post("[]"), 422, "invalid").await;
    check(post("{}"), 422, "invalid").await;
    check(post(r#"{"name":1}"#), 422, "invalid").await;
    check(post(&format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200))), 400, "malformed").await;
    check(get("/api/v1/received?brokr=plant"), 400, "malformed").await;
    check(get("/api/v1/received?last=-1"), 400, "malformed").await;
    check(get("/api/v1/explain"), 400, "malformed").await;
    check(request("DELETE", "/api/v1/brokers/a?discard=maybe"), 400, "malformed").await;
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(limits::BODY_BYTES));
    let told = check(post(&long), 413, "too-large").await;
    assert!(told.json()["detail"].as_str().is_some_and(|detail| detail.contains("1048576")), "{told:?}");
    assert_eq!(plane.gateway.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn the_configuration_and_the_status_are_told() {
    let plane = Plane::start().await;
    assert_eq!(plane.ask(get("/api/v1/status")).await.json()["ready"], true);
    assert_eq!(plane.ask(get("/api/v1/config")).await.json()["settings"][0]["key"], "brokers.plant.port");
    let export = plane.ask(get("/api/v1/config/export")).await;
    assert_eq!(export.header("content-type"), Some("application/toml"));
    assert_eq!(export.body, b"[brokers.plant]\n");
    let head = plane.ask(request("HEAD", "/api/v1/config/export")).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

/// The document's paths are those that are served, and it says what OpenAPI requires.
#[tokio::test]
async fn the_document_describes_what_is_served() {
    let plane = Plane::start().await;
    let document = plane.ask(get("/api/v1/openapi.json")).await.json();
    assert_eq!(document, api::document());
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    let mut operations = 0;
    let mut ids = std::collections::HashSet::new();
    for (path, item) in document["paths"].as_object().expect("an object") {
        for (method, operation) in item.as_object().expect("an object") {
            operations += 1;
            assert!(ids.insert(operation["operationId"].clone()), "{path}: an id twice");
            assert!(operation["summary"].is_string(), "{method} {path} says nothing");
            if path.ends_with("/stream") || path.ends_with("/trace") {
                continue;
            }
            let parts = path.split('/').map(|part| if part.starts_with('{') { "1" } else { part });
            let target = parts.collect::<Vec<_>>().join("/");
            let answer = plane.ask(request(&method.to_uppercase(), &target)).await;
            let unknown = answer.header("content-type") == Some(problem::MEDIA_TYPE)
                && ["path", "method"].contains(&answer.problem().1.as_str());
            assert!(!unknown, "{method} {path} is not served");
        }
    }
    assert_eq!(operations, 45);
    // Every link and every reference leads somewhere.
    let links = |list: &str| document["paths"][list]["post"]["responses"]["201"]["links"].clone();
    for list in ["/api/v1/brokers", "/api/v1/subscriptions", "/api/v1/handlers"] {
        let links = links(list);
        assert!(links.as_object().is_some_and(|links| links.len() >= 3), "{list}: {links}");
        for link in links.as_object().into_iter().flat_map(|links| links.values()) {
            assert!(ids.contains(&link["operationId"]), "{list}: {link}");
        }
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
}
