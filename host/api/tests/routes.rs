//! Every route of the table: it answers, refuses what it must, and says so as a problem document.

mod api;

use std::time::Duration;

use api::{Api, assert_problem, body_of};
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

/// A path of the table with its parameters filled in by things that are not there.
fn filled(path: &str) -> String {
    path.replace("{vm}", "nobody")
        .replace("{verb}", "boot")
        .replace("{operation}", "op-00000000000000000000000000000000")
        .replace("{plugin}", "nothing")
        .replace("{hook}", "recovery")
        .replace("{revision}", "1")
        .replace("{number}", "1")
        .replace("{incident}", "inc-00000000000000000000000000000000")
        .replace("{action}", "act-00000000000000000000000000000000")
        .replace("{task}", "cl-00000000000000000000000000000000")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_answers_and_every_error_is_a_problem_document() {
    let api = Api::start().await;
    for route in roost_api::routes() {
        let path = filled(route.path);
        let response = api.send(route.method.clone(), &path, Body::empty()).await;
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).cloned();
        let body = body_of(response).await;
        assert_ne!(
            status,
            StatusCode::METHOD_NOT_ALLOWED,
            "{} {path}",
            route.method
        );
        assert_ne!(
            body["type"], "urn:roost:problem:no-such-route",
            "{} {path}",
            route.method
        );
        assert!(!status.is_server_error(), "{} {path}: {body}", route.method);
        if !status.is_success() {
            assert_eq!(
                kind.unwrap(),
                "application/problem+json",
                "{} {path}",
                route.method
            );
            assert_problem(status, &body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_to_be_repaired_is_404_by_its_own_name() {
    let api = Api::start().await;
    for (path, kind) in [
        ("/v1/incidents/{incident}", "incident-not-found"),
        ("/v1/incidents/anything", "incident-not-found"),
        ("/v1/cleanup-tasks/{task}", "cleanup-not-found"),
        ("/v1/cleanup-tasks/vm-1", "cleanup-not-found"),
        ("/v1/actions-required/{action}", "action-not-found"),
    ] {
        let (status, problem) = api.json(Method::GET, &filled(path), "").await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(problem["type"], format!("urn:roost:problem:{kind}"));
    }
    let resolve = filled("/v1/actions-required/{action}/resolve");
    let (status, problem) = api.json(Method::POST, &resolve, r#"{"note":"done"}"#).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{problem}");
    let (status, problem) = api.json(Method::POST, &resolve, r#"{"note":" "}"#).await;
    assert_eq!(problem["type"], "urn:roost:problem:invalid-note");
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_looks_and_only_when_asked_to_repairs() {
    let api = Api::start().await;
    api.vm("web").await;
    let stranger = api
        .dir
        .path()
        .join("run/vm-01890000000070008000000000000001");
    std::fs::create_dir(&stranger).unwrap();
    let (status, report) = api.json(Method::GET, "/v1/audit", "").await;
    assert_eq!(status, StatusCode::OK);
    let found = &report["divergences"][0];
    assert_eq!(found["divergence"], "run-directory-unrecorded");
    assert_eq!(found["repair"], "none");
    let (_, report) = api.json(Method::POST, "/v1/audit", "").await;
    assert_eq!(report["divergences"][0]["repair"], "cleanup", "{report}");
    let gone = async {
        while stranger.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_no_route_has_is_refused_everywhere() {
    let api = Api::start().await;
    for route in roost_api::routes() {
        let (status, problem) = api
            .json(Method::PATCH, &filled(route.path), Body::empty())
            .await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{}", route.path);
        assert_problem(status, &problem);
    }
    let (status, problem) = api.json(Method::GET, "/v2/everything", Body::empty()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_problem(status, &problem);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_parameters_and_fields_and_large_bodies_are_refused() {
    let api = Api::start().await;
    let cases = [
        (
            Method::GET,
            "/v1/vms?color=red",
            String::new(),
            StatusCode::BAD_REQUEST,
            "color",
        ),
        (
            Method::POST,
            "/v1/vms",
            "{".to_owned(),
            StatusCode::BAD_REQUEST,
            "EOF",
        ),
        (
            Method::POST,
            "/v1/vms",
            r#"{"name":"a","kernel":"a:b","gpu":1}"#.to_owned(),
            StatusCode::BAD_REQUEST,
            "gpu",
        ),
        (
            Method::PUT,
            "/v1/bindings",
            r#"{"hook":"cleanup","plugin":"p","colour":1}"#.to_owned(),
            StatusCode::BAD_REQUEST,
            "colour",
        ),
        (
            Method::GET,
            "/v1/decisions?hook=weather",
            String::new(),
            StatusCode::BAD_REQUEST,
            "weather",
        ),
        (
            Method::GET,
            "/v1/decisions?order=newest&after=3",
            String::new(),
            StatusCode::BAD_REQUEST,
            "before",
        ),
        (
            Method::POST,
            "/v1/plugins/p/revisions?grants=log,root",
            "x".to_owned(),
            StatusCode::BAD_REQUEST,
            "root",
        ),
        (
            Method::POST,
            "/v1/plugins/p/replay?revision=1",
            "x".to_owned(),
            StatusCode::BAD_REQUEST,
            "not both",
        ),
        (
            Method::POST,
            "/v1/vms",
            "[".repeat(70 << 10),
            StatusCode::PAYLOAD_TOO_LARGE,
            "65536",
        ),
    ];
    for (method, path, body, expected, word) in cases {
        let (status, problem) = api.json(method, path, body).await;
        assert_eq!(status, expected, "{path}: {problem}");
        assert_problem(status, &problem);
        assert!(
            problem["detail"].as_str().unwrap().contains(word),
            "{problem}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_illegal_verb_is_409_with_the_state_and_what_is_legal() {
    let api = Api::start().await;
    api.vm("idle").await;
    let (status, problem) = api
        .json(Method::POST, "/v1/vms/idle/pause", Body::empty())
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["type"], "urn:roost:problem:illegal-verb");
    assert_eq!(problem["state"], "stopped");
    assert_eq!(problem["legal"], serde_json::json!(["boot", "delete"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_a_busy_vm_is_queued_or_refused_at_once_and_can_be_cancelled() {
    let api = Api::start().await;
    api.vm("web").await;
    let post = async |path: &str| api.json(Method::POST, path, "").await;
    let (status, booted) = post("/v1/vms/web/boot").await;
    assert_eq!(status, StatusCode::OK, "{booted}");
    // The guest hears no button.
    let (status, shutdown) = post("/v1/vms/web/shutdown?deadline_ms=600000&wait=false").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{shutdown}");
    let (status, boot) = post("/v1/vms/web/boot?timeout_ms=1").await;
    assert_eq!(status, StatusCode::ACCEPTED, "{boot}");
    assert_eq!(boot["status"], "queued");
    assert_eq!(boot["doing"], "waiting for its turn");
    assert!(boot["doing_since_ms"].is_u64(), "{boot}");
    let (status, problem) = post("/v1/vms/web/boot").await;
    assert_problem(status, &problem);
    assert_eq!(problem["type"], "urn:roost:problem:illegal-verb");
    assert_eq!(
        (&problem["state"], &problem["after"]),
        (&"running".into(), &"boot".into())
    );

    let path = |operation: &serde_json::Value, what: &str| {
        format!("/v1/operations/{}{what}", operation["id"].as_str().unwrap())
    };
    let wait = path(&shutdown, "?wait=true&timeout_ms=1");
    let (_, waited) = api.json(Method::GET, &wait, "").await;
    assert_eq!(waited["status"], "running", "{waited}");
    for _ in 0..2 {
        let (status, cancelled) = post(&path(&shutdown, "/cancel")).await;
        assert_eq!(status, StatusCode::OK, "{cancelled}");
        assert_eq!(cancelled["status"], "cancelled");
        assert!(cancelled["reason"].is_string(), "{cancelled}");
    }
    let (_, failed) = api.json(Method::GET, &path(&boot, "?wait=true"), "").await;
    assert_eq!(failed["status"], "failed", "{failed}");
    assert_eq!(failed.get("doing"), None);
    let (status, problem) = post(&path(&boot, "/cancel")).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["type"], "urn:roost:problem:operation-over");
    assert_eq!(problem["operation_status"], "failed");
    let (status, deleted) = api.json(Method::DELETE, "/v1/vms/web", "").await;
    assert_eq!(status, StatusCode::OK, "{deleted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_vm_is_as_if_there_were_none() {
    let api = Api::start().await;
    api.vm("mine").await;
    let (status, mine) = api.json(Method::GET, "/v1/vms/mine", Body::empty()).await;
    assert_eq!(status, StatusCode::OK);
    let by_id = format!("/v1/vms/{}?tenant=other", mine["id"].as_str().unwrap());
    for path in ["/v1/vms/mine?tenant=other", by_id.as_str()] {
        let (status, problem) = api.json(Method::GET, path, Body::empty()).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(problem["type"], "urn:roost:problem:vm-not-found");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_of_a_worker_is_never_shown() {
    let api = Api::start().await;
    api.vm("running").await;
    let (status, operation) = api
        .json(Method::POST, "/v1/vms/running/boot", Body::empty())
        .await;
    assert_eq!(
        (status, &operation["status"]),
        (StatusCode::OK, &"succeeded".into())
    );
    let secret = api.engine.store().vms().unwrap()[0]
        .worker
        .clone()
        .unwrap()
        .nonce;
    assert_eq!(secret.len(), 32);
    for path in ["/v1/vms", "/v1/vms/running", "/v1/operations", "/v1/events"] {
        let response = api.send(Method::GET, path, Body::empty()).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(!String::from_utf8_lossy(&body).contains(&secret), "{path}");
    }
    let (status, _) = api
        .json(Method::DELETE, "/v1/vms/running", Body::empty())
        .await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_sent_as_they_come_and_from_where_a_client_left_off() {
    let api = Api::start().await;
    let last = api.engine.store().last_event().unwrap();
    let request = Request::builder()
        .uri("/v1/events")
        .header(header::ACCEPT, "text/event-stream")
        .header("last-event-id", last.to_string())
        .body(Body::empty())
        .unwrap();
    let response = roost_api::router(api.engine.clone())
        .oneshot(request)
        .await
        .unwrap();
    let mut body = response.into_body();
    api.vm("new").await;
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let text = String::from_utf8_lossy(&frame).into_owned();
    assert!(text.contains(&format!("id: {}", last + 1)), "{text}");
    assert!(text.contains("state-changed"), "{text}");
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_leaves_a_whole_vm() {
    let api = Api::start().await;
    let (_, image) = api
        .json(Method::POST, "/v1/images", roost_guests::HELLO)
        .await;
    let spec = serde_json::json!({ "name": "web", "kernel": image["digest"] });

    // It is polled once: the request has begun, and nobody waits for it any more.
    let create = api.send(Method::POST, "/v1/vms", spec.to_string());
    assert!(create.now_or_never().is_none(), "it waits for the store");

    let boot = async {
        loop {
            let answer = api
                .json(Method::POST, "/v1/vms/web/boot", Body::empty())
                .await;
            if answer.0 != StatusCode::NOT_FOUND {
                break answer;
            }
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(30), boot);
    let answer = answer.await.expect("the VM is never there");
    assert_eq!(answer.0, StatusCode::OK, "{}", answer.1);
    assert_eq!(answer.1["status"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_there_is_no_room_for_is_refused_with_the_limit_the_use_and_the_request() {
    let api = Api::start_with(|config| config.capacity.tenant.vcpus = Some(3)).await;
    let (_, image) = api
        .json(Method::POST, "/v1/images", roost_guests::HELLO)
        .await;
    let spec = |name| {
        let kernel = &image["digest"];
        serde_json::json!({ "name": name, "kernel": kernel, "vcpus": 2 }).to_string()
    };
    let (status, _) = api.json(Method::POST, "/v1/vms", spec("fits")).await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, problem) = api.json(Method::POST, "/v1/vms", spec("does-not")).await;
    assert_problem(status, &problem);
    assert_eq!(
        problem,
        serde_json::json!({
            "type": "urn:roost:problem:capacity-exceeded",
            "title": "Insufficient Storage",
            "status": 507,
            "detail": "the limit max-vcpus-per-tenant is 3, 2 are in use and 2 were requested; \
                       delete VMs or raise the limit",
            "limit": "max-vcpus-per-tenant",
            "most": 3,
            "in_use": 2,
            "requested": 2,
        })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_port_says_its_size_takes_input_and_has_an_output_and_others_are_refused() {
    let api = Api::start().await;
    for (name, guest, console) in [
        ("web", roost_guests::VIRTIO_CONSOLE, true),
        ("without", roost_guests::HELLO, false),
    ] {
        let (_, image) = api.json(Method::POST, "/v1/images", guest).await;
        let spec = serde_json::json!({
            "name": name, "kernel": image["digest"], "console": console,
        });
        let (status, created) = api.json(Method::POST, "/v1/vms", spec.to_string()).await;
        assert!(status.is_success(), "{created}");
    }
    let size = r#"{"columns":132,"rows":50}"#;
    let to = |vm: &str, what: &str| format!("/v1/vms/{vm}/{what}");
    let (status, problem) = api
        .json(Method::POST, &to("web", "console-size"), size)
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["type"], "urn:roost:problem:not-running");
    for vm in ["web", "without"] {
        let (status, booted) = api.json(Method::POST, &to(vm, "boot"), "").await;
        assert_eq!(status, StatusCode::OK, "{booted}");
    }

    let said = async |all: &str| {
        let path = to("web", "logs?port=0");
        loop {
            let output = api.send(Method::GET, &path, "").await;
            let output = output.into_body().collect().await.unwrap().to_bytes();
            if output.len() >= all.len() {
                assert_eq!(String::from_utf8_lossy(&output), all);
                return;
            }
            let wait = format!("{path}&from={}&wait_ms=30000", output.len());
            assert!(api.send(Method::GET, &wait, "").await.status().is_success());
        }
    };
    said("who is there?\n").await;
    let (status, answer) = api
        .json(Method::POST, &to("web", "console-size"), size)
        .await;
    assert_eq!((status, answer.to_string()), (StatusCode::OK, size.into()));
    let (_, answer) = api
        .json(Method::POST, &to("web", "console-input?port=0"), "me")
        .await;
    assert_eq!(answer["accepted_bytes"], 2);
    said("who is there?\nme at 132x50\n").await;

    for (method, what, body) in [
        (Method::GET, "logs?port=agent", ""),
        (Method::GET, "logs?port=agent&wait_ms=30000", ""),
        (Method::POST, "console-input?port=agent", "x"),
        (Method::POST, "console-size?port=agent", size),
    ] {
        let (status, problem) = api.json(method.clone(), &to("web", what), body).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{what}: {problem}");
        let kind = "urn:roost:problem:console-port-not-found";
        assert_eq!(problem["type"], kind, "{what}");
        assert_eq!(problem["ports"], serde_json::json!(["0"]), "{what}");
        let (status, problem) = api.json(method, &to("without", what), body).await;
        assert_eq!(status, StatusCode::CONFLICT, "{what}: {problem}");
        assert_eq!(problem["type"], "urn:roost:problem:no-console", "{what}");
        assert_eq!(problem["ports"], serde_json::json!([]), "{what}");
    }
}
