//! HTTP/1.1 on a Unix socket, as little of it as a measurement needs: one request on one
//! connection, the answer read to its end. What is measured is the host, not a client library.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// How long an answer may take, where nobody says otherwise.
const LIMIT: Duration = Duration::from_secs(60);

/// An answer, whatever it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: Vec<u8>,
}

/// A connection on which nothing was said yet.
pub(crate) struct Connection(UnixStream);

impl Connection {
    /// Connects to the host that listens on `socket`. An answer may take as long as `limit`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(crate) fn open(socket: &Path, limit: Duration) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("connecting to {}", socket.display()))?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Self(stream))
    }

    /// Sends the only request and reads the answer to its end.
    ///
    /// # Errors
    /// The connection broke, the answer did not come in time, or it is not whole.
    pub(crate) fn exchange(mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        let what = || format!("{method} {path}");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.0.write_all(head.as_bytes()).with_context(what)?;
        self.0.write_all(body).with_context(what)?;
        let mut answer = Vec::new();
        self.0.read_to_end(&mut answer).with_context(what)?;
        parse(&answer).with_context(what)
    }
}

/// Sends a request without a body and returns the body of the answer.
///
/// # Errors
/// There is no answer within a minute, or one whose status is not 2xx.
pub(crate) fn request(socket: &Path, method: &str, path: &str) -> Result<Vec<u8>> {
    send(socket, method, path, &[])
}

/// Sends a request with `body` and returns the body of the answer.
///
/// # Errors
/// There is no answer within a minute, or one whose status is not 2xx.
pub(crate) fn send(socket: &Path, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
    let Answer { status, body } = Connection::open(socket, LIMIT)?.exchange(method, path, body)?;
    if !(200..300).contains(&status) {
        bail!(
            "{method} {path}: status {status}: {}",
            String::from_utf8_lossy(&body)
        );
    }
    Ok(body)
}

fn parse(answer: &[u8]) -> Result<Answer> {
    let end = answer
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .context("the answer has no end of its head")?;
    let head = std::str::from_utf8(&answer[..end])?.to_ascii_lowercase();
    let body = &answer[end + 4..];
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    let status = status
        .parse()
        .with_context(|| format!("{status:?} is no status"))?;
    let body = if head.contains("transfer-encoding: chunked") {
        unchunk(body)?
    } else {
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"));
        if let Some(length) = length {
            ensure!(
                body.len() == length.trim().parse::<usize>()?,
                "the answer is cut short"
            );
        }
        body.to_vec()
    };
    Ok(Answer { status, body })
}

/// RFC 9112, section 7.1.
fn unchunk(mut body: &[u8]) -> Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|bytes| bytes == b"\r\n");
        let end = end.context("a chunk without a size")?;
        let size = std::str::from_utf8(&body[..end])?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?;
        if size == 0 {
            return Ok(whole);
        }
        let chunk = body
            .get(end + 2..end + 2 + size)
            .context("a chunk is cut short")?;
        whole.extend_from_slice(chunk);
        body = &body[end + 2 + size..];
        ensure!(body.starts_with(b"\r\n"), "a chunk is longer than its size");
        body = &body[2..];
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, parse};

    fn answer(status: u16, body: &[u8]) -> Answer {
        let body = body.to_vec();
        Answer { status, body }
    }

    #[test]
    fn bodies_are_read_whole_or_in_chunks_whatever_the_status() {
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(parse(plain).unwrap(), answer(200, b"hi"));
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1;x\r\ni\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap(), answer(200, b"hi"));
        let refused = b"HTTP/1.1 409 Conflict\r\n\r\nno";
        assert_eq!(parse(refused).unwrap(), answer(409, b"no"));
    }

    #[test]
    fn an_answer_of_a_host_that_died_meanwhile_is_an_error() {
        for cut in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi",
        ] {
            assert!(parse(cut).is_err(), "{}", String::from_utf8_lossy(cut));
        }
    }
}
