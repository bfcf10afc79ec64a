//! Stores of rows that older versions wrote.
#![allow(dead_code, reason = "each test uses some of it")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use redb::{Database, TableDefinition};

pub(crate) const SCHEMA_1: &str = include_str!("../golden/schema-1.jsonl");
pub(crate) const SCHEMA_2: &str = include_str!("../golden/schema-2.jsonl");
pub(crate) const SCHEMA_3: &str = include_str!("../golden/schema-3.jsonl");

/// A row of a golden file.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Row {
    pub(crate) table: String,
    pub(crate) key: String,
    pub(crate) value: String,
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// A store with the rows of a golden file, of so many tables.
pub(crate) fn golden(rows: &str, tables: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    let database = Database::create(dir.path().join("roost.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    for line in rows.lines() {
        let row: Row = serde_json::from_str(line).unwrap();
        let definition: TableDefinition<&[u8], &[u8]> = TableDefinition::new(&row.table);
        let mut table = transaction.open_table(definition).unwrap();
        // Values are text behind a version byte, or bytes of an index.
        let value = match row.value.strip_prefix("1:") {
            Some(json) => [b"\x01", json.as_bytes()].concat(),
            None => unhex(&row.value),
        };
        table
            .insert(unhex(&row.key).as_slice(), value.as_slice())
            .unwrap();
    }
    // The golden file has rows of every table.
    assert_eq!(transaction.list_tables().unwrap().count(), tables);
    transaction.commit().unwrap();
    dir
}
