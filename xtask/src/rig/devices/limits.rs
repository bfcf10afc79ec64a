//! Rate limits: those of the spec, and those that an operator sets while the VM runs.
//!
//! What is asserted is a ratio, of what passed to what the limit allows in the time that it took by
//! the guest's clock. So it holds on a machine of any speed that can do more than the limit.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::thread;

use anyhow::{Context, Result, ensure};

use super::host::{DATA_LIMIT, Rig};
use super::serial::Serial;
use super::{VM, net};

/// What holds on the disk after `vm limit disk`, bytes a second.
const DISK_LIMIT: u64 = 256 << 10;
/// What holds in each direction after `vm limit network`, bytes a second.
const NET_LIMIT: u64 = 128 << 10;
/// How much is read with one request of a disk, bytes.
const BLOCK: u64 = 64 << 10;
/// How long is measured, s.
const SECONDS: u64 = 4;
/// How far from 1 a ratio may be.
const TOLERANCE: f64 = 0.1;
/// Where the guest takes what it is sent.
const SINK_PORT: u16 = 7002;

/// What passed, as a part of what the limit allows.
pub(super) struct Ratios {
    pub(super) disk_before: f64,
    pub(super) disk_after: f64,
    pub(super) tx: f64,
    pub(super) rx: f64,
}

/// Measures a disk under two limits and without one, and the network in both directions.
pub(super) fn check(rig: &Rig, guest: &mut Serial) -> Result<Ratios> {
    let limit_disk = |words: &[&str]| {
        let words = [&["vm", "limit", "disk", VM, "data"], words].concat();
        rig.host.cli(&words).map(drop)
    };
    let disk_before = ratio("the disk's limit of the spec", read(guest, DATA_LIMIT)?)?;
    limit_disk(&["--bytes", &DISK_LIMIT.to_string()])?;
    let disk_after = ratio("the disk's new limit", read(guest, DISK_LIMIT)?)?;
    limit_disk(&[])?;
    let unlimited = read(guest, DISK_LIMIT)?;
    ensure!(
        unlimited > 2.0,
        "without a limit the disk is hardly faster ({unlimited:.2} times the limit): nothing is shown"
    );

    let limit = NET_LIMIT.to_string();
    rig.host.cli(&[
        "vm",
        "limit",
        "network",
        VM,
        "eth0",
        "--rx-bytes",
        &limit,
        "--tx-bytes",
        &limit,
    ])?;
    let tx = ratio("the limit of what the guest sends", send(guest)?)?;
    let rx = ratio("the limit of what the guest receives", receive(guest)?)?;
    rig.host.cli(&["vm", "limit", "network", VM, "eth0"])?;

    let devices = rig.devices(VM)?;
    for (device, counter) in [
        ("block2", "throttled"),
        ("net0", "tx_throttled"),
        ("net0", "rx_throttled"),
    ] {
        ensure!(
            devices.counter(device, counter)? > 0,
            "{device} says that it was never held back ({counter})"
        );
    }
    Ok(Ratios {
        disk_before,
        disk_after,
        tx,
        rx,
    })
}

fn ratio(what: &str, ratio: f64) -> Result<f64> {
    ensure!(
        (ratio - 1.0).abs() <= TOLERANCE,
        "{what} is not kept within a tenth: {ratio:.3} times as much passed"
    );
    Ok(ratio)
}

/// Reads past the cache what a limit of `per_second` bytes lets pass in some seconds, after what it
/// lets pass at once.
fn read(guest: &mut Serial, per_second: u64) -> Result<f64> {
    let read = |seconds| {
        let count = per_second * seconds / BLOCK;
        format!("dd if=/dev/vdc of=/dev/null bs={BLOCK} count={count} iflag=direct")
    };
    // A bucket holds what one second brings, and goes on being filled. After twice as much it is
    // empty, on a disk that is at least twice as fast as the limit.
    let output = guest.run(&format!(
        "{} 2>/dev/null; read a rest </proc/uptime; {} 2>/dev/null; read b rest </proc/uptime; \
         echo $a $b",
        read(2),
        read(SECONDS),
    ))?;
    let [begun, ended] = numbers(&output)?;
    Ok(SECONDS as f64 / (ended - begun))
}

/// Lets the guest send as fast as it may.
fn send(guest: &mut Serial) -> Result<f64> {
    let listener = net::listen()?;
    let port = listener.local_addr()?.port();
    let address = super::host::HOST_ADDRESS;
    let sender = guest.start(&format!("nc {address} {port} </dev/zero >/dev/null"))?;
    let stream = net::accept(&listener)?;
    let mut copy = stream.try_clone()?;
    let drain = thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        // Until the end of the connection.
        while copy.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    let ratio = passing(guest, "tx_bytes")?;
    guest.run(&format!("kill {sender}"))?;
    // What the guest still has to send would take a while at this rate.
    stream.shutdown(Shutdown::Both)?;
    drain
        .join()
        .ok()
        .context("the thread that reads panicked")?;
    Ok(ratio)
}

/// Sends to the guest as fast as it may receive.
fn receive(guest: &mut Serial) -> Result<f64> {
    guest.start(&format!("nc -l -p {SINK_PORT} </dev/null >/dev/null"))?;
    let stream = net::connect(SINK_PORT)?;
    let mut copy = stream.try_clone()?;
    let pour = thread::spawn(move || {
        let zeros = vec![0; 1 << 16];
        // Until the end of the connection.
        while copy.write_all(&zeros).is_ok() {}
    });
    let ratio = passing(guest, "rx_bytes")?;
    stream.shutdown(Shutdown::Both)?;
    pour.join()
        .ok()
        .context("the thread that writes panicked")?;
    Ok(ratio)
}

/// What a counter of the guest's interface grows by, as a part of the limit; after the time in
/// which what may pass at once is gone.
fn passing(guest: &mut Serial, counter: &str) -> Result<f64> {
    let counter = format!("/sys/class/net/eth0/statistics/{counter}");
    let output = guest.run(&format!(
        "sleep 3; read a rest </proc/uptime; read m <{counter}; sleep {SECONDS}; \
         read b rest </proc/uptime; read n <{counter}; echo $a $b $m $n"
    ))?;
    let [begun, ended, first, last] = numbers(&output)?;
    Ok((last - first) / (ended - begun) / NET_LIMIT as f64)
}

fn numbers<const N: usize>(output: &str) -> Result<[f64; N]> {
    let numbers: Vec<f64> = output
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| format!("the guest printed {output:?}"))?;
    numbers
        .try_into()
        .ok()
        .with_context(|| format!("the guest printed {output:?}"))
}
