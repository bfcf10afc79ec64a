//! A pause: the guest stands still, its connections and its clock do not mind.

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::host::Rig;
use super::serial::Serial;
use super::{VM, net, vsock};

/// How long the VM is paused at least. This is what is asked for, not a wait for something.
const PAUSE: Duration = Duration::from_secs(3);
/// How much the guest's clock may seem to have moved against ours beyond what cannot be told:
/// a thirtieth of the pause.
const TOLERANCE: f64 = 0.1;

/// What a kernel prints that noticed something.
const COMPLAINTS: &str = "soft lockup|rcu.*stall|clocksource.*unstable|hung task|time jump";

/// Pauses the VM for three seconds with a connection of each kind open.
pub(super) fn check(rig: &Rig, guest: &mut Serial) -> Result<()> {
    let mut tcp = net::connect(net::ECHO_PORT)?;
    echo(&mut tcp, b"before").context("over TCP, before the pause")?;
    let mut socket = vsock::connect(rig, vsock::ECHO_PORT)?;
    vsock::echo(&mut socket, b"before")?;
    let before = Offset::of(guest)?;

    rig.verb(&["pause", VM])?;
    let paused = Instant::now();
    tcp.write_all(b"in between")?;
    socket.write_all(b"in between")?;
    tcp.set_read_timeout(Some(PAUSE))?;
    let silent = tcp.read(&mut [0; 16]);
    ensure!(
        silent
            .as_ref()
            .is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)),
        "a paused guest answered, or lost its connection: {silent:?}"
    );
    // A timeout of a socket may be early by a tick.
    thread::sleep(PAUSE.saturating_sub(paused.elapsed()));
    rig.verb(&["resume", VM])?;

    tcp.set_read_timeout(Some(Duration::from_secs(30)))?;
    answered(&mut tcp, b"in between").context("over TCP, after the pause")?;
    answered(&mut socket, b"in between").context("over vsock, after the pause")?;
    echo(&mut tcp, b"after").context("over TCP, after the pause")?;
    vsock::echo(&mut socket, b"after")?;

    let after = Offset::of(guest)?;
    let jump = before.distance(&after);
    ensure!(
        jump < TOLERANCE,
        "the guest's clock jumped by {jump:.3} s against the host's: {before:?}, then {after:?}"
    );
    let complaints = guest.run(&format!("dmesg | grep -E '{COMPLAINTS}' || true"))?;
    ensure!(complaints.is_empty(), "the guest says: {complaints}");
    Ok(())
}

/// How much the guest's clock is ahead of ours: somewhere between two values, because asking takes
/// a while.
#[derive(Debug)]
struct Offset {
    least: f64,
    most: f64,
}

impl Offset {
    /// Asks for the time since the guest's start, which nobody sets.
    fn of(guest: &mut Serial) -> Result<Self> {
        let asked = now()?;
        let uptime = guest.run("read up rest </proc/uptime; echo $up")?;
        let answered = now()?;
        let uptime: f64 = uptime
            .parse()
            .with_context(|| format!("/proc/uptime begins with {uptime:?}"))?;
        Ok(Self {
            least: uptime - answered,
            most: uptime - asked,
        })
    }

    /// How much it has changed at least, s.
    fn distance(&self, other: &Self) -> f64 {
        (other.least - self.most)
            .max(self.least - other.most)
            .max(0.0)
    }
}

/// The same clock of this machine, s.
fn now() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/uptime")?;
    let first = text.split_whitespace().next().unwrap_or_default();
    first.parse().context("/proc/uptime has no number")
}

fn echo(stream: &mut (impl Read + Write), bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes)?;
    answered(stream, bytes)
}

fn answered(stream: &mut impl Read, bytes: &[u8]) -> Result<()> {
    let mut back = vec![0; bytes.len()];
    stream
        .read_exact(&mut back)
        .context("the guest sent nothing back")?;
    ensure!(back == bytes, "the guest sent {back:?} back");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_has_jumped_only_if_no_delay_explains_it() {
        let offset = |least, most| Offset { least, most };
        assert_eq!(offset(1.0, 2.0).distance(&offset(1.5, 3.0)), 0.0);
        assert_eq!(offset(1.0, 2.0).distance(&offset(5.0, 6.0)), 3.0);
        assert_eq!(offset(5.0, 6.0).distance(&offset(1.0, 2.0)), 3.0);
    }
}
