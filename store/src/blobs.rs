//! Files by the SHA-256 of their content.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use roost_model::Digest;
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

/// Uploads that are not finished have this prefix.
const UNFINISHED: &str = ".upload-";

/// Why a file could not be kept or given.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no such file.
    #[error("{0} is not on this host")]
    Missing(Digest),
    /// There is one, but it can't be read.
    #[error("{digest} can't be read: {source}")]
    Unreadable {
        /// Which.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// The upload is larger than it may be.
    #[error("the upload is larger than {limit} bytes, which is the limit")]
    TooLarge {
        /// The limit, bytes.
        limit: u64,
    },
    /// The file system said no.
    #[error("{path}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A directory of files by digest. Clones share one.
#[derive(Debug, Clone)]
pub struct Blobs {
    dir: PathBuf,
}

/// An upload under way. Dropped before [`BlobWriter::finish`], it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    dir: PathBuf,
    file: NamedTempFile,
    hash: Sha256,
    size_bytes: u64,
    limit_bytes: u64,
    /// A write was refused or failed: what is in the file is not what was uploaded.
    is_broken: bool,
}

impl Blobs {
    /// Opens the directory, or makes it, and removes what interrupted uploads left.
    ///
    /// # Errors
    /// The file system said no.
    pub fn open(dir: &Path) -> Result<Self, BlobError> {
        let blobs = Self {
            dir: dir.to_owned(),
        };
        let open = || -> io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            fs::set_permissions(dir, Permissions::from_mode(0o700))?;
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        open().map_err(|source| blobs.io(source))?;
        Ok(blobs)
    }

    fn io(&self, source: io::Error) -> BlobError {
        BlobError::Io {
            path: self.dir.clone(),
            source,
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// Begins an upload of at most `limit_bytes`.
    ///
    /// # Errors
    /// The file system said no.
    pub fn create(&self, limit_bytes: u64) -> Result<BlobWriter, BlobError> {
        let file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.dir)
            .map_err(|source| self.io(source))?;
        let hash = Sha256::new();
        Ok(BlobWriter {
            dir: self.dir.clone(),
            file,
            hash,
            size_bytes: 0,
            limit_bytes,
            is_broken: false,
        })
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// There is none, or it can't be opened.
    pub fn get(&self, digest: &Digest) -> Result<File, BlobError> {
        File::open(self.path(digest)).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => BlobError::Missing(*digest),
            _ => BlobError::Unreadable {
                digest: *digest,
                source,
            },
        })
    }

    /// Whether there is such a file.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Removes a file. None there: fine.
    ///
    /// # Errors
    /// The file system said no.
    pub fn remove(&self, digest: &Digest) -> Result<(), BlobError> {
        match fs::remove_file(self.path(digest)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.io(source)),
            _ => Ok(()),
        }
    }
}

impl BlobWriter {
    fn io(&self, source: io::Error) -> BlobError {
        BlobError::Io {
            path: self.dir.clone(),
            source,
        }
    }

    /// Adds bytes. After an error the upload can only be dropped.
    ///
    /// # Errors
    /// It becomes too large, an earlier write failed, or the file system said no.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        if self.is_broken {
            return Err(self.io(broken()));
        }
        let size_bytes = self.size_bytes.saturating_add(bytes.len() as u64);
        if size_bytes > self.limit_bytes {
            self.is_broken = true;
            return Err(BlobError::TooLarge {
                limit: self.limit_bytes,
            });
        }
        if let Err(source) = self.file.write_all(bytes) {
            self.is_broken = true;
            return Err(self.io(source));
        }
        self.hash.update(bytes);
        self.size_bytes = size_bytes;
        Ok(())
    }

    /// Makes the upload a file by its digest, durably; returns digest and size in bytes.
    ///
    /// # Errors
    /// An earlier write failed, or the file system said no.
    pub fn finish(self) -> Result<(Digest, u64), BlobError> {
        if self.is_broken {
            return Err(self.io(broken()));
        }
        let Self {
            dir,
            file,
            hash,
            size_bytes,
            ..
        } = self;
        let digest = Digest::new(hash.finalize().into());
        let persist = || -> io::Result<()> {
            file.as_file().sync_all()?;
            file.persist(dir.join(digest.hex()))
                .map_err(|error| error.error)?;
            File::open(&dir)?.sync_all()
        };
        match persist() {
            Ok(()) => Ok((digest, size_bytes)),
            Err(source) => Err(BlobError::Io { path: dir, source }),
        }
    }
}

fn broken() -> io::Error {
    io::Error::other("the upload is incomplete, because an earlier write of it failed")
}
