//! `/v1/images`.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use roost_engine::{Engine, EngineError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::extract::{Params, Pieces};
use crate::limits::MAX_IMAGE_BYTES;
use crate::problem::Problem;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upload {
    tag: Option<String>,
}

pub(crate) async fn list(State(engine): State<Engine>) -> Result<Json<Value>, Problem> {
    Ok(Json(
        json!({ "items": engine.store().images()?, "next": null }),
    ))
}

pub(crate) async fn upload(
    State(engine): State<Engine>,
    Params(upload): Params<Upload>,
    request: Request,
) -> Result<Response, Problem> {
    let mut pieces = Pieces::new(request.into_body());
    let mut writer = engine.blobs().create(MAX_IMAGE_BYTES)?;
    while let Some(piece) = pieces.next().await? {
        let written = tokio::task::spawn_blocking(move || {
            writer.write(&piece)?;
            Ok::<_, EngineError>(writer)
        });
        writer = written.await.map_err(|_| EngineError::ShuttingDown)??;
    }
    let image = engine.add_image(writer, upload.tag).await?;
    Ok((StatusCode::CREATED, Json(image)).into_response())
}
