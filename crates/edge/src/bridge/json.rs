//! Protobuf messages as canonical JSON, by their descriptors.

mod reader;
mod schema;
mod writer;

use std::sync::Arc;

use bytes::Bytes;
use clock::Pool;
use serde::de::DeserializeSeed;
use tonic::Code;

use super::{envelope, shape};
use crate::error::Error;
use crate::gzip::INLINE_BYTES_MAX;
use reader::MessageReader;
pub(crate) use schema::Schema;
use writer::EncodedMessage;

/// First allocation for the JSON of a message. Names of fields and digits make it longer than the message.
const JSON_BYTES_PER_BYTE: usize = 2;

/// The message that `json` says, which is number `message` of `schema`, as protobuf.
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

/// The message in `envelope`, which is number `message` of `schema`, as JSON in an envelope.
///
/// # Errors
/// `Internal` if it is malformed or of another kind.
pub(crate) async fn encode(
    pool: &Pool,
    schema: &Arc<Schema>,
    message: usize,
    envelope: Bytes,
) -> Result<Bytes, Error> {
    let inline = envelope.len() <= INLINE_BYTES_MAX;
    let schema = schema.clone();
    let work = move || {
        let encoded = envelope.get(envelope::HEADER_BYTES..).unwrap_or_default();
        let mut output = Vec::with_capacity(envelope::HEADER_BYTES + encoded.len() * JSON_BYTES_PER_BYTE);
        output.extend_from_slice(&[0; envelope::HEADER_BYTES]);
        serde_json::to_writer(&mut output, &EncodedMessage::new(&schema, message, encoded))
            .map_err(|error| Error::new(Code::Internal, format!("marshal message: {error}")))?;
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
