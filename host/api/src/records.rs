//! What the host has written down: usage, incidents, events; and how it is.

use std::convert::Infallible;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use roost_engine::{Engine, EngineError};
use roost_model::{Event, Tenant, VmId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::extract::{Page, Params};
use crate::limits;
use crate::problem::Problem;

pub(crate) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

pub(crate) async fn ready(State(engine): State<Engine>) -> Response {
    let checks = engine.ready().await;
    let ok = checks.iter().all(|check| check.ok);
    let checks: Vec<Value> = checks
        .iter()
        .map(|check| json!({ "name": check.name, "ok": check.ok, "detail": check.detail }))
        .collect();
    let status = if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(json!({ "ready": ok, "checks": checks }))).into_response()
}

/// Of which VM, and how many.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Of {
    vm: Option<String>,
    tenant: Option<Tenant>,
    limit: Option<usize>,
}

impl Of {
    pub(crate) fn items(&self) -> usize {
        Page { limit: self.limit }.items()
    }

    /// The VM that is meant. A deleted one can still be named by its id.
    pub(crate) fn vm(&self, engine: &Engine) -> Result<Option<VmId>, Problem> {
        match &self.vm {
            None => Ok(None),
            Some(text) => vm_or_past(engine, self.tenant.as_ref(), text),
        }
    }
}

/// The VM that is meant by name or id. A deleted one can still be named by its id.
pub(crate) fn vm_or_past(
    engine: &Engine,
    tenant: Option<&Tenant>,
    text: &str,
) -> Result<Option<VmId>, Problem> {
    match (engine.find(tenant, text), text.parse::<VmId>()) {
        (Ok(record), _) => Ok(Some(record.id)),
        (Err(EngineError::VmNotFound(_)), Ok(id)) if tenant.is_none() => Ok(Some(id)),
        (Err(error), _) => Err(error.into()),
    }
}

pub(crate) async fn usage(
    State(engine): State<Engine>,
    Params(of): Params<Of>,
) -> Result<Json<Value>, Problem> {
    let vm = of.vm(&engine)?;
    let store = engine.store();
    Ok(Json(json!({
        "windows": store.windows(vm, of.items())?,
        "charges": store.charges(vm, of.items())?,
    })))
}

pub(crate) async fn incidents(
    State(engine): State<Engine>,
    Params(of): Params<Of>,
) -> Result<Json<Value>, Problem> {
    let items = engine.store().incidents(of.vm(&engine)?, of.items())?;
    Ok(Json(json!({ "items": items, "next": null })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct After {
    /// The number of the last event that the client has.
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

/// Events as JSON, or, to a client that accepts `text/event-stream`, as they come.
pub(crate) async fn events(
    State(engine): State<Engine>,
    Params(after): Params<After>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let accepts = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    if accepts.is_some_and(|accepts| accepts.contains("text/event-stream")) {
        let last = headers
            .get("last-event-id")
            .and_then(|value| value.to_str().ok()?.parse().ok());
        return Ok(follow(engine, last.unwrap_or(after.after)).into_response());
    }
    let items = engine
        .store()
        .events(after.after, Page { limit: after.limit }.items())?;
    let next = items.last().map(|event| event.number.to_string());
    Ok(Json(json!({ "items": items, "next": next })).into_response())
}

/// Events after number `after`, and then each as it is written.
fn follow(
    engine: Engine,
    after: u64,
) -> Sse<impl futures_util::Stream<Item = Result<sse::Event, Infallible>>> {
    let watch = engine.store().watch_events();
    let pending = Vec::<Event>::new().into_iter();
    let stream = stream::unfold((engine, watch, after, pending), |state| async move {
        let (engine, mut watch, mut after, mut pending) = state;
        loop {
            if let Some(event) = pending.next() {
                after = event.number;
                let text = serde_json::to_string(&event).unwrap_or_default();
                let item = sse::Event::default()
                    .id(event.number.to_string())
                    .data(text);
                return Some((Ok(item), (engine, watch, after, pending)));
            }
            watch.borrow_and_update();
            let events = engine.store().events(after, limits::DEFAULT_ITEMS).ok()?;
            if events.is_empty() {
                watch.changed().await.ok()?;
            }
            pending = events.into_iter();
        }
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}
