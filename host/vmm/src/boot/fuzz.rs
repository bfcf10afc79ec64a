//! Kernel images for fuzz targets: of every format, valid for the most part.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use arbitrary::{Arbitrary, Result, Unstructured};
use rustix::fs::{MemfdFlags, memfd_create};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::{check_initrd, inspect_kernel, layout, load, read_kernel};

/// A boot: an image, an initrd perhaps, a command line.
#[derive(Debug, Arbitrary)]
pub(crate) struct Boot {
    image: Image,
    initrd: Option<u16>,
    /// The initrd is so many times as large: copying much takes long, and few do it.
    times: Mostly<u8>,
    cmdline: String,
    memory_mib: u8,
}

#[derive(Debug)]
enum Image {
    Elf(Elf),
    BzImage(BzImage),
    Any(Vec<u8>),
}

impl<'a> Arbitrary<'a> for Image {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.int_in_range(0..=15)? {
            0..=8 => Self::Elf(u.arbitrary()?),
            9..=14 => Self::BzImage(u.arbitrary()?),
            _ => Self::Any(u.arbitrary()?),
        })
    }
}

/// A number that is as it should be unless it is something else.
#[derive(Debug, Clone, Copy)]
struct Mostly<T>(Option<T>);

impl<'a, T: Arbitrary<'a>> Arbitrary<'a> for Mostly<T> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self(match u.ratio(1, 16)? {
            true => Some(u.arbitrary()?),
            false => None,
        }))
    }
}

impl<T: Copy> Mostly<T> {
    fn or(self, usual: T) -> T {
        self.0.unwrap_or(usual)
    }
}

#[derive(Debug, Arbitrary)]
struct Elf {
    class: Mostly<u8>,
    kind: Mostly<u16>,
    machine: Mostly<u16>,
    entry: Mostly<u64>,
    table_offset: Mostly<u64>,
    row_bytes: Mostly<u16>,
    count: Mostly<u16>,
    rows: Vec<Row>,
    body: Vec<u8>,
    size: Mostly<u16>,
}

