//! Looking at a store, or at a backup of one, without changing a byte of it.

pub(crate) mod rows;
mod tally;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable as _,
    ReadableTableMetadata as _, TableHandle as _,
};
use serde::Serialize;

use self::rows::RowCheck;
use self::tally::Tally;
use crate::error::{OpenError, ReadError};
use crate::inspect::inspect;
use crate::open::{FILE, io_error, lock_directory};
use crate::schema::{self as tables, Table, checked_tables};

/// Problems that a report tells apart; further ones are counted.
const MAX_PROBLEMS: usize = 100;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// Its schema.
    pub schema: u32,
    /// The number of the last event.
    pub last_event: u64,
    /// Its tables, in the order of their names.
    pub tables: Vec<TableReport>,
    /// How many problems there are.
    pub problem_count: u64,
    /// The first hundred of them.
    pub problems: Vec<Problem>,
}

/// A table of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableReport {
    /// Its name.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// Keys and values together.
    pub bytes: u64,
}

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// In which table.
    pub table: String,
    /// The row's key as hexadecimal digits, if it is of one row.
    pub key: Option<String>,
    /// What is wrong.
    pub what: String,
}

/// Checks the store in `dir`: the checksums of all pages, each value, and that rows that belong
/// together are all there.
///
/// # Errors
/// [`OpenError`] if there is no store, a host has it, it is newer, or it is so damaged that its
/// rows can't be looked at.
pub fn check(dir: &Path) -> Result<CheckReport, OpenError> {
    let _lock = lock_directory(dir)?;
    check_file(&dir.join(FILE))
}

/// [`check`] of a file, such as a backup.
///
/// # Errors
/// As with [`check`].
pub fn check_file(path: &Path) -> Result<CheckReport, OpenError> {
    let file = File::open(path).map_err(io_error(path))?;
    // redb locks the file that it has open for writing.
    match file.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(path.to_owned())),
        Err(TryLockError::Error(source)) => return Err(io_error(path)(source)),
    }
    let size_bytes = file.metadata().map_err(io_error(path))?.len();
    inspect(path, &file, true, |database, schema, last_event| {
        let mut report = CheckReport {
            path: path.to_owned(),
            size_bytes,
            schema,
            last_event,
            tables: Vec::new(),
            problem_count: 0,
            problems: Vec::new(),
        };
        report.look_at(database)?;
        Ok(report)
    })
}

impl CheckReport {
    /// One sentence for a person.
    #[must_use]
    pub fn verdict(&self) -> String {
        match self.problems.first() {
            None => "no problems".to_owned(),
            Some(first) => format!(
                "{} problems, the first in {}: {}",
                self.problem_count, first.table, first.what
            ),
        }
    }

    fn problem(&mut self, table: &str, key: Option<&[u8]>, what: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < MAX_PROBLEMS {
            let hex = |key: &[u8]| key.iter().map(|byte| format!("{byte:02x}")).collect();
            self.problems.push(Problem {
                table: table.to_owned(),
                key: key.map(hex),
                what: what.into(),
            });
        }
    }

    fn look_at(&mut self, database: &Database) -> Result<(), ReadError> {
        let transaction = database.begin_read()?;
        let mut tally = Tally::default();
        for (table, check) in checked_tables(self.schema) {
            self.look_at_table(&transaction, table, check, &mut tally)?;
        }
        tally.compare(&transaction, self)?;
        let known: Vec<_> = tables::tables(self.schema).map(|table| table.0).collect();
        for found in transaction.list_tables()? {
            if !known.contains(&found.name()) {
                let what = format!("schema {} has no such table", self.schema);
                self.problem(found.name(), None, what);
            }
        }
        self.tables.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }

    fn look_at_table(
        &mut self,
        transaction: &ReadTransaction,
        table: Table,
        check: RowCheck,
        tally: &mut Tally,
    ) -> Result<(), ReadError> {
        let rows = transaction.open_table(table.definition())?;
        let mut bytes: u64 = 0;
        for row in rows.iter()? {
            let (key, value) = row?;
            let (key, value) = (key.value(), value.value());
            bytes = bytes.saturating_add(key.len() as u64 + value.len() as u64);
            match check(key, value) {
                Ok(row) => {
                    tally.count(table, key, value, &row);
                    self.look_beside(transaction, table, key, &row)?;
                }
                Err(ReadError::Value { reason, .. }) => self.problem(table.0, Some(key), reason),
                Err(error) => return Err(error),
            }
        }
        self.tables.push(TableReport {
            name: table.0.to_owned(),
            rows: rows.len()?,
            bytes,
        });
        Ok(())
    }

    /// What a row says about others must be so.
    fn look_beside(
        &mut self,
        transaction: &ReadTransaction,
        table: Table,
        key: &[u8],
        row: &rows::Row,
    ) -> Result<(), ReadError> {
        let has = |table: &Table| tables::tables(self.schema).any(|known| known == *table);
        let mut wrong = Vec::new();
        if row.key != key {
            wrong.push("its value belongs to another key".to_owned());
        }
        for (index, key, value) in row.indexed.iter().filter(|(index, ..)| has(index)) {
            let found = transaction.open_table(index.definition())?;
            if found.get(key.as_slice())?.as_ref().map(|v| v.value()) != Some(value) {
                wrong.push(format!("{} does not lead to it", index.0));
            }
        }
        for (target, key) in &row.leads_to {
            let target_rows = transaction.open_table(target.definition())?;
            if target_rows.get(key.as_slice())?.is_none() {
                wrong.push(format!("it names a row that {} does not have", target.0));
            }
        }
        for what in wrong {
            self.problem(table.0, Some(key), what);
        }
        Ok(())
    }
}
