//! Rate limits: those of the spec, and those that an operator sets while the VM runs.
//!
//! What is asserted is a ratio, of what passed to what the limit allows in the time that it took by
//! the guest's clock. Limits are a part of what the machine can do without one, so the ratio holds
//! on a machine of any speed. One that is busy with something else may do less than a limit for a
//! while, and more afterwards by what was saved up: then it is measured again, a few times. More
//! than the limit and what can be saved up is never excused.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::ops::RangeInclusive;
use std::thread;

use anyhow::{Context, Result, ensure};

use super::host::{DATA_LIMIT, HOST_ADDRESS, Rig};
use super::serial::Serial;
use super::{VM, net};

/// How much is read with one request of a disk, bytes.
const BLOCK: u64 = 64 << 10;
/// How long is measured at least, s.
const SECONDS: u64 = 4;
/// What passes of a network while it is measured, at least, bytes: two dozen packets of the largest
/// size (64 KiB, with segmentation offload).
const NET_BYTES: u64 = 3 << 19;
/// How far from 1 a ratio may be.
const TOLERANCE: f64 = 0.1;
/// How often it is measured at most.
const ATTEMPTS: u32 = 4;
/// Which part of what passes without a limit is the limit.
const PART: u64 = 4;
/// A limit is no lower and no higher, bytes a second: a few requests fit into what is measured.
const BYTES: RangeInclusive<u64> = 128 << 10..=1 << 20;
/// The same of requests of a disk.
const OPERATIONS: RangeInclusive<u64> = 8..=1000;
/// Size of a request where requests are counted, bytes: one page.
const PAGE: u64 = 4 << 10;
/// Where the guest takes what it is sent.
const SINK_PORT: u16 = 7002;

/// What passed, as a part of what the limit allows.
pub(super) struct Ratios {
    pub(super) disk_before: f64,
    pub(super) disk_after: f64,
    pub(super) disk_operations: f64,
    pub(super) tx: f64,
    pub(super) rx: f64,
}

/// Measures a disk under two limits of bytes, one of operations and none, and the network in both
/// directions.
pub(super) fn check(rig: &Rig, guest: &mut Serial) -> Result<Ratios> {
    let (disk_before, disk_after) = disk(rig, guest)?;
    let disk_operations = disk_operations(rig, guest)?;
    let (tx, rx) = network(rig, guest)?;
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
        disk_operations,
        tx,
        rx,
    })
}

fn disk(rig: &Rig, guest: &mut Serial) -> Result<(f64, f64)> {
    let set = |words: &[&str]| {
        let words = [&["vm", "limit", "disk", VM, "data"], words].concat();
        rig.host.cli(&words).map(drop)
    };
    let read = |guest: &mut Serial, limit| read(guest, BLOCK, limit);
    let before = kept("the disk's limit of the spec", DATA_LIMIT, || {
        read(guest, DATA_LIMIT)
    })?;
    set(&[])?;
    let free = read(guest, DATA_LIMIT)?;
    ensure!(
        free > 2.0 * DATA_LIMIT as f64,
        "without a limit the disk gives {free:.0} bytes a second, hardly more than with one of \
         {DATA_LIMIT}: nothing is shown"
    );
    let limit = part(free, BYTES);
    set(&["--bytes", &limit.to_string()])?;
    let after = kept("the disk's new limit", limit, || read(guest, limit))?;
    set(&[])?;
    Ok((before, after))
}

fn disk_operations(rig: &Rig, guest: &mut Serial) -> Result<f64> {
    let requests = |guest: &mut Serial, limit| {
        let bytes = read(guest, PAGE, limit * PAGE)?;
        Ok(bytes / PAGE as f64)
    };
    let free = requests(guest, *OPERATIONS.start())?;
    let limit = part(free, OPERATIONS);
    ensure!(
        free > 2.0 * limit as f64,
        "without a limit the disk takes {free:.0} requests a second, hardly more than with one of \
         {limit}: nothing is shown"
    );
    let set = |words: &[&str]| {
        let words = [&["vm", "limit", "disk", VM, "data"], words].concat();
        rig.host.cli(&words).map(drop)
    };
    set(&["--operations", &limit.to_string()])?;
    let kept = kept("the disk's limit of requests", limit, || {
        requests(guest, limit)
    })?;
    set(&[])?;
    Ok(kept)
}

fn network(rig: &Rig, guest: &mut Serial) -> Result<(f64, f64)> {
    let free = |guest: &mut Serial, counter| passing(guest, counter, SECONDS / 2);
    let tx_limit = part(send(guest, |guest| free(guest, "tx_bytes"))?, BYTES);
    let rx_limit = part(receive(guest, |guest| free(guest, "rx_bytes"))?, BYTES);
    let set = |words: &[&str]| {
        let words = [&["vm", "limit", "network", VM, "eth0"], words].concat();
        rig.host.cli(&words).map(drop)
    };
    let (rx_bytes, tx_bytes) = (rx_limit.to_string(), tx_limit.to_string());
    set(&["--rx-bytes", &rx_bytes, "--tx-bytes", &tx_bytes])?;
    let tx = send(guest, |guest| {
        kept("the limit of what the guest sends", tx_limit, || {
            passing(guest, "tx_bytes", net_seconds(tx_limit))
        })
    })?;
    let rx = receive(guest, |guest| {
        kept("the limit of what the guest receives", rx_limit, || {
            passing(guest, "rx_bytes", net_seconds(rx_limit))
        })
    })?;
    set(&[])?;
    Ok((tx, rx))
}

