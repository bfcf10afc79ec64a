//! What a refused request still has to say.
//!
//! A request may be refused before its body is read: a file for which the disk has no room. The
//! connection can't go on then, and is closed; a client that is still writing would see that and
//! not the answer. So the rest is read and thrown away first, as long as it comes quickly and is
//! not too much.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;

use crate::limits::{MAX_UNREAD_BYTES, UNREAD_PIECE_TIMEOUT, UNREAD_TIMEOUT};

/// A body that a handler reads, or leaves.
#[derive(Clone)]
struct Lent(Arc<Mutex<Body>>);

impl Lent {
    fn with<T>(&self, look: impl FnOnce(&mut Body) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.with(|body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint())
    }
}

/// Answers a request that is refused only when its body was read, or is not worth waiting for.
pub(crate) async fn read_first(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    let lent = Lent(Arc::new(Mutex::new(body)));
    let request = Request::from_parts(head, Body::new(lent.clone()));
    let response = next.run(request).await;
    if response.status().is_client_error() || response.status().is_server_error() {
        // Whatever comes of it, there is an answer.
        let _ = timeout(UNREAD_TIMEOUT, read(lent)).await;
    }
    response
}

async fn read(body: Lent) {
    let mut pieces = Body::new(body).into_data_stream();
    let mut bytes = 0;
    while bytes <= MAX_UNREAD_BYTES
        && let Ok(Some(Ok(piece))) = timeout(UNREAD_PIECE_TIMEOUT, pieces.next()).await
    {
        bytes += piece.len();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::http::StatusCode;
    use axum::middleware::from_fn;
    use axum::routing::post;
    use futures_util::stream;
    use tower::ServiceExt as _;

    use super::*;

    const PIECE: usize = 1 << 20;

    /// How much of `pieces` a router takes whose handler does not look at the body.
    async fn taken(pieces: usize, answer: StatusCode) -> usize {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let body = stream::iter(0..pieces).map(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(vec![0; PIECE])
        });
        let router = Router::new()
            .route("/", post(move || async move { answer }))
            .layer(from_fn(read_first));
        let request = Request::post("/").body(Body::from_stream(body)).unwrap();
        assert_eq!(router.oneshot(request).await.unwrap().status(), answer);
        taken.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn the_rest_of_a_refused_body_is_read_up_to_a_limit() {
        let full = StatusCode::INSUFFICIENT_STORAGE;
        assert_eq!(taken(3, full).await, 3);
        let most = MAX_UNREAD_BYTES / PIECE + 1;
        assert_eq!(taken(most * 2, full).await, most);
        assert_eq!(taken(3, StatusCode::OK).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_body_that_does_not_come_is_not_waited_for() {
        let refuse = || async { StatusCode::BAD_REQUEST };
        let router = Router::new()
            .route("/", post(refuse))
            .layer(from_fn(read_first));
        let never = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let request = Request::post("/").body(never).unwrap();
        let answered = timeout(UNREAD_PIECE_TIMEOUT * 2, router.oneshot(request)).await;
        assert_eq!(answered.unwrap().unwrap().status(), StatusCode::BAD_REQUEST);
    }
}
