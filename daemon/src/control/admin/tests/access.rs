//! Who may do what, over the wire: `access.rs` decides, and these hold that it is asked the right thing.

use serde_json::json;

use super::*;

const TOKEN: &str = "0123456789abcdef";

fn change() -> Request {
    request("POST", "/api/v1/brokers/plant/connect")
}

#[tokio::test]
async fn the_socket_opens_everything() {
    let plane = Plane::with_token(TOKEN).await;
    plane.gateway.memory().brokers.push("plant".into());
    assert_eq!(plane.ask(change()).await.status, 200);
    assert_eq!(plane.ask(change().header("host", "any.name")).await.status, 200);
    assert_eq!(plane.ask(change().header("authorization", "Bearer wrong")).await.status, 200);
    assert_eq!(plane.ask(change().header("x-forwarded-for", "10.0.0.1")).await.status, 200);
}

#[tokio::test]
async fn without_a_token_file_tcp_only_reads() {
    let plane = Plane::start().await;
    plane.gateway.memory().brokers.push("plant".into());
    for page in ["/api/v1/status", "/api/v1/brokers/plant", "/metrics", "/readyz", "/healthz", "/api/v1/openapi.json"] {
        assert_eq!(plane.ask_tcp(get(page)).await.status, 200, "{page}");
        let proxied = plane.ask_tcp(get(page).header("x-forwarded-for", "127.0.0.1")).await.status;
        assert_eq!(proxied, if page == "/healthz" { 200 } else { 403 }, "{page} through a proxy");
    }
    assert_eq!(plane.ask_tcp(change()).await.problem(), (403, "no-token".into()));
    let brought = change().header("authorization", &format!("Bearer {TOKEN}"));
    assert_eq!(plane.ask_tcp(brought).await.problem(), (403, "no-token".into()));
    for change in [
        request("POST", "/api/v1/brokers").json(&json!({ "name": "a", "address": "b" })),
        request("PATCH", "/api/v1/brokers/plant").json(&json!({})),
        request("DELETE", "/api/v1/brokers/plant"),
        request("POST", "/api/v1/publish").json(&json!({ "broker": "plant", "topic": "a" })),
        request("DELETE", "/api/v1/received"),
    ] {
        assert_eq!(plane.ask_tcp(change).await.problem(), (403, "no-token".into()));
    }
    assert_eq!(plane.gateway.asked(), Vec::<String>::new(), "nothing reached the gateway");
}

