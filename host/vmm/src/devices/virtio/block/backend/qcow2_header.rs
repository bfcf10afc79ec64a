//! What a qcow2 file's header and refcount table say, checked before the library reads them.
//!
//! Files come from outside. What is read only can be anything, and the library then answers with
//! errors; it allocates by what the header says, though. Where it also writes, it trusts the
//! refcounts: with holes in them it calls itself without end.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::devices::virtio::block::config::DiskError;

/// Largest cluster, 2 to the power of it: QEMU's default. The library caches 128 clusters of one
/// table and 32 of another, so this bounds its memory at 10 MiB a file.
pub(super) const MAX_CLUSTER_BITS: u32 = 16;
/// Smallest cluster of the format.
const MIN_CLUSTER_BITS: u32 = 9;
/// Most bytes of each of the tables that the library holds whole (32 TiB of disk with clusters of
/// 64 KiB).
const MAX_TABLE_BYTES: u64 = 512 << 10;
/// Bytes of a table's entry.
const ENTRY_BYTES: u64 = 8;
/// Bytes of the header's part that is looked at; there are as many in every file of version 3.
const HEADER_BYTES: usize = 104;

/// What a header says (QEMU, `docs/interop/qcow2.rst`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Qcow2Header {
    /// Bytes of the disk.
    pub(crate) bytes: u64,
    /// It is an overlay.
    pub(crate) names_base: bool,
    cluster_bits: u32,
    /// Where the refcount table is, and its bytes.
    refcounts: (u64, u64),
    /// Snapshots inside of it.
    snapshots: u32,
}

impl Qcow2Header {
    /// Reads and checks the header of a file.
    pub(crate) fn read(file: &File) -> Result<Self, DiskError> {
        let mut header = [0; HEADER_BYTES];
        read_at(file, &mut header, 0)?;
        if header.first_chunk() != Some(b"QFI\xfb") {
            return refuse("it does not begin as one");
        }
        let version = word(&header, 4);
        if !(2..=3).contains(&version) {
            return Err(DiskError::Qcow2(format!("its version is {version}")));
        }
        if version == 3 && long(&header, 72) != 0 {
            return refuse("it has a feature that is not supported, or was not closed properly");
        }
        if word(&header, 32) != 0 {
            return refuse("it is encrypted");
        }
        let cluster_bits = word(&header, 20);
        if !(MIN_CLUSTER_BITS..=MAX_CLUSTER_BITS).contains(&cluster_bits) {
            return refuse("its clusters are not of 512 bytes to 64 KiB");
        }
        let bytes = long(&header, 24);
        // Each entry of the first table is for a cluster of entries, each for a cluster of data.
        let entry_covers = (1 << cluster_bits) * ((1 << cluster_bits) / ENTRY_BYTES);
        let first_table = u64::from(word(&header, 36)) * ENTRY_BYTES;
        let first_table_needed = bytes.div_ceil(entry_covers).saturating_mul(ENTRY_BYTES);
        let refcounts = u64::from(word(&header, 56)) << cluster_bits;
        let tables = [first_table, first_table_needed, refcounts];
        if tables.iter().any(|table| *table > MAX_TABLE_BYTES) {
            return refuse("its tables are too large for us");
        }
        Ok(Self {
            bytes,
            names_base: long(&header, 8) != 0,
            cluster_bits,
            refcounts: (long(&header, 48), refcounts),
            snapshots: word(&header, 60),
        })
    }

    /// Whether it can be written: there are no snapshots inside, which would be lost, and the
    /// refcounts are all there. Each of their blocks lies in the file and is there once, and none
    /// is left out.
    pub(crate) fn check_writable(self, file: &File) -> Result<(), DiskError> {
        if self.snapshots != 0 {
            return refuse("it has snapshots inside");
        }
        let (at, bytes) = self.refcounts;
        let mut table = vec![0; bytes as usize];
        read_at(file, &mut table, at)?;
        let length = file.metadata().map_err(|error| wrong(&error))?.len();
        let cluster = 1 << self.cluster_bits;
        let mut blocks = BTreeSet::new();
        let mut has_ended = false;
        let (entries, _) = table.as_chunks();
        for entry in entries {
            match u64::from_be_bytes(*entry) {
                0 => has_ended = true,
                block
                    if has_ended
                        || !block.is_multiple_of(cluster)
                        || block >= length
                        || !blocks.insert(block) =>
                {
                    return refuse("its refcounts are damaged");
                }
                _ => {}
            }
        }
        match blocks.is_empty() {
            true => refuse("it has no refcounts"),
            false => Ok(()),
        }
    }
}

fn read_at(file: &File, into: &mut [u8], at: u64) -> Result<(), DiskError> {
    file.read_exact_at(into, at).map_err(|error| wrong(&error))
}

fn refuse<T>(why: &str) -> Result<T, DiskError> {
    Err(DiskError::Qcow2(why.to_owned()))
}

fn wrong(error: &io::Error) -> DiskError {
    DiskError::Qcow2(error.to_string())
}

/// The big-endian number at `at`; 0 past the end.
fn word(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    let bytes = header.get(at..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn long(header: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from(word(header, at)) << 32 | u64::from(word(header, at + 4))
}
