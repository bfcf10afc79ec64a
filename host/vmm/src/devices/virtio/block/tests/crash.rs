//! What was flushed is there after the process was killed.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::*;

/// In the child: the folder of the disk.
const FOLDER: &str = "ROOST_TEST_CRASH_FOLDER";
/// In the child: the number of the disk's kind.
const KIND: &str = "ROOST_TEST_CRASH_KIND";
/// This test, which is also what the child runs.
const TEST: &str = "devices::virtio::block::tests::crash::what_was_flushed_survives_kill_9";
/// Blocks of the disk that are written.
const BLOCKS: u64 = 500;

/// Where block `at` is, sectors: all over the disk, so that clusters are allocated in no order.
fn place(at: u64) -> u64 {
    at * 389 % 511 * 16
}

#[test]
fn what_was_flushed_survives_kill_9() {
    if let (Some(folder), Ok(kind)) = (env::var_os(FOLDER), env::var(KIND)) {
        let kind = KINDS[kind.parse::<usize>().unwrap()];
        write_until_killed(kind, Path::new(&folder));
    }
    for (number, kind) in KINDS.into_iter().enumerate() {
        for killed_after in [1, 7, 60, 333] {
            let folder = TempDir::new().unwrap();
            drop(disk(kind, folder.path()));
            let flushed = kill_after(killed_after, number, folder.path());
            assert!(flushed >= killed_after);
            let mut driver = ready(Block::new(disk(kind, folder.path())).unwrap());
            for at in 0..flushed {
                let data = read(&mut driver, place(at), 4096);
                assert!(
                    data == pattern(at, 4096),
                    "{kind:?}: block {at} of {flushed}"
                );
            }
            // And it can be written on.
            for at in 0..BLOCKS {
                let data = pattern(at + 1000, 4096);
                assert_eq!(write(&mut driver, place(at), &data), OK, "{kind:?}");
            }
            assert_eq!(flush(&mut driver), OK);
            for at in 0..BLOCKS {
                let data = read(&mut driver, place(at), 4096);
                assert!(data == pattern(at + 1000, 4096), "{kind:?}: block {at}");
            }
        }
    }
}

/// Starts the child, kills it in the middle of its work after so many flushed blocks, and returns
/// how many it told of.
fn kill_after(blocks: u64, kind: usize, folder: &Path) -> u64 {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(FOLDER, folder)
        .env(KIND, kind.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut flushed = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(number) = line.strip_prefix("flushed ") {
            flushed = number.parse::<u64>().unwrap() + 1;
            if flushed == blocks {
                child.kill().unwrap();
            }
        }
    }
    assert!(!child.wait().unwrap().success());
    flushed
}

/// Writes blocks, flushes after each and tells of it, with a write more always under way.
fn write_until_killed(kind: Kind, folder: &Path) -> ! {
    let mut driver = ready(Block::new(disk(kind, folder)).unwrap());
    for at in 0..BLOCKS {
        assert_eq!(write(&mut driver, place(at), &pattern(at, 4096)), OK);
        assert_eq!(flush(&mut driver), OK);
        let mut output = std::io::stdout().lock();
        writeln!(output, "flushed {at}").unwrap();
        output.flush().unwrap();
        drop(output);
        let header = header(VIRTIO_BLK_T_OUT, place(at + 1));
        let data = pattern(at + 1, 4096);
        driver.send(
            0,
            &[Buffer::Read(&header), Buffer::Read(&data), Buffer::Write(1)],
        );
        driver.device.quiesce();
        driver.used(0);
        driver.device.resume();
        driver.run();
    }
    panic!("nobody killed it");
}
