//! Numbers and bytes of which some are more interesting than others.

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::devices::virtio::test_driver::{HIGH, HIGH_BYTES, OUTSIDE};

/// Where there is memory that nothing else is in.
const FREE: u64 = 0x30_0000;

/// A number of bytes: mostly a few.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Length(pub(crate) u32);

impl<'a> Arbitrary<'a> for Length {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let bytes = match u.int_in_range(0..=7)? {
            0 => u.arbitrary::<u16>()?.into(),
            1 => u.arbitrary::<u32>()? & 0xf_ffff,
            2 => 4096,
            _ => u.arbitrary::<u8>()?.into(),
        };
        Ok(Self(bytes))
    }
}

/// Bytes, with more of them behind than the input has.
#[derive(Debug, Clone)]
pub(crate) struct Padded(pub(crate) Vec<u8>);

impl<'a> Arbitrary<'a> for Padded {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let bytes = usize::from(u.arbitrary::<u8>()?);
        let mut bytes = u.bytes(bytes.min(u.len()))?.to_vec();
        if u.ratio(1, 8)? {
            let more = u.arbitrary::<u16>()?;
            bytes.resize(bytes.len() + usize::from(more), 0xa5);
        }
        Ok(Self(bytes))
    }
}

/// A guest-physical address: of memory, mostly.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address(pub(super) u64);

impl<'a> Arbitrary<'a> for Address {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        const EDGES: [u64; 10] = [
            0,
            OUTSIDE - 8,
            OUTSIDE,
            HIGH - 8,
            HIGH,
            HIGH + HIGH_BYTES as u64 - 8,
            HIGH + HIGH_BYTES as u64,
            1 << 52,
            u64::MAX - 15,
            u64::MAX,
        ];
        let address = match u.int_in_range(0..=7)? {
            0 => u.arbitrary()?,
            1 | 2 => *u.choose(&EDGES)?,
            // The rings.
            3 => 0x1_0000 + u64::from(u.arbitrary::<u16>()?),
            _ => FREE + 8 * u64::from(u.arbitrary::<u16>()?),
        };
        Ok(Self(address))
    }
}

/// What is written to a register.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number(pub(super) u32);

impl<'a> Arbitrary<'a> for Number {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        const EDGES: [u32; 12] = [
            0,
            1,
            2,
            3,
            7,
            8,
            11,
            15,
            64,
            0x1_0000,
            0x8000_0000,
            u32::MAX,
        ];
        let number = match u.int_in_range(0..=3)? {
            0 => u.arbitrary()?,
            1 => u.arbitrary::<u16>()?.into(),
            _ => *u.choose(&EDGES)?,
        };
        Ok(Self(number))
    }
}
