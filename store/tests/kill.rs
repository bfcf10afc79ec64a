//! A host that is killed loses nothing that it was told is committed.

mod records;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use records::*;
use roost_model::VmId;
use roost_store::{Change, Expect, Store};

/// Where the child, which is this test's own executable, has its store.
const CHILD: &str = "ROOST_STORE_KILL_CHILD";
/// How many commits the child makes at a time.
const WRITERS: u128 = 8;
/// Commits that are seen before the child is killed.
const SEEN_BEFORE_KILL: usize = 60;
const ROUNDS: u128 = 3;

/// Commits without an end and prints each VM when its commit returned.
async fn commit_until_killed(dir: &Path) {
    let store = Store::open(dir).unwrap();
    let first = store.vms().unwrap().len() as u128;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for round in 0.. {
                    let n = 1_000_000 * (first + 1) + round * WRITERS + writer;
                    let changes = vec![
                        Change::PutVm {
                            record: vm(n, &format!("vm-{n}")),
                            expect: Expect::Absent,
                        },
                        Change::AppendEvent(event(1)),
                        Change::CloseWindow(window(key(n, 1, 1))),
                    ];
                    store.commit(changes).await.unwrap();
                    let line = format!("committed {}\n", vm_id(n));
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_was_acknowledged_before_kill_9_is_there_after_it() {
    if let Some(dir) = std::env::var_os(CHILD) {
        return commit_until_killed(Path::new(&dir)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<VmId> = Vec::new();
    for _ in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["everything_that_was_acknowledged_before_kill_9_is_there_after_it"])
            .args(["--exact", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut take = |line: String| {
            // A line that the kill cut off was not printed.
            let id = line
                .split_once("committed ")
                .and_then(|(_, id)| id.parse::<VmId>().ok());
            acknowledged.extend(id);
        };
        for line in lines.by_ref().take(SEEN_BEFORE_KILL) {
            take(line.unwrap());
        }
        child.kill().unwrap();
        lines.map_while(Result::ok).for_each(&mut take);
        child.wait().unwrap();

        let store = Store::open(dir.path()).unwrap();
        for id in &acknowledged {
            assert!(store.vm(*id).unwrap().is_some(), "{id} was acknowledged");
        }
        // Nothing is there in part, and nothing was numbered twice or left out.
        let vms = store.vms().unwrap();
        let events = store.events(0, usize::MAX).unwrap();
        let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
        assert_eq!(numbers, (1..=vms.len() as u64).collect::<Vec<_>>());
        let outbox = store.outbox(usize::MAX).unwrap();
        assert_eq!(outbox.len(), vms.len());
        for record in vms {
            let found = store
                .vm_by_name(&record.spec.tenant, &record.spec.name)
                .unwrap();
            assert_eq!(found.as_ref(), Some(&record));
            assert_eq!(store.open_window(record.id).unwrap(), None);
            assert_eq!(store.outbox_of(record.id, 9).unwrap().len(), 1);
        }
    }
    assert!(acknowledged.len() >= SEEN_BEFORE_KILL);
}
