//! Frames: a 32-bit little-endian length, then as many bytes of JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio_util::codec::{Decoder as _, Encoder as _, LengthDelimitedCodec};

/// The codec for frames of at most `max_bytes` bytes, the length prefix not counted.
pub(crate) fn codec(max_bytes: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .little_endian()
        .length_field_length(4)
        .max_frame_length(max_bytes)
        .new_codec()
}

/// A peer sent something that is no frame of the protocol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame longer than {0} bytes")]
    TooLong(usize),
    #[error("a frame that is not understood: {0}")]
    Malformed(#[source] serde_json::Error),
}

/// Takes the next whole message out of `buffer`; `None` if there is none yet.
pub(crate) fn decode<M: DeserializeOwned>(
    codec: &mut LengthDelimitedCodec,
    buffer: &mut BytesMut,
) -> Result<Option<M>, FrameError> {
    match codec.decode(buffer) {
        Ok(Some(frame)) => parse(&frame).map(Some),
        Ok(None) => Ok(None),
        // Decoding from memory fails for one reason only.
        Err(_) => Err(FrameError::TooLong(codec.max_frame_length())),
    }
}

/// The message in the body of a frame.
pub(crate) fn parse<M: DeserializeOwned>(body: &[u8]) -> Result<M, FrameError> {
    serde_json::from_slice(body).map_err(FrameError::Malformed)
}

/// The body of the frame that carries `message`.
pub(crate) fn body<M: Serialize>(message: &M) -> Result<Bytes, FrameError> {
    serde_json::to_vec(message)
        .map(Bytes::from)
        .map_err(FrameError::Malformed)
}

/// Appends the frame that carries `message` to `buffer`.
pub(crate) fn encode<M: Serialize>(
    codec: &mut LengthDelimitedCodec,
    message: &M,
    buffer: &mut BytesMut,
) -> Result<(), FrameError> {
    codec
        .encode(body(message)?, buffer)
        .map_err(|_| FrameError::TooLong(codec.max_frame_length()))
}

/// Bytes that are a base64 string in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base64(pub(crate) Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD
            .decode(text.as_bytes())
            .map(Self)
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::{MAX_FRAME_BYTES, MAX_SERIAL_BYTES};
    use crate::protocol::{HostMessage, Request, Response, WorkerMessage};

    proptest! {
        #[test]
        fn messages_arrive_whole_however_the_stream_is_cut(
            writes in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..8),
            cut in 1_usize..64,
        ) {
            let sent: Vec<_> = writes
                .into_iter()
                .zip(0..)
                .map(|(bytes, id)| HostMessage::Request {
                    id,
                    request: Request::SerialWrite { bytes: Base64(bytes) },
                })
                .collect();
            let mut codec = codec(MAX_FRAME_BYTES);
            let mut stream = BytesMut::new();
            for message in &sent {
                encode(&mut codec, message, &mut stream).unwrap();
            }

            let mut buffer = BytesMut::new();
            let mut received = Vec::new();
            for piece in stream.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(message) = decode::<HostMessage>(&mut codec, &mut buffer).unwrap() {
                    received.push(message);
                }
            }

            prop_assert_eq!(received, sent);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn any_bytes_are_a_message_an_error_or_not_enough(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            let mut buffer = BytesMut::from(&bytes[..]);
            let mut codec = codec(256);
            while let Ok(Some(_)) = decode::<HostMessage>(&mut codec, &mut buffer) {}
        }
    }

    #[test]
    fn a_length_past_the_limit_is_refused_before_its_body_is_awaited() {
        let mut buffer = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
        let result = decode::<HostMessage>(&mut codec(MAX_FRAME_BYTES), &mut buffer);
        assert!(matches!(result, Err(FrameError::TooLong(MAX_FRAME_BYTES))));
    }

    #[test]
    fn the_largest_serial_chunk_fits_a_frame() {
        let message = WorkerMessage::Response {
            id: u64::MAX,
            response: Response::Serial {
                offset: u64::MAX,
                bytes: Base64(vec![0xff; MAX_SERIAL_BYTES]),
            },
        };
        encode(&mut codec(MAX_FRAME_BYTES), &message, &mut BytesMut::new()).unwrap();
    }

    #[test]
    fn a_request_from_a_newer_host_is_known_to_be_unknown() {
        let body = br#"{"type":"request","id":7,"request":{"do":"levitate","height":3}}"#;
        let message: HostMessage = parse(body).unwrap();
        assert_eq!(
            message,
            HostMessage::Request {
                id: 7,
                request: Request::Unknown
            }
        );
    }

    #[test]
    fn a_field_from_a_newer_peer_is_ignored() {
        let body = br#"{"type":"hello","version":2,"nonce":"n","colour":"blue"}"#;
        assert!(matches!(parse(body), Ok(HostMessage::Hello(hello)) if hello.version == 2));
    }

    #[test]
    fn frames_are_a_little_endian_length_and_json() {
        let mut buffer = BytesMut::new();
        let request = HostMessage::Request {
            id: 1,
            request: Request::Pause,
        };
        encode(&mut codec(MAX_FRAME_BYTES), &request, &mut buffer).unwrap();
        let json = br#"{"type":"request","id":1,"request":{"do":"pause"}}"#;
        assert_eq!(
            &buffer[..4],
            &u32::try_from(json.len()).unwrap().to_le_bytes()
        );
        assert_eq!(&buffer[4..], json);
    }
}
