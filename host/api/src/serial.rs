//! `/v1/vms/{vm}/logs`, `/v1/vms/{vm}/console-input` and `/v1/vms/{vm}/console-size`: the serial port,
//! or with `?port=` a port of the virtio console.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use roost_engine::{ConsoleSize, Engine};
use roost_model::Tenant;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::extract::{JsonBody, Params, read, wait};
use crate::limits::{MAX_INPUT_BYTES, MAX_SERIAL_BYTES};
use crate::problem::Problem;

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
    /// Of the console, by index or name. Absent: the serial port.
    port: Option<String>,
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
    let (id, from) = (record.id, logs.from);
    if logs.wait_ms > 0 {
        let timeout = wait(logs.wait_ms);
        match &logs.port {
            None => engine.serial_wait(id, from, timeout).await.map(drop)?,
            Some(port) => engine.console_wait(id, port, from, timeout).await?,
        }
    }
    let chunk = match &logs.port {
        None => engine.serial_read(id, from, max).await?,
        Some(port) => engine.console_read(id, port, from, max).await?,
    };
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

/// Which port of whose VM.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Port {
    tenant: Option<Tenant>,
    /// See [`Logs`].
    port: Option<String>,
}

pub(crate) async fn input(
    State(engine): State<Engine>,
    Path(vm): Path<String>,
    Params(Port { tenant, port }): Params<Port>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let record = engine.find(tenant.as_ref(), &vm)?;
    let bytes = read(request.into_body(), MAX_INPUT_BYTES).await?;
    let accepted = match port {
        None => engine.serial_write(record.id, &bytes).await?,
        Some(port) => engine.console_write(record.id, &port, &bytes).await?,
    };
    Ok(Json(json!({ "accepted_bytes": accepted })))
}

/// A terminal's size. The serial port has none, so the port is the console's terminal if absent.
pub(crate) async fn resize(
    State(engine): State<Engine>,
    Path(vm): Path<String>,
    Params(Port { tenant, port }): Params<Port>,
    JsonBody(size): JsonBody<ConsoleSize>,
) -> Result<Json<ConsoleSize>, Problem> {
    let record = engine.find(tenant.as_ref(), &vm)?;
    let port = port.as_deref().unwrap_or("0");
    engine.console_resize(record.id, port, size).await?;
    Ok(Json(size))
}
