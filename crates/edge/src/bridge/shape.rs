//! Counts the fields of a request before it is decoded.
//!
//! Two bytes can be an empty message, which takes dozens of bytes once decoded, and such bytes compress a
//! thousandfold. So a limit on bytes alone does not bound memory; a limit on fields does.

use hashbrown::HashMap;
use prost::encoding::decode_varint;
use prost_reflect::{Kind, MessageDescriptor};
use tonic::Code;

use crate::error::Error;

/// Maximum number of fields of a request, including nested messages. A batch of ten thousand series with twenty labels
/// each has about 600 thousand.
pub(crate) const FIELDS_MAX: usize = 1_000_000;

/// Maximum nesting that is counted: prost refuses to decode deeper messages.
const DEPTH_MAX: usize = 100;

/// For each message type, its fields that are messages themselves.
#[derive(Default)]
pub(crate) struct Shapes {
    shapes: Vec<Shape>,
    indices: HashMap<String, usize>,
}

/// Field numbers, each with the index of the shape of its message.
type Shape = Vec<(u64, usize)>;

impl Shapes {
    /// Adds a message type; returns the index of its shape, for [`Shapes::check`].
    pub(crate) fn add(&mut self, message: &MessageDescriptor) -> usize {
        if let Some(index) = self.indices.get(message.full_name()) {
            return *index;
        }
        let index = self.shapes.len();
        self.indices.insert(message.full_name().to_owned(), index);
        self.shapes.push(Shape::new());
        let mut shape = Shape::new();
        for field in message.fields() {
            if let Kind::Message(nested) = field.kind() {
                shape.push((u64::from(field.number()), self.add(&nested)));
            }
        }
        if let Some(place) = self.shapes.get_mut(index) {
            *place = shape;
        }
        index
    }

    /// # Errors
    /// `ResourceExhausted` if the message has too many fields. The decoder refuses malformed messages.
    pub(crate) fn check(&self, shape: usize, message: &[u8]) -> Result<(), Error> {
        let mut fields = 0;
        self.count(shape, message, &mut fields, 0);
        match fields > FIELDS_MAX {
            true => Err(too_many()),
            false => Ok(()),
        }
    }

    /// Counts until the end, the limit, or a malformed field (`None`).
    fn count(&self, shape: usize, mut bytes: &[u8], fields: &mut usize, depth: usize) -> Option<()> {
        while !bytes.is_empty() && *fields <= FIELDS_MAX {
            let tag = decode_varint(&mut bytes).ok()?;
            *fields += 1;
            match tag & 7 {
                0 => drop(decode_varint(&mut bytes).ok()?),
                1 => bytes = bytes.get(8..)?,
                2 => {
                    let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
                    let (content, rest) = bytes.split_at_checked(length)?;
                    bytes = rest;
                    if let Some(nested) = self.nested(shape, tag >> 3)
                        && depth < DEPTH_MAX
                    {
                        self.count(nested, content, fields, depth + 1)?;
                    }
                }
                5 => bytes = bytes.get(4..)?,
                // Group markers have no content.
                _ => {}
            }
        }
        Some(())
    }

    fn nested(&self, shape: usize, number: u64) -> Option<usize> {
        let shape = self.shapes.get(shape)?;
        shape.iter().find(|(other, _)| *other == number).map(|(_, index)| *index)
    }
}

/// As [`Shapes::check`] for JSON, before it is parsed: counts the characters that begin an element.
pub(crate) fn check_json(json: &[u8]) -> Result<(), Error> {
    // In pieces whose count fits in a byte, so that the compiler vectorises the loop.
    let elements = json.chunks(255).map(|piece| {
        let begins = piece.iter().map(|byte| u8::from(matches!(byte, b',' | b'{' | b'[')));
        usize::from(begins.sum::<u8>())
    });
    match elements.sum::<usize>() > FIELDS_MAX {
        true => Err(too_many()),
        false => Ok(()),
    }
}

fn too_many() -> Error {
    let text = format!("the request has more fields than the limit of {FIELDS_MAX}");
    Error::new(Code::ResourceExhausted, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: &[u8]) -> bool {
        let mut shapes = Shapes::default();
        let push = wire::descriptor_pool().get_message_by_name("push.v1.PushRequest").unwrap();
        let push = shapes.add(&push);
        shapes.check(push, message).is_ok()
    }

    fn nested(number: u8, content: &[u8]) -> Vec<u8> {
        let mut message = vec![number << 3 | 2];
        prost::encoding::encode_varint(content.len() as u64, &mut message);
        message.extend_from_slice(content);
        message
    }

    #[test]
    fn many_empty_messages_are_refused_at_any_depth() {
        let empty = [0x0a, 0].repeat(FIELDS_MAX);
        assert!(check(&empty));
        assert!(!check(&[&empty[..], &[0x0a, 0]].concat()));
        assert!(!check(&nested(1, &empty)));
    }

    #[test]
    fn the_content_of_a_profile_is_not_counted() {
        let profile = nested(1, &[0x0a, 0].repeat(FIELDS_MAX + 1));
        assert!(check(&nested(1, &nested(2, &profile))));
    }

    #[test]
    fn malformed_messages_are_left_to_the_decoder() {
        for bytes in [&[0xff][..], &[0x0a], &[0x0a, 5, 1], &[0x09, 1], &[0x0b, 0x0c], &[0xff; 11]] {
            assert!(check(bytes));
        }
    }

    #[test]
    fn json_elements_are_counted_before_parsing() {
        assert!(check_json(b"{\"series\":[{},{}]}").is_ok());
        assert!(check_json("{},".repeat(FIELDS_MAX / 2 + 1).as_bytes()).is_err());
    }
}
