//! A backup's file: under its name only when it is whole.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::backup::BackupError;
use crate::check::{CheckReport, check_file};

/// A backup that is being written. Dropped before [`NewBackup::finish`], it leaves nothing.
#[derive(Debug)]
pub struct NewBackup {
    file: NamedTempFile,
    path: PathBuf,
    replace: bool,
}

impl NewBackup {
    /// Begins a file that will be at `path`, for its owner alone. One that is there is replaced
    /// only if that is wanted.
    ///
    /// # Errors
    /// There is one, or the file system said no.
    pub fn create(path: &Path, replace: bool) -> Result<Self, BackupError> {
        let is_there = path.symlink_metadata().is_ok();
        if is_there && !replace {
            return Err(BackupError::Exists(path.to_owned()));
        }
        let file = tempfile::Builder::new()
            .prefix(".backup-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(directory(path))
            .map_err(io_error(path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            replace,
        })
    }

    /// Where to write.
    #[must_use]
    pub fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Checks what was written, and gives the file its name, durably.
    ///
    /// # Errors
    /// It is not a whole store, there is another file by now, or the file system said no.
    pub fn finish(self) -> Result<CheckReport, BackupError> {
        let Self {
            file,
            path,
            replace,
        } = self;
        let mut report = check_file(file.path())?;
        report.path.clone_from(&path);
        if report.problem_count > 0 {
            return Err(BackupError::Damaged(Box::new(report)));
        }
        let io = io_error(&path);
        file.as_file().sync_all().map_err(&io)?;
        let placed = if replace {
            file.persist(&path)
        } else {
            file.persist_noclobber(&path)
        };
        placed.map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => BackupError::Exists(path.clone()),
            _ => io(error.error),
        })?;
        let synced = File::open(directory(&path)).and_then(|directory| directory.sync_all());
        synced.map_err(&io)?;
        Ok(report)
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io {
        path: path.clone(),
        source,
    }
}

/// The directory of a file.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
