//! vsock: Unix sockets of the host, by the convention of Firecracker.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::VM;
use super::host::Rig;
use super::serial::Serial;

/// Where the guest echoes what it receives.
pub(super) const ECHO_PORT: u32 = 52;
/// Where the host echoes what it receives.
const HOST_PORT: u32 = 1024;
/// A single answer.
const LIMIT: Duration = Duration::from_secs(30);

/// An echo in each direction.
pub(super) fn check(rig: &Rig, guest: &mut Serial) -> Result<()> {
    guest.run(&format!("guest-echo serve {ECHO_PORT}"))?;
    let mut stream = connect(rig, ECHO_PORT)?;
    echo(&mut stream, b"from the host")?;

    let path = rig
        .run_directory(VM)?
        .join(format!("vsock.sock_{HOST_PORT}"));
    let listener = UnixListener::bind(&path)
        .with_context(|| format!("cannot listen at {}", path.display()))?;
    let (sender, received) = mpsc::channel();
    // Should the guest never connect, the thread ends with us.
    thread::spawn(move || sender.send(answer(&listener)));
    let word = "from-the-guest";
    let answer = guest.run(&format!("guest-echo ask {HOST_PORT} {word}"))?;
    let asked = received
        .recv_timeout(LIMIT)
        .context("the guest did not connect")??;
    ensure!(
        asked == word && answer == word,
        "the host received {asked:?}, the guest {answer:?}"
    );
    std::fs::remove_file(path)?;
    // Where nobody listens, on either side, a connection is refused and none is left hanging.
    let (status, _) = guest.status_of(&format!("guest-echo ask {HOST_PORT} x 2>&1"))?;
    ensure!(status != 0, "a guest reached a port where nobody listens");
    let nobody = connect(rig, ECHO_PORT + 1);
    ensure!(nobody.is_err(), "so did a program of the host");
    Ok(())
}

/// Sends back what comes until its end, and returns it.
fn answer(listener: &UnixListener) -> Result<String> {
    let (mut peer, _) = listener.accept()?;
    peer.set_read_timeout(Some(LIMIT))?;
    let mut text = String::new();
    peer.read_to_string(&mut text)?;
    peer.write_all(text.as_bytes())?;
    Ok(text)
}

/// Connects to a port of the guest.
pub(super) fn connect(rig: &Rig, port: u32) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(rig.run_directory(VM)?.join("vsock.sock"))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    writeln!(stream, "CONNECT {port}")?;
    let mut line = String::new();
    // Nothing comes behind the line before something is sent, so nothing is lost in the buffer.
    BufReader::new(&stream).read_line(&mut line)?;
    ensure!(
        line.strip_prefix("OK ")
            .is_some_and(|port| port.trim_end().parse::<u32>().is_ok()),
        "`CONNECT {port}` was answered by {line:?}"
    );
    Ok(stream)
}

/// Sends `bytes` and reads them back.
pub(super) fn echo(stream: &mut UnixStream, bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    stream
        .read_exact(&mut back)
        .context("the guest sent nothing back over vsock")?;
    ensure!(back == bytes, "the guest sent {back:?} back over vsock");
    Ok(())
}
