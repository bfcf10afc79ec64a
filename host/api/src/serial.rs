//! `/v1/vms/{vm}/logs` and `/v1/vms/{vm}/console-input`.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use roost_engine::Engine;
use roost_model::Tenant;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::extract::{Params, read, wait};
use crate::limits::{MAX_INPUT_BYTES, MAX_SERIAL_BYTES};
use crate::problem::Problem;
use crate::vms::Whose;

/// Position of the answer's first byte in all output of the incarnation.
const OFFSET: HeaderName = HeaderName::from_static("roost-offset");
/// State of the VM when the answer was made.
const STATE: HeaderName = HeaderName::from_static("roost-state");
/// The incarnation that the output is of.
const INCARNATION: HeaderName = HeaderName::from_static("roost-incarnation");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Logs {
    tenant: Option<Tenant>,
    #[serde(default)]
    from: u64,
    max: Option<usize>,
    /// How long to wait for output past `from`, if there is none.
    #[serde(default)]
    wait_ms: u64,
}

pub(crate) async fn logs(
    State(engine): State<Engine>,
    Path(vm): Path<String>,
    Params(logs): Params<Logs>,
) -> Result<Response, Problem> {
    let record = engine.find(logs.tenant.as_ref(), &vm)?;
    let max = logs.max.unwrap_or(MAX_SERIAL_BYTES).min(MAX_SERIAL_BYTES);
    if logs.wait_ms > 0 {
        engine
            .serial_wait(record.id, logs.from, wait(logs.wait_ms))
            .await?;
    }
    let chunk = engine.serial_read(record.id, logs.from, max).await?;
    let record = engine.find(logs.tenant.as_ref(), &vm)?;
    let mut response = chunk.bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(OFFSET, chunk.offset.into());
    headers.insert(INCARNATION, record.incarnation.into());
    headers.insert(STATE, HeaderValue::from_static(record.state.name()));
    Ok(response)
}

pub(crate) async fn input(
    State(engine): State<Engine>,
    Path(vm): Path<String>,
    Params(whose): Params<Whose>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let record = engine.find(whose.tenant.as_ref(), &vm)?;
    let bytes = read(request.into_body(), MAX_INPUT_BYTES).await?;
    let accepted = engine.serial_write(record.id, &bytes).await?;
    Ok(Json(json!({ "accepted_bytes": accepted })))
}
