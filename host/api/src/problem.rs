//! Errors as problem documents (RFC 9457).

use std::io::ErrorKind;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use roost_engine::{BlobError, CommitError, ControlError, EngineError, ReadError};
use roost_model::{NotCancellable, Refusal};
use serde_json::{Map, Value, json};

/// An error answer.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    /// The last part of `type`: stable, for programs.
    kind: &'static str,
    /// One sentence for a person.
    detail: String,
    /// Facts beyond the standard members.
    facts: Map<String, Value>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            detail: detail.into(),
            facts: Map::new(),
        }
    }

    pub(crate) fn bad_request(kind: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, kind, detail)
    }

    pub(crate) fn with(mut self, facts: &Value) -> Self {
        if let Value::Object(facts) = facts {
            self.facts.extend(facts.clone());
        }
        self
    }
}

impl Problem {
    /// The whole answer as it is sent, for a connection that nobody serves.
    pub(crate) fn into_http(self) -> String {
        let status = self.status;
        let body = Value::Object(self.document()).to_string();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            body.len()
        )
    }

    fn document(self) -> Map<String, Value> {
        let mut body = self.facts;
        body.insert(
            "type".to_owned(),
            format!("urn:roost:problem:{}", self.kind).into(),
        );
        let title = self.status.canonical_reason().unwrap_or("Error");
        body.insert("title".to_owned(), title.into());
        body.insert("status".to_owned(), self.status.as_u16().into());
        body.insert("detail".to_owned(), self.detail.into());
        body
    }
}

/// What a problem document is (RFC 9457, section 3).
const MEDIA_TYPE: &str = "application/problem+json";

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(Value::Object(self.document()))).into_response();
        let media = HeaderValue::from_static(MEDIA_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, media);
        response
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        let status = match &error {
            error if error.is_no_descriptors() => StatusCode::SERVICE_UNAVAILABLE,
            EngineError::VmNotFound(_)
            | EngineError::OperationNotFound(_)
            | EngineError::PluginNotFound(_)
            | EngineError::RevisionNotFound { .. }
            | EngineError::ComponentNotKept { .. }
            | EngineError::DecisionNotFound(_)
            | EngineError::ActionNotFound(_)
            | EngineError::CleanupNotFound(_)
            | EngineError::IncidentNotFound(_)
            | EngineError::BindingNotFound { .. } => StatusCode::NOT_FOUND,
            EngineError::Spec(_)
            | EngineError::ImageNotFound(_)
            | EngineError::Kernel { .. }
            | EngineError::Initrd { .. }
            | EngineError::DiskImage { .. }
            | EngineError::Tag(_)
            | EngineError::Component(_)
            | EngineError::Settings(_)
            | EngineError::Refused { .. }
            | EngineError::Note { .. }
            | EngineError::NotExported { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            EngineError::NameTaken { .. }
            | EngineError::MacTaken { .. }
            | EngineError::Refusal(Refusal::Illegal { .. } | Refusal::Deleting { .. })
            | EngineError::NotCancellable(_)
            | EngineError::NotRunning { .. }
            | EngineError::NotActive(_)
            | EngineError::NotACleanup(_)
            | EngineError::RevisionNotUsable { .. }
            | EngineError::NothingUsable(_)
            | EngineError::HookBound { .. }
            | EngineError::NothingToRollBack(_) => StatusCode::CONFLICT,
            EngineError::Worker(ControlError::NoPort { ports, .. }) if !ports.is_empty() => {
                StatusCode::NOT_FOUND
            }
            EngineError::Worker(
                ControlError::NoPort { .. }
                | ControlError::NotATerminal(_)
                | ControlError::Unsupported { .. },
            ) => StatusCode::CONFLICT,
            EngineError::Denied { .. } => StatusCode::FORBIDDEN,
            EngineError::Capacity(_) => StatusCode::INSUFFICIENT_STORAGE,
            EngineError::Refusal(Refusal::Full { .. }) | EngineError::ReplayBusy => {
                StatusCode::TOO_MANY_REQUESTS
            }
            EngineError::Blob(BlobError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            EngineError::Blob(BlobError::Io { source, .. })
                if source.kind() == ErrorKind::StorageFull =>
            {
                StatusCode::INSUFFICIENT_STORAGE
            }
            EngineError::Commit(_)
            | EngineError::Descriptors(_)
            | EngineError::Draining
            | EngineError::ShuttingDown
            | EngineError::Contended => StatusCode::SERVICE_UNAVAILABLE,
            EngineError::Device(_)
            | EngineError::Worker(_)
            | EngineError::Read(_)
            | EngineError::Blob(_)
            | EngineError::Metrics(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let problem = Self::new(status, error.kind(), error.to_string());
        match &error {
            EngineError::Refusal(Refusal::Illegal { illegal, after }) => problem
                .with(&json!({
                    "state": illegal.state,
                    "verb": illegal.verb,
                    "legal": illegal.legal,
                }))
                .with(&after.map_or(Value::Null, |after| json!({ "after": after }))),
            EngineError::Refusal(Refusal::Full { waiting }) => {
                problem.with(&json!({ "waiting": waiting }))
            }
            EngineError::Refusal(Refusal::Deleting { operation }) => {
                problem.with(&json!({ "operation": operation }))
            }
            EngineError::NotCancellable(NotCancellable::Over(status)) => {
                problem.with(&json!({ "operation_status": status }))
            }
            EngineError::NameTaken { by, .. } => problem.with(&json!({ "vm": by })),
            EngineError::Capacity(exceeded) => problem.with(&json!({
                "limit": exceeded.limit.to_string(),
                "most": exceeded.most,
                "in_use": exceeded.in_use,
                "requested": exceeded.requested,
            })),
            EngineError::Descriptors(refused) => problem.with(&json!({
                "limit": "open-files",
                "most": refused.most,
                "in_use": refused.in_use,
                "requested": refused.requested,
            })),
            EngineError::Worker(ControlError::NoPort { ports, .. }) => {
                problem.with(&json!({ "ports": ports }))
            }
            EngineError::Denied { by, reason } => {
                problem.with(&json!({ "decided_by": by, "reason": reason }))
            }
            EngineError::Refused { revision, .. } => problem.with(&json!({ "revision": revision })),
            EngineError::Commit(CommitError::ReadOnly { reason }) => {
                problem.with(&json!({ "reason": reason }))
            }
            EngineError::RevisionNotUsable {
                revision, state, ..
            } => problem.with(&json!({ "revision": revision, "state": state })),
            EngineError::HookBound { revision, hook, .. } => {
                problem.with(&json!({ "revision": revision, "hook": hook }))
            }
            _ => problem,
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        EngineError::from(error).into()
    }
}

impl From<BlobError> for Problem {
    fn from(error: BlobError) -> Self {
        EngineError::from(error).into()
    }
}
