//! The host's end of a port, usable from any thread.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ConsoleSize;
use crate::devices::OUTPUT_LIMIT;
use crate::devices::output::{OutputRing, SerialChunk, Signal};
use crate::devices::virtio::{Chain, LimitControl, RateLimit, RateLimits};

/// Input that waits for the guest, bytes: a large paste.
pub(super) const INPUT_QUEUE_BYTES: usize = 64 << 10;
/// Output is copied in pieces of this size.
const PIECE_BYTES: usize = 4096;

/// The port is a stream of bytes, which has no size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("only port 0 is a terminal")]
pub struct NotATerminal;

/// A port of a console.
pub struct ConsolePort {
    name: Option<String>,
    output: Mutex<OutputRing>,
    /// There is new output.
    grown: Signal,
    input: Mutex<Input>,
    /// Whether the guest has opened it.
    is_open: AtomicBool,
    /// Only of the terminal.
    size: Option<Mutex<ConsoleSize>>,
    pub(super) limits: Arc<LimitControl>,
    /// Watched by the device.
    wake: Arc<Signal>,
}

#[derive(Default)]
struct Input {
    waiting: VecDeque<u8>,
    received: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ConsolePort {
    /// The terminal.
    pub(super) fn terminal(size: ConsoleSize, wake: Arc<Signal>) -> io::Result<Self> {
        Self::new(None, Some(size), wake)
    }

    /// A stream.
    pub(super) fn stream(name: String, wake: Arc<Signal>) -> io::Result<Self> {
        Self::new(Some(name), None, wake)
    }

    fn new(name: Option<String>, size: Option<ConsoleSize>, wake: Arc<Signal>) -> io::Result<Self> {
        let limits = RateLimits {
            bytes: Some(OUTPUT_LIMIT),
            operations: None,
        };
        Ok(Self {
            name,
            output: Mutex::default(),
            grown: Signal::new()?,
            input: Mutex::default(),
            is_open: AtomicBool::new(false),
            size: size.map(Mutex::new),
            limits: Arc::new(LimitControl::new(limits)?),
            wake,
        })
    }

    /// Its name. The terminal has none.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether something in the guest has it open. Input waits until then.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    /// Output from position `from` on, at most `max` bytes. What is no longer kept is skipped.
    #[must_use]
    pub fn read(&self, from: u64, max: usize) -> SerialChunk {
        lock(&self.output).read(from, max)
    }

    /// Bytes written by the guest so far.
    #[must_use]
    pub fn end(&self) -> u64 {
        lock(&self.output).end()
    }

    /// Bytes that the guest was given so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        lock(&self.input).received
    }

    /// Queues input for the guest; returns how many bytes there was room for.
    pub fn write_input(&self, bytes: &[u8]) -> usize {
        let mut input = lock(&self.input);
        let room = INPUT_QUEUE_BYTES.saturating_sub(input.waiting.len());
        let (taken, _) = bytes.split_at(bytes.len().min(room));
        input.waiting.extend(taken);
        drop(input);
        if !taken.is_empty() {
            self.wake.raise();
        }
        taken.len()
    }

    /// Changes the limit of output, bytes; `None` takes it away. A new port has one of 1 MiB a
    /// second. Output over the limit waits in the guest.
    pub fn set_output_limit(&self, limit: Option<RateLimit>) {
        self.limits.set_limits(RateLimits {
            bytes: limit,
            operations: None,
        });
    }

    /// The terminal's size.
    #[must_use]
    pub fn size(&self) -> Option<ConsoleSize> {
        self.size.as_ref().map(|size| *lock(size))
    }

    /// Changes the terminal's size and tells the guest.
    ///
    /// # Errors
    /// It is not the terminal.
    pub fn resize(&self, size: ConsoleSize) -> Result<(), NotATerminal> {
        self.set_size(size)?;
        self.wake.raise();
        Ok(())
    }

    pub(super) fn set_size(&self, size: ConsoleSize) -> Result<(), NotATerminal> {
        *lock(self.size.as_ref().ok_or(NotATerminal)?) = size;
        Ok(())
    }

    /// An eventfd that becomes readable when there is new output; the reader drains it.
    pub fn output_fd(&self) -> BorrowedFd<'_> {
        self.grown.as_fd()
    }

    /// Makes [`Self::output_fd`] readable: there is output, or there will be no more.
    pub(crate) fn notify(&self) {
        self.grown.raise();
    }

    pub(super) fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::SeqCst);
    }

    /// Whether there is something that the guest can be given.
    pub(super) fn has_input(&self) -> bool {
        self.is_open() && !lock(&self.input).waiting.is_empty()
    }

    /// Gives input to the guest, as much as there is and there is room for; returns how much.
    pub(super) fn give_input(&self, chain: &Chain) -> u32 {
        let mut input = lock(&self.input);
        let mut writer = chain.writer();
        let (first, second) = input.waiting.as_slices();
        writer.write(first);
        writer.write(second);
        let given = writer.written();
        input.waiting.drain(..given);
        input.received += given as u64;
        given as u32
    }

    /// Takes output from the guest; returns how much.
    pub(super) fn take_output(&self, chain: &Chain) -> u64 {
        let mut output = lock(&self.output);
        let mut reader = chain.reader();
        let mut piece = [0; PIECE_BYTES];
        let before = output.end();
        loop {
            match reader.read(&mut piece) {
                0 => return output.end() - before,
                bytes => output.push(piece.get(..bytes).unwrap_or_default()),
            }
        }
    }
}

impl AsFd for ConsolePort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.output_fd()
    }
}
