//! The first exchange on a connection.

use std::io;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::UnixStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::frame;
use crate::limits::MAX_FRAME_BYTES;
use crate::protocol::{
    Hello, HostMessage, OLDEST_VERSION, PROTOCOL_VERSION, Refusal, Welcome, WorkerMessage,
};

/// A connection whose frames are still to be parsed.
pub(crate) type Connection = Framed<UnixStream, LengthDelimitedCodec>;

/// A worker did not welcome us.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GreetingError {
    /// The connection ended: the worker is gone, or about to be.
    #[error("the connection ended")]
    Closed,
    /// The nonce is not the worker's.
    #[error("the worker has another nonce")]
    WrongNonce,
    #[error("{0}")]
    Protocol(String),
}

/// Says hello and waits for the answer. The caller bounds the time.
pub(crate) async fn greet(
    stream: UnixStream,
    nonce: &str,
) -> Result<(Connection, Welcome), GreetingError> {
    let mut connection = Framed::new(stream, frame::codec(MAX_FRAME_BYTES));
    let hello = Hello {
        version: PROTOCOL_VERSION,
        nonce: nonce.to_owned(),
    };
    let body = frame::body(&HostMessage::Hello(hello)).map_err(protocol)?;
    connection.send(body).await.map_err(closed_or_protocol)?;
    let answer = match connection.next().await {
        None => return Err(GreetingError::Closed),
        Some(answer) => answer.map_err(closed_or_protocol)?,
    };
    match frame::parse(&answer).map_err(protocol)? {
        WorkerMessage::Welcome(welcome) if welcome.version >= OLDEST_VERSION => {
            Ok((connection, welcome))
        }
        WorkerMessage::Welcome(Welcome { version, .. }) => Err(GreetingError::Protocol(format!(
            "the worker speaks version {version}, expected {OLDEST_VERSION} or newer"
        ))),
        WorkerMessage::Refused {
            reason: Refusal::WrongNonce,
        } => Err(GreetingError::WrongNonce),
        WorkerMessage::Refused { reason } => Err(GreetingError::Protocol(format!(
            "the worker refused the hello: {reason:?}"
        ))),
        _ => Err(GreetingError::Protocol(
            "expected a welcome, found another message".to_owned(),
        )),
    }
}

fn protocol(error: impl std::fmt::Display) -> GreetingError {
    GreetingError::Protocol(error.to_string())
}

/// The codec says [`io::ErrorKind::InvalidData`] to a frame that is too long; everything else is
/// the socket's.
fn closed_or_protocol(error: io::Error) -> GreetingError {
    match error.kind() {
        io::ErrorKind::InvalidData => protocol(error),
        _ => GreetingError::Closed,
    }
}
