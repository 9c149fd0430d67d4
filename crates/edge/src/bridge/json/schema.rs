//! Tables of the fields of all messages of `proto/`, built once.

use hashbrown::HashMap;
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind as DescribedKind, MessageDescriptor};

/// Fields of messages, by the index of the message.
#[derive(Default)]
pub(crate) struct Schema {
    messages: Vec<Vec<Field>>,
    indices: HashMap<String, usize>,
}

pub(super) struct Field {
    pub(super) number: u32,
    /// Name in JSON.
    pub(super) name: String,
    /// Name in `proto/`.
    pub(super) described_name: String,
    pub(super) kind: Kind,
    pub(super) is_list: bool,
    /// Whether it is written even with the default value.
    pub(super) has_presence: bool,
}

pub(super) enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Float,
    Double,
    String,
    Bytes,
    Enum(EnumDescriptor),
    /// The index of the message.
    Message(usize),
}

impl Schema {
    /// Adds `message` with all messages that it contains; returns its index.
    pub(crate) fn add(&mut self, message: &MessageDescriptor) -> usize {
        if let Some(index) = self.indices.get(message.full_name()) {
            return *index;
        }
        let index = self.messages.len();
        self.indices.insert(message.full_name().to_owned(), index);
        self.messages.push(Vec::new());
        let fields = message.fields().map(|field| self.field(&field)).collect();
        if let Some(place) = self.messages.get_mut(index) {
            *place = fields;
        }
        index
    }

    fn field(&mut self, field: &FieldDescriptor) -> Field {
        let kind = match field.kind() {
            DescribedKind::Bool => Kind::Bool,
            DescribedKind::Int32 => Kind::Int32,
            DescribedKind::Int64 => Kind::Int64,
            DescribedKind::Uint32 => Kind::Uint32,
            DescribedKind::Uint64 => Kind::Uint64,
            DescribedKind::Sint32 => Kind::Sint32,
            DescribedKind::Sint64 => Kind::Sint64,
            DescribedKind::Fixed32 => Kind::Fixed32,
            DescribedKind::Fixed64 => Kind::Fixed64,
            DescribedKind::Sfixed32 => Kind::Sfixed32,
            DescribedKind::Sfixed64 => Kind::Sfixed64,
            DescribedKind::Float => Kind::Float,
            DescribedKind::Double => Kind::Double,
            DescribedKind::String => Kind::String,
            DescribedKind::Bytes => Kind::Bytes,
            DescribedKind::Enum(values) => Kind::Enum(values),
            DescribedKind::Message(nested) => Kind::Message(self.add(&nested)),
        };
        Field {
            number: field.number(),
            name: field.json_name().to_owned(),
            described_name: field.name().to_owned(),
            kind,
            is_list: field.is_list(),
            has_presence: field.supports_presence(),
        }
    }

    /// The fields of a message, in ascending order of their numbers.
    pub(super) fn fields(&self, message: usize) -> &[Field] {
        self.messages.get(message).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    /// The reader and the writer do not support these; `proto/` does not use them so far.
    #[test]
    fn no_public_message_has_a_map_a_group_a_oneof_or_a_well_known_type() {
        for message in wire::descriptor_pool().all_messages() {
            assert_ne!(message.package_name(), "google.protobuf", "{}", message.full_name());
            assert!(message.oneofs().all(|oneof| oneof.is_synthetic()), "{}", message.full_name());
            for field in message.fields() {
                assert!(!field.is_map() && !field.is_group(), "{}", field.full_name());
            }
        }
    }
}
