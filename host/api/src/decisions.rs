//! `/v1/decisions` and `/metrics`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use roost_engine::{DecisionFilter, Engine, EngineError, Order};
use roost_model::{DecisionRecord, Tenant};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::extract::{Page, Params};
use crate::plugins::{hook, name};
use crate::problem::Problem;

/// Version of the text format that Prometheus reads.
const METRICS_MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    hook: Option<String>,
    plugin: Option<String>,
    vm: Option<String>,
    tenant: Option<Tenant>,
    differs: Option<bool>,
    after: Option<u64>,
    before: Option<u64>,
    limit: Option<usize>,
    order: Option<Direction>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Direction {
    Oldest,
    Newest,
}

impl Which {
    fn filter(&self, engine: &Engine) -> Result<DecisionFilter, Problem> {
        let vm = match &self.vm {
            None => None,
            Some(text) => crate::records::vm_or_past(engine, self.tenant.as_ref(), text)?,
        };
        Ok(DecisionFilter {
            hook: self.hook.as_deref().map(hook).transpose()?,
            plugin: self.plugin.as_deref().map(name).transpose()?,
            vm,
            tenant: self.tenant.clone(),
            differs: self.differs,
        })
    }

    fn order(&self) -> Result<Order, Problem> {
        match (self.order, self.after, self.before) {
            (Some(Direction::Newest), None, before) => Ok(Order::Newest { before }),
            (None, None, Some(before)) => Ok(Order::Newest {
                before: Some(before),
            }),
            (None | Some(Direction::Oldest), after, None) => Ok(Order::Oldest {
                after: after.unwrap_or_default(),
            }),
            _ => Err(Problem::bad_request(
                "invalid-query",
                "after goes with the oldest first, before with the newest first",
            )),
        }
    }
}

pub(crate) async fn list(
    State(engine): State<Engine>,
    Params(which): Params<Which>,
) -> Result<Json<Value>, Problem> {
    let (filter, order) = (which.filter(&engine)?, which.order()?);
    let limit = Page { limit: which.limit }.items();
    // A page may be many megabytes of JSON to look through.
    let read = move || engine.store().decisions(&filter, order, limit);
    let page = tokio::task::spawn_blocking(read)
        .await
        .map_err(|_| EngineError::ShuttingDown)??;
    let next = page.next.map(|number| number.to_string());
    Ok(Json(json!({ "items": page.items, "next": next })))
}

pub(crate) async fn show(
    State(engine): State<Engine>,
    Path(number): Path<String>,
) -> Result<Json<DecisionRecord>, Problem> {
    let number = number.parse().map_err(|_| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "decision-not-found",
            "decisions have numbers",
        )
    })?;
    Ok(Json(engine.decision(number)?))
}

pub(crate) async fn metrics(State(engine): State<Engine>) -> Result<Response, Problem> {
    let text = engine.metrics().await?;
    Ok(([(header::CONTENT_TYPE, METRICS_MEDIA)], text).into_response())
}
