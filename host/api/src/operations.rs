//! `/v1/operations`: verbs that wait, are under way, or are done.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use roost_engine::{Engine, EngineError};
use roost_model::{InvalidId, Operation, OperationId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::extract::{Params, wait};
use crate::problem::Problem;
use crate::records::Of;

/// An operation as it is shown: with what it is doing.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    operation: &'a Operation,
    /// In words, unless it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    doing: Option<&'static str>,
    /// Since when, ms since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    doing_since_ms: Option<u64>,
}

impl<'a> From<&'a Operation> for Shown<'a> {
    fn from(operation: &'a Operation) -> Self {
        let doing = operation.doing();
        Self {
            operation,
            doing: doing.map(|doing| doing.what),
            doing_since_ms: doing.map(|doing| doing.since_ms),
        }
    }
}

/// What a request that makes or changes an operation is answered: 202 while it goes on.
pub(crate) fn answer(operation: &Operation) -> Response {
    let status = if operation.is_done() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    (status, Json(Shown::from(operation))).into_response()
}

pub(crate) const fn a_minute() -> u64 {
    60_000
}

/// Whether, and how long, to wait for an operation's end.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Waiting {
    #[serde(default)]
    wait: bool,
    #[serde(default = "a_minute")]
    timeout_ms: u64,
}

/// How long to wait for the end of an operation that is cancelled.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cancelling {
    #[serde(default = "a_minute")]
    timeout_ms: u64,
}

fn id(operation: &str) -> Result<OperationId, Problem> {
    operation.parse().map_err(|error: InvalidId| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "operation-not-found",
            error.to_string(),
        )
    })
}

pub(crate) async fn list(
    State(engine): State<Engine>,
    Params(of): Params<Of>,
) -> Result<Json<Value>, Problem> {
    let items = engine.store().operations(of.vm(&engine)?, of.items())?;
    let items: Vec<Shown<'_>> = items.iter().map(Shown::from).collect();
    Ok(Json(json!({ "items": items, "next": null })))
}

pub(crate) async fn show(
    State(engine): State<Engine>,
    Path(operation): Path<String>,
    Params(waiting): Params<Waiting>,
) -> Result<Response, Problem> {
    let id = id(&operation)?;
    let operation = if waiting.wait {
        engine.wait(id, wait(waiting.timeout_ms)).await?
    } else {
        let found = engine.store().operation(id)?;
        found.ok_or(EngineError::OperationNotFound(id))?
    };
    Ok(Json(Shown::from(&operation)).into_response())
}

pub(crate) async fn cancel(
    State(engine): State<Engine>,
    Path(operation): Path<String>,
    Params(cancelling): Params<Cancelling>,
) -> Result<Response, Problem> {
    let timeout = wait(cancelling.timeout_ms);
    Ok(answer(&engine.cancel(id(&operation)?, timeout).await?))
}
