//! A job that io_uring carries out, in as many steps as it takes.

use std::io;

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};

use super::segments::Segments;
use super::{ByteRange, Job, MAX_RANGES, Operation, raw};

/// How often an operation that was interrupted is begun again.
const MAX_TRIES: u8 = 16;

/// A job, and how far the kernel is with it.
pub(super) struct Slot {
    pub(super) job: Job,
    segments: Segments,
    /// Where in the file the rest goes.
    offset: u64,
    /// It is done but for being durable.
    syncing: bool,
    tries: u8,
}

impl Slot {
    pub(super) fn new(job: Job) -> io::Result<Self> {
        let segments = Segments::new(&job.buffers().map_err(io::Error::other)?);
        let offset = match job.operation {
            Operation::Read(range) | Operation::Write(range) => range.offset,
            _ => 0,
        };
        Ok(Self {
            job,
            segments,
            offset,
            syncing: false,
            tries: 0,
        })
    }

    /// What the kernel is to do next.
    pub(super) fn entry(&self, file: Fd) -> squeue::Entry {
        let left = self.segments.left();
        let count = left.len().min(MAX_RANGES) as u32;
        let fallocate = |how: rustix::fs::FallocateFlags, range: ByteRange| {
            opcode::Fallocate::new(file, range.bytes)
                .offset(range.offset)
                .mode(how.bits().cast_signed())
                .build()
        };
        let sync = opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC);
        match self.job.operation {
            _ if self.syncing => sync.build(),
            Operation::Read(_) => opcode::Readv::new(file, left.as_ptr(), count)
                .offset(self.offset)
                .build(),
            Operation::Write(_) => opcode::Writev::new(file, left.as_ptr(), count)
                .offset(self.offset)
                .build(),
            Operation::Flush => sync.build(),
            Operation::Discard(range) => fallocate(raw::FREE, range),
            Operation::WriteZeroes { range, unmap: true } => fallocate(raw::FREE, range),
            Operation::WriteZeroes { range, .. } => fallocate(raw::ZERO, range),
            // What was written is in the page cache, which everybody sees.
            Operation::Settle => opcode::Nop::new().build(),
        }
    }

    /// Takes the kernel's result; whether that was all.
    pub(super) fn advance(&mut self, result: i32) -> io::Result<bool> {
        match usize::try_from(result) {
            Ok(0) if !self.segments.is_done() && !self.syncing => {
                // The file became shorter under our hands.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(bytes) if !self.syncing => {
                self.segments.advance(bytes)?;
                self.offset += bytes as u64;
            }
            Ok(_) => return Ok(true),
            Err(_) => {
                let error = io::Error::from_raw_os_error(result.saturating_neg());
                let is_passing = matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                );
                self.tries += 1;
                return match is_passing && self.tries < MAX_TRIES {
                    true => Ok(false),
                    false => Err(error),
                };
            }
        }
        if self.segments.is_done() && self.job.durable {
            self.syncing = true;
            return Ok(false);
        }
        Ok(self.segments.is_done())
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::VolatileSlice;

    use super::*;

    /// Bytes of the operations below.
    const BYTES: u64 = 1024;

    fn slot(operation: Operation, durable: bool, memory: &mut [u8]) -> Slot {
        Slot {
            job: Job {
                operation,
                chain: None,
                durable,
            },
            segments: Segments::new(&[VolatileSlice::from(memory)]),
            offset: 0,
            syncing: false,
            tries: 0,
        }
    }

    fn write(durable: bool, memory: &mut [u8]) -> Slot {
        let range = ByteRange {
            offset: 0,
            bytes: BYTES,
        };
        slot(Operation::Write(range), durable, memory)
    }

    /// What the kernel is asked for next (`io_uring_op`).
    fn operation(slot: &Slot) -> u8 {
        let entry = format!("{:?}", slot.entry(Fd(0)));
        let (_, rest) = entry.split_once("op_code: ").unwrap();
        rest.split(',').next().unwrap().parse().unwrap()
    }

    #[test]
    fn a_durable_write_is_done_only_when_all_of_it_was_written_and_then_synced() {
        let memory = &mut [0; BYTES as usize];
        let mut slot = write(true, memory);
        assert_eq!(operation(&slot), opcode::Writev::CODE);
        assert!(!slot.advance(1000).unwrap());
        assert_eq!(operation(&slot), opcode::Writev::CODE);
        assert_eq!(slot.offset, 1000);
        assert!(!slot.advance(24).unwrap());
        assert_eq!(operation(&slot), opcode::Fsync::CODE);
        assert!(slot.advance(0).unwrap());
    }

    #[test]
    fn a_write_into_the_cache_is_done_when_all_of_it_was_written() {
        let memory = &mut [0; BYTES as usize];
        let mut slot = write(false, memory);
        assert!(!slot.advance(1000).unwrap());
        assert!(slot.advance(24).unwrap());
    }

    #[test]
    fn what_was_zeroed_durably_is_synced_too() {
        let range = ByteRange {
            offset: 0,
            bytes: BYTES,
        };
        let zeroes = Operation::WriteZeroes { range, unmap: true };
        let mut slot = slot(zeroes, true, &mut []);
        assert_eq!(operation(&slot), opcode::Fallocate::CODE);
        slot.segments.advance(0).unwrap();
        assert!(!slot.advance(0).unwrap());
        assert_eq!(operation(&slot), opcode::Fsync::CODE);
        assert!(slot.advance(-libc::EIO).is_err());
    }

    #[test]
    fn what_was_interrupted_is_begun_again_but_not_for_ever() {
        let memory = &mut [0; BYTES as usize];
        let mut slot = write(false, memory);
        let mut tries = 0;
        while let Ok(done) = slot.advance(-libc::EINTR) {
            assert!(!done);
            assert_eq!(operation(&slot), opcode::Writev::CODE);
            tries += 1;
        }
        assert_eq!(tries, MAX_TRIES - 1);
    }

    #[test]
    fn an_error_or_the_end_of_the_file_ends_it() {
        let memory = &mut [0; BYTES as usize];
        let mut slot = write(true, memory);
        let error = slot.advance(-libc::ENOSPC).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let error = write(true, memory).advance(0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
