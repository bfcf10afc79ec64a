//! Looking at a file without changing a byte of it.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Database, ReadableDatabase as _, ReadableTable as _};

use crate::error::{OpenError, ReadError};
use crate::open::{Limits, builder, database_error, io_error, read_error, schema};
use crate::overlay::Overlay;
use crate::schema::{self as tables, SCHEMA_VERSION, number};

/// Looks at a file without changing it: that it is a store, with a schema that is known here, that
/// its pages are whole if `every_page`, that its tables are there; and then whatever `look` wants,
/// which gets the database, the schema and the number of the last event.
pub(crate) fn inspect<T>(
    path: &Path,
    file: &File,
    every_page: bool,
    look: impl FnOnce(&Database, u32, u64) -> Result<T, ReadError>,
) -> Result<T, OpenError> {
    let corrupt = |reason: &str| OpenError::Corrupt {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    let metadata = file.metadata().map_err(io_error(path))?;
    if !metadata.is_file() {
        return Err(corrupt("it is not a regular file"));
    }
    if metadata.len() == 0 {
        return Err(corrupt("it is empty"));
    }
    let overlay = file
        .try_clone()
        .and_then(Overlay::new)
        .map_err(io_error(path))?;
    // redb trusts a file that was closed in good order and can panic if it was damaged since.
    catch_unwind(AssertUnwindSafe(|| {
        let database = builder(Limits::default())
            .create_with_backend(overlay)
            .map_err(|error| database_error(path, error))?;
        let (database, schema, last_event) = check_database(path, database, every_page)?;
        look(&database, schema, last_event).map_err(|error| read_error(path, error))
    }))
    .unwrap_or_else(|_| Err(corrupt("redb could not make sense of its pages")))
}

/// The database again, its schema, and the number of its last event.
fn check_database(
    path: &Path,
    mut database: Database,
    every_page: bool,
) -> Result<(Database, u32, u64), OpenError> {
    let found = schema(&database).map_err(|error| read_error(path, error))?;
    if found > SCHEMA_VERSION {
        return Err(OpenError::NewerSchema {
            path: path.to_owned(),
            found,
            known: SCHEMA_VERSION,
        });
    }
    if every_page {
        let is_clean = database
            .check_integrity()
            .map_err(|error| database_error(path, error))?;
        if !is_clean {
            return Err(OpenError::Corrupt {
                path: path.to_owned(),
                reason: "the checksums of its pages do not match".to_owned(),
            });
        }
    }
    let last_event = check_tables(&database, found).map_err(|error| read_error(path, error))?;
    Ok((database, found, last_event))
}

/// Every table of `schema` is there; the number of the last event.
fn check_tables(database: &Database, schema: u32) -> Result<u64, ReadError> {
    let transaction = database.begin_read()?;
    for table in tables::tables(schema) {
        transaction.open_table(table.definition())?;
    }
    let events = transaction.open_table(tables::EVENTS.definition())?;
    let last = events.last()?;
    last.map_or(Ok(0), |(key, _)| number(tables::EVENTS, key.value()))
}
