//! Overlays over a shared image.

use super::*;

#[test]
fn vms_over_one_image_see_their_own_writes_and_the_image_stays_as_it_was() {
    for (kind, format) in [
        (Kind::OverRaw, DiskFormat::Raw),
        (Kind::OverQcow2, DiskFormat::Qcow2),
    ] {
        let folder = TempDir::new().unwrap();
        // Makes the base.
        drop(disk(kind, folder.path()));
        let base = folder.path().join("base");
        let before = std::fs::read(&base).unwrap();
        let block = |name| Block::new(overlay(folder.path(), name, &base, format)).unwrap();
        let (mut first, mut second) = (ready(block("one")), ready(block("two")));

        let (mine, theirs) = (pattern(1, 70_000 / 512 * 512), pattern(2, 4096));
        assert_eq!(write(&mut first, 100, &mine), OK);
        assert_eq!(write(&mut second, 100, &theirs), OK);
        assert_eq!(read(&mut first, 100, mine.len() as u32), mine);
        assert_eq!(read(&mut second, 100, 4096), theirs);
        assert_eq!(read(&mut second, 108, 512), numbered_sector(108));
        assert_eq!(read(&mut first, 99, 512), numbered_sector(99));
        for driver in [&mut first, &mut second] {
            assert_eq!(flush(driver), OK);
        }
        drop((first, second));

        // It is all there for the next boot.
        let (mut first, mut second) = (ready(block("one")), ready(block("two")));
        assert_eq!(read(&mut first, 100, mine.len() as u32), mine);
        assert_eq!(read(&mut first, 99, 512), numbered_sector(99));
        assert_eq!(read(&mut second, 100, 4096), theirs);
        assert_eq!(read(&mut second, 108, 512), numbered_sector(108));
        assert_eq!(std::fs::read(&base).unwrap(), before);
    }
}

#[test]
fn an_overlay_that_is_larger_than_its_image_reads_as_zeroes_behind_it() {
    let folder = TempDir::new().unwrap();
    let base = folder.path().join("base");
    // Not a whole number of clusters.
    numbered(&base, 1_000_448);
    let mut driver =
        ready(Block::new(overlay(folder.path(), "over", &base, DiskFormat::Raw)).unwrap());
    let end = 1_000_448 / 512;
    let expected = [numbered_sector(end - 1), [0; 512], [0; 512]].concat();
    assert_eq!(read(&mut driver, end - 1, 3 * 512), expected);
    assert_eq!(write(&mut driver, end + 1, &[5; 512]), OK);
    let expected = [numbered_sector(end - 1), [0; 512], [5; 512]].concat();
    assert_eq!(read(&mut driver, end - 1, 3 * 512), expected);
    assert_eq!(read(&mut driver, BYTES / 512 - 1, 512), [0; 512]);
}

#[test]
fn a_disk_that_is_given_back_without_a_flush_is_whole() {
    let folder = TempDir::new().unwrap();
    for at in 0..8 {
        let mut driver = ready(Block::new(disk(Kind::OverRaw, folder.path())).unwrap());
        for before in 0..at {
            let data = pattern(before, 8192);
            assert_eq!(read(&mut driver, before * 900, 8192), data);
        }
        assert_eq!(write(&mut driver, at * 900, &pattern(at, 8192)), OK);
    }
}
