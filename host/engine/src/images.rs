//! Images, and what is checked of them before anything is allocated.

use std::fs::File;

use roost_model::{Digest, Disk, Image, ImageRef, VmSpec};
use roost_store::{BlobWriter, Change};
use roost_worker::{check_initrd, inspect_kernel};

use crate::context::Context;
use crate::error::EngineError;

/// The unit of a disk's size (virtio 1.2, section 5.2.4).
const SECTOR_BYTES: u64 = 512;

/// The images that a spec names.
pub(crate) struct Images {
    pub(crate) kernel: Digest,
    pub(crate) initrd: Option<Digest>,
    /// Of each disk, in the spec's order.
    pub(crate) disks: Vec<Option<Digest>>,
}

impl Context {
    /// Finishes an upload and makes it an image, under `tag` if one is given.
    pub(crate) async fn add_image(
        &self,
        upload: BlobWriter,
        tag: Option<String>,
    ) -> Result<Image, EngineError> {
        if let Some(tag) = &tag {
            let reference: ImageRef = tag.parse()?;
            if matches!(reference, ImageRef::Digest(_)) {
                return Err(roost_model::InvalidImageRef { text: tag.clone() }.into());
            }
        }
        // Until there is a record of it, nobody may take it for a leftover.
        let _claim = self.claims.lock().await;
        let (digest, size_bytes) = blocking(move || upload.finish()).await??;
        let image = Image {
            digest,
            size_bytes,
            tag,
            created_at_ms: self.now_ms(),
        };
        self.store
            .commit(vec![Change::PutImage(image.clone())])
            .await?;
        Ok(image)
    }

    /// The images that a spec names, after looking into them.
    pub(crate) async fn resolve_images(&self, spec: &VmSpec) -> Result<Images, EngineError> {
        let kernel = self.resolve(&spec.kernel)?;
        let initrd = spec.initrd.as_ref();
        let initrd = initrd.map(|image| self.resolve(image)).transpose()?;
        let disks = spec
            .disks
            .iter()
            .map(|disk| self.resolve_disk(disk))
            .collect::<Result<Vec<_>, _>>()?;
        let mut kernel_file: File = self.blobs.get(&kernel)?;
        let initrd_file = initrd
            .as_ref()
            .map(|digest| self.blobs.get(digest))
            .transpose()?;
        let memory_bytes = spec.memory_bytes();
        blocking(move || {
            inspect_kernel(&mut kernel_file).map_err(|source| EngineError::Kernel {
                image: kernel,
                source,
            })?;
            if let (Some(image), Some(file)) = (initrd, initrd_file) {
                let bytes = file.metadata().map_or(u64::MAX, |metadata| metadata.len());
                check_initrd(bytes, memory_bytes)
                    .map_err(|source| EngineError::Initrd { image, source })?;
            }
            Ok(Images {
                kernel,
                initrd,
                disks,
            })
        })
        .await?
    }

    /// The image of a disk, which must be one that a guest could read whole.
    fn resolve_disk(&self, disk: &Disk) -> Result<Option<Digest>, EngineError> {
        let Some(reference) = &disk.image else {
            return Ok(None);
        };
        let image = self.resolve(reference)?;
        let bytes = self
            .store
            .image(&image)?
            .map_or(0, |image| image.size_bytes);
        let refused = |expected| EngineError::DiskImage {
            disk: disk.name.clone(),
            image,
            bytes,
            expected,
        };
        if bytes == 0 || !bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(refused("expected a multiple of 512"));
        }
        if disk
            .size_mib
            .is_some_and(|size| bytes.div_ceil(1 << 20) > size)
        {
            return Err(refused("more than the disk's size_mib"));
        }
        Ok(Some(image))
    }

    fn resolve(&self, image: &ImageRef) -> Result<Digest, EngineError> {
        let found = match image {
            ImageRef::Digest(digest) => self.store.image(digest)?,
            ImageRef::Tag(tag) => self.store.image_by_tag(tag)?,
        };
        found
            .map(|image| image.digest)
            .ok_or_else(|| EngineError::ImageNotFound(image.clone()))
    }
}

/// Runs `work` where it may block. It fails only when the runtime is going down.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| EngineError::ShuttingDown)
}
