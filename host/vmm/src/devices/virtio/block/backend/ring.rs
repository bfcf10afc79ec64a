//! A raw file by io_uring: the kernel does the waiting.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use io_uring::types::{CancelBuilder, Fd};
use io_uring::{IoUring, opcode, squeue};

use super::slot::Slot;
use super::wake::Wake;
use super::{Backend, Done, Job};

/// Requests that are handed to the kernel in one call.
const SUBMISSIONS: u32 = 128;
/// Results that the kernel keeps for us: more than a queue has requests, and one for a cancellation.
const COMPLETIONS: u32 = 512;
/// Kernel threads for what would block, at most: for files and for the rest.
const KERNEL_THREADS: [u32; 2] = [4, 4];
/// The number of a request that is none of the slots'.
const CANCELLATION: u64 = u64::MAX;

/// A raw file and its ring.
pub(crate) struct Ring {
    ring: IoUring,
    file: File,
    wake: Wake,
    /// Jobs under way by the number that the kernel returns.
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
}

impl Ring {
    /// # Errors
    /// This process may not use io_uring (`EPERM`, `ENOSYS`), or the kernel has no memory for it;
    /// the file is given back.
    pub(crate) fn new(file: File) -> Result<Self, (io::Error, File)> {
        match Self::set_up() {
            Ok((ring, wake)) => Ok(Self {
                ring,
                file,
                wake,
                slots: Vec::new(),
                free: Vec::new(),
            }),
            Err(error) => Err((error, file)),
        }
    }

    fn set_up() -> io::Result<(IoUring, Wake)> {
        let ring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let wake = Wake::new()?;
        let submitter = ring.submitter();
        submitter.register_eventfd(wake.as_fd().as_raw_fd())?;
        // Kernels before 5.15 have no such limit.
        let _ = submitter.register_iowq_max_workers(&mut KERNEL_THREADS.clone());
        Ok((ring, wake))
    }

    /// Puts what slot `index` needs next into the ring.
    fn push(&mut self, index: usize) -> io::Result<()> {
        let slot = self.slots.get(index).and_then(Option::as_ref);
        let slot = slot.ok_or(io::ErrorKind::InvalidInput)?;
        let entry = slot.entry(Fd(self.file.as_raw_fd()));
        self.push_entry(&entry.user_data(index as u64))
    }

    fn push_entry(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        for _ in 0..2 {
            // SAFETY: what the entry refers to is the file, which this has, and ranges in a slot:
            // their list stays where it is and their memory mapped (by the slot's chain) until the
            // kernel has returned the slot's number; dropping this waits for that.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.start()?;
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Takes the results that are there.
    fn take_results(&mut self) -> io::Result<Vec<Done>> {
        let results: Vec<_> = self
            .ring
            .completion()
            .map(|entry| (entry.user_data(), entry.result()))
            .collect();
        let mut done = Vec::new();
        let mut again = false;
        for (number, result) in results {
            let slot = usize::try_from(number)
                .ok()
                .and_then(|index| Some((index, self.slots.get_mut(index)?.as_mut()?)));
            // It may be the cancellation's.
            let Some((index, slot)) = slot else { continue };
            match slot.advance(result) {
                Ok(false) => match self.push(index) {
                    Ok(()) => again = true,
                    Err(error) => done.extend(self.finish(index, Err(error))),
                },
                Ok(true) => done.extend(self.finish(index, Ok(()))),
                Err(error) => done.extend(self.finish(index, Err(error))),
            }
        }
        if again {
            self.start()?;
        }
        Ok(done)
    }

    fn finish(&mut self, index: usize, result: io::Result<()>) -> Option<Done> {
        let slot = self.slots.get_mut(index)?.take()?;
        self.free.push(index);
        Some(Done {
            job: slot.job,
            result,
        })
    }

    fn try_cancel(&mut self) -> io::Result<()> {
        if self.in_flight() > 0 {
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::any());
            self.push_entry(&cancel.build().user_data(CANCELLATION))?;
        }
        while self.in_flight() > 0 {
            self.wait()?;
        }
        Ok(())
    }
}

impl Backend for Ring {
    #[cfg(test)]
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn submit(&mut self, job: Job) -> io::Result<()> {
        let slot = Slot::new(job)?;
        let index = self.free.pop().unwrap_or(self.slots.len());
        match self.slots.get_mut(index) {
            Some(place) => *place = Some(slot),
            None => self.slots.push(Some(slot)),
        }
        let pushed = self.push(index);
        if pushed.is_err() {
            // The kernel does not know of it.
            self.finish(index, Ok(()));
        }
        pushed
    }

    fn start(&mut self) -> io::Result<()> {
        loop {
            match self.ring.submit() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(drop),
            }
        }
    }

    fn completed(&mut self) -> io::Result<Vec<Done>> {
        self.wake.clear();
        self.take_results()
    }

    fn wait(&mut self) -> io::Result<Vec<Done>> {
        let mut done = Vec::new();
        while self.in_flight() > 0 && done.is_empty() {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => done = self.completed()?,
            }
        }
        Ok(done)
    }

    fn cancel(&mut self) {
        if self.try_cancel().is_err() {
            // The kernel does not answer. What it may still write to must stay where it is.
            std::mem::forget(std::mem::take(&mut self.slots));
            self.free.clear();
        }
        self.wake.clear();
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.cancel();
    }
}