#[tokio::test]
async fn a_token_opens_tcp_and_a_wrong_one_nothing() {
    let plane = Plane::with_token(TOKEN).await;
    plane.gateway.memory().brokers.push("plant".into());
    let with = |request: Request, text: &str| request.header("authorization", text);
    assert_eq!(plane.ask_tcp(with(change(), &format!("Bearer {TOKEN}"))).await.status, 200);
    assert_eq!(plane.ask_tcp(with(change(), &format!("bearer {TOKEN}"))).await.status, 200);
    assert_eq!(
        plane.ask_tcp(with(change(), &format!("Bearer {TOKEN}")).header("host", "gw.example")).await.status,
        200
    );
    assert_eq!(plane.ask_tcp(with(change(), &format!("Bearer {TOKEN}")).header("via", "1.1 proxy")).await.status, 200);
    assert_eq!(plane.ask_tcp(get("/api/v1/status")).await.status, 200, "reads need none here");
    let missing = plane.ask_tcp(change()).await;
    assert_eq!(missing.problem(), (401, "token".into()));
    assert!(missing.header("www-authenticate").is_some_and(|scheme| scheme.starts_with("Bearer")));
    for wrong in [
        "Bearer 0123456789abcdeF".to_owned(),
        format!("Basic {TOKEN}"),
        format!("Bearer {TOKEN}x"),
        format!("Bearer {TOKEN} {TOKEN}"),
        TOKEN.to_owned(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
    ] {
        for request in [change(), get("/api/v1/status"), get("/metrics")] {
            assert_eq!(plane.ask_tcp(with(request, &wrong)).await.problem(), (401, "token".into()), "{wrong}");
        }
    }
    let twice = with(with(change(), &format!("Bearer {TOKEN}")), "Bearer x");
    assert_eq!(plane.ask_tcp(twice).await.problem(), (401, "token".into()), "several tokens are none");
}

#[tokio::test]
async fn the_token_file_is_read_anew() {
    let plane = Plane::with_token(TOKEN).await;
    plane.gateway.memory().brokers.push("plant".into());
    let ask = |token: &str| plane.ask_tcp(change().header("authorization", &format!("Bearer {token}")));
    assert_eq!(ask(TOKEN).await.status, 200);
    let file = plane.folder.path().join("token");
    std::fs::write(&file, "fedcba9876543210\n").expect("writes");
    assert_eq!(ask(TOKEN).await.status, 401);
    assert_eq!(ask("fedcba9876543210").await.status, 200);
    std::fs::write(&file, "short\n").expect("writes");
    assert_eq!(ask("short").await.problem(), (503, "token-file".into()));
    std::fs::remove_file(&file).expect("removes");
    assert_eq!(ask(TOKEN).await.problem(), (503, "token-file".into()));
    assert_eq!(plane.ask_tcp(change()).await.problem(), (401, "token".into()));
    assert_eq!(plane.ask(change()).await.status, 200, "the socket needs none");
}

/// Each refusal is counted once, by its reason; what is let in is not, nor what fails for another reason.
#[tokio::test]
async fn who_is_refused_is_counted() {
    let (open, closed) = (Plane::start().await, Plane::with_token(TOKEN).await);
    let bearer = |request: Request, token: &str| request.header("authorization", &format!("Bearer {token}"));
    let read = || get("/api/v1/status");
    assert_eq!(closed.ask_tcp(bearer(read(), "fedcba9876543210")).await.status, 401);
    assert_eq!(closed.ask_tcp(bearer(change(), "fedcba9876543210")).await.status, 401);
    assert_eq!(closed.ask_tcp(change()).await.status, 401);
    assert_eq!(open.ask_tcp(change()).await.status, 403);
    assert_eq!(open.ask_tcp(read().header("via", "1.1 proxy")).await.status, 403);
    assert_eq!(open.ask_tcp(read().header("host", "gateway.example")).await.status, 421);
    assert_eq!(open.ask(read().header("origin", "http://evil.example")).await.status, 403);
    assert_eq!(open.ask_tcp(read()).await.status, 200);
    assert_eq!(open.ask(change()).await.status, 404);
    let counts = async |plane: &Plane| {
        let page = plane.ask(get("/metrics")).await.body;
        let page = String::from_utf8(page).expect("text");
        let prefix = "tidegate_admin_refused_total{reason=";
        page.lines().filter_map(|line| line.strip_prefix(prefix)).map(str::to_owned).collect::<Vec<_>>()
    };
    let expected =
        [r#""cross_site"} 1"#, r#""host"} 1"#, r#""no_token"} 2"#, r#""token_missing"} 0"#, r#""wrong_token"} 0"#];
    assert_eq!(counts(&open).await, expected);
    let expected =
        [r#""cross_site"} 0"#, r#""host"} 0"#, r#""no_token"} 0"#, r#""token_missing"} 1"#, r#""wrong_token"} 2"#];
    assert_eq!(counts(&closed).await, expected);
}

#[tokio::test]
async fn no_web_page_gets_in() {
    let plane = Plane::start().await;
    let own = plane.address.to_string();
    let read = || get("/api/v1/status");
    assert_eq!(plane.ask_tcp(read().header("host", "gateway.example")).await.problem(), (421, "host".into()));
    assert_eq!(plane.ask_tcp(read().header("host", &own).header("host", &own)).await.problem(), (421, "host".into()));
    // The target counts before the header.
    assert_eq!(plane.ask_tcp(get("http://evil.example/api/v1/status")).await.problem(), (421, "host".into()));
    assert_eq!(plane.ask_tcp(read().header("host", "localhost")).await.status, 200);
    for (name, value) in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        assert_eq!(plane.ask_tcp(read().header(name, value)).await.problem(), (403, "cross-site".into()), "{value}");
        assert_eq!(plane.ask(read().header(name, value)).await.problem(), (403, "cross-site".into()), "{value}");
        let alive = get("/healthz").header(name, value).header("host", "gateway.example");
        assert_eq!(plane.ask_tcp(alive).await.status, 200);
    }
    let same = read().header("origin", &format!("http://{own}")).header("sec-fetch-site", "same-origin");
    assert_eq!(plane.ask_tcp(same).await.status, 200);
}