#[derive(Debug, Arbitrary)]
struct Row {
    kind: Kind,
    offset: Mostly<u64>,
    file_bytes: Mostly<u64>,
    address: Mostly<u64>,
    /// In pages from 16 MiB on.
    place: u8,
    memory_bytes: Mostly<u64>,
    note: Mostly<[u32; 3]>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Kind {
    Load,
    LoadToo,
    Note,
    Other(u8),
}

#[derive(Debug, Arbitrary)]
struct BzImage {
    sectors: Mostly<u8>,
    paragraphs: Mostly<u32>,
    jump: Mostly<u8>,
    version: Mostly<u16>,
    flags: Mostly<u16>,
    initrd_max: Mostly<u32>,
    cmdline_max: Mostly<u32>,
    address: Mostly<u64>,
    init_bytes: Mostly<u32>,
    /// Parts of 512 bytes.
    size: u8,
    poke: Mostly<(u16, u8)>,
}

const KERNEL: u64 = 16 << 20;
/// Where a segment's bytes are in the file.
const BODY: u64 = 0x1000;
const BODY_BYTES: u64 = 0x400;

impl Elf {
    fn bytes(&self) -> Vec<u8> {
        let rows: Vec<_> = self.rows.iter().take(6).map(Row::bytes).collect();
        let mut image = vec![0; (BODY + BODY_BYTES) as usize];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF");
        put(4, &[self.class.or(2), 1, 1]);
        put(16, &self.kind.or(2).to_le_bytes());
        put(18, &self.machine.or(62).to_le_bytes());
        put(24, &self.entry.or(KERNEL).to_le_bytes());
        put(32, &self.table_offset.or(64).to_le_bytes());
        put(54, &self.row_bytes.or(56).to_le_bytes());
        put(56, &self.count.or(rows.len() as u16).to_le_bytes());
        for (n, (row, note)) in rows.iter().enumerate() {
            put(64 + 56 * n, row);
            put((BODY + 64 * n as u64) as usize, note);
        }
        let body = self.body.len().min(256);
        put(BODY as usize + 512, &self.body[..body]);
        let size = self.size.or(u16::MAX);
        image.truncate(size.into());
        image
    }
}

impl Row {
    /// The program header, and the note that it may be about.
    fn bytes(&self) -> ([u8; 56], [u8; 24]) {
        let kind: u32 = match self.kind {
            Kind::Load | Kind::LoadToo => 1,
            Kind::Note => 4,
            Kind::Other(kind) => (kind % 8).into(),
        };
        let mut row = [0; 56];
        let mut put = |at: usize, bytes: &[u8]| row[at..at + bytes.len()].copy_from_slice(bytes);
        let address = KERNEL + 4096 * u64::from(self.place % 4);
        put(0, &kind.to_le_bytes());
        put(8, &self.offset.or(BODY).to_le_bytes());
        put(24, &self.address.or(address).to_le_bytes());
        put(32, &self.file_bytes.or(BODY_BYTES).to_le_bytes());
        put(40, &self.memory_bytes.or(0x2000).to_le_bytes());
        let [name, value, kind] = self.note.or([4, 4, 18]);
        let mut note = [0; 24];
        let fields = [
            name,
            value,
            kind,
            u32::from_le_bytes(*b"Xen\0"),
            KERNEL as u32,
        ];
        for (to, from) in note.chunks_mut(4).zip(fields) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        (row, note)
    }
}

impl BzImage {
    fn bytes(&self) -> Vec<u8> {
        let size = 512 * (4 + usize::from(self.size));
        let mut image = vec![0x90; size];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        let sectors = self.sectors.or(1);
        let rest = size.saturating_sub(512 * (1 + usize::from(sectors)));
        put(0x1f1, &[sectors]);
        put(0x1f4, &self.paragraphs.or(rest as u32 / 16).to_le_bytes());
        put(0x1fe, &[0x55, 0xaa, 0xeb, self.jump.or(0x6a)]);
        put(0x202, b"HdrS");
        put(0x206, &self.version.or(0x20f).to_le_bytes());
        put(0x22c, &self.initrd_max.or(0x7fff_ffff).to_le_bytes());
        put(0x236, &self.flags.or(3).to_le_bytes());
        put(0x238, &self.cmdline_max.or(2047).to_le_bytes());
        put(0x258, &self.address.or(KERNEL).to_le_bytes());
        put(0x260, &self.init_bytes.or(0x1_0000).to_le_bytes());
        if let Some((at, value)) = self.poke.0 {
            put(usize::from(at) % size, &[value]);
        }
        image
    }
}

impl Image {
    fn file(&self) -> File {
        let bytes = match self {
            Self::Elf(elf) => elf.bytes(),
            Self::BzImage(image) => image.bytes(),
            Self::Any(bytes) => bytes.clone(),
        };
        let file = memory_file();
        file.write_all_at(&bytes, 0).unwrap();
        file
    }
}

fn memory_file() -> File {
    memfd_create("image", MemfdFlags::CLOEXEC).unwrap().into()
}

impl Boot {
    /// Looks into the image, and loads it if it is one.
    ///
    /// # Panics
    /// Something does not hold that must.
    pub(crate) fn run(self) {
        let mut file = self.image.file();
        let inspected = inspect_kernel(&mut file);
        let read = read_kernel(&file);
        assert_eq!(inspected.is_ok(), read.is_ok(), "both look at the same");
        let Ok(kernel) = read else { return };
        let entry = kernel.info.entry;
        assert!(
            kernel.segments.iter().any(|segment| {
                (segment.address..segment.address + segment.memory_bytes).contains(&entry)
            }),
            "it starts outside of what is loaded"
        );
        let low = layout::HIGH_MEMORY..=layout::KERNEL_END;
        assert!(low.contains(&kernel.end()));

        let memory_bytes = (2 + u64::from(self.memory_mib % 64)) << 20;
        let ranges = [(GuestAddress(0), memory_bytes as usize)];
        let memory = GuestMemoryMmap::<()>::from_ranges(&ranges).unwrap();
        let initrd = self.initrd.map(|bytes| {
            let file = memory_file();
            let times = 4 * u64::from(self.times.or(0)) + 1;
            file.set_len(times * u64::from(bytes)).unwrap();
            file
        });
        let loaded = load(
            &memory,
            memory_bytes,
            &kernel,
            &file,
            initrd.as_ref(),
            &self.cmdline,
        );
        if let (Ok(entry), Some(initrd)) = (&loaded, &initrd) {
            let bytes = initrd.metadata().unwrap().len();
            assert!(check_initrd(bytes, memory_bytes + (64 << 20)).is_ok());
            assert_eq!(entry.address, kernel.info.entry);
        }
        if loaded.is_ok() {
            assert!(kernel.end() <= memory_bytes);
            assert!(self.cmdline.len() < layout::CMDLINE_BYTES);
        }
    }
}
