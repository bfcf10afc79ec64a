//! Reading requests, with a problem document for what can't be read.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::limits;
use crate::problem::Problem;

/// The query, every parameter of which is known.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => Err(Problem::bad_request("invalid-query", error.body_text())),
        }
    }
}

/// A JSON body, every field of which is known.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let body = read(request.into_body(), limits::MAX_JSON_BYTES).await?;
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|error| Problem::bad_request("invalid-json", error.to_string()))
    }
}

/// A whole body of at most `limit` bytes.
pub(crate) async fn read(body: Body, limit: usize) -> Result<Bytes, Problem> {
    let mut pieces = Pieces::new(body);
    let mut whole = Vec::new();
    while let Some(piece) = pieces.next().await? {
        if whole.len() + piece.len() > limit {
            return Err(too_large(limit as u64));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.into())
}

pub(crate) fn too_large(limit: u64) -> Problem {
    let detail = format!("the body is larger than {limit} bytes, which is the limit");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail)
}

/// A body piece by piece; a client that stops sending is not waited for.
pub(crate) struct Pieces(axum::body::BodyDataStream);

impl Pieces {
    pub(crate) fn new(body: Body) -> Self {
        Self(body.into_data_stream())
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        match tokio::time::timeout(limits::BODY_TIMEOUT, self.0.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(Some(Err(error))) => Err(Problem::bad_request("broken-body", error.to_string())),
            Err(_) => Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "slow-body",
                format!("nothing of the body came for {:?}", limits::BODY_TIMEOUT),
            )),
        }
    }
}

/// How many items an answer is to have, and where it starts.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    pub(crate) limit: Option<usize>,
}

impl Page {
    pub(crate) fn items(&self) -> usize {
        self.limit
            .unwrap_or(limits::DEFAULT_ITEMS)
            .min(limits::MAX_ITEMS)
    }
}

/// A wait in ms, bounded.
pub(crate) fn wait(ms: u64) -> Duration {
    Duration::from_millis(ms).min(limits::MAX_WAIT)
}
