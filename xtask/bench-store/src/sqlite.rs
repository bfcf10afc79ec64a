//! The same commits on SQLite, as a careful author would write them: WAL, synchronous=FULL,
//! prepared statements, an index where the store has one, compare-and-set by revision.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rusqlite::{Connection, TransactionBehavior, params};

use crate::Phase;
use crate::transition::{Transition, Writer};

const SCHEMA: &str = "
    CREATE TABLE vms (id BLOB PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL,
        revision INTEGER NOT NULL, value BLOB NOT NULL, UNIQUE (tenant, name)) WITHOUT ROWID;
    CREATE TABLE operations (id BLOB PRIMARY KEY, vm BLOB NOT NULL, is_done INTEGER NOT NULL,
        value BLOB NOT NULL) WITHOUT ROWID;
    CREATE INDEX operations_of_vm ON operations (vm, id);
    CREATE INDEX unfinished ON operations (id) WHERE NOT is_done;
    CREATE TABLE events (number INTEGER PRIMARY KEY, vm BLOB, value BLOB NOT NULL);
    CREATE INDEX events_of_vm ON events (vm, number);
";

/// How long a connection waits for another, ms: longer than any run.
const BUSY_TIMEOUT: Duration = Duration::from_secs(600);

fn open(dir: &Path) -> Result<Connection> {
    let connection = Connection::open(dir.join("peer.sqlite"))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let mode: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    ensure!(mode == "wal", "the journal mode is {mode}");
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

/// Writers are threads, and share a connection or have one each. Returns how long the last phase
/// took, and the latencies in it.
pub(crate) fn run(
    dir: &Path,
    writers: usize,
    phases: [Phase; 2],
    is_shared: bool,
) -> Result<(Duration, Vec<Duration>)> {
    let first = open(dir)?;
    first.execute_batch(SCHEMA)?;
    let mut all = Vec::new();
    for number in 1..=writers {
        let writer = Writer::new(number)?;
        let record = writer.created();
        first.execute(
            "INSERT INTO vms VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                record.id.as_bytes(),
                record.spec.tenant.as_str(),
                record.spec.name.as_str(),
                record.revision.cast_signed(),
                serde_json::to_vec(&record)?
            ],
        )?;
        let own = (!is_shared).then(|| open(dir)).transpose()?;
        all.push((writer, own));
    }
    let shared = Mutex::new(first);
    let mut measured = (Duration::ZERO, Vec::new());
    for phase in phases {
        let begun = Instant::now();
        let latencies = on_threads(&mut all, |(writer, own)| {
            let mut latencies = Vec::new();
            while phase.goes_on(begun, latencies.len()) {
                let begun = Instant::now();
                let transition = writer.step();
                match own {
                    Some(own) => commit(own, &transition)?,
                    None => {
                        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
                        commit(&mut shared, &transition)?;
                    }
                }
                latencies.push(begun.elapsed());
            }
            Ok(latencies)
        })?;
        measured = (begun.elapsed(), latencies);
    }
    Ok(measured)
}

/// Runs `write` on a thread for each of `writers`; every latency.
fn on_threads<W: Send>(
    writers: &mut [W],
    write: impl Fn(&mut W) -> Result<Vec<Duration>> + Sync,
) -> Result<Vec<Duration>> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (writers.iter_mut())
            .map(|writer| scope.spawn(|| write(writer)))
            .collect();
        let mut latencies = Vec::new();
        for thread in threads {
            let of_one = thread.join().ok().context("a writer panicked")?;
            latencies.extend(of_one?);
        }
        Ok(latencies)
    })
}

fn commit(connection: &mut Connection, transition: &Transition) -> Result<()> {
    let Transition {
        record,
        operation,
        event,
    } = transition;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let changed = transaction
        .prepare_cached("UPDATE vms SET revision = ?2, value = ?3 WHERE id = ?1 AND revision = ?4")?
        .execute(params![
            record.id.as_bytes(),
            record.revision.cast_signed(),
            serde_json::to_vec(record)?,
            record.revision.cast_signed() - 1
        ])?;
    ensure!(changed == 1, "the record has another revision");
    transaction
        .prepare_cached("INSERT OR REPLACE INTO operations VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            operation.id.as_bytes(),
            operation.vm.as_bytes(),
            operation.is_done(),
            serde_json::to_vec(operation)?
        ])?;
    transaction
        .prepare_cached("INSERT INTO events (vm, value) VALUES (?1, ?2)")?
        .execute(params![
            event.vm.map(|vm| *vm.as_bytes()),
            serde_json::to_vec(event)?
        ])?;
    transaction.commit()?;
    Ok(())
}
