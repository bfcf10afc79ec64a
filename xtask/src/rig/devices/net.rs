//! The network: a TAP on a bridge, with the host at the other end.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::VM;
use super::host::{HOST_ADDRESS, Rig};
use super::serial::Serial;
use crate::process;

/// The guest's address.
const GUEST_ADDRESS: &str = "10.77.0.2";
/// Where the guest echoes what it receives.
pub(super) const ECHO_PORT: u16 = 7;
/// Where the guest takes a transfer.
const TRANSFER_PORT: u16 = 7001;
/// What is transferred: more than any buffer on the way.
const TRANSFER_BYTES: usize = 2 << 20;
/// A single connection, read or write.
const LIMIT: Duration = Duration::from_secs(30);

/// Gives the guest its address.
pub(super) fn bring_up(guest: &mut Serial) -> Result<()> {
    let command = format!("ip addr add {GUEST_ADDRESS}/24 dev eth0 && ip link set eth0 up");
    guest.run(&command).map(drop)
}

/// Brings the interface up, pings, and transfers both ways.
pub(super) fn check(rig: &Rig, guest: &mut Serial) -> Result<()> {
    let mac = guest.run("cat /sys/class/net/eth0/address")?;
    let record = rig.host.vm(VM)?;
    ensure!(
        record["macs"][0] == *mac,
        "the guest's address is {mac}, its record says {}",
        record["macs"]
    );
    bring_up(guest)?;
    guest.run(&format!("ping -c 2 -W 10 {HOST_ADDRESS}"))?;
    process::run(
        Command::new("ping")
            .args(["-c", "2", "-W", "10", GUEST_ADDRESS])
            .stdout(Stdio::null()),
    )?;

    let sent = noise(TRANSFER_BYTES);
    let sum = sum(&sent)?;
    let keep = "sh -c 'cat >/tmp/in' </dev/null >/dev/null";
    guest.start(&format!("nc -l -p {TRANSFER_PORT} -e {keep}"))?;
    let mut stream = connect(TRANSFER_PORT)?;
    stream.write_all(&sent)?;
    stream.shutdown(Shutdown::Write)?;
    // Until its end: then it has written everything.
    stream.read_to_end(&mut Vec::new())?;
    let received = guest.run("sha256sum </tmp/in")?;
    ensure!(
        received == sum,
        "the guest received something else: {received} instead of {sum}"
    );

    let listener = listen()?;
    let port = listener.local_addr()?.port();
    guest.start(&format!("nc {HOST_ADDRESS} {port} </tmp/in >/dev/null"))?;
    let mut back = Vec::new();
    accept(&listener)?.read_to_end(&mut back)?;
    ensure!(
        back == sent,
        "{} of {} bytes came from the guest, or others",
        back.len(),
        sent.len()
    );
    guest.run("rm /tmp/in")?;
    guest.start(&format!(
        "nc -ll -p {ECHO_PORT} -e cat </dev/null >/dev/null"
    ))?;
    Ok(())
}

/// Bytes without a pattern, the same each time (xorshift64, G. Marsaglia 2003).
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    });
    words.flat_map(u64::to_le_bytes).take(count).collect()
}

/// As `sha256sum` prints it of its input.
fn sum(bytes: &[u8]) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run sha256sum")?;
    child
        .stdin
        .take()
        .context("sha256sum has no input")?
        .write_all(bytes)?;
    let output = child.wait_with_output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Connects to the guest as soon as somebody listens there.
pub(super) fn connect(port: u16) -> Result<TcpStream> {
    let address: SocketAddr = format!("{GUEST_ADDRESS}:{port}").parse()?;
    let deadline = Instant::now() + LIMIT;
    loop {
        match TcpStream::connect_timeout(&address, LIMIT) {
            Ok(stream) => return bounded(stream),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("nobody listens at {address}"));
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Listens for the guest, at a port of the system's choice.
pub(super) fn listen() -> Result<TcpListener> {
    let listener = TcpListener::bind((HOST_ADDRESS, 0))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Waits until the guest connects.
pub(super) fn accept(listener: &TcpListener) -> Result<TcpStream> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return bounded(stream);
            }
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                return Err(error.into());
            }
            Err(_) if Instant::now() > deadline => {
                bail!("the guest did not connect within {LIMIT:?}")
            }
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn bounded(stream: TcpStream) -> Result<TcpStream> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}
