//! What the files by digest promise.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use roost_model::Digest;
use roost_store::{BlobError, Blobs};

/// SHA-256 of `abc`: FIPS 180-2, appendix B.1.
const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn abc() -> Digest {
    ABC.parse().unwrap()
}

fn files(dir: &Path) -> Vec<String> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn an_upload_is_found_by_its_digest_and_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("blobs");
    let blobs = Blobs::open(&dir).unwrap();
    let mut upload = blobs.create(3).unwrap();
    upload.write(b"a").unwrap();
    upload.write(b"").unwrap();
    upload.write(b"bc").unwrap();
    assert!(!blobs.contains(&abc()));
    assert_eq!(upload.finish().unwrap(), (abc(), 3));
    assert!(blobs.contains(&abc()));
    let mut content = String::new();
    blobs
        .get(&abc())
        .unwrap()
        .read_to_string(&mut content)
        .unwrap();
    assert_eq!(content, "abc");
    assert_eq!(files(&dir), [abc().hex()]);
    assert_eq!([mode(&dir), mode(&dir.join(abc().hex()))], [0o700, 0o600]);
}

#[test]
fn the_same_content_twice_is_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    for _ in 0..2 {
        let mut upload = blobs.clone().create(9).unwrap();
        upload.write(b"abc").unwrap();
        upload.finish().unwrap();
    }
    assert_eq!(files(dir.path()), [abc().hex()]);
}

#[test]
fn an_upload_that_is_too_large_leaves_nothing_even_if_it_is_finished_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let mut upload = blobs.create(3).unwrap();
    upload.write(b"abc").unwrap();
    let error = upload.write(b"d").unwrap_err();
    assert!(matches!(error, BlobError::TooLarge { limit: 3 }), "{error}");
    assert!(upload.write(b"").is_err());
    assert!(upload.finish().is_err());
    assert_eq!(files(dir.path()), [""; 0]);
}

#[test]
fn a_dropped_upload_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let mut upload = blobs.create(9).unwrap();
    upload.write(b"abc").unwrap();
    assert_eq!(files(dir.path()).len(), 1);
    drop(upload);
    assert_eq!(files(dir.path()), [""; 0]);
}

#[test]
fn what_interrupted_uploads_left_is_removed_when_the_directory_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let mut finished = blobs.create(9).unwrap();
    finished.write(b"abc").unwrap();
    finished.finish().unwrap();
    // A host that was killed runs no destructors.
    std::mem::forget(blobs.create(9).unwrap());
    assert_eq!(files(dir.path()).len(), 2);
    Blobs::open(dir.path()).unwrap();
    assert_eq!(files(dir.path()), [abc().hex()]);
}

#[test]
fn what_is_not_there_is_missing_and_can_be_removed_again() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path()).unwrap();
    let missing = |error: BlobError| matches!(error, BlobError::Missing(found) if found == abc());
    assert!(missing(blobs.get(&abc()).unwrap_err()));
    let mut upload = blobs.create(9).unwrap();
    upload.write(b"abc").unwrap();
    upload.finish().unwrap();
    blobs.remove(&abc()).unwrap();
    blobs.remove(&abc()).unwrap();
    assert!(missing(blobs.get(&abc()).unwrap_err()));
}
