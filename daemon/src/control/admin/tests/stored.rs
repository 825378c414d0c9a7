//! What is kept: outboxes, dead letters, what handlers remember; and schedules.

use serde_json::json;

use super::*;

fn post(target: &str) -> Request {
    request("POST", target)
}

fn delete(target: &str) -> Request {
    request("DELETE", target)
}

#[tokio::test]
async fn outboxes_are_listed_and_purged() {
    let plane = Plane::start().await;
    let list = plane.ask(get("/api/v1/outbox")).await;
    assert_eq!((list.status, &list.json()[0]["broker"]), (200, &json!("gone")));
    let purged = plane.ask(delete("/api/v1/outbox/gone")).await;
    assert_eq!((purged.status, purged.json()), (200, json!({ "broker": "gone", "messages": 3, "bytes": 30 })));
    assert_eq!(plane.gateway.asked(), ["purge gone"]);
}

#[tokio::test]
async fn dead_letters_are_listed_page_by_page() {
    let plane = Plane::start().await;
    let list = plane.ask(get("/api/v1/dead-letters")).await;
    assert_eq!((list.status, &list.json()["more"]), (200, &json!(true)));
    let all = "LetterPage { handler: None, reason: None, before: None, last: 100 }";
    assert_eq!(plane.gateway.asked(), [all]);
    let chosen = "/api/v1/dead-letters?handler=h&reason=reject&before=9&last=1000";
    assert_eq!(plane.ask(get(chosen)).await.status, 200);
    let asked = r#"LetterPage { handler: Some("h"), reason: Some("reject"), before: Some(9), last: 1000 }"#;
    assert_eq!(plane.gateway.asked(), [asked]);
    for wrong in ["last=0", "last=1001", "last=x", "before=-1", "before=9223372036854775808", "handlr=h"] {
        let answer = plane.ask(get(&format!("/api/v1/dead-letters?{wrong}"))).await;
        assert_eq!(answer.problem(), (400, "malformed".into()), "{wrong}");
    }
    let whole = plane.ask(get("/api/v1/dead-letters/7")).await.json();
    assert_eq!((&whole["id"], &whole["data"], &whole["encoding"]), (&json!(7), &json!("/w=="), &json!("base64")));
    assert_eq!(plane.gateway.asked(), ["dead letter 7"]);
    assert_eq!(plane.ask(get("/api/v1/dead-letters/x")).await.problem(), (400, "malformed".into()));
    assert_eq!(plane.gateway.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn dead_letters_are_named_in_exactly_one_way() {
    let plane = Plane::start().await;
    type Ask = fn(&str) -> Request;
    let both = [(post as Ask, "/api/v1/dead-letters/retry", "retry"), (delete, "/api/v1/dead-letters", "clear")];
    for (ask, path, word) in both {
        let ways =
            [("ids=7", "Ids([7])"), ("ids=1,2", "Ids([1, 2])"), ("handler=h", r#"Handler("h")"#), ("all=true", "All")];
        for (query, which) in ways {
            let answer = plane.ask(ask(&format!("{path}?{query}"))).await;
            assert_eq!((answer.status, answer.json()), (200, json!({ "dead-letters": 2 })), "{query}");
            assert_eq!(plane.gateway.asked(), [format!("{word} {which}")]);
        }
        for query in ["", "?all=false", "?ids=1&all=true", "?handler=h&ids=1", "?handler=h&all=true"] {
            assert_eq!(plane.ask(ask(&format!("{path}{query}"))).await.problem(), (422, "invalid".into()), "{query}");
        }
        let many = vec!["1"; limits::IDS + 1].join(",");
        for query in ["?ids=", "?ids=x", "?ids=1,,2", &format!("?ids={many}")] {
            assert_eq!(plane.ask(ask(&format!("{path}{query}"))).await.problem(), (422, "invalid".into()), "{query}");
        }
        let query = "?all=maybe";
        assert_eq!(plane.ask(ask(&format!("{path}{query}"))).await.problem(), (400, "malformed".into()));
        assert_eq!(plane.gateway.asked(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_handlers_remember_is_read_and_written() {
    let plane = Plane::start().await;
    assert_eq!(plane.ask(get("/api/v1/kv")).await.json()[0]["quota"], "1MiB");
    assert_eq!(plane.ask(get("/api/v1/kv/h")).await.json()["keys"][0]["key"], "a/b");
    assert_eq!(plane.gateway.asked(), [r#"list h KvPage { prefix: "", after: None, limit: 100 }"#]);
    assert_eq!(plane.ask(get("/api/v1/kv/h?prefix=a%2F&after=a%2Fa&limit=5")).await.status, 200);
    assert_eq!(plane.gateway.asked(), [r#"list h KvPage { prefix: "a/", after: Some("a/a"), limit: 5 }"#]);
    assert_eq!(plane.ask(get("/api/v1/kv/h?limit=1001")).await.problem(), (400, "malformed".into()));

    let key = "/api/v1/kv/h/a%2Fb%20%C3%A4%23%3F";
    assert_eq!(plane.ask(get(key)).await.json()["key"], "a/b ä#?");
    let put = |body| request("PUT", key).json(&body);
    assert_eq!(plane.ask(put(json!({ "value": "xyz", "ttl": "5m" }))).await.status, 204);
    assert_eq!(plane.ask(delete(key)).await.status, 204);
    assert_eq!(plane.gateway.asked(), ["get h a/b ä#?", "set h a/b ä#? 3 Some(\"5m\")", "delete h a/b ä#?"]);
    assert_eq!(plane.ask(put(json!({ "valu": "x" }))).await.problem(), (422, "invalid".into()));
    assert_eq!(plane.ask(get("/api/v1/kv/h/%ff")).await.problem(), (400, "malformed".into()));

    // As large as a publish.
    let large = "x".repeat(limits::BODY_BYTES + 1);
    assert_eq!(plane.ask(put(json!({ "value": large }))).await.status, 204);
    assert_eq!(plane.gateway.asked(), [format!("set h a/b ä#? {} None", limits::BODY_BYTES + 1)]);
    let huge = plane.ask(put(json!({ "value": "x".repeat(limits::KV_BYTES) }))).await;
    assert_eq!(huge.problem(), (413, "too-large".into()));
    let told = huge.json()["detail"].to_string();
    assert!(told.contains(&limits::KV_BYTES.to_string()), "{told}");
}

#[tokio::test]
async fn schedules_are_listed_and_run() {
    let plane = Plane::start().await;
    assert_eq!(plane.ask(get("/api/v1/schedules")).await.json()[0]["name"], "stats");
    assert_eq!(plane.ask(get("/api/v1/schedules/stats")).await.json()["timing"], "every 1m");
    let unknown = plane.ask(get("/api/v1/schedules/stat")).await;
    assert_eq!((unknown.problem(), &unknown.json()["remedy"]), ((404, "not-found".into()), &json!("use one of stats")));
    assert_eq!(plane.ask(post("/api/v1/schedules/stats/run")).await.json()["result"], "ok");
    assert_eq!(plane.gateway.asked(), ["run stats"]);
}

/// Whoever may only read changes nothing of it.
#[tokio::test]
async fn over_tcp_what_is_kept_is_only_read() {
    let plane = Plane::start().await;
    for page in ["outbox", "dead-letters", "dead-letters/7", "kv", "kv/h", "kv/h/k", "schedules"] {
        assert_eq!(plane.ask_tcp(get(&format!("/api/v1/{page}"))).await.status, 200, "{page}");
    }
    plane.gateway.asked();
    for change in [
        delete("/api/v1/outbox/plant"),
        delete("/api/v1/dead-letters?all=true"),
        post("/api/v1/dead-letters/retry?all=true"),
        request("PUT", "/api/v1/kv/h/k").json(&json!({ "value": "x" })),
        delete("/api/v1/kv/h/k"),
        post("/api/v1/schedules/stats/run"),
        post("/api/v1/handlers/h/pause"),
        post("/api/v1/handlers/h/resume"),
        post("/api/v1/handlers/h/reload"),
    ] {
        assert_eq!(plane.ask_tcp(change).await.problem(), (403, "no-token".into()));
    }
    assert_eq!(plane.gateway.asked(), Vec::<String>::new(), "nothing reached the gateway");
}
