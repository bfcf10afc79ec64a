//! Artifacts on disk, sealed.
//!
//! A file is named after the component's digest and the engine that it was compiled for. It begins
//! with an HMAC-SHA256, keyed with a secret of this installation, over both and the artifact: what
//! was damaged, cut, renamed or made by somebody else is not mapped but compiled again.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{Hash as _, Hasher as _};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use wasmtime::Engine;

use super::artifact::Artifact;
use crate::text::hex;

/// Name of the file that holds the secret.
const SECRET: &str = "secret";
/// Length of the secret, bytes: a block of SHA-256, which HMAC takes as it is (RFC 2104).
const SECRET_BYTES: usize = 64;
/// Length of a seal, bytes.
const SEAL_BYTES: usize = 32;
/// Ending of an artifact's file.
const ENDING: &str = "artifact";
/// Largest artifact that is read, bytes: the largest component has 64 MiB, and native code is
/// several times as long.
const MAX_ARTIFACT_BYTES: u64 = 512 << 20;
/// Most that all of them may take, bytes; beyond, the oldest go.
const MAX_CACHE_BYTES: u64 = 2 << 30;
/// What a seal is for, so that it can't be taken for one of another kind.
const PURPOSE: &[u8] = b"roost artifact 1";

/// The cache can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the cache of compiled policies {path} can't be used: {source}")]
pub struct CacheError {
    path: PathBuf,
    source: io::Error,
}

/// What the cache did since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStatistics {
    /// Artifacts that were found.
    pub hits: u64,
    /// Artifacts that were not there.
    pub misses: u64,
    /// Files whose seal was not ours.
    pub damaged: u64,
    /// Artifacts that could not be stored. The host goes on without.
    pub write_errors: u64,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    damaged: AtomicU64,
    write_errors: AtomicU64,
}

pub(super) struct Cache {
    folder: PathBuf,
    secret: [u8; SECRET_BYTES],
    /// What artifacts of this engine are compatible with.
    engine: u64,
    counters: Counters,
}

impl Cache {
    /// Opens or makes it, with a mode of 0700, and removes what other versions left.
    pub(super) fn open(folder: PathBuf, engine: &Engine) -> Result<Self, CacheError> {
        let failed = |source| CacheError {
            path: folder.clone(),
            source,
        };
        make_private(&folder).map_err(failed)?;
        let secret = secret(&folder.join(SECRET)).map_err(failed)?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let cache = Self {
            folder,
            secret,
            engine: hasher.finish(),
            counters: Counters::default(),
        };
        cache.prune();
        Ok(cache)
    }

    pub(super) fn statistics(&self) -> CacheStatistics {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStatistics {
            hits: of(&self.counters.hits),
            misses: of(&self.counters.misses),
            damaged: of(&self.counters.damaged),
            write_errors: of(&self.counters.write_errors),
        }
    }

    /// What was compiled of the component with `digest`.
    pub(super) fn get(&self, digest: &[u8; 32]) -> Option<Artifact> {
        let path = self.path(digest);
        let found = match read(&path) {
            Ok(mut bytes) => {
                let artifact = bytes.split_off(SEAL_BYTES.min(bytes.len()));
                let genuine = self.seal(digest, &artifact).verify_slice(&bytes).is_ok();
                genuine.then(|| Artifact::from_sealed(artifact))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.counters.misses.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            Err(_) => None,
        };
        let counter = if found.is_some() {
            &self.counters.hits
        } else {
            // It is written anew; if it can't be removed, neither can it be used.
            let _ = fs::remove_file(&path);
            &self.counters.damaged
        };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps an artifact. That it can't is counted and no reason to fail.
    pub(super) fn put(&self, digest: &[u8; 32], artifact: &Artifact) {
        let seal = self.seal(digest, artifact.bytes()).finalize().into_bytes();
        let path = self.path(digest);
        let written = write_new(&path, &[seal.as_slice(), artifact.bytes()]);
        if written.is_err() {
            self.counters.write_errors.fetch_add(1, Ordering::Relaxed);
        }
        self.prune();
    }

    fn path(&self, digest: &[u8; 32]) -> PathBuf {
        self.folder
            .join(format!("{}-{:016x}.{ENDING}", hex(digest), self.engine))
    }

    fn seal(&self, digest: &[u8; 32], artifact: &[u8]) -> Hmac<Sha256> {
        let mut seal = Hmac::<Sha256>::new((&self.secret).into());
        for part in [PURPOSE, digest, &self.engine.to_le_bytes(), artifact] {
            seal.update(part);
        }
        seal
    }

    /// Removes what was compiled for other engines, what a write left that did not end, and the
    /// oldest beyond [`MAX_CACHE_BYTES`]. Nothing depends on it, so errors are no matter.
    fn prune(&self) {
        let ours = format!("-{:016x}.{ENDING}", self.engine);
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name == SECRET {
                continue;
            }
            match entry.metadata() {
                Ok(metadata) if name.ends_with(&ours) => {
                    kept.push((metadata.mtime(), metadata.len(), entry.path()));
                }
                _ => drop(fs::remove_file(entry.path())),
            }
        }
        kept.sort();
        let mut bytes: u64 = kept.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, size, path) in kept {
            if bytes <= MAX_CACHE_BYTES {
                break;
            }
            bytes -= size;
            drop(fs::remove_file(path));
        }
    }
}

fn make_private(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = fs::symlink_metadata(folder)?;
    if !metadata.is_dir() {
        return Err(io::Error::other("it is not a directory"));
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    Ok(())
}

/// The installation's secret; made where there is none, or none of the right length.
fn secret(path: &Path) -> io::Result<[u8; SECRET_BYTES]> {
    if let Ok(bytes) = read(path)
        && let Ok(secret) = bytes.try_into()
    {
        return Ok(secret);
    }
    let mut secret = [0; SECRET_BYTES];
    // One read of so few bytes is whole or fails (getrandom(2)).
    let filled = rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())?;
    if filled != SECRET_BYTES {
        return Err(io::Error::other("no randomness"));
    }
    write_new(path, &[&secret])?;
    Ok(secret)
}

/// A regular file, not one that a link leads to, of a bounded size.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits();
    let flags = i32::try_from(flags).map_err(io::Error::other)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let metadata = file.metadata()?;
    let limit = MAX_ARTIFACT_BYTES + SEAL_BYTES as u64;
    if !metadata.is_file() || metadata.len() > limit {
        return Err(io::Error::other("it is not a file of ours"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file of mode 0600 that is either whole or not there under its name. What a crash of
/// the machine leaves of it is for its seal to tell.
fn write_new(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let number = std::process::id();
    let temporary = path.with_extension(format!("{number}-new"));
    let _ = fs::remove_file(&temporary);
    let written = (|| {
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        for part in parts {
            file.write_all(part)?;
        }
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}
