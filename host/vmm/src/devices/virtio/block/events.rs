//! What the device does when its queue or its backend calls.

use std::io;

use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH};

use super::backend::{Done, Job, Operation};
use super::device::{Block, REQUESTS};
use super::request::{Request, Status};
use crate::devices::virtio::{Active, Chain, DeviceError, Virtqueue};

/// No more is taken from the queue while so many bytes of data are being read and written. A pause
/// waits for these, and for one more request.
const MAX_IN_FLIGHT_BYTES: u64 = 32 << 20;

impl Block {
    /// Answers what is done and takes what there is, until neither gives anything. The queue ends
    /// it after a turn's worth of requests.
    pub(super) fn serve(&mut self, active: &mut Active) -> Result<(), DeviceError> {
        let durable = self.is_writethrough(active);
        let Some(queue) = active.queue(REQUESTS) else {
            return Ok(());
        };
        loop {
            self.answer_done(queue)?;
            let is_drained = self.take_requests(queue, durable)?;
            self.backend.start().map_err(gone)?;
            let answered = self.answer_done(queue)?;
            if is_drained || answered == 0 {
                return Ok(());
            }
        }
    }

    /// Whether each write must be durable when it is answered (section 5.2.6.2).
    fn is_writethrough(&self, active: &Active) -> bool {
        match active.has(VIRTIO_BLK_F_CONFIG_WCE) {
            true => !self.writeback,
            false => !active.has(VIRTIO_BLK_F_FLUSH),
        }
    }

    /// Takes requests until there are none that may pass now or enough is under way. Whether that
    /// was all for now: else it goes on when something is done.
    fn take_requests(&mut self, queue: &mut Virtqueue, durable: bool) -> Result<bool, DeviceError> {
        while self.in_flight_bytes < MAX_IN_FLIGHT_BYTES {
            let Some(chain) = queue.pop()? else {
                return Ok(true);
            };
            if !self.limiter.admits() {
                // The limiter calls again.
                queue.unpop(chain);
                return Ok(true);
            }
            let request = Request::parse(&chain, self.disk)?;
            self.limiter.charge(request.data_bytes(), 1);
            match request {
                Request::Io(operation) => self.submit(operation, chain, durable)?,
                Request::Id => {
                    let written = chain.writer().write_all(&self.id);
                    let status = written.map_or(Status::IoError, |()| Status::Ok);
                    self.answer(queue, chain, status)?;
                }
                Request::Refused(status) => self.answer(queue, chain, status)?,
            }
        }
        Ok(false)
    }

    fn submit(
        &mut self,
        operation: Operation,
        chain: Chain,
        durable: bool,
    ) -> Result<(), DeviceError> {
        let is_write = matches!(
            operation,
            Operation::Write(_) | Operation::WriteZeroes { .. }
        );
        self.in_flight_bytes += operation.data_bytes();
        let job = Job {
            operation,
            chain: Some(chain),
            durable: durable && is_write,
        };
        self.backend.submit(job).map_err(gone)
    }

    /// What the backend has done; does not wait.
    pub(super) fn take_done(&mut self) -> Result<Vec<Done>, DeviceError> {
        self.backend.completed().map_err(gone)
    }

    fn answer_done(&mut self, queue: &mut Virtqueue) -> Result<usize, DeviceError> {
        let done = self.take_done()?;
        let count = done.len();
        for done in done {
            self.answer_one(queue, done)?;
        }
        Ok(count)
    }

    fn answer_one(&mut self, queue: &mut Virtqueue, done: Done) -> Result<(), DeviceError> {
        let Job {
            operation, chain, ..
        } = done.job;
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(operation.data_bytes());
        let Some(chain) = chain else {
            return Ok(());
        };
        let status = match done.result {
            Ok(()) => {
                self.counters.done(operation);
                Status::Ok
            }
            Err(error) if is_unsupported(&error) => Status::Unsupported,
            Err(_) => Status::IoError,
        };
        self.answer(queue, chain, status)
    }

    /// Writes the status into the last byte. All bytes before it count as written, although with
    /// an error they need not be: else the status would not be among those that count.
    fn answer(
        &self,
        queue: &mut Virtqueue,
        chain: Chain,
        status: Status,
    ) -> Result<(), DeviceError> {
        if status != Status::Ok {
            self.counters.failed();
        }
        let mut writer = chain.writer();
        writer.take(writer.remaining().saturating_sub(1))?;
        writer.write_all(&[status as u8])?;
        let written = writer.written() as u32;
        Ok(queue.complete(chain, written)?)
    }

    /// Waits for all that is under way, answers it, and leaves the files as the guest wrote them.
    pub(super) fn finish_all(&mut self, active: Option<&mut Active>) -> Result<(), DeviceError> {
        let mut queue = active.and_then(|active| active.queue(REQUESTS));
        let settle = Job {
            operation: Operation::Settle,
            chain: None,
            durable: false,
        };
        let mut settle = Some(settle);
        loop {
            if self.backend.in_flight() == 0 {
                match settle.take() {
                    Some(job) => self.backend.submit(job).map_err(gone)?,
                    None => return Ok(()),
                }
            }
            for done in self.backend.wait().map_err(gone)? {
                match (&mut queue, done.job.operation) {
                    (_, Operation::Settle) => done.result.map_err(gone)?,
                    (Some(queue), _) => self.answer_one(queue, done)?,
                    (None, _) => {}
                }
            }
        }
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

fn gone(source: io::Error) -> DeviceError {
    DeviceError::Host {
        what: "read and write the disk",
        source,
    }
}
