//! `/v1/vms`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use roost_engine::Engine;
use roost_model::{Button, Control, DeviceReport, Grace, Tenant, Verb, VmRecord, VmSpec};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::extract::{JsonBody, Params, wait};
use crate::operations;
use crate::problem::Problem;

/// Whose VM is meant. Another tenant's is as if there were none.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Whose {
    pub(crate) tenant: Option<Tenant>,
}

/// A VM as it is shown: without the secret of its worker.
pub(crate) fn shown(mut record: VmRecord) -> VmRecord {
    if let Some(worker) = &mut record.worker {
        worker.nonce.clear();
    }
    record
}

pub(crate) async fn list(
    State(engine): State<Engine>,
    Params(whose): Params<Whose>,
) -> Result<Json<Value>, Problem> {
    let records: Vec<VmRecord> = engine
        .store()
        .vms()?
        .into_iter()
        .filter(|record| {
            whose
                .tenant
                .as_ref()
                .is_none_or(|t| record.spec.tenant == *t)
        })
        .map(shown)
        .collect();
    Ok(Json(json!({ "items": records, "next": null })))
}

pub(crate) async fn create(
    State(engine): State<Engine>,
    JsonBody(spec): JsonBody<VmSpec>,
) -> Result<Response, Problem> {
    let record = engine.create(spec).await?;
    Ok((StatusCode::CREATED, Json(shown(record))).into_response())
}

pub(crate) async fn show(
    State(engine): State<Engine>,
    Path(vm): Path<String>,
    Params(whose): Params<Whose>,
) -> Result<Json<VmRecord>, Problem> {
    Ok(Json(shown(engine.find(whose.tenant.as_ref(), &vm)?)))
}

/// How a verb is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asking {
    tenant: Option<Tenant>,
    /// Whether to wait at all.
    #[serde(default = "yes")]
    wait: bool,
    #[serde(default = "operations::a_minute")]
    timeout_ms: u64,
    /// Given: a guest that is to end is told to by a button and may take so long, ms.
    deadline_ms: Option<u64>,
    /// Which button.
    #[serde(default)]
    button: Button,
}

const fn yes() -> bool {
    true
}

pub(crate) async fn verb(
    State(engine): State<Engine>,
    Path((vm, verb)): Path<(String, String)>,
    Params(asking): Params<Asking>,
) -> Result<Response, Problem> {
    let verb = Verb::ALL.into_iter().find(|known| known.name() == verb);
    let Some(verb) = verb.filter(|verb| *verb != Verb::Create) else {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "no-such-verb",
            "there is no such verb; there are boot, shutdown, pause, resume, reboot, delete",
        ));
    };
    submit(&engine, &vm, verb, &asking).await
}

pub(crate) async fn delete(
    State(engine): State<Engine>,
    Path(vm): Path<String>,
    Params(asking): Params<Asking>,
) -> Result<Response, Problem> {
    submit(&engine, &vm, Verb::Delete, &asking).await
}

async fn submit(
    engine: &Engine,
    vm: &str,
    verb: Verb,
    asking: &Asking,
) -> Result<Response, Problem> {
    let record = engine.find(asking.tenant.as_ref(), vm)?;
    let grace = asking.deadline_ms.map(|deadline_ms| Grace {
        button: asking.button,
        deadline_ms,
    });
    let operation = engine.submit(record.id, verb, grace).await?;
    let operation = if asking.wait {
        engine.wait(operation.id, wait(asking.timeout_ms)).await?
    } else {
        operation
    };
    Ok(operations::answer(&operation))
}

pub(crate) async fn control(
    State(engine): State<Engine>,
    Path(vm): Path<String>,
    Params(whose): Params<Whose>,
    JsonBody(control): JsonBody<Control>,
) -> Result<Json<Control>, Problem> {
    let record = engine.find(whose.tenant.as_ref(), &vm)?;
    engine.control(record.id, control.clone()).await?;
    Ok(Json(control))
}

pub(crate) async fn devices(
    State(engine): State<Engine>,
    Path(vm): Path<String>,
    Params(whose): Params<Whose>,
) -> Result<Json<DeviceReport>, Problem> {
    let record = engine.find(whose.tenant.as_ref(), &vm)?;
    Ok(Json(engine.devices(record.id).await?))
}
