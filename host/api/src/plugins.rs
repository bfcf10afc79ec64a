//! `/v1/plugins`.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use roost_engine::{Candidate, Engine, EngineError, PluginReport, Push, Replay, ReplayReport};
use roost_model::{Grant, Hook, Name, Plugin};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::extract::{Page, Params, read};
use crate::limits::{COMPONENT_PIECE_BYTES, MAX_COMPONENT_BYTES};
use crate::problem::Problem;

pub(crate) fn name(text: &str) -> Result<Name, Problem> {
    Ok(text.parse().map_err(EngineError::from)?)
}

pub(crate) fn hook(text: &str) -> Result<Hook, Problem> {
    text.parse().map_err(|error: roost_model::UnknownHook| {
        Problem::bad_request("no-such-hook", error.to_string())
    })
}

/// Names with commas. Empty: none.
fn grants(text: &str) -> Result<BTreeSet<Grant>, Problem> {
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    names
        .map(|name| {
            name.parse().map_err(|error: roost_model::UnknownGrant| {
                Problem::bad_request("no-such-grant", error.to_string())
            })
        })
        .collect()
}

pub(crate) async fn list(State(engine): State<Engine>) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "items": engine.plugins()?, "next": null })))
}

pub(crate) async fn show(
    State(engine): State<Engine>,
    Path(plugin): Path<String>,
) -> Result<Json<PluginReport>, Problem> {
    Ok(Json(engine.show_plugin(&name(&plugin)?)?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PushParams {
    /// JSON; `{}` if absent.
    #[serde(default)]
    settings: String,
    /// With commas; `log` if absent.
    grants: Option<String>,
}

pub(crate) async fn push(
    State(engine): State<Engine>,
    Path(plugin): Path<String>,
    Params(push): Params<PushParams>,
    request: Request,
) -> Result<Response, Problem> {
    let name = name(&plugin)?;
    let grants = push.grants.as_deref().map(grants).transpose()?;
    let component = read(request.into_body(), MAX_COMPONENT_BYTES).await?;
    let push = Push {
        name,
        component: component.into(),
        settings: push.settings,
        grants,
    };
    // A client that goes away does not leave a revision half checked.
    let pushed = tokio::spawn(async move { engine.push_plugin(push).await });
    let revision = pushed.await.map_err(|_| EngineError::ShuttingDown)??;
    Ok((StatusCode::CREATED, Json(revision)).into_response())
}

pub(crate) async fn component(
    State(engine): State<Engine>,
    Path((plugin, revision)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let number = revision.parse().map_err(|_| {
        Problem::bad_request(
            "invalid-revision",
            format!("{:?} is not a number", short(&revision)),
        )
    })?;
    let file = engine.component(&name(&plugin)?, number)?;
    let file = tokio::fs::File::from_std(file);
    let pieces = futures_util::stream::try_unfold(file, |mut file| async move {
        let mut piece = Vec::with_capacity(COMPONENT_PIECE_BYTES);
        let taken = (&mut file)
            .take(COMPONENT_PIECE_BYTES as u64)
            .read_to_end(&mut piece)
            .await?;
        Ok::<_, std::io::Error>((taken > 0).then_some((piece, file)))
    });
    let mut response = Body::from_stream(pieces).into_response();
    let media = HeaderValue::from_static("application/wasm");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    Ok(response)
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Which revision.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// The newest usable one if absent.
    revision: Option<u64>,
}

pub(crate) async fn activate(
    State(engine): State<Engine>,
    Path(plugin): Path<String>,
    Params(which): Params<Which>,
) -> Result<Json<Plugin>, Problem> {
    let name = name(&plugin)?;
    let changed = tokio::spawn(async move { engine.activate_plugin(&name, which.revision).await });
    Ok(Json(changed.await.map_err(|_| EngineError::ShuttingDown)??))
}

pub(crate) async fn rollback(
    State(engine): State<Engine>,
    Path(plugin): Path<String>,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Json<Plugin>, Problem> {
    let name = name(&plugin)?;
    let changed = tokio::spawn(async move { engine.roll_back_plugin(&name).await });
    Ok(Json(changed.await.map_err(|_| EngineError::ShuttingDown)??))
}

/// No parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoParams {}

pub(crate) async fn shadow(
    State(engine): State<Engine>,
    Path(plugin): Path<String>,
    Params(which): Params<Which>,
) -> Result<Json<Plugin>, Problem> {
    let name = name(&plugin)?;
    let changed = tokio::spawn(async move { engine.shadow_plugin(&name, which.revision).await });
    Ok(Json(changed.await.map_err(|_| EngineError::ShuttingDown)??))
}

pub(crate) async fn unshadow(
    State(engine): State<Engine>,
    Path(plugin): Path<String>,
) -> Result<StatusCode, Problem> {
    let name = name(&plugin)?;
    let changed = tokio::spawn(async move { engine.unshadow_plugin(&name).await });
    changed.await.map_err(|_| EngineError::ShuttingDown)??;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn readmit(
    State(engine): State<Engine>,
    Path(plugin): Path<String>,
) -> Result<Json<Plugin>, Problem> {
    Ok(Json(engine.readmit_plugin(&name(&plugin)?)?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplayParams {
    /// The newest usable one if absent and the body is empty.
    revision: Option<u64>,
    /// Every hook that the candidate exports if absent.
    hook: Option<String>,
    limit: Option<usize>,
    /// Of the component in the body.
    #[serde(default)]
    settings: String,
    /// Of the component in the body.
    grants: Option<String>,
}

pub(crate) async fn replay(
    State(engine): State<Engine>,
    Path(plugin): Path<String>,
    Params(params): Params<ReplayParams>,
    request: Request,
) -> Result<Json<ReplayReport>, Problem> {
    let plugin = name(&plugin)?;
    let hook = params.hook.as_deref().map(hook).transpose()?;
    let grants = params.grants.as_deref().map(grants).transpose()?;
    let body = read(request.into_body(), MAX_COMPONENT_BYTES).await?;
    let candidate = if body.is_empty() {
        Candidate::Revision(params.revision)
    } else if params.revision.is_some() {
        return Err(Problem::bad_request(
            "ambiguous-candidate",
            "either a revision is asked or the component in the body, not both",
        ));
    } else {
        Candidate::Component {
            bytes: body.into(),
            settings: params.settings,
            grants,
        }
    };
    let replay = Replay {
        plugin,
        candidate,
        hook,
        limit: params.limit,
    };
    Ok(Json(engine.replay(replay).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Logs {
    /// The number of the last line that the client has.
    #[serde(default)]
    after: u64,
    limit: Option<usize>,
}

pub(crate) async fn logs(
    State(engine): State<Engine>,
    Path(plugin): Path<String>,
    Params(logs): Params<Logs>,
) -> Result<Json<Value>, Problem> {
    let limit = Page { limit: logs.limit }.items();
    let items = engine.plugin_logs(&name(&plugin)?, logs.after, limit)?;
    let next = items.last().map(|line| line.number.to_string());
    Ok(Json(json!({ "items": items, "next": next })))
}
