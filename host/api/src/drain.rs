//! `/v1/drain`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use roost_engine::Engine;
use roost_model::{DrainReport, DrainState};
use serde::Deserialize;

use crate::extract::{Params, wait};
use crate::limits::MAX_DRAIN_DEADLINE_MS;
use crate::problem::Problem;

/// How a node is drained.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Draining {
    /// How long guests may take to end by themselves, ms.
    #[serde(default = "a_minute")]
    deadline_ms: u64,
    /// Whether to wait until no VM runs.
    #[serde(default = "yes")]
    wait: bool,
    #[serde(default = "a_minute")]
    timeout_ms: u64,
}

const fn yes() -> bool {
    true
}

const fn a_minute() -> u64 {
    60_000
}

/// How long to wait until no VM runs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Looking {
    #[serde(default)]
    wait_ms: u64,
}

pub(crate) async fn show(
    State(engine): State<Engine>,
    Params(looking): Params<Looking>,
) -> Result<Json<DrainReport>, Problem> {
    Ok(Json(engine.wait_for_drain(wait(looking.wait_ms)).await?))
}

pub(crate) async fn begin(
    State(engine): State<Engine>,
    Params(draining): Params<Draining>,
) -> Result<Response, Problem> {
    let deadline_ms = draining.deadline_ms;
    if deadline_ms > MAX_DRAIN_DEADLINE_MS {
        let detail = format!("deadline_ms is {deadline_ms}, and at most {MAX_DRAIN_DEADLINE_MS}");
        return Err(Problem::bad_request("invalid-query", detail));
    }
    let mut report = engine.drain(Duration::from_millis(deadline_ms)).await?;
    if draining.wait {
        report = engine.wait_for_drain(wait(draining.timeout_ms)).await?;
    }
    let status = match report.state {
        DrainState::Draining => StatusCode::ACCEPTED,
        DrainState::Drained | DrainState::Off => StatusCode::OK,
    };
    Ok((status, Json(report)).into_response())
}

pub(crate) async fn end(State(engine): State<Engine>) -> Result<Json<DrainReport>, Problem> {
    Ok(Json(engine.end_drain().await?))
}
