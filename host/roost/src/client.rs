//! A client of the admin API.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

use crate::cli::{Common, Format};

/// Size of the pieces in which files are sent, bytes.
const PIECE_BYTES: usize = 256 << 10;
/// Largest answer that is taken, bytes.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// Longest that the host may take to say anything.
const TIMEOUT: Duration = Duration::from_secs(600);

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A host's API.
pub(crate) struct Client {
    socket: PathBuf,
    pub(crate) output: Format,
    pub(crate) tenant: Option<String>,
}

/// An error that the host answered.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) problem: Value,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.problem["detail"].as_str() {
            Some(detail) => f.write_str(&crate::output::printable(detail)),
            None => write!(f, "the host answered {}", self.status),
        }
    }
}

impl std::error::Error for Refusal {}

/// A query, percent-encoded as it is built.
#[derive(Default)]
pub(crate) struct Query(String);

impl Query {
    pub(crate) fn with(mut self, key: &str, value: &impl ToString) -> Self {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(key);
        self.0.push('=');
        self.0.push_str(&escape(&value.to_string()));
        self
    }

    pub(crate) fn with_some<T: ToString>(self, key: &str, value: Option<&T>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }
}

/// Percent-encodes all but what RFC 3986 calls unreserved.
pub(crate) fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
        escaped
    })
}

impl Client {
    pub(crate) fn new(common: &Common) -> Self {
        Self {
            socket: common.socket.clone(),
            output: common.output,
            tenant: common.tenant.clone(),
        }
    }

    /// A query that says whose VM is meant.
    pub(crate) fn query(&self) -> Query {
        Query::default().with_some("tenant", self.tenant.as_ref())
    }

    pub(crate) async fn get(&self, path: &str, query: Query) -> Result<Value> {
        json(self.send(Method::GET, path, &query, empty(), &[]).await?).await
    }

    pub(crate) async fn post(&self, path: &str, query: Query) -> Result<Value> {
        json(self.send(Method::POST, path, &query, empty(), &[]).await?).await
    }

    pub(crate) async fn delete(&self, path: &str, query: Query) -> Result<Value> {
        json(
            self.send(Method::DELETE, path, &query, empty(), &[])
                .await?,
        )
        .await
    }

    pub(crate) async fn send_json(
        &self,
        method: Method,
        path: &str,
        value: &Value,
    ) -> Result<Value> {
        let body = bytes(serde_json::to_vec(value)?);
        let kind = [("content-type", "application/json")];
        json(
            self.send(method, path, &Query::default(), body, &kind)
                .await?,
        )
        .await
    }

    pub(crate) async fn post_bytes(
        &self,
        path: &str,
        query: Query,
        content: Vec<u8>,
    ) -> Result<Value> {
        json(
            self.send(Method::POST, path, &query, bytes(content), &[])
                .await?,
        )
        .await
    }

    /// Sends a file without holding it in memory.
    pub(crate) async fn post_file(&self, path: &str, query: Query, file: &Path) -> Result<Value> {
        let opened = tokio::fs::File::open(file)
            .await
            .with_context(|| format!("{} can't be read", file.display()))?;
        let pieces = pieces_of(opened);
        let body = StreamBody::new(pieces).boxed_unsync();
        json(self.send(Method::POST, path, &query, body, &[]).await?).await
    }

    /// Sends a request and returns the answer if it is a success.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        query: &Query,
        body: Body,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await.with_context(|| {
            format!(
                "no host answers on {}: start one with `roost serve`, or name its socket with \
                 --socket or ROOST_SOCKET",
                self.socket.display()
            )
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{path}{}", query.0))
            .header("host", "roost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = tokio::time::timeout(TIMEOUT, sender.send_request(request.body(body)?));
        let response = answer
            .await
            .map_err(|_| anyhow!("the host did not answer in time"))?;
        let response = response.context("the host ended the connection")?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let problem = serde_json::from_slice(&collect(response).await?).unwrap_or_default();
        bail!(Refusal { status, problem })
    }
}

fn pieces_of(
    file: tokio::fs::File,
) -> impl futures_util::Stream<Item = std::io::Result<Frame<Bytes>>> {
    futures_util::stream::unfold(file, |mut file| async move {
        let mut piece = vec![0; PIECE_BYTES];
        match file.read(&mut piece).await {
            Ok(0) => None,
            Ok(count) => {
                piece.truncate(count);
                Some((Ok(Frame::data(piece.into())), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    })
}

pub(crate) fn empty() -> Body {
    bytes(Vec::new())
}

pub(crate) fn bytes(content: Vec<u8>) -> Body {
    Full::new(Bytes::from(content))
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The whole body of an answer.
pub(crate) async fn collect(response: Response<Incoming>) -> Result<Bytes> {
    let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    let body = body
        .collect()
        .await
        .map_err(|error| anyhow!("the answer broke off: {error}"))?;
    Ok(body.to_bytes())
}

async fn json(response: Response<Incoming>) -> Result<Value> {
    let body = collect(response).await?;
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&body).context("the host did not answer with JSON")
}
