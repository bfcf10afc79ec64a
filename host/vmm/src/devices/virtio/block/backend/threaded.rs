//! A thread for an image whose operations block.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use super::wake::Wake;
use super::{Backend, Done, Image, Job, Operation};

/// Address space of the thread's stack; what is not used takes no memory.
const STACK_BYTES: usize = 1 << 20;

/// Jobs go to the thread one after the other.
pub(crate) struct Threaded {
    /// Closed to end the thread.
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    wake: Wake,
    in_flight: usize,
    /// Jobs that were not begun are not to be begun.
    cancelled: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Threaded {
    /// Starts the thread, which has the image from now on.
    pub(crate) fn new(image: Box<dyn Image>) -> io::Result<Self> {
        let (jobs, to_do) = mpsc::channel();
        let (sender, done) = mpsc::channel();
        let wake = Wake::new()?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let worker = Worker {
            image: Some(image),
            done: sender,
            wake: wake.clone(),
            cancelled: cancelled.clone(),
        };
        let thread = thread::Builder::new()
            .name("disk".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || worker.run(&to_do))?;
        Ok(Self {
            jobs: Some(jobs),
            done,
            wake,
            in_flight: 0,
            cancelled,
            thread: Some(thread),
        })
    }
}

impl Backend for Threaded {
    #[cfg(test)]
    fn name(&self) -> &'static str {
        "thread"
    }

    fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn submit(&mut self, job: Job) -> io::Result<()> {
        let jobs = self.jobs.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        jobs.send(job).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.in_flight += 1;
        Ok(())
    }

    fn start(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn completed(&mut self) -> io::Result<Vec<Done>> {
        self.wake.clear();
        let done: Vec<_> = self.done.try_iter().collect();
        self.in_flight -= done.len();
        Ok(done)
    }

    fn wait(&mut self) -> io::Result<Vec<Done>> {
        if self.in_flight == 0 {
            return Ok(Vec::new());
        }
        let Ok(first) = self.done.recv() else {
            // The thread is gone and has dropped what it had.
            self.in_flight = 0;
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        self.in_flight -= 1;
        let mut done = vec![first];
        done.append(&mut self.completed()?);
        Ok(done)
    }

    fn cancel(&mut self) {
        self.cancelled.store(true, Ordering::SeqCst);
        while self.in_flight > 0 && self.wait().is_ok() {}
        self.cancelled.store(false, Ordering::SeqCst);
        self.wake.clear();
    }
}

impl Drop for Threaded {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::SeqCst);
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it does there is nothing left to do about it.
            let _ = thread.join();
        }
    }
}

/// The thread.
struct Worker {
    /// None after it panicked.
    image: Option<Box<dyn Image>>,
    done: Sender<Done>,
    wake: Wake,
    cancelled: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            let result = match self.cancelled.load(Ordering::SeqCst) {
                true => Err(io::ErrorKind::Interrupted.into()),
                false => self.perform(&job),
            };
            if self.done.send(Done { job, result }).is_err() {
                return;
            }
            self.wake.wake();
        }
    }

    /// A library that reads a file that others made may have a defect that the file brings out:
    /// its panic is an I/O error, and the image is not touched again.
    fn perform(&mut self, job: &Job) -> io::Result<()> {
        let gone = || io::Error::other("the disk image's code failed");
        let image = self.image.as_mut().ok_or_else(gone)?;
        let result = catch_unwind(AssertUnwindSafe(|| perform(&mut **image, job)));
        result.unwrap_or_else(|_| {
            // Not even dropped, which might write more.
            std::mem::forget(self.image.take());
            Err(gone())
        })
    }
}

fn perform(image: &mut dyn Image, job: &Job) -> io::Result<()> {
    let buffers = || job.buffers().map_err(io::Error::other);
    match job.operation {
        Operation::Read(range) => image.read(&buffers()?, range),
        Operation::Write(range) => image.write(&buffers()?, range),
        Operation::Flush => image.flush(),
        Operation::Discard(range) => image.discard(range),
        Operation::WriteZeroes { range, unmap } => image.write_zeroes(range, unmap),
        Operation::Settle => image.settle(),
    }?;
    match job.durable {
        true => image.flush(),
        false => Ok(()),
    }
}
