//! When a request is answered, and in what order the image is told to do what.

use std::io;
use std::sync::{Arc, Mutex};

use vm_memory::VolatileSlice;

use super::super::backend::{ByteRange, Image, Threaded};
use super::super::request::Disk;
use super::*;
use crate::devices::virtio::{LimitControl, Monotonic, RateLimiter};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Read,
    Write,
    Flush,
    Discard,
    WriteZeroes,
    Settle,
}

/// An image that notes what it is asked for, and does it as `behave` says.
struct Recorder {
    calls: Arc<Mutex<Vec<Call>>>,
    behave: fn(Call) -> io::Result<()>,
}

impl Recorder {
    fn note(&self, call: Call) -> io::Result<()> {
        self.calls.lock().unwrap().push(call);
        (self.behave)(call)
    }
}

impl Image for Recorder {
    fn read(&mut self, _: &[VolatileSlice<'_>], _: ByteRange) -> io::Result<()> {
        self.note(Call::Read)
    }

    fn write(&mut self, _: &[VolatileSlice<'_>], _: ByteRange) -> io::Result<()> {
        self.note(Call::Write)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.note(Call::Flush)
    }

    fn discard(&mut self, _: ByteRange) -> io::Result<()> {
        self.note(Call::Discard)
    }

    fn write_zeroes(&mut self, _: ByteRange, _: bool) -> io::Result<()> {
        self.note(Call::WriteZeroes)
    }

    fn settle(&mut self) -> io::Result<()> {
        self.note(Call::Settle)
    }
}

/// A driver of a disk that behaves so, and what the disk is asked for.
fn recorded(features: u64, behave: fn(Call) -> io::Result<()>) -> (Driver, impl Fn() -> Vec<Call>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let image = Recorder {
        calls: Arc::clone(&calls),
        behave,
    };
    let backend = Threaded::new(Box::new(image)).unwrap();
    let disk = Disk {
        capacity_bytes: BYTES,
        read_only: false,
    };
    let control = Arc::new(LimitControl::new(RateLimits::default()).unwrap());
    let limiter = RateLimiter::new(control, Box::new(Monotonic::default()));
    let block = Block::with_backend(disk, [b'r'; 20], Box::new(backend), limiter);
    let mut driver = Driver::new(block);
    driver.negotiate(features);
    let taken = move || std::mem::take(&mut *calls.lock().unwrap());
    (driver, taken)
}

const FLUSH: u64 = 1 << VIRTIO_BLK_F_FLUSH;
const CONFIG_WCE: u64 = 1 << VIRTIO_BLK_F_CONFIG_WCE;

#[test]
fn a_driver_that_knows_of_the_cache_gets_writes_answered_at_once_and_flushes_when_durable() {
    let (mut driver, calls) = recorded(FLUSH, |_| Ok(()));
    assert_eq!(write(&mut driver, 0, &[1; 512]), OK);
    assert_eq!(calls(), [Call::Write]);
    assert_eq!(flush(&mut driver), OK);
    assert_eq!(calls(), [Call::Flush]);
}

#[test]
fn a_driver_that_knows_of_no_cache_gets_writes_answered_when_they_are_durable() {
    let (mut driver, calls) = recorded(0, |_| Ok(()));
    assert_eq!(write(&mut driver, 0, &[1; 512]), OK);
    assert_eq!(calls(), [Call::Write, Call::Flush]);
    assert_eq!(erase(&mut driver, VIRTIO_BLK_T_WRITE_ZEROES, (0, 8), 0), OK);
    assert_eq!(calls(), [Call::WriteZeroes, Call::Flush]);
    read(&mut driver, 0, 512);
    assert_eq!(calls(), [Call::Read]);
}

#[test]
fn a_driver_turns_the_cache_off_and_on_and_a_reset_turns_it_on() {
    let (mut driver, calls) = recorded(FLUSH | CONFIG_WCE, |_| Ok(()));
    assert_eq!(driver.config(32, 1), [1]);
    driver.write_config(32, &[0]);
    assert_eq!(driver.config(32, 1), [0]);
    assert_eq!(write(&mut driver, 0, &[1; 512]), OK);
    assert_eq!(calls(), [Call::Write, Call::Flush]);
    driver.write_config(32, &[1]);
    assert_eq!(write(&mut driver, 0, &[1; 512]), OK);
    assert_eq!(calls(), [Call::Write]);
    driver.write_config(32, &[0]);
    driver.negotiate(FLUSH | CONFIG_WCE);
    assert_eq!(driver.config(32, 1), [1]);
    // Without flushes there is nothing but writing through to begin with.
    driver.negotiate(CONFIG_WCE);
    assert_eq!(driver.config(32, 1), [0]);
}

#[test]
fn a_write_or_flush_that_fails_is_an_error_for_the_driver_and_what_is_impossible_is_unsupported() {
    let (mut driver, _) = recorded(FLUSH, |call| match call {
        Call::Write => Err(io::ErrorKind::StorageFull.into()),
        Call::Flush => Err(io::Error::from_raw_os_error(libc::EIO)),
        _ => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
    });
    assert_eq!(write(&mut driver, 0, &[1; 512]), IO_ERROR);
    assert_eq!(flush(&mut driver), IO_ERROR);
    for kind in [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        assert_eq!(erase(&mut driver, kind, (0, 8), 0), UNSUPPORTED);
    }
    assert_eq!(driver.counter("errors"), 4);
    assert_eq!(driver.counter("writes"), 0);
    assert_eq!(driver.counter("flushes"), 0);
}

#[test]
fn a_write_through_whose_flush_fails_is_an_error() {
    let (mut driver, _) = recorded(0, |call| match call {
        Call::Flush => Err(io::Error::from_raw_os_error(libc::EIO)),
        _ => Ok(()),
    });
    assert_eq!(write(&mut driver, 0, &[1; 512]), IO_ERROR);
}

#[test]
fn an_image_whose_code_panics_answers_errors_from_then_on_and_is_not_touched_again() {
    let (mut driver, calls) = recorded(FLUSH, |call| match call {
        Call::Write => panic!("as the test asked for"),
        _ => Ok(()),
    });
    assert_eq!(write(&mut driver, 0, &[1; 512]), IO_ERROR);
    assert_eq!(calls(), [Call::Write]);
    assert_eq!(flush(&mut driver), IO_ERROR);
    assert_eq!(calls(), []);
    assert!(!driver.is_broken());
}

#[test]
fn a_pause_answers_what_is_under_way_and_leaves_the_files_whole() {
    let (mut driver, calls) = recorded(FLUSH, |_| Ok(()));
    let header = header(VIRTIO_BLK_T_OUT, 0);
    let buffers = [
        Buffer::Read(&header),
        Buffer::Read(&[1; 512]),
        Buffer::Write(1),
    ];
    let requests: Vec<_> = (0..50).map(|_| driver.add(0, &buffers)).collect();
    driver.notify(0);
    driver.turn();
    driver.device.quiesce();
    let answered: Vec<_> = driver.used(0).into_iter().map(|(head, _)| head).collect();
    let expected: Vec<_> = requests.iter().map(|request| request.head).collect();
    assert_eq!(answered, expected);
    let calls = calls();
    assert_eq!(calls.len(), 51);
    assert_eq!(calls.last(), Some(&Call::Settle));
}

#[test]
fn a_pause_whose_files_cant_be_left_whole_breaks_the_device_and_says_why() {
    let (driver, _) = recorded(FLUSH, |call| match call {
        Call::Settle => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    });
    driver.device.quiesce();
    let reason = driver.counters().broken.unwrap();
    assert!(reason.starts_with("read and write the disk: "), "{reason}");
}

#[test]
fn disks_of_every_kind_are_written_through_for_a_driver_that_knows_of_no_cache() {
    for kind in KINDS {
        let folder = TempDir::new().unwrap();
        let mut driver = Driver::new(Block::new(disk(kind, folder.path())).unwrap());
        driver.negotiate(0);
        for at in 0..20 {
            let data = pattern(at, 4096);
            assert_eq!(write(&mut driver, at * 40, &data), OK, "{kind:?}");
            assert_eq!(read(&mut driver, at * 40, 4096), data, "{kind:?}");
        }
        assert_eq!(driver.counter("flushes"), 0);
    }
}
