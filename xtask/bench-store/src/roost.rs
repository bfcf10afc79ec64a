//! Commits on `roost-store`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use roost_store::{Change, Expect, Store};

use crate::Phase;
use crate::transition::Writer;

/// Writers are tasks, as a host's actors are. Returns how long the last phase took, and the
/// latencies in it.
pub(crate) fn run(
    dir: &Path,
    writers: usize,
    phases: [Phase; 2],
) -> Result<(Duration, Vec<Duration>)> {
    let store = Store::open(dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    runtime.block_on(async {
        let mut all = Vec::new();
        for number in 1..=writers {
            let writer = Writer::new(number)?;
            let record = writer.created();
            let expect = Expect::Absent;
            store.commit(vec![Change::PutVm { record, expect }]).await?;
            all.push(writer);
        }
        let mut measured = (Duration::ZERO, Vec::new());
        for phase in phases {
            let begun = Instant::now();
            let tasks: Vec<_> = (all.drain(..))
                .map(|writer| tokio::spawn(write(store.clone(), writer, phase, begun)))
                .collect();
            let mut latencies = Vec::new();
            for task in tasks {
                let (writer, of_one) = task.await.context("a writer panicked")??;
                latencies.extend(of_one);
                all.push(writer);
            }
            measured = (begun.elapsed(), latencies);
        }
        Ok(measured)
    })
}

async fn write(
    store: Store,
    mut writer: Writer,
    phase: Phase,
    begun: Instant,
) -> Result<(Writer, Vec<Duration>)> {
    let mut latencies = Vec::new();
    while phase.goes_on(begun, latencies.len()) {
        let begun = Instant::now();
        let transition = writer.step();
        let expect = Expect::Revision(transition.record.revision - 1);
        let record = transition.record;
        store
            .commit(vec![
                Change::PutVm { record, expect },
                Change::PutOperation(transition.operation),
                Change::AppendEvent(transition.event),
            ])
            .await?;
        latencies.push(begun.elapsed());
    }
    Ok((writer, latencies))
}
