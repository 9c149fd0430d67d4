//! Converts protobuf messages from and to canonical JSON, by their descriptors.

mod reader;
mod schema;
mod writer;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use clock::Pool;
use memory::Lease;
use serde::de::DeserializeSeed;
use tonic::Code;

use super::{envelope, shape};
use crate::error::Error;
use crate::gzip::INLINE_BYTES_MAX;
use reader::MessageReader;
pub(crate) use schema::Schema;
use writer::EncodedMessage;

/// Estimated bytes of JSON per byte of a message: names of fields and digits make it longer.
const JSON_BYTES_PER_BYTE: usize = 2;

/// Converts `json` to a protobuf message, number `message` of `schema`.
///
/// # Errors
/// `InvalidArgument` if it is not JSON or not this message, `ResourceExhausted` if it has too many elements.
pub(crate) async fn decode(
    pool: &Pool,
    schema: &Arc<Schema>,
    message: usize,
    json: Bytes,
) -> Result<Bytes, Error> {
    let inline = json.len() <= INLINE_BYTES_MAX;
    let schema = schema.clone();
    let work = move || {
        let invalid = |text: String| Error::new(Code::InvalidArgument, format!("unmarshal message: {text}"));
        if json.is_empty() {
            return Err(invalid("zero-length payload is not a valid JSON object".to_owned()));
        }
        shape::check_json(&json)?;
        let mut input = serde_json::Deserializer::from_slice(&json);
        let mut output = Vec::with_capacity(json.len() / JSON_BYTES_PER_BYTE);
        let reader = MessageReader { schema: &schema, message, output: &mut output };
        reader.deserialize(&mut input).map_err(|error| invalid(error.to_string()))?;
        input.end().map_err(|error| invalid(error.to_string()))?;
        Ok(Bytes::from(output))
    };
    match inline {
        true => work(),
        false => pool.run(work).await,
    }
}

/// Converts the message in `envelope`, number `message` of `schema`, to JSON in an envelope. `memory` grows by the
/// bytes of the JSON.
///
/// # Errors
/// `Internal` if it is malformed or of another type, `ResourceExhausted` without memory for the JSON.
pub(crate) async fn encode(
    pool: &Pool,
    schema: &Arc<Schema>,
    message: usize,
    envelope: Bytes,
    memory: Lease,
) -> Result<Bytes, Error> {
    let inline = envelope.len() <= INLINE_BYTES_MAX;
    let schema = schema.clone();
    let work = move || {
        let encoded = envelope.get(envelope::HEADER_BYTES..).unwrap_or_default();
        let mut text = ChargedText { bytes: Vec::new(), memory };
        text.reserve(envelope::HEADER_BYTES + encoded.len() * JSON_BYTES_PER_BYTE).map_err(no_room)?;
        text.bytes.extend_from_slice(&[0; envelope::HEADER_BYTES]);
        serde_json::to_writer(&mut text, &EncodedMessage::new(&schema, message, encoded)).map_err(
            |error| match error.is_io() {
                true => no_room(error.into()),
                false => Error::new(Code::Internal, format!("marshal message: {error}")),
            },
        )?;
        let mut output = text.bytes;
        let header = envelope::header(0, output.len() - envelope::HEADER_BYTES);
        for (to, from) in output.iter_mut().zip(header) {
            *to = from;
        }
        Ok(Bytes::from(output))
    };
    match inline {
        true => work(),
        false => pool.run(work).await,
    }
}

/// A buffer whose memory is charged before it is allocated.
struct ChargedText {
    bytes: Vec<u8>,
    memory: Lease,
}

impl ChargedText {
    fn reserve(&mut self, more: usize) -> io::Result<()> {
        self.memory.grow(more as u64).map_err(io::Error::other)?;
        self.bytes.reserve_exact(more);
        Ok(())
    }
}

impl io::Write for ChargedText {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let capacity = self.bytes.capacity();
        if self.bytes.len() + text.len() > capacity {
            self.reserve(capacity.max(text.len()))?;
        }
        self.bytes.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn no_room(error: io::Error) -> Error {
    Error::new(Code::ResourceExhausted, format!("the answer as JSON {error}"))
}
