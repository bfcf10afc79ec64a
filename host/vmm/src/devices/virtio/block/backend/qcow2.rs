//! A qcow2 image, alone or over a base, by the `imago` library.
//!
//! The library gets open files and no way to open others: what a header names is not opened. It is
//! told what is in a header beforehand, because headers come from outside and the library allocates
//! by what they say.

use std::fs::File;
use std::io;

use imago::io_buffers::{IoVector, IoVectorMut};
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder as _};
use vm_memory::VolatileSlice;

use super::qcow2_header::{MAX_CLUSTER_BITS, Qcow2Header};
use super::{ByteRange, Image};
use crate::devices::virtio::block::config::{BaseImage, DiskError, DiskFormat};

type Storage = imago::file::File;

/// An image and, if it is an overlay, the base that it is over.
pub(crate) struct Qcow2Image(FormatAccess<Storage>);

impl Qcow2Image {
    /// Headers have been checked.
    pub(crate) fn open(
        file: File,
        base: Option<BaseImage>,
        read_only: bool,
    ) -> Result<Self, DiskError> {
        let base = base.map(open_base).transpose()?;
        let storage = Storage::try_from(file).map_err(|error| wrong(&error))?;
        let image = Qcow2::builder(storage)
            .write(!read_only)
            .backing(base)
            .data_file(None)
            .open(DenyImplicitOpenGate::default())
            .map_err(|error| wrong(&error))?;
        Ok(Self(FormatAccess::new(image)))
    }
}

fn open_base(base: BaseImage) -> Result<FormatAccess<Storage>, DiskError> {
    let storage = Storage::try_from(base.file).map_err(|error| wrong(&error))?;
    let gate = DenyImplicitOpenGate::default();
    match base.format {
        DiskFormat::Raw => Raw::builder(storage).open(gate).map(FormatAccess::new),
        DiskFormat::Qcow2 => Qcow2::<Storage>::builder(storage)
            .backing(None)
            .data_file(None)
            .open(gate)
            .map(FormatAccess::new),
    }
    .map_err(|error| wrong(&error))
}

fn wrong(error: &io::Error) -> DiskError {
    DiskError::Qcow2(error.to_string())
}

impl Image for Qcow2Image {
    fn read(&mut self, buffers: &[VolatileSlice<'_>], range: ByteRange) -> io::Result<()> {
        let (vector, _mapped) = IoVectorMut::from_volatile_slice(buffers);
        self.0.readv(vector, range.offset)
    }

    fn write(&mut self, buffers: &[VolatileSlice<'_>], range: ByteRange) -> io::Result<()> {
        let (vector, _mapped) = IoVector::from_volatile_slice(buffers);
        self.0.writev(vector, range.offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()?;
        self.0.sync()
    }

    // Zeroes rather than the base's bytes, which the guest has overwritten.
    fn discard(&mut self, range: ByteRange) -> io::Result<()> {
        self.0.discard_to_zero(range.offset, range.bytes)
    }

    fn write_zeroes(&mut self, range: ByteRange, unmap: bool) -> io::Result<()> {
        match unmap {
            true => self.0.discard_to_zero(range.offset, range.bytes),
            false => self.0.write_zeroes(range.offset, range.bytes),
        }
    }

    fn settle(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// What the header of an overlay says about its base. It is for other programs: Roost takes the
/// base that it is given.
#[derive(Debug, Clone, Copy)]
pub struct BaseName<'a> {
    /// A path, relative to the overlay or absolute.
    pub path: &'a str,
    /// What is in it.
    pub format: DiskFormat,
}

/// Makes a qcow2 image of a disk of `bytes` in `file`, which is empty and open for reading and
/// writing: of zeroes, or with what the base has. It is durable on return. Who makes it in another
/// place and renames it has none that is half made.
///
/// # Errors
/// The size is no whole number of sectors, or too large, or the file can't be written.
pub fn create_qcow2(file: File, bytes: u64, base: Option<BaseName<'_>>) -> Result<(), DiskError> {
    if bytes == 0 || !bytes.is_multiple_of(512) {
        return Err(DiskError::Size(bytes));
    }
    let failed = DiskError::host("make a qcow2 file");
    let synced = file.try_clone().map_err(DiskError::host("duplicate"))?;
    let storage = Storage::try_from(file).map_err(|error| wrong(&error))?;
    let mut builder = Qcow2::<Storage>::create_builder(storage)
        .cluster_size(1 << MAX_CLUSTER_BITS)
        .size(bytes);
    if let Some(base) = base {
        builder = builder.backing(base.path.to_owned(), base.format.name().to_owned());
    }
    let result = builder.create().and_then(|()| synced.sync_all());
    result.map_err(failed)?;
    Qcow2Header::read(&synced).map(drop)
}
