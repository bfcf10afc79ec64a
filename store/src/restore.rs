//! Putting a backup in the place of a store.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::check::{CheckReport, check_file};
use crate::error::OpenError;
use crate::open::{FILE, NEW_FILE, io_error, lock_directory, prepare_directory};

/// What a store that was replaced is called, with a number behind it.
const REPLACED_FILE: &str = "roost.redb.replaced-";

/// Why a backup was not restored. The store that was there is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The directory or the backup can't be used; or a host runs on the directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is a store, and it was not said that it may be replaced.
    #[error("{0} is there already, and is not replaced")]
    Exists(PathBuf),
    /// The backup is not whole.
    #[error("{} is not a whole store: {}", .0.path.display(), .0.verdict())]
    Damaged(Box<CheckReport>),
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestoreReport {
    /// The store's file.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// Its schema.
    pub schema: u32,
    /// The number of its last event.
    pub last_event: u64,
    /// What the store that it replaced is called now.
    pub replaced: Option<PathBuf>,
}

/// Makes `dir` a store with what is in `backup`. A store that is there is replaced only if that is
/// wanted, and kept under another name. There is a whole store at each moment, the old one or the
/// new one.
///
/// # Errors
/// [`RestoreError`]; nothing was changed.
pub fn restore(backup: &Path, dir: &Path, replace: bool) -> Result<RestoreReport, RestoreError> {
    let from = File::open(backup).map_err(io_error(backup))?;
    let path = dir.join(FILE);
    prepare_directory(dir, &path)?;
    let directory = lock_directory(dir)?;
    let is_there = path.symlink_metadata().is_ok();
    if is_there && !replace {
        return Err(RestoreError::Exists(path));
    }
    let new = dir.join(NEW_FILE);
    let copied = copy_checked(from, &new);
    let report = of_backup(copied, backup).inspect_err(|_| {
        // It is of no use, and the next restore removes it if this does not.
        let _ = fs::remove_file(&new);
    })?;
    let replaced = if is_there {
        Some(keep(&path, dir)?)
    } else {
        None
    };
    fs::rename(&new, &path).map_err(io_error(&new))?;
    directory.sync_all().map_err(io_error(dir))?;
    Ok(RestoreReport {
        path,
        size_bytes: report.size_bytes,
        schema: report.schema,
        last_event: report.last_event,
        replaced,
    })
}

/// What is wrong with the copy is wrong with the backup.
fn of_backup(
    copied: Result<CheckReport, OpenError>,
    backup: &Path,
) -> Result<CheckReport, RestoreError> {
    let path = backup.to_owned();
    match copied {
        Ok(report) if report.problem_count == 0 => Ok(report),
        Ok(report) => Err(RestoreError::Damaged(Box::new(CheckReport {
            path,
            ..report
        }))),
        Err(OpenError::Corrupt { reason, .. }) => Err(OpenError::Corrupt { path, reason }.into()),
        Err(OpenError::NewerSchema { found, known, .. }) => {
            Err(OpenError::NewerSchema { path, found, known }.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Copies a backup to a new file, durably, and checks the copy.
fn copy_checked(mut from: File, to: &Path) -> Result<CheckReport, OpenError> {
    let io = io_error(to);
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(&io)?;
    io::copy(&mut from, &mut file).map_err(&io)?;
    file.sync_all().map_err(&io)?;
    check_file(to)
}

/// Gives the store a second name, under which it stays when another takes its place.
fn keep(path: &Path, dir: &Path) -> Result<PathBuf, OpenError> {
    let mut number: u64 = 1;
    loop {
        let kept = dir.join(format!("{REPLACED_FILE}{number}"));
        match fs::hard_link(path, &kept) {
            Ok(()) => return Ok(kept),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(io_error(&kept)(error)),
        }
    }
}
