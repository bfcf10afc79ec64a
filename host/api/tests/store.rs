//! Backups over the API.

mod api;

use api::{Api, assert_problem};
use axum::body::Body;
use axum::http::{Method, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use roost_engine::Store;

async fn backup(api: &Api) -> Response<Body> {
    api.send(Method::GET, "/v1/store/backup", Body::empty())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_a_store_that_holds_what_the_hosts_does() {
    let api = Api::start().await;
    api.vm("web").await;
    let response = backup(&api).await;
    assert_eq!(response.status(), StatusCode::OK);
    let length = response.headers()[header::CONTENT_LENGTH].clone();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(length.to_str().unwrap(), body.len().to_string());
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("roost.redb"), body).unwrap();
    let copy = Store::open(dir.path()).unwrap();
    let store = api.engine.store();
    assert_eq!(copy.vms().unwrap(), store.vms().unwrap());
    assert_eq!(copy.vms().unwrap().len(), 1);
    assert_eq!(copy.plugins().unwrap(), store.plugins().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_take_turns_and_one_that_nobody_reads_any_more_gives_up_its_turn() {
    let api = Api::start().await;
    // One piece waits to be taken and one is in the host's hand; there are more.
    let first = backup(&api).await;
    let length = first.headers()[header::CONTENT_LENGTH].to_str().unwrap();
    assert!(length.parse::<u64>().unwrap() > 64 << 10, "{length}");
    let (status, problem) = api
        .json(Method::GET, "/v1/store/backup", Body::empty())
        .await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_problem(status, &problem);
    assert_eq!(problem["type"], "urn:roost:problem:backup-busy");
    drop(first);
    let next = async {
        while backup(&api).await.status() != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(60);
    tokio::time::timeout(patience, next).await.unwrap();
}
