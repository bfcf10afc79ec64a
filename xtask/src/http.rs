//! HTTP/1.1 on a Unix socket, as little of it as a measurement needs: one request on one
//! connection, the answer read to its end. What is measured is the host, not a client library.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Sends a request without a body and returns the body of the answer.
///
/// # Errors
/// There is no answer within 30 s, or one whose status is not 2xx.
pub(crate) fn request(socket: &Path, method: &str, path: &str) -> Result<Vec<u8>> {
    send(socket, method, path, &[])
}

/// Sends a request with `body` and returns the body of the answer.
///
/// # Errors
/// There is no answer within 30 s, or one whose status is not 2xx.
pub(crate) fn send(socket: &Path, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>> {
    let what = || format!("{method} {path} on {}", socket.display());
    let mut stream = UnixStream::connect(socket).with_context(what)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).with_context(what)?;
    stream.write_all(body).with_context(what)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(what)?;
    parse(&answer).with_context(what)
}

fn parse(answer: &[u8]) -> Result<Vec<u8>> {
    let end = answer
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .context("the answer has no end of its head")?;
    let head = std::str::from_utf8(&answer[..end])?.to_ascii_lowercase();
    let body = &answer[end + 4..];
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        bail!("status {status}: {}", String::from_utf8_lossy(body));
    }
    if head.contains("transfer-encoding: chunked") {
        unchunk(body)
    } else {
        Ok(body.to_vec())
    }
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
    use super::parse;

    #[test]
    fn bodies_are_read_whole_or_in_chunks_and_refusals_are_errors() {
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(parse(plain).unwrap(), b"hi");
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1;x\r\ni\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap(), b"hi");
        let cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi";
        assert!(parse(cut).is_err());
        let refused = b"HTTP/1.1 409 Conflict\r\n\r\nno";
        assert!(parse(refused).unwrap_err().to_string().contains("409"));
    }
}