/// How long a limit of a network is measured, s.
fn net_seconds(limit: u64) -> u64 {
    SECONDS.max(NET_BYTES.div_ceil(limit))
}

/// A limit within `range` for a device that lets `free` pass each second without one.
fn part(free: f64, range: RangeInclusive<u64>) -> u64 {
    (free as u64 / PART).clamp(*range.start(), *range.end())
}

/// Measures what passes each second until it is what the limit allows, within a tenth; returns its
/// ratio to the limit. `measure` takes at least [`SECONDS`], and a bucket holds what one second
/// brings: so much more may pass if less did before.
fn kept(what: &str, limit: u64, mut measure: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut ratios = Vec::new();
    for _ in 0..ATTEMPTS {
        let ratio = measure()? / limit as f64;
        ratios.push(ratio);
        ensure!(
            ratio <= 1.0 + TOLERANCE + 1.0 / SECONDS as f64,
            "{what}, {limit} a second, is exceeded: {ratios:.3?} times as much passed"
        );
        if (ratio - 1.0).abs() <= TOLERANCE {
            return Ok(ratio);
        }
    }
    anyhow::bail!("{what}, {limit} a second, does not hold: {ratios:.3?} times as much passed")
}

/// Reads past the cache, `block` bytes with each request, what a limit of `limit` bytes lets pass in
/// some seconds, after what it lets pass at once; returns how much that was each second.
fn read(guest: &mut Serial, block: u64, limit: u64) -> Result<f64> {
    let blocks = |seconds: u64| (limit * seconds).div_ceil(block);
    let read = |count| format!("dd if=/dev/vdc of=/dev/null bs={block} count={count} iflag=direct");
    // A bucket holds what one second brings, and goes on being filled. After twice as much it is
    // empty, on a disk that is at least twice as fast as the limit.
    let output = guest.run(&format!(
        "{} 2>/dev/null; read a rest </proc/uptime; {} 2>/dev/null; read b rest </proc/uptime; \
         echo $a $b",
        read(blocks(2)),
        read(blocks(SECONDS)),
    ))?;
    let [begun, ended] = numbers(&output)?;
    Ok((blocks(SECONDS) * block) as f64 / (ended - begun))
}

/// Lets the guest send as fast as it may while `measure` is at work.
fn send(guest: &mut Serial, measure: impl FnOnce(&mut Serial) -> Result<f64>) -> Result<f64> {
    let listener = net::listen()?;
    let port = listener.local_addr()?.port();
    let sender = guest.start(&format!("nc {HOST_ADDRESS} {port} </dev/zero >/dev/null"))?;
    let stream = net::accept(&listener)?;
    let mut copy = stream.try_clone()?;
    let drain = thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        // Until the end of the connection.
        while copy.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    let measured = measure(guest)?;
    guest.run(&format!("kill {sender}"))?;
    // What the guest still has to send would take a while at this rate. It may have ended already.
    let _ = stream.shutdown(Shutdown::Both);
    drain
        .join()
        .ok()
        .context("the thread that reads panicked")?;
    Ok(measured)
}

/// Sends to the guest as fast as it may receive while `measure` is at work.
fn receive(guest: &mut Serial, measure: impl FnOnce(&mut Serial) -> Result<f64>) -> Result<f64> {
    let sink = guest.start(&format!("nc -l -p {SINK_PORT} </dev/null >/dev/null"))?;
    let stream = net::connect(SINK_PORT)?;
    let mut copy = stream.try_clone()?;
    let pour = thread::spawn(move || {
        let zeros = vec![0; 1 << 16];
        // Until the end of the connection.
        while copy.write_all(&zeros).is_ok() {}
    });
    let measured = measure(guest)?;
    guest.run(&format!("kill {sink}"))?;
    // The guest may have ended it already.
    let _ = stream.shutdown(Shutdown::Both);
    pour.join()
        .ok()
        .context("the thread that writes panicked")?;
    Ok(measured)
}

/// What a counter of the guest's interface grows by each second, after the time in which what may
/// pass at once is gone.
fn passing(guest: &mut Serial, counter: &str, seconds: u64) -> Result<f64> {
    let counter = format!("/sys/class/net/eth0/statistics/{counter}");
    let output = guest.run(&format!(
        "sleep 2; read a rest </proc/uptime; read m <{counter}; sleep {seconds}; \
         read b rest </proc/uptime; read n <{counter}; echo $a $b $m $n"
    ))?;
    let [begun, ended, first, last] = numbers(&output)?;
    Ok((last - first) / (ended - begun))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What `kept` makes of these ratios, one after the other.
    fn judged(ratios: &[f64]) -> Result<f64> {
        let mut ratios = ratios.iter();
        kept("test", 1000, || Ok(ratios.next().unwrap() * 1000.0))
    }

    #[test]
    fn what_load_explains_is_measured_again_and_nothing_else_is() {
        assert_eq!(judged(&[1.05]).unwrap(), 1.05);
        assert_eq!(judged(&[0.5, 1.2, 0.95]).unwrap(), 0.95);
        assert!(judged(&[0.5, 1.5, 1.0]).is_err());
        assert!(judged(&[1.2; ATTEMPTS as usize]).is_err());
        assert!(judged(&[0.5; ATTEMPTS as usize]).is_err());
    }

    #[test]
    fn a_limit_is_a_part_of_what_the_machine_can_do() {
        assert_eq!(part(800_000.0, BYTES), 200_000);
        assert_eq!(part(1.0, BYTES), *BYTES.start());
        assert_eq!(part(1e12, OPERATIONS), *OPERATIONS.end());
    }
}
