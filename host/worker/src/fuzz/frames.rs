//! Frames, and what is none.

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::BytesMut;
use serde::Serialize;

use crate::frame;
use crate::limits::MAX_FRAME_BYTES;

/// A frame with a message, or something else.
#[derive(Debug)]
pub(crate) enum Frame<M> {
    Message(M),
    /// A frame with JSON that nobody knows.
    Json(Vec<u8>),
    /// A frame with these bytes.
    Any(Vec<u8>),
    /// No frame.
    Raw(Vec<u8>),
    /// The length of a frame.
    Length(u32),
    /// A frame of so many bytes, which are all the same.
    Large(u32, u8),
}

impl<'a, M: Arbitrary<'a>> Arbitrary<'a> for Frame<M> {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u.int_in_range(0..=31)? {
            0 => Self::Any(u.arbitrary()?),
            1 => Self::Raw(u.arbitrary()?),
            2 => Self::Length(u.arbitrary()?),
            3 => Self::Large(
                u.int_in_range(0..=MAX_FRAME_BYTES as u32 + 1)?,
                u.arbitrary()?,
            ),
            4 => Self::Json(json(u)?),
            _ => Self::Message(u.arbitrary()?),
        })
    }
}

/// Words of both protocols, in whatever order.
fn json(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const WORDS: [&str; 24] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"type\"",
        "\"request\"",
        "\"id\"",
        "\"do\"",
        "\"hello\"",
        "\"event\"",
        "\"response\"",
        "\"did\"",
        "\"because\"",
        "\"sequence\"",
        "\"happened\"",
        "\"control\"",
        "\"bytes\"",
        "-1",
        "1e400",
        "18446744073709551616",
        "null",
        "\"\\ud800\"",
    ];
    let mut text = Vec::new();
    for _ in 0..u.arbitrary::<u8>()? % 32 {
        text.extend(u.choose(&WORDS)?.as_bytes());
    }
    Ok(text)
}

impl<M: Serialize> Frame<M> {
    /// As it is in a stream.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let framed = |body: &[u8]| [&(body.len() as u32).to_le_bytes(), body].concat();
        match self {
            Self::Message(message) => {
                let mut bytes = BytesMut::new();
                let mut codec = frame::codec(MAX_FRAME_BYTES);
                // One that is too long for a frame is not sent by anybody.
                let _ = frame::encode(&mut codec, message, &mut bytes);
                bytes.into()
            }
            Self::Json(body) | Self::Any(body) => framed(body),
            Self::Raw(bytes) => bytes.clone(),
            Self::Length(bytes) => bytes.to_le_bytes().into(),
            Self::Large(bytes, value) => framed(&vec![*value; *bytes as usize]),
        }
    }
}

/// Where a stream is cut: all of it comes, or a part, or most of it and then the rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut(Option<u16>);

impl<'a> Arbitrary<'a> for Cut {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self(match u.ratio(1, 8)? {
            true => Some(u.arbitrary()?),
            false => None,
        }))
    }
}

impl Cut {
    /// What comes first, and what comes next.
    pub(crate) fn apply(self, bytes: &[u8]) -> (&[u8], &[u8]) {
        let at = self.0.map_or(bytes.len(), usize::from);
        bytes.split_at(at.min(bytes.len()))
    }
}
