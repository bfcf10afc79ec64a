//! Durable state of a Roost host.
//!
//! [`Store`] keeps records in one redb file. Reads are snapshots and never wait for writes. All
//! writes go through one thread, which puts every commit that waits into one transaction, so that
//! a crowd of writers shares an fsync (group commit). A commit is data, a list of [`Change`]s:
//! what it expects is checked before any of it is applied, so one that conflicts leaves no trace
//! while those beside it go through.
//!
//! [`Blobs`] keeps files by the SHA-256 of their content: images and components.
//!
//! Both belong to one host process at a time, and to its user: directories are 0700, files 0600.
//!
//! ```
//! use roost_model::{EventKind, NewEvent};
//! use roost_store::{Change, Store};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let store = Store::open(&dir.path().join("store"))?;
//! let event = NewEvent {
//!     at_ms: 1_700_000_000_000,
//!     vm: None,
//!     tenant: None,
//!     incarnation: None,
//!     kind: EventKind::HostStarted { pid: 7 },
//! };
//! let committed = store.commit(vec![Change::AppendEvent(event)]).await?;
//! assert_eq!(committed.events, store.events(0, 10)?);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod backup;
mod blobs;
mod change;
mod check;
mod compact;
mod error;
mod inspect;
mod migrate;
mod open;
mod overlay;
mod place;
mod plan;
mod read;
mod restore;
mod retention;
mod schema;
mod state;
mod store;
mod writer;

pub use backup::{Backup, BackupError, back_up};
pub use blobs::{BlobError, BlobWriter, Blobs};
pub use change::{Change, Committed, Conflict, Expect, KvUsage, KvWrite};
pub use check::{CheckReport, Problem, TableReport, check, check_file};
pub use compact::{CompactReport, compact};
pub use error::{CommitError, OpenError, ReadError};
pub use place::NewBackup;
pub use read::{Counts, DecisionFilter, DecisionPage, Order, Snapshot};
pub use restore::{RestoreError, RestoreReport, restore};
pub use retention::Retention;
pub use schema::SCHEMA_VERSION;
pub use store::Store;

// The modules below also belong to tests that see the crate from outside.
#[cfg(test)]
extern crate self as roost_store;
#[cfg(test)]
mod model;
#[cfg(test)]
#[path = "../tests/records/mod.rs"]
mod records;
#[cfg(test)]
#[path = "../tests/rows/mod.rs"]
mod rows;
#[cfg(test)]
#[path = "../tests/values/mod.rs"]
mod values;
