//! From open files to a backend: what they are, whether they may be used, and by what.

use std::fs::{File, TryLockError};
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl};

use super::backend::{Backend, Image, Qcow2Header, Qcow2Image, RawImage, Ring, Threaded};
use super::config::{BaseImage, DiskConfig, DiskError, DiskFormat, IoEngine};
use super::request::Disk;
use super::space::SECTOR_BYTES;

/// How long a file that is locked is waited for. When a process was killed, the kernel finishes what
/// its io_uring had begun, and only then gives its files up.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How often it is tried meanwhile.
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// Bytes of the disk that is in `file`, which is open for reading; checks what can be checked
/// without the other files that it may need.
///
/// # Errors
/// It can't be a disk.
pub fn disk_bytes(file: &File, format: DiskFormat) -> Result<u64, DiskError> {
    let bytes = match format {
        DiskFormat::Raw => file_bytes(file)?,
        DiskFormat::Qcow2 => Qcow2Header::read(file)?.bytes,
    };
    match bytes {
        0 => Err(DiskError::Size(0)),
        bytes if !bytes.is_multiple_of(SECTOR_BYTES) => Err(DiskError::Size(bytes)),
        bytes => Ok(bytes),
    }
}

/// Checks and locks the files of `config` and makes what reads and writes them.
pub(super) fn open(config: DiskConfig) -> Result<(Disk, Box<dyn Backend>), DiskError> {
    let DiskConfig {
        file,
        format,
        base,
        read_only,
        engine,
        ..
    } = config;
    check_access(&file, !read_only)?;
    lock(&file, !read_only)?;
    if let Some(base) = &base {
        check_base(&file, base)?;
    }
    let disk = Disk {
        capacity_bytes: disk_bytes(&file, format)?,
        read_only,
    };
    let backend = match (format, base) {
        (DiskFormat::Raw, None) => raw(file, engine)?,
        (DiskFormat::Raw, Some(_)) => return Err(DiskError::BaseUnderRaw),
        (DiskFormat::Qcow2, base) => qcow2(file, base, read_only)?,
    };
    Ok((disk, backend))
}

fn check_base(file: &File, base: &BaseImage) -> Result<(), DiskError> {
    check_access(&base.file, false)?;
    let identity = |file: &File| -> Result<_, DiskError> {
        let metadata = file.metadata().map_err(DiskError::host("look at a file"))?;
        Ok((metadata.dev(), metadata.ino()))
    };
    if identity(file)? == identity(&base.file)? {
        return Err(DiskError::SameFile);
    }
    lock(&base.file, false)?;
    disk_bytes(&base.file, base.format).map(drop)
}

/// Whether the file is open for what will be done with it.
fn check_access(file: &File, write: bool) -> Result<(), DiskError> {
    let flags = fcntl_getfl(file).map_err(|error| DiskError::Host {
        what: "ask how a file was opened",
        source: error.into(),
    })?;
    let mode = flags & OFlags::ACCMODE;
    if mode == OFlags::WRONLY || flags.contains(OFlags::PATH) {
        return Err(DiskError::Access("reading"));
    }
    // With it every write goes to the end.
    if write && (mode != OFlags::RDWR || flags.contains(OFlags::APPEND)) {
        return Err(DiskError::Access("writing anywhere"));
    }
    Ok(())
}

/// Locks the file for as long as anybody has this open file description: for one who writes or
/// for many who read.
fn lock(file: &File, write: bool) -> Result<(), DiskError> {
    let until = Instant::now() + LOCK_PATIENCE;
    loop {
        let locked = match write {
            true => file.try_lock(),
            false => file.try_lock_shared(),
        };
        match locked {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(source)) => {
                return Err(DiskError::host("lock a file")(source));
            }
            Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                return Err(DiskError::InUse);
            }
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_RETRY),
        }
    }
}

fn file_bytes(file: &File) -> Result<u64, DiskError> {
    let metadata = file.metadata().map_err(DiskError::host("look at a file"))?;
    match metadata.file_type() {
        kind if kind.is_file() => Ok(metadata.len()),
        kind if kind.is_block_device() => {
            let mut file = file;
            file.seek(SeekFrom::End(0))
                .map_err(DiskError::host("find a block device's end"))
        }
        _ => Err(DiskError::Kind),
    }
}

fn raw(file: File, engine: IoEngine) -> Result<Box<dyn Backend>, DiskError> {
    let file = match engine {
        IoEngine::Thread => file,
        IoEngine::Auto | IoEngine::IoUring => match Ring::new(file) {
            Ok(ring) => return Ok(Box::new(ring)),
            Err((error, _)) if engine == IoEngine::IoUring => {
                return Err(DiskError::host("set up io_uring")(error));
            }
            Err((_, file)) => file,
        },
    };
    threaded(Box::new(RawImage::new(file)))
}

fn qcow2(
    file: File,
    base: Option<BaseImage>,
    read_only: bool,
) -> Result<Box<dyn Backend>, DiskError> {
    let header = Qcow2Header::read(&file)?;
    match (header.names_base, &base) {
        (true, None) => return Err(DiskError::BaseMissing),
        (false, Some(_)) => return Err(DiskError::NotAnOverlay),
        _ => {}
    }
    if let Some(base) = &base
        && base.format == DiskFormat::Qcow2
        && Qcow2Header::read(&base.file)?.names_base
    {
        return Err(DiskError::BaseMissing);
    }
    if !read_only {
        header.check_writable(&file)?;
    }
    let open = AssertUnwindSafe(|| Qcow2Image::open(file, base, read_only));
    let image = catch_unwind(open)
        .unwrap_or_else(|_| Err(DiskError::Qcow2("reading it failed".to_owned())))?;
    threaded(Box::new(image))
}

fn threaded(image: Box<dyn Image>) -> Result<Box<dyn Backend>, DiskError> {
    let threaded = Threaded::new(image).map_err(DiskError::host("start a disk's thread"))?;
    Ok(Box::new(threaded))
}
