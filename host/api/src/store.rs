//! `/v1/store`.

use std::io::{self, Read as _};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use roost_engine::{Backup, BackupError, Engine, EngineError};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::limits::{BACKUP_PIECE_BYTES, BODY_TIMEOUT};
use crate::problem::Problem;

type Piece = io::Result<Vec<u8>>;

/// The records of one moment, as a database file.
pub(crate) async fn backup(State(engine): State<Engine>) -> Result<Response, Problem> {
    let store = engine.store().clone();
    let made = spawn_blocking(move || store.back_up()).await;
    let backup = made.map_err(|_| EngineError::ShuttingDown)??;
    let length = backup.size_bytes();
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(send(backup, sender));
    let pieces = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let mut response = Body::from_stream(pieces).into_response();
    let headers = response.headers_mut();
    let media = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, media);
    headers.insert(header::CONTENT_LENGTH, length.into());
    Ok(response)
}

/// Sends a backup piece by piece. A client that takes none for a while does not hold its place on
/// the disk any longer, nor the turn of the next one: its answer breaks off.
async fn send(mut backup: Backup, sender: mpsc::Sender<Piece>) {
    loop {
        let read = spawn_blocking(move || {
            let mut piece = Vec::with_capacity(BACKUP_PIECE_BYTES);
            let mut rest = backup.file().take(BACKUP_PIECE_BYTES as u64);
            let read = rest.read_to_end(&mut piece);
            (backup, read.map(|_| piece))
        });
        let Ok((same, piece)) = read.await else {
            return;
        };
        backup = same;
        let goes_on = piece.is_ok();
        if matches!(&piece, Ok(piece) if piece.is_empty()) {
            return;
        }
        let sent = timeout(BODY_TIMEOUT, sender.send(piece)).await;
        if !matches!(sent, Ok(Ok(()))) || !goes_on {
            return;
        }
    }
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Self {
        let detail = error.to_string();
        match error {
            BackupError::Busy => Self::new(StatusCode::TOO_MANY_REQUESTS, "backup-busy", detail),
            BackupError::NoSpace { needed, available } => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "no-space", detail)
                    .with(&json!({ "needed_bytes": needed, "available_bytes": available }))
            }
            _ => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "backup", detail),
        }
    }
}
