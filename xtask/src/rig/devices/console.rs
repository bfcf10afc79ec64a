//! The virtio console: its terminal, and a port for programs in both directions.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::VM;
use super::host::Rig;
use super::serial::Serial;
use crate::process::Owned;

/// The port for programs that is used, which is not the first one.
pub(super) const PORT: &str = "agent";
/// Detaches `roost vm console`: Ctrl-].
const DETACH: &[u8] = b"\x1d";
/// How long what one side says may take to the other.
const LIMIT: Duration = Duration::from_secs(60);

/// What is said through each port gets to the other side, and nowhere else.
pub(super) fn check(rig: &Rig, guest: &mut Serial) -> Result<()> {
    terminal(rig, guest)?;
    // The terminal has no name.
    let device = guest.run(&format!(
        "for name in /sys/class/virtio-ports/*/name; do \
         grep -qx {PORT} $name && port=${{name%/name}}; done; echo /dev/${{port##*/}}"
    ))?;
    ensure!(
        device.starts_with("/dev/vport"),
        "the guest knows no port {PORT:?}: {device:?}"
    );
    guest.run(&format!("echo the guest was here >{device}"))?;
    let logged = || rig.host.cli(&["vm", "logs", VM, "--port", PORT]);
    rig.host.wait("what the guest said", LIMIT, |_| {
        Ok((logged()? == "the guest was here\n").then_some(()))
    })?;
    let other = rig.host.cli(&["vm", "logs", VM, "--port", "log"])?;
    ensure!(other.is_empty(), "another port has {other:?}");

    let reader = guest.start(&format!("head -n 1 {device} >/tmp/said 2>/dev/null"))?;
    say(rig, b"the host was here\n")?;
    let heard = guest.run(&format!(
        "while [ -d /proc/{reader} ]; do usleep 100000; done; cat /tmp/said"
    ))?;
    ensure!(
        heard == "the host was here",
        "the host said something, and the guest heard {heard:?}"
    );
    Ok(())
}

/// What the guest prints on the terminal gets through the device.
fn terminal(rig: &Rig, guest: &mut Serial) -> Result<()> {
    let before = rig.devices(VM)?.counter("console0", "output_bytes")?;
    guest.run("seq 10 99 >/dev/hvc0")?;
    let after = rig.devices(VM)?.counter("console0", "output_bytes")?;
    // 90 lines of two digits; the terminal puts a carriage return before the end of each.
    let printed = 90 * 4;
    ensure!(
        after - before == printed,
        "the guest printed {printed} bytes on its console, the device counts {}",
        after - before
    );
    Ok(())
}

/// Types into the port as a person would.
fn say(rig: &Rig, words: &[u8]) -> Result<()> {
    let mut console = Owned(
        rig.host
            .command(&["vm", "console", VM, "--port", PORT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run `roost vm console`")?,
    );
    let mut keyboard = console.0.stdin.take().context("the console has no input")?;
    keyboard.write_all(&[words, DETACH].concat())?;
    let status = console.0.wait()?;
    ensure!(status.success(), "`roost vm console` ended with {status}");
    Ok(())
}
