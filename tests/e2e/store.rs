//! Backup, restore, check and compact by the command line, beside a real host.

#[allow(dead_code)]
#[path = "host.rs"]
mod host;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use host::Host;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_host_is_backed_up_while_it_runs_and_restored_under_its_running_vms() {
    let mut host = Host::start();
    host.boot_hello("web");
    let worker = host.worker("web");
    let backup = host.dir.path().join("backup.redb");
    let (file, data) = (backup.to_str().unwrap(), host.data());
    let data = data.to_str().unwrap();

    let made = host.roost(&["store", "backup", file]);
    assert_eq!(made["problem_count"], 0);
    assert_eq!(made["path"], file);
    assert_eq!(made["size_bytes"], backup.metadata().unwrap().len());
    assert_eq!(mode(&backup), 0o600);
    assert_eq!(host.roost(&["store", "check", file]), made);
    let content = fs::read(&backup).unwrap();
    let error = host.refused(&["store", "backup", file]);
    assert!(error.contains("--force replaces it"), "{error}");
    assert!(fs::read(&backup).unwrap() == content);
    host.roost(&["store", "backup", file, "--force"]);

    // Nothing reaches below a host that runs.
    for command in [
        &["store", "restore", file, "--force", "--data", data][..],
        &["store", "check", "--data", data],
        &["store", "compact", "--data", data],
        &["store", "backup", "--data", data, "/dev/null/nowhere"],
    ] {
        let error = host.refused(command);
        assert!(error.contains("in use by another process"), "{error}");
    }
    // What comes after the backup, and is lost with the restore.
    let kernel = host.file("k", roost_guests::HELLO);
    host.roost(&["vm", "create", "--name", "later", "--kernel", &kernel]);
    host.roost(&["vm", "boot", "later"]);
    let unknown = host.worker("later").unwrap();

    host.kill();
    let checked = host.roost(&["store", "check", "--data", data]);
    assert_eq!(checked["problem_count"], 0);
    let error = host.refused(&["store", "restore", file, "--data", data]);
    assert!(error.contains("--force replaces it"), "{error}");
    let restored = host.roost(&["store", "restore", file, "--data", data, "--force"]);
    let kept = restored["replaced"].as_str().unwrap();
    assert_eq!(mode(Path::new(kept)), 0o600);
    assert_eq!(
        host.roost(&["store", "check", kept])["tables"],
        checked["tables"]
    );
    let compacted = host.roost(&["store", "compact", "--data", data]);
    assert!(compacted["after_bytes"].as_u64() <= compacted["before_bytes"].as_u64());

    host.start_again();
    host.until("adoption", || {
        let record = host.roost(&["vm", "show", "web"]);
        (record["state"] == "running").then_some(())
    });
    assert_eq!(host.worker("web"), worker);
    let error = host.refused(&["vm", "show", "later"]);
    assert!(error.contains("there is no VM"), "{error}");
    host.until("the worker that no record knows has ended", || {
        (!Path::new(&format!("/proc/{unknown}")).exists()).then_some(())
    });
}

#[test]
fn a_check_of_a_damaged_file_says_what_is_wrong_and_ends_with_status_1() {
    let host = Host::start();
    host.roost(&[
        "vm",
        "create",
        "--name",
        "web",
        "--kernel",
        &host.file("k", roost_guests::HELLO),
    ]);
    let backup = host.dir.path().join("backup.redb");
    let file = backup.to_str().unwrap();
    host.roost(&["store", "backup", file]);
    let whole = fs::read(&backup).unwrap();

    // A row.
    {
        let vms: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("vms");
        let database = redb::Database::open(&backup).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut rows = transaction.open_table(vms).unwrap();
        rows.insert([0xab; 16].as_slice(), b"\x01{}".as_slice())
            .unwrap();
        drop(rows);
        transaction.commit().unwrap();
    }
    let output = host.run(&["store", "check", file]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["problem_count"], 1);
    assert_eq!(report["problems"][0]["table"], "vms");
    assert_eq!(report["problems"][0]["key"], "ab".repeat(16));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("1 problems, the first in vms: missing field"),
        "{error}"
    );
    let fresh = host.dir.path().join("fresh");
    let error = host.refused(&["store", "restore", file, "--data", fresh.to_str().unwrap()]);
    assert!(error.contains("is not a whole store"), "{error}");
    assert!(!fresh.join("store/roost.redb").exists());

    // Pages, and the end.
    let mut flipped = whole.clone();
    flipped[4096..].iter_mut().for_each(|byte| *byte ^= 1);
    for damaged in [&flipped[..], &whole[..whole.len() / 2], b"a text"] {
        fs::write(&backup, damaged).unwrap();
        let output = host.run(&["store", "check", file]);
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains("is damaged or not a store"), "{error}");
        assert!(fs::read(&backup).unwrap() == damaged);
    }
    let error = host.refused(&["store", "check"]);
    assert!(error.contains("--data"), "{error}");
}

#[test]
fn a_host_refuses_a_damaged_database_and_names_the_way_back() {
    let mut host = Host::start();
    host.roost(&[
        "vm",
        "create",
        "--name",
        "web",
        "--kernel",
        &host.file("k", roost_guests::HELLO),
    ]);
    let backup = host.dir.path().join("backup.redb");
    let (file, data) = (backup.to_str().unwrap(), host.data());
    let data = data.to_str().unwrap();
    host.roost(&["store", "backup", file]);
    host.kill();
    let database = host.data().join("store/roost.redb");
    let mut damaged = fs::read(&database).unwrap();
    damaged[4096..].iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(&database, &damaged).unwrap();

    let served = Command::new(env!("CARGO_BIN_EXE_roost"))
        .args(["serve", "--data", data])
        .output()
        .unwrap();
    assert_eq!(served.status.code(), Some(1));
    let error = String::from_utf8(served.stderr).unwrap();
    assert!(error.contains("is damaged or not a store"), "{error}");
    assert!(error.contains("`roost store restore`"), "{error}");
    assert!(fs::read(&database).unwrap() == damaged);

    let restored = host.roost(&["store", "restore", file, "--data", data, "--force"]);
    let kept = restored["replaced"].as_str().unwrap();
    assert!(fs::read(kept).unwrap() == damaged);
    host.start_again();
    assert_eq!(host.roost(&["vm", "show", "web"])["state"], "stopped");
}
