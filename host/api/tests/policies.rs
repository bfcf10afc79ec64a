//! What an operator does with plugins, over HTTP.

mod api;
#[allow(dead_code, reason = "the engine's tests use the rest")]
#[path = "../../engine/tests/host/component.rs"]
mod component;

use api::{Api, assert_problem};
use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use component::{ALLOW, DENY, TRAP, admission, counting};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

impl Api {
    async fn ok(&self, method: Method, path: &str, body: impl Into<Body>) -> Value {
        let (status, body) = self.json(method, path, body).await;
        assert!(status.is_success(), "{path}: {status} {body}");
        body
    }

    async fn bind(&self, plugin: &str, more: Value) -> Value {
        let mut binding = json!({ "hook": "admission", "plugin": plugin });
        for (key, value) in more.as_object().unwrap() {
            binding[key] = value.clone();
        }
        self.ok(Method::PUT, "/v1/bindings", binding.to_string())
            .await
    }

    async fn metrics(&self) -> String {
        let response = self.send(Method::GET, "/metrics", Body::empty()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let kind = response.headers()[header::CONTENT_TYPE].clone();
        assert!(kind.to_str().unwrap().starts_with("text/plain"), "{kind:?}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.into()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_push_in_monitor_mode_over_replay_to_enforcing_and_back() {
    let api = Api::start().await;
    let (status, pushed) = api
        .json(Method::POST, "/v1/plugins/p/revisions", admission(ALLOW))
        .await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(
        (&pushed["revision"], &pushed["state"]),
        (&json!(1), &json!("validated"))
    );
    assert_eq!(pushed["grants"], json!(["log"]));
    api.ok(Method::POST, "/v1/plugins/p/activate", Body::empty())
        .await;
    api.ok(Method::POST, "/v1/plugins/p/revisions", admission(DENY))
        .await;
    api.ok(Method::POST, "/v1/plugins/p/activate", Body::empty())
        .await;
    let bound = api.bind("p", json!({ "mode": "monitor" })).await;
    assert_eq!(
        (&bound["priority"], &bound["instance"]),
        (&json!(100), &json!("fresh"))
    );
    let one = api
        .ok(Method::GET, "/v1/bindings/admission/p", Body::empty())
        .await;
    assert_eq!(one, bound);
    let listed = api
        .ok(Method::GET, "/v1/bindings?plugin=p", Body::empty())
        .await;
    assert_eq!(listed["items"], json!([bound]));

    api.vm("watched").await;
    let differing = api
        .ok(
            Method::GET,
            "/v1/decisions?differs=true&hook=admission&vm=watched",
            Body::empty(),
        )
        .await;
    let decision = &differing["items"][0];
    assert_eq!(decision["decision"], "allow");
    let mut calls = decision["calls"].as_array().unwrap().iter();
    let watcher = calls.find(|call| call["plugin"] == "p").unwrap();
    assert_eq!(
        (&watcher["mode"], &watcher["decision"]),
        (&json!("monitor"), &json!({"deny": "no"}))
    );
    let path = format!("/v1/decisions/{}", decision["number"]);
    assert_eq!(&api.ok(Method::GET, &path, Body::empty()).await, decision);

    let replayed = api
        .ok(
            Method::POST,
            "/v1/plugins/p/replay?revision=2&hook=admission",
            Body::empty(),
        )
        .await;
    assert_eq!(
        (&replayed["replayed"], &replayed["differing"]),
        (&json!(1), &json!(1))
    );
    let candidate = api
        .ok(
            Method::POST,
            "/v1/plugins/p/replay?limit=5",
            admission(ALLOW),
        )
        .await;
    assert_eq!(candidate["same"], 1);
    assert_eq!(candidate["candidate"].get("revision"), None);

    api.bind("p", json!({ "mode": "enforce" })).await;
    let spec = json!({ "name": "refused", "kernel": "no:image" }).to_string();
    let (status, _) = api.json(Method::POST, "/v1/vms", spec).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let vms = api.ok(Method::GET, "/v1/vms", Body::empty()).await;
    let kernel = &vms["items"][0]["kernel"];
    let spec = json!({ "name": "refused", "kernel": kernel }).to_string();
    let (status, problem) = api.json(Method::POST, "/v1/vms", spec).await;
    assert_eq!(
        (status, &problem["reason"]),
        (StatusCode::FORBIDDEN, &json!("no"))
    );

    let back = api
        .ok(Method::POST, "/v1/plugins/p/rollback", Body::empty())
        .await;
    assert_eq!(back["active"], 1);
    let again = api
        .ok(Method::POST, "/v1/plugins/p/rollback", Body::empty())
        .await;
    assert_eq!(again, back);
    let shadowed = api
        .ok(
            Method::POST,
            "/v1/plugins/p/shadow?revision=2",
            Body::empty(),
        )
        .await;
    assert_eq!(
        (&shadowed["shadow"], &shadowed["revisions"][1]["state"]),
        (&json!(2), &json!("shadow"))
    );
    api.vm("allowed").await;
    let shown = api.ok(Method::GET, "/v1/plugins/p", Body::empty()).await;
    assert_eq!(shown["bindings"][0]["hook"], "admission");
    let calls: u64 = shown["statistics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of_revision| of_revision["calls"].as_u64().unwrap())
        .sum();
    assert!(calls >= 4, "{shown}");
    assert_eq!(
        (&shown["quarantine"], &shown["kv"]["keys"]),
        (&Value::Null, &json!(0))
    );
    api.ok(Method::DELETE, "/v1/plugins/p/shadow", Body::empty())
        .await;

    api.ok(Method::DELETE, "/v1/bindings/admission/p", Body::empty())
        .await;
    let (status, problem) = api
        .json(Method::GET, "/v1/bindings/admission/p", Body::empty())
        .await;
    assert_problem(status, &problem);
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_push_says_which_revision_holds_the_reason() {
    let api = Api::start().await;
    let (status, problem) = api
        .json(
            Method::POST,
            "/v1/plugins/p/revisions",
            b"not a component".to_vec(),
        )
        .await;
    assert_problem(status, &problem);
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        (&problem["type"], &problem["revision"]),
        (&json!("urn:roost:problem:invalid-component"), &json!(1))
    );
    let shown = api.ok(Method::GET, "/v1/plugins/p", Body::empty()).await;
    assert_eq!(shown["revisions"][0]["state"], "failed");
    assert_eq!(shown["revisions"][0]["reason"], problem["detail"]);
    for (path, expected) in [
        ("/v1/plugins/p/activate?revision=1", "revision-not-usable"),
        ("/v1/plugins/p/activate?revision=9", "revision-not-found"),
        ("/v1/plugins/p/activate", "no-usable-revision"),
        ("/v1/plugins/p/shadow", "plugin-not-active"),
        ("/v1/plugins/p/rollback", "nothing-to-roll-back"),
    ] {
        let (status, problem) = api.json(Method::POST, path, Body::empty()).await;
        assert_problem(status, &problem);
        assert_eq!(
            problem["type"],
            format!("urn:roost:problem:{expected}"),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_comes_back_as_it_was_pushed() {
    let api = Api::start().await;
    // Larger than one piece.
    let component = admission(&format!(
        "{} {ALLOW}",
        "(drop (i64.const -1))".repeat(30_000)
    ));
    assert!(component.len() > 64 << 10);
    api.ok(Method::POST, "/v1/plugins/p/revisions", component.clone())
        .await;
    let path = "/v1/plugins/p/revisions/1/component";
    let response = api.send(Method::GET, path, Body::empty()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/wasm");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body == component, "{} bytes came back", body.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_paged_both_ways() {
    let api = Api::start().await;
    for n in 0..5 {
        api.vm(&format!("vm-{n}")).await;
    }
    let mut seen = Vec::new();
    for (order, turn) in [("oldest", "after"), ("newest", "before")] {
        let mut path = format!("/v1/decisions?hook=admission&limit=2&order={order}");
        let mut numbers = Vec::new();
        loop {
            let page = api.ok(Method::GET, &path, Body::empty()).await;
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 2);
            numbers.extend(items.iter().map(|d| d["number"].as_u64().unwrap()));
            let Some(next) = page["next"].as_str() else {
                break;
            };
            path = format!("/v1/decisions?hook=admission&limit=2&order={order}&{turn}={next}");
        }
        assert_eq!(numbers.len(), 5);
        seen.push(numbers);
    }
    seen[1].reverse();
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_shown_and_every_one_of_policies_is_recorded() {
    let api = Api::start().await;
    let path = "/v1/plugins/counts/revisions?grants=log,kv";
    api.ok(Method::POST, path, counting()).await;
    api.ok(Method::POST, "/v1/plugins/counts/activate", Body::empty())
        .await;
    api.bind("counts", json!({})).await;
    api.ok(Method::POST, "/v1/plugins/traps/revisions", admission(TRAP))
        .await;
    api.ok(Method::POST, "/v1/plugins/traps/activate", Body::empty())
        .await;
    api.bind("traps", json!({ "priority": 200, "on_failure": "next" }))
        .await;
    let mut created = 0;
    while api
        .ok(Method::GET, "/v1/plugins/traps", Body::empty())
        .await["quarantine"]
        .is_null()
    {
        created += 1;
        assert!(created < 100, "it is never quarantined");
        api.vm(&format!("vm-{created}")).await;
    }
    api.ok(Method::POST, "/v1/plugins/counts/replay", Body::empty())
        .await;

    let text = api.metrics().await;
    for name in roost_engine::Engine::metric_names() {
        assert!(
            text.contains(&format!("# HELP {name} ")),
            "{name} is not shown:\n{text}"
        );
        assert!(
            text.lines().any(|line| line.starts_with(name)),
            "{name} has no value:\n{text}"
        );
    }
    let value = |start: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("{start} is not in\n{text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let created = f64::from(created);
    assert!(value("roost_policy_decisions_total{by=\"plugin\",hook=\"admission\"}") >= created);
    assert!(value("roost_policy_quarantines_total{plugin=\"traps\"}") >= 1.0);
    assert!(value("roost_policy_kv_bytes{plugin=\"counts\"}") >= 9.0);
    assert!(
        value("roost_policy_call_seconds_count{hook=\"admission\",plugin=\"counts\"}") >= created
    );
    assert_eq!(value("roost_vms{state=\"stopped\"}"), created);
    assert_eq!(value("roost_policy_replays_total"), 1.0);
    assert_eq!(value("roost_store_read_only"), 0.0);
    let failed = "roost_policy_calls_total{hook=\"admission\",mode=\"enforce\",outcome=\"trap\",plugin=\"traps\"}";
    assert!(value(failed) >= 1.0);
}
