//! `/v1/bindings`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use roost_engine::{Engine, EngineError};
use roost_model::Binding;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::extract::{JsonBody, Params};
use crate::plugins::{hook, name};
use crate::problem::Problem;

/// Of which hook and plugin.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Of {
    hook: Option<String>,
    plugin: Option<String>,
}

pub(crate) async fn list(
    State(engine): State<Engine>,
    Params(of): Params<Of>,
) -> Result<Json<Value>, Problem> {
    let hook = of.hook.as_deref().map(hook).transpose()?;
    let plugin = of.plugin.as_deref().map(name).transpose()?;
    let mut items = engine.store().bindings()?;
    items.retain(|binding| {
        hook.is_none_or(|hook| binding.hook == hook)
            && plugin
                .as_ref()
                .is_none_or(|plugin| binding.plugin == *plugin)
    });
    Ok(Json(json!({ "items": items, "next": null })))
}

pub(crate) async fn show(
    State(engine): State<Engine>,
    Path((of_hook, plugin)): Path<(String, String)>,
) -> Result<Json<Binding>, Problem> {
    let (hook, plugin) = (hook(&of_hook)?, name(&plugin)?);
    let found = engine.store().binding(hook, &plugin)?;
    Ok(Json(
        found.ok_or(EngineError::BindingNotFound { plugin, hook })?,
    ))
}

pub(crate) async fn bind(
    State(engine): State<Engine>,
    JsonBody(binding): JsonBody<Binding>,
) -> Result<Json<Binding>, Problem> {
    let bound = tokio::spawn(async move { engine.bind(binding).await });
    Ok(Json(bound.await.map_err(|_| EngineError::ShuttingDown)??))
}

pub(crate) async fn unbind(
    State(engine): State<Engine>,
    Path((of_hook, plugin)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (hook, plugin) = (hook(&of_hook)?, name(&plugin)?);
    let unbound = tokio::spawn(async move { engine.unbind(hook, &plugin).await });
    unbound.await.map_err(|_| EngineError::ShuttingDown)??;
    Ok(StatusCode::NO_CONTENT)
}
