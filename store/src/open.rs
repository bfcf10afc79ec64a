//! Opening a store, or making one.
//!
//! A file that is there is first opened through an [`Overlay`], where redb can recover it and all
//! checks are made; only one that passes them is opened for real. A new one is made under another
//! name and renamed when it is complete, so that there is never half a store.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, ReadableDatabase as _, StorageBackend, StorageError};

use crate::error::{OpenError, ReadError};
use crate::inspect::inspect;
use crate::migrate::migrate;
use crate::retention::{MAX_FINISHED_OPERATIONS, Retention};
use crate::schema::{self as tables, SCHEMA_KEY, SCHEMA_VERSION};

/// The database's file in the store's directory.
pub(crate) const FILE: &str = "roost.redb";
/// A store that is being made.
pub(crate) const NEW_FILE: &str = "roost.redb.new";
/// Pages that redb keeps in memory, bytes: the records of a few thousand VMs.
const CACHE_BYTES: usize = 32 << 20;
/// Largest file whose every page is checked at each start: reading it takes a fraction of the
/// second in which a host must be back. In a larger one only what recovery and reads touch is.
const MAX_CHECKED_BYTES: u64 = 128 << 20;
/// Permission bits of everyone but the owner.
const OTHERS: u32 = 0o077;

/// What a test may want otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Pages that redb keeps in memory, bytes.
    pub(crate) cache_bytes: usize,
    /// Finished operations that are kept.
    pub(crate) keep_operations: u64,
    /// Decisions that are kept.
    pub(crate) retention: Retention,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cache_bytes: CACHE_BYTES,
            keep_operations: MAX_FINISHED_OPERATIONS,
            retention: Retention::default(),
        }
    }
}

/// A store's database, open.
pub(crate) struct Opened {
    pub(crate) database: Database,
    /// The file below it.
    pub(crate) file: File,
    /// The number of the last event.
    pub(crate) last_event: u64,
    /// The directory. While it is open, no other host gets it.
    pub(crate) directory: File,
}

/// Opens or makes the store in `dir`; `backend` is how redb gets at the file.
pub(crate) fn open<B: StorageBackend>(
    dir: &Path,
    limits: Limits,
    backend: impl FnOnce(File) -> Result<B, DatabaseError>,
) -> Result<Opened, OpenError> {
    let path = dir.join(FILE);
    prepare_directory(dir, &path)?;
    let directory = lock_directory(dir)?;
    if !path.try_exists().map_err(io_error(&path))? {
        create(dir, &path, &directory)?;
    }
    let file = open_file(&path)?;
    let last_event = check(&path, &file)?;
    file.set_permissions(Permissions::from_mode(0o600))
        .map_err(io_error(&path))?;
    let database = database(&path, &file, limits, backend)?;
    migrate(&database).map_err(|error| read_error(&path, error))?;
    Ok(Opened {
        database,
        file,
        last_event,
        directory,
    })
}

/// A store's file.
pub(crate) fn open_file(path: &Path) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.open(path).map_err(io_error(path))
}

/// The database in `file`, which was checked.
pub(crate) fn database<B: StorageBackend>(
    path: &Path,
    file: &File,
    limits: Limits,
    backend: impl FnOnce(File) -> Result<B, DatabaseError>,
) -> Result<Database, OpenError> {
    file.try_clone()
        .map_err(|error| DatabaseError::from(StorageError::from(error)))
        .and_then(backend)
        .and_then(|backend| builder(limits).create_with_backend(backend))
        .map_err(|error| database_error(path, error))
}

pub(crate) fn builder(limits: Limits) -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(limits.cache_bytes);
    builder
}

/// Takes the directory of a store, as long as the file that is returned is open.
pub(crate) fn lock_directory(dir: &Path) -> Result<File, OpenError> {
    let directory = File::open(dir).map_err(io_error(dir))?;
    match directory.try_lock() {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(dir.join(FILE))),
        Err(TryLockError::Error(source)) => Err(io_error(dir)(source)),
    }
}

pub(crate) fn io_error(path: &Path) -> impl Fn(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io {
        path: path.clone(),
        source,
    }
}

/// Makes the directory, for its owner alone. One that is there is tightened if it is the store's
/// or empty: to lock everyone out of somebody else's directory would do damage.
pub(crate) fn prepare_directory(dir: &Path, path: &Path) -> Result<(), OpenError> {
    let io = io_error(dir);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(&io)?;
    let mode = fs::metadata(dir).map_err(&io)?.permissions().mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    let is_ours = path.try_exists().map_err(&io)?;
    if !is_ours && fs::read_dir(dir).map_err(&io)?.next().is_some() {
        return Err(OpenError::SharedDirectory {
            path: dir.to_owned(),
            mode,
        });
    }
    fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(&io)
}

/// Makes an empty store. Whoever calls holds the directory's lock.
fn create(dir: &Path, path: &Path, directory: &File) -> Result<(), OpenError> {
    let new = dir.join(NEW_FILE);
    let io = io_error(&new);
    // A host that was killed here has left one.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(&io)?;
    let backend = file.try_clone().map_err(&io)?;
    let database = FileBackend::new(backend)
        .and_then(|backend| builder(Limits::default()).create_with_backend(backend))
        .map_err(|error| database_error(&new, error))?;
    create_tables(&database).map_err(|error| read_error(&new, error))?;
    database
        .close()
        .map_err(|error| database_error(&new, error))?;
    file.sync_all().map_err(&io)?;
    fs::rename(&new, path).map_err(&io)?;
    directory.sync_all().map_err(io_error(dir))
}

fn create_tables(database: &Database) -> Result<(), ReadError> {
    let transaction = database.begin_write()?;
    for table in tables::tables(SCHEMA_VERSION) {
        transaction.open_table(table.definition())?;
    }
    let version = SCHEMA_VERSION.to_be_bytes();
    transaction
        .open_table(tables::META.definition())?
        .insert(SCHEMA_KEY, version.as_slice())?;
    transaction.commit()?;
    Ok(())
}

/// Checks the file without changing it; the number of its last event.
fn check(path: &Path, file: &File) -> Result<u64, OpenError> {
    let length = file.metadata().map_err(io_error(path))?.len();
    inspect(path, file, length <= MAX_CHECKED_BYTES, |_, _, last| {
        Ok(last)
    })
}

/// The schema version that is written in the database.
pub(crate) fn schema(database: &Database) -> Result<u32, ReadError> {
    let meta = database
        .begin_read()?
        .open_table(tables::META.definition())?;
    let value = meta.get(SCHEMA_KEY)?;
    let version = value
        .and_then(|value| value.value().try_into().ok())
        .map(u32::from_be_bytes)
        .filter(|version| *version > 0);
    version.ok_or_else(|| tables::META.damaged("there is no schema version"))
}

pub(crate) fn read_error(path: &Path, error: ReadError) -> OpenError {
    let path = path.to_owned();
    match error {
        ReadError::Database(error) => match *error {
            redb::Error::Io(source) if !is_damage(&source) => OpenError::Io { path, source },
            error => OpenError::Corrupt {
                path,
                reason: error.to_string(),
            },
        },
        ReadError::Value { .. } => OpenError::Corrupt {
            path,
            reason: error.to_string(),
        },
    }
}

pub(crate) fn database_error(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::Locked(PathBuf::from(path)),
        error => read_error(path, error.into()),
    }
}

/// Whether redb found the content wrong, and not the disk.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput
    )
}
