//! Root file systems for machines and guests: a folder, packed into an archive that Linux boots,
//! or made into a disk.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process;

/// A root file system in the making.
pub(crate) struct Initramfs {
    folder: PathBuf,
    libraries: BTreeSet<PathBuf>,
}

impl Initramfs {
    /// An empty one but for busybox, made in `folder`; what was there is gone.
    pub(crate) fn new(folder: PathBuf) -> Result<Self> {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let initramfs = Self {
            folder,
            libraries: BTreeSet::new(),
        };
        let busybox = process::find("busybox").context("busybox is not installed")?;
        initramfs.copy(&busybox, Path::new("/bin/busybox"))?;
        Ok(initramfs)
    }

    /// Where `path` of the new root is on this machine; its folder exists.
    fn place(&self, path: &Path) -> Result<PathBuf> {
        let place = self.folder.join(path.strip_prefix("/").unwrap_or(path));
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(place)
    }

    /// Copies `source` to `path` of the new root.
    pub(crate) fn copy(&self, source: &Path, path: &Path) -> Result<()> {
        fs::copy(source, self.place(path)?)
            .with_context(|| format!("cannot copy {}", source.display()))?;
        Ok(())
    }

    /// Copies a folder of plain files to the same path of the new root.
    pub(crate) fn copy_tree(&self, source: &Path) -> Result<()> {
        for entry in fs::read_dir(source)? {
            let path = entry?.path();
            if path.is_dir() {
                self.copy_tree(&path)?;
            } else {
                self.copy(&path, &path)?;
            }
        }
        Ok(())
    }

    /// Writes a file.
    pub(crate) fn write(&self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let place = self.place(Path::new(path))?;
        fs::write(&place, content)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode))?;
        Ok(())
    }

    /// Copies a program without its debugging information to `path` of the new root, and the
    /// shared libraries that it names to where they are on this machine.
    pub(crate) fn program(&mut self, source: &Path, path: &Path) -> Result<()> {
        let place = self.place(path)?;
        let stripped = Command::new("strip")
            .arg("-o")
            .arg(&place)
            .arg(source)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !stripped {
            fs::copy(source, &place)
                .with_context(|| format!("cannot copy {}", source.display()))?;
        }
        let libraries = process::output(Command::new("ldd").arg(source))?;
        for line in libraries.lines() {
            if line.contains("=> not found") {
                bail!(
                    "{} needs a library that is missing: {line}",
                    source.display()
                );
            }
            // "libc.so.6 => /lib/…/libc.so.6 (0x…)" or "/lib64/ld-linux-x86-64.so.2 (0x…)".
            let library = line.split_whitespace().find(|word| word.starts_with('/'));
            if let Some(library) = library.map(PathBuf::from)
                && self.libraries.insert(library.clone())
            {
                self.copy(&library, &library)?;
            }
        }
        Ok(())
    }

    /// Makes an empty folder.
    pub(crate) fn directory(&self, path: &str) -> Result<()> {
        fs::create_dir_all(self.folder.join(path))?;
        Ok(())
    }

    /// Makes an ext4 file system with everything on it in the file `image`.
    ///
    /// # Errors
    /// There is no `mke2fs`, or it fails: everything has no room in `mib` MiB.
    pub(crate) fn ext4(&self, image: &Path, mib: u32) -> Result<()> {
        let mke2fs = process::find("mke2fs")
            .context("mke2fs is not installed; Debian's package e2fsprogs has it")?;
        let _ = fs::remove_file(image);
        process::run(
            Command::new(mke2fs)
                .args(["-q", "-t", "ext4", "-E", "root_owner=0:0", "-d"])
                .arg(&self.folder)
                .arg(image)
                .arg(format!("{mib}M")),
        )
    }

    /// Packs everything into `archive`.
    pub(crate) fn pack(&self, archive: &Path) -> Result<()> {
        let mut names = Vec::new();
        list(&self.folder, Path::new(""), &mut names)?;
        let mut cpio = Command::new("cpio")
            .args(["--quiet", "-o", "-H", "newc", "-R", "0:0", "--null"])
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(File::create(archive)?)
            .spawn()
            .context("cannot run cpio")?;
        let mut input = cpio.stdin.take().context("cpio has no input")?;
        for name in names {
            input.write_all(name.as_os_str().as_bytes())?;
            input.write_all(b"\0")?;
        }
        drop(input);
        let status = cpio.wait()?;
        if !status.success() {
            bail!("cpio ended with {status}");
        }
        Ok(())
    }
}

/// Every path under `root`, folders before what they hold, in the same order each time.
fn list(root: &Path, inside: &Path, names: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(root.join(inside))?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = inside.join(entry.file_name());
        names.push(name.clone());
        if entry.file_type()?.is_dir() {
            list(root, &name, names)?;
        }
    }
    Ok(())
}
