//! The balloon between a driver in this process and the memory of this process.

mod driver;
mod hostile;
mod lifecycle;
mod memory;
mod statistics;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use vm_memory::{GuestAddress, GuestMemoryBackend as _};

use super::device::{DEFLATE, INFLATE, STATISTICS};
use super::{Balloon, BalloonConfig, BalloonControl, feature};
use crate::devices::virtio::test_driver::{Buffer, Driver, Request};

/// Where Linux reports free pages, if it sends statistics.
const REPORTING: u16 = 3;
/// All that can be negotiated.
const FEATURES: u64 =
    1 << feature::STATISTICS | 1 << feature::DEFLATE_ON_OOM | 1 << feature::REPORTING;
/// The first page that the driver uses for nothing, and how many more there are.
const FREE: u32 = 0x10_0000 / 4096;
const FREE_PAGES: u32 = 0x30_0000 / 4096;

const ALL: BalloonConfig = BalloonConfig {
    deflate_on_oom: true,
    free_page_reporting: true,
    statistics_interval: None,
};

/// A driver that took everything that is offered, and the host's end.
fn balloon() -> (Driver, Arc<BalloonControl>) {
    let device = Balloon::new(ALL).unwrap();
    let control = device.control();
    let mut driver = Driver::new(device);
    driver.negotiate(FEATURES);
    (driver, control)
}

fn numbers(pages: impl IntoIterator<Item = u32>) -> Vec<u8> {
    pages.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn inflate(driver: &mut Driver, pages: impl IntoIterator<Item = u32>) -> Request {
    driver.send(INFLATE, &[Buffer::Read(&numbers(pages))])
}

/// Writes to `pages` from `first` on, as a guest that uses them.
fn touch(driver: &Driver, first: u32, pages: u32) {
    use vm_memory::Bytes as _;
    let address = GuestAddress(u64::from(first) * 4096);
    let bytes = vec![0xaa; pages as usize * 4096];
    driver.memory.write_slice(&bytes, address).unwrap();
}

/// How many of `pages` from `first` on take up memory of this process, as its page table says.
fn resident(driver: &Driver, first: u32, pages: u32) -> usize {
    /// Present, or swapped out (Documentation/admin-guide/mm/pagemap.rst).
    const TAKES_UP: u64 = 1 << 63 | 1 << 62;
    let pagemap = File::open("/proc/self/pagemap").unwrap();
    let is_resident = |page: u32| {
        let address = GuestAddress(u64::from(page) * 4096);
        let address = driver.memory.get_host_address(address).unwrap() as u64;
        let mut entry = [0; 8];
        pagemap
            .read_exact_at(&mut entry, address / 4096 * 8)
            .unwrap();
        u64::from_ne_bytes(entry) & TAKES_UP != 0
    };
    (first..first + pages)
        .filter(|page| is_resident(*page))
        .count()
}

/// A statistic as a driver sends it.
fn statistic(tag: u16, value: u64) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()
}
