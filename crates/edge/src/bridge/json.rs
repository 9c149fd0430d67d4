//! Protobuf messages as canonical JSON, by their descriptors.

use bytes::Bytes;
use clock::Pool;
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use tonic::Code;

use super::{envelope, shape};
use crate::error::Error;
use crate::gzip::INLINE_BYTES_MAX;

/// The message that `json` says, as protobuf. Names may be in camel case or as in `proto/`; unknown ones
/// are ignored.
pub(crate) async fn decode(pool: &Pool, descriptor: &MessageDescriptor, json: Bytes) -> Result<Bytes, Error> {
    let inline = json.len() <= INLINE_BYTES_MAX;
    let descriptor = descriptor.clone();
    let work = move || {
        let invalid = |text: String| Error::new(Code::InvalidArgument, format!("unmarshal message: {text}"));
        if json.is_empty() {
            return Err(invalid("zero-length payload is not a valid JSON object".to_owned()));
        }
        shape::check_json(&json)?;
        let mut input = serde_json::Deserializer::from_slice(&json);
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        let message = DynamicMessage::deserialize_with_options(descriptor, &mut input, &options);
        let message = message.map_err(|error| invalid(error.to_string()))?;
        input.end().map_err(|error| invalid(error.to_string()))?;
        Ok(Bytes::from(message.encode_to_vec()))
    };
    match inline {
        true => work(),
        false => pool.run(work).await,
    }
}

/// The sealed message as sealed JSON.
pub(crate) async fn encode(
    pool: &Pool,
    descriptor: &MessageDescriptor,
    sealed: Bytes,
) -> Result<Bytes, Error> {
    let inline = sealed.len() <= INLINE_BYTES_MAX;
    let descriptor = descriptor.clone();
    let work = move || {
        let internal = |text: String| Error::new(Code::Internal, format!("marshal message: {text}"));
        let message = sealed.slice(envelope::HEADER_BYTES..);
        let json_bytes_guess = message.len() * 2;
        let message =
            DynamicMessage::decode(descriptor, message).map_err(|error| internal(error.to_string()))?;
        let mut output = Vec::with_capacity(envelope::HEADER_BYTES + json_bytes_guess);
        output.extend_from_slice(&[0; envelope::HEADER_BYTES]);
        let mut serializer = serde_json::Serializer::new(&mut output);
        message
            .serialize_with_options(&mut serializer, &SerializeOptions::new())
            .map_err(|error| internal(error.to_string()))?;
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
