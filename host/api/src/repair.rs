//! What is yet to go away, what a person must do, and what does not agree.

use std::str::FromStr;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use roost_engine::Engine;
use roost_model::{ActionRequired, AuditReport, CleanupTask, Incident, InvalidId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::extract::JsonBody;
use crate::problem::Problem;

/// An id in a path. What is no id names nothing.
fn id<T: FromStr<Err = InvalidId>>(text: &str, kind: &'static str) -> Result<T, Problem> {
    text.parse()
        .map_err(|error: InvalidId| Problem::new(StatusCode::NOT_FOUND, kind, error.to_string()))
}

const NO_TASK: &str = "cleanup-not-found";
const NO_ACTION: &str = "action-not-found";
const NO_INCIDENT: &str = "incident-not-found";

pub(crate) async fn cleanup_tasks(State(engine): State<Engine>) -> Result<Json<Value>, Problem> {
    let items = engine.store().cleanup_tasks()?;
    Ok(Json(json!({ "items": items, "next": null })))
}

pub(crate) async fn cleanup_task(
    State(engine): State<Engine>,
    Path(task): Path<String>,
) -> Result<Json<CleanupTask>, Problem> {
    Ok(Json(engine.cleanup_task(id(&task, NO_TASK)?)?))
}

pub(crate) async fn retry_cleanup(
    State(engine): State<Engine>,
    Path(task): Path<String>,
) -> Result<Json<CleanupTask>, Problem> {
    Ok(Json(engine.retry_cleanup(id(&task, NO_TASK)?).await?))
}

pub(crate) async fn actions(State(engine): State<Engine>) -> Result<Json<Value>, Problem> {
    let items = engine.store().actions_required()?;
    Ok(Json(json!({ "items": items, "next": null })))
}

pub(crate) async fn action(
    State(engine): State<Engine>,
    Path(action): Path<String>,
) -> Result<Json<ActionRequired>, Problem> {
    Ok(Json(engine.action(id(&action, NO_ACTION)?)?))
}

pub(crate) async fn retry_action(
    State(engine): State<Engine>,
    Path(action): Path<String>,
) -> Result<Json<CleanupTask>, Problem> {
    Ok(Json(engine.retry_action(id(&action, NO_ACTION)?).await?))
}

/// What a person says about what was done.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    note: String,
}

pub(crate) async fn resolve_action(
    State(engine): State<Engine>,
    Path(action): Path<String>,
    JsonBody(Note { note }): JsonBody<Note>,
) -> Result<Json<ActionRequired>, Problem> {
    let action = id(&action, NO_ACTION)?;
    Ok(Json(engine.resolve_action(action, note).await?))
}

pub(crate) async fn incident(
    State(engine): State<Engine>,
    Path(incident): Path<String>,
) -> Result<Json<Incident>, Problem> {
    Ok(Json(engine.incident(id(&incident, NO_INCIDENT)?)?))
}

/// Looks, and changes nothing.
pub(crate) async fn audit(State(engine): State<Engine>) -> Result<Json<AuditReport>, Problem> {
    Ok(Json(engine.audit(false).await?))
}

pub(crate) async fn audit_and_repair(
    State(engine): State<Engine>,
) -> Result<Json<AuditReport>, Problem> {
    Ok(Json(engine.audit(true).await?))
}
