//! The API of a host in a temporary directory.
#![allow(dead_code, reason = "each test uses some of it")]

use std::fs::File;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use roost_engine::{
    Blobs, Config, Engine, InProcessBackend, PolicyHost, PolicyRuntime, RuntimeConfig, Store,
    StoreServices,
};
use serde_json::Value;
use tower::ServiceExt as _;

pub(crate) struct Api {
    // Dropped last: the engine works in it.
    pub(crate) engine: Engine,
    pub(crate) dir: tempfile::TempDir,
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// [`Self::start`], with a configuration of its own.
    pub(crate) async fn start_with(tune: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kvm = File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .expect("these tests run guests: they need /dev/kvm, readable and writable");
        let mut config = Config {
            // Only the tests audit.
            audit_interval: None,
            ..Config::new(dir.path().join("run"))
        };
        tune(&mut config);
        let store = Store::open(&dir.path().join("store")).unwrap();
        let services = StoreServices::new(store.clone(), config.kv_quota);
        let runtime = PolicyRuntime::with(RuntimeConfig {
            services: Some(Arc::new(services)),
            ..RuntimeConfig::default()
        });
        let engine = Engine::start(
            config,
            store,
            Blobs::open(&dir.path().join("blobs")).unwrap(),
            PolicyHost::new(runtime.unwrap()),
            Arc::new(InProcessBackend::new(kvm)),
        )
        .await
        .unwrap();
        Self { engine, dir }
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Body>,
    ) -> Response<Body> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(body.into())
            .unwrap();
        roost_api::router(self.engine.clone())
            .oneshot(request)
            .await
            .unwrap()
    }

    pub(crate) async fn json(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Body>,
    ) -> (StatusCode, Value) {
        let response = self.send(method, path, body).await;
        let status = response.status();
        (status, body_of(response).await)
    }

    /// A VM of the hello guest, created.
    pub(crate) async fn vm(&self, name: &str) {
        let (status, image) = self
            .json(Method::POST, "/v1/images", roost_guests::HELLO)
            .await;
        assert_eq!(status, StatusCode::CREATED);
        let spec = serde_json::json!({ "name": name, "kernel": image["digest"] });
        let (status, vm) = self.json(Method::POST, "/v1/vms", spec.to_string()).await;
        assert_eq!(status, StatusCode::CREATED, "{vm}");
    }
}

pub(crate) async fn body_of(response: Response<Body>) -> Value {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap_or_default()
}

pub(crate) fn assert_problem(status: StatusCode, problem: &Value) {
    let kind = problem["type"].as_str().unwrap_or_default();
    assert!(kind.starts_with("urn:roost:problem:"), "{problem}");
    assert_eq!(problem["status"], status.as_u16(), "{problem}");
    assert!(
        !problem["detail"].as_str().unwrap_or_default().is_empty(),
        "{problem}"
    );
}
