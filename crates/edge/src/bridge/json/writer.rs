//! Writes an encoded protobuf message as canonical JSON, without decoding it into a message first.
//!
//! A message decoded by reflection takes about twenty times the memory of its JSON. Here each field is read from the
//! encoded bytes and written at once.

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use bytes::Buf;
use prost::encoding::decode_varint;
use serde::ser::{Error as _, Serialize, SerializeMap, SerializeSeq, Serializer};

use super::schema::{Field, Kind, Schema};

/// Maximum nesting: prost refuses to decode deeper messages.
const DEPTH_MAX: usize = 100;

/// An encoded message; serializes as the JSON of the message.
#[derive(Clone, Copy)]
pub(super) struct EncodedMessage<'a> {
    schema: &'a Schema,
    /// Index of the message in `schema`.
    message: usize,
    bytes: &'a [u8],
    depth: usize,
}

impl<'a> EncodedMessage<'a> {
    pub(super) fn new(schema: &'a Schema, message: usize, bytes: &'a [u8]) -> Self {
        Self { schema, message, bytes, depth: 0 }
    }
}

/// Why bytes are not an encoded message of the schema.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Malformed(&'static str);

/// The value of one record, by its wire type.
#[derive(Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
    Delimited(&'a [u8]),
}

/// The records of a message or of a part of it.
#[derive(Clone)]
struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    fn read(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let bytes = &mut self.0;
        let varint =
            |bytes: &mut &[u8]| decode_varint(bytes).map_err(|_| Malformed("an integer is malformed"));
        let tag = varint(bytes)?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed("a field number is malformed"))?;
        let cut_off = |_| Malformed("a field is cut off");
        let value = match tag & 7 {
            0 => Value::Varint(varint(bytes)?),
            1 => Value::Fixed64(bytes.try_get_u64_le().map_err(cut_off)?),
            2 => {
                let length = varint(bytes)?;
                let split = usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length));
                let (content, rest) = split.ok_or(Malformed("a field is cut off"))?;
                *bytes = rest;
                Value::Delimited(content)
            }
            5 => Value::Fixed32(bytes.try_get_u32_le().map_err(cut_off)?),
            _ => return Err(Malformed("a field has an unknown wire type")),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Value<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let value = self.read().map(|(_, value)| value);
        if value.is_err() {
            self.0 = &[];
        }
        Some(value)
    }
}

/// Consecutive records of one field.
#[derive(Clone, Copy)]
struct Run<'a> {
    number: u32,
    bytes: &'a [u8],
}

/// The records of `bytes`, in ascending order of their fields. Encoders write each field in one run.
fn runs(bytes: &[u8]) -> Result<Vec<Run<'_>>, Malformed> {
    let mut runs: Vec<Run<'_>> = Vec::new();
    let mut records = Records(bytes);
    let mut run_start = 0;
    while !records.0.is_empty() {
        let start = bytes.len() - records.0.len();
        let (number, _) = records.read()?;
        let end = bytes.len() - records.0.len();
        let run = |from: usize| Run { number, bytes: bytes.get(from..end).unwrap_or_default() };
        match runs.last_mut() {
            Some(last) if last.number == number => *last = run(run_start),
            _ => {
                run_start = start;
                runs.push(run(start));
            }
        }
    }
    if !runs.is_sorted_by_key(|run| run.number) {
        runs.sort_by_key(|run| run.number);
    }
    Ok(runs)
}

impl Serialize for EncodedMessage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.depth > DEPTH_MAX {
            return Err(S::Error::custom("the message is nested too deep"));
        }
        let runs = runs(self.bytes).map_err(S::Error::custom)?;
        let fields = self.schema.fields(self.message);
        let mut map = serializer.serialize_map(None)?;
        for runs in runs.chunk_by(|left, right| left.number == right.number) {
            let number = runs.first().map(|run| run.number).unwrap_or_default();
            let Ok(index) = fields.binary_search_by_key(&number, |field| field.number) else {
                continue;
            };
            if let Some(field) = fields.get(index) {
                self.write_field(&mut map, field, runs)?;
            }
        }
        map.end()
    }
}

impl EncodedMessage<'_> {
    fn write_field<M: SerializeMap>(
        &self,
        map: &mut M,
        field: &Field,
        runs: &[Run<'_>],
    ) -> Result<(), M::Error> {
        if field.is_list {
            let list = List { parent: *self, kind: &field.kind, runs };
            let is_empty = list.is_empty().map_err(M::Error::custom)?;
            return if is_empty { Ok(()) } else { map.serialize_entry(&field.name, &list) };
        }
        if let Kind::Message(message) = field.kind {
            let merged = merge(runs).map_err(M::Error::custom)?;
            return map.serialize_entry(&field.name, &self.nested(message, &merged));
        }
        // The last value of a repeated record counts.
        let last = runs.last().and_then(|run| Records(run.bytes).last());
        let value = last.unwrap_or(Err(Malformed("a field has no value"))).map_err(M::Error::custom)?;
        let scalar = Scalar::new(&field.kind, value).map_err(M::Error::custom)?;
        match field.has_presence || !scalar.is_default() {
            true => map.serialize_entry(&field.name, &scalar),
            false => Ok(()),
        }
    }

    fn nested<'b>(&'b self, message: usize, bytes: &'b [u8]) -> EncodedMessage<'b> {
        EncodedMessage { schema: self.schema, message, bytes, depth: self.depth + 1 }
    }
}

/// Merges all records of a message field: they are parts of one message.
fn merge<'a>(runs: &[Run<'a>]) -> Result<std::borrow::Cow<'a, [u8]>, Malformed> {
    let mut merged = std::borrow::Cow::Borrowed(&[][..]);
    for value in runs.iter().flat_map(|run| Records(run.bytes)) {
        let Value::Delimited(bytes) = value? else {
            return Err(Malformed("a message has the wire type of a number"));
        };
        match merged.is_empty() {
            true => merged = bytes.into(),
            false => merged.to_mut().extend_from_slice(bytes),
        }
    }
    Ok(merged)
}

/// A repeated field.
struct List<'a> {
    parent: EncodedMessage<'a>,
    kind: &'a Kind,
    runs: &'a [Run<'a>],
}

impl<'a> List<'a> {
    fn values(&self) -> impl Iterator<Item = Result<Value<'a>, Malformed>> {
        self.runs.iter().flat_map(|run| Records(run.bytes))
    }

    fn is_empty(&self) -> Result<bool, Malformed> {
        for value in self.values() {
            if !self.packed_bytes(value?).is_some_and(<[u8]>::is_empty) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The bytes of a packed record, which holds several numbers; `None` for any other record.
    fn packed_bytes(&self, value: Value<'a>) -> Option<&'a [u8]> {
        match (self.kind, value) {
            (Kind::String | Kind::Bytes | Kind::Message(_), _) => None,
            (_, Value::Delimited(bytes)) => Some(bytes),
            _ => None,
        }
    }
}

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for value in self.values() {
            let value = value.map_err(S::Error::custom)?;
            if let (Kind::Message(message), Value::Delimited(bytes)) = (self.kind, value) {
                list.serialize_element(&self.parent.nested(*message, bytes))?;
                continue;
            }
            let Some(mut packed) = self.packed_bytes(value) else {
                list.serialize_element(&Scalar::new(self.kind, value).map_err(S::Error::custom)?)?;
                continue;
            };
            while !packed.is_empty() {
                let value = self.kind.read_packed(&mut packed).map_err(S::Error::custom)?;
                list.serialize_element(&Scalar::new(self.kind, value).map_err(S::Error::custom)?)?;
            }
        }
        list.end()
    }
}

impl Kind {
    fn read_packed<'a>(&self, bytes: &mut &'a [u8]) -> Result<Value<'a>, Malformed> {
        let cut_off = |_| Malformed("a packed field is cut off");
        match self {
            Self::Fixed32 | Self::Sfixed32 | Self::Float => {
                bytes.try_get_u32_le().map(Value::Fixed32).map_err(cut_off)
            }
            Self::Fixed64 | Self::Sfixed64 | Self::Double => {
                bytes.try_get_u64_le().map(Value::Fixed64).map_err(cut_off)
            }
            _ => decode_varint(bytes)
                .map(Value::Varint)
                .map_err(|_| Malformed("an integer of a packed field is malformed")),
        }
    }
}

/// A value that is not a message, by its type.
enum Scalar<'a> {
    Bool(bool),
    I32(i32),
    I64(i64),
    U32(u32),
    U64(u64),
    F32(f32),
    F64(f64),
    String(&'a str),
    Bytes(&'a [u8]),
    Enum(&'a prost_reflect::EnumDescriptor, i32),
}

impl<'a> Scalar<'a> {
    fn new(kind: &'a Kind, value: Value<'a>) -> Result<Self, Malformed> {
        // Integers with too many bits are truncated, as every protobuf decoder does.
        Ok(match (kind, value) {
            (Kind::Bool, Value::Varint(value)) => Self::Bool(value != 0),
            (Kind::Int32, Value::Varint(value)) => Self::I32(value as i32),
            (Kind::Int64, Value::Varint(value)) => Self::I64(value as i64),
            (Kind::Uint32, Value::Varint(value)) => Self::U32(value as u32),
            (Kind::Uint64, Value::Varint(value)) => Self::U64(value),
            (Kind::Sint32, Value::Varint(value)) => {
                let value = value as u32;
                Self::I32((value >> 1) as i32 ^ -((value & 1) as i32))
            }
            (Kind::Sint64, Value::Varint(value)) => Self::I64((value >> 1) as i64 ^ -((value & 1) as i64)),
            (Kind::Fixed32, Value::Fixed32(value)) => Self::U32(value),
            (Kind::Fixed64, Value::Fixed64(value)) => Self::U64(value),
            (Kind::Sfixed32, Value::Fixed32(value)) => Self::I32(value as i32),
            (Kind::Sfixed64, Value::Fixed64(value)) => Self::I64(value as i64),
            (Kind::Float, Value::Fixed32(value)) => Self::F32(f32::from_bits(value)),
            (Kind::Double, Value::Fixed64(value)) => Self::F64(f64::from_bits(value)),
            (Kind::String, Value::Delimited(value)) => {
                Self::String(std::str::from_utf8(value).map_err(|_| Malformed("a string is not UTF-8"))?)
            }
            (Kind::Bytes, Value::Delimited(value)) => Self::Bytes(value),
            (Kind::Enum(values), Value::Varint(value)) => Self::Enum(values, value as i32),
            _ => return Err(Malformed("a field has the wire type of another kind")),
        })
    }

    fn is_default(&self) -> bool {
        match *self {
            Self::Bool(value) => !value,
            Self::I32(value) => value == 0,
            Self::I64(value) => value == 0,
            Self::U32(value) => value == 0,
            Self::U64(value) => value == 0,
            Self::F32(value) => value == 0.0,
            Self::F64(value) => value == 0.0,
            Self::String(value) => value.is_empty(),
            Self::Bytes(value) => value.is_empty(),
            Self::Enum(_, number) => number == 0,
        }
    }
}

impl Serialize for Scalar<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Bool(value) => serializer.serialize_bool(value),
            Self::I32(value) => serializer.serialize_i32(value),
            // As text, because JavaScript numbers have only 53 bits.
            Self::I64(value) => serializer.collect_str(&value),
            Self::U32(value) => serializer.serialize_u32(value),
            Self::U64(value) => serializer.collect_str(&value),
            Self::F32(value) if value.is_finite() => serializer.serialize_f32(value),
            Self::F32(value) => serializer.serialize_str(not_finite(value.into())),
            Self::F64(value) if value.is_finite() => serializer.serialize_f64(value),
            Self::F64(value) => serializer.serialize_str(not_finite(value)),
            Self::String(value) => serializer.serialize_str(value),
            Self::Bytes(value) => serializer.collect_str(&Base64Display::new(value, &STANDARD)),
            Self::Enum(values, number) => match values.get_value(number) {
                Some(value) => serializer.serialize_str(value.name()),
                None => serializer.serialize_i32(number),
            },
        }
    }
}

fn not_finite(value: f64) -> &'static str {
    match value {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::TestRng;
    use prost::Message as _;
    use prost::encoding::encode_varint;
    use prost_reflect::{
        DynamicMessage, FieldDescriptor, Kind as DescribedKind, MessageDescriptor, Value as DescribedValue,
    };

    use super::*;

    /// Maximum elements of a generated list, and maximum nesting of a generated message.
    const LIST_MAX: u32 = 3;
    const NESTING_MAX: u32 = 6;

    fn json(descriptor: &MessageDescriptor, encoded: &[u8]) -> Result<String, String> {
        let mut schema = Schema::default();
        let message = schema.add(descriptor);
        serde_json::to_string(&EncodedMessage::new(&schema, message, encoded))
            .map_err(|error| error.to_string())
    }

    fn json_by_reflection(descriptor: &MessageDescriptor, encoded: &[u8]) -> Option<String> {
        let message = DynamicMessage::decode(descriptor.clone(), encoded).ok()?;
        serde_json::to_string(&message).ok()
    }

    fn described(name: &str) -> MessageDescriptor {
        wire::descriptor_pool().get_message_by_name(name).unwrap()
    }

    /// A number that is special in some encoding, or a random one.
    fn number(random: &mut TestRng) -> u64 {
        let special = [0, 1, 127, 128, i32::MAX as u64, i32::MIN as u64, u64::MAX, i64::MAX as u64];
        match random.random_range(0..12_usize) {
            at if at < special.len() => special[at],
            _ => random.random(),
        }
    }

    fn text(random: &mut TestRng) -> String {
        let characters = ['a', 'ß', '"', '\\', '\n', '\0', '\u{7f}', '\u{2028}', '😀', '/'];
        let length = random.random_range(0..6);
        (0..length).map(|_| characters[random.random_range(0..characters.len())]).collect()
    }

    fn value(kind: &DescribedKind, nesting: u32, random: &mut TestRng) -> DescribedValue {
        let float = |bits: u64| {
            [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 0.1, 5.0][bits as usize % 8]
        };
        match kind {
            DescribedKind::Bool => DescribedValue::Bool(random.random()),
            DescribedKind::Int32 | DescribedKind::Sint32 | DescribedKind::Sfixed32 => {
                DescribedValue::I32(number(random) as i32)
            }
            DescribedKind::Int64 | DescribedKind::Sint64 | DescribedKind::Sfixed64 => {
                DescribedValue::I64(number(random) as i64)
            }
            DescribedKind::Uint32 | DescribedKind::Fixed32 => DescribedValue::U32(number(random) as u32),
            DescribedKind::Uint64 | DescribedKind::Fixed64 => DescribedValue::U64(number(random)),
            DescribedKind::Float => DescribedValue::F32(float(random.random()) as f32),
            DescribedKind::Double => DescribedValue::F64(float(random.random())),
            DescribedKind::String => DescribedValue::String(text(random)),
            DescribedKind::Bytes => DescribedValue::Bytes(text(random).into_bytes().into()),
            DescribedKind::Enum(_) => DescribedValue::EnumNumber(random.random_range(-1..8)),
            DescribedKind::Message(message) => {
                DescribedValue::Message(random_message(message, nesting + 1, random))
            }
        }
    }

    pub(in crate::bridge::json) fn random_message(
        descriptor: &MessageDescriptor,
        nesting: u32,
        random: &mut TestRng,
    ) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        for field in descriptor.fields() {
            if nesting > NESTING_MAX || random.random_bool(0.3) {
                continue;
            }
            let mut next = || value(&field.kind(), nesting, random);
            let filled = match field.is_list() {
                true => DescribedValue::List((0..LIST_MAX).map(|_| next()).collect()),
                false => next(),
            };
            message.set_field(&field, filled);
        }
        message
    }

    /// The records of `encoded` in random order, with some packed lists unpacked.
    fn shuffled(descriptor: &MessageDescriptor, encoded: &[u8], random: &mut TestRng) -> Vec<u8> {
        let mut pieces = Vec::new();
        let mut records = Records(encoded);
        while !records.0.is_empty() {
            let before = records.0;
            let (number, value) = records.read().unwrap();
            let piece = &before[..before.len() - records.0.len()];
            match (descriptor.get_field(number), value) {
                (Some(field), Value::Delimited(packed)) if field.is_packed() && random.random() => {
                    pieces.extend(unpacked(&field, packed));
                }
                _ => pieces.push(piece.to_vec()),
            }
        }
        for at in (1..pieces.len()).rev() {
            pieces.swap(at, random.random_range(0..=at));
        }
        pieces.concat()
    }

    fn unpacked(field: &FieldDescriptor, mut packed: &[u8]) -> Vec<Vec<u8>> {
        let mut schema = Schema::default();
        let message = schema.add(field.parent_message());
        let kind = &schema.fields(message).iter().find(|other| other.number == field.number()).unwrap().kind;
        let mut records = Vec::new();
        while !packed.is_empty() {
            let before = packed;
            let wire_type = match kind.read_packed(&mut packed).unwrap() {
                Value::Varint(_) => 0,
                Value::Fixed64(_) => 1,
                _ => 5,
            };
            let mut record = Vec::new();
            encode_varint(u64::from(field.number() << 3 | wire_type), &mut record);
            record.extend_from_slice(&before[..before.len() - packed.len()]);
            records.push(record);
        }
        records
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn json_is_equal_to_the_json_of_the_decoded_message(random in any::<()>().prop_perturb(|(), random| random)) {
            let mut random = random;
            for descriptor in wire::descriptor_pool().all_messages() {
                let encoded = random_message(&descriptor, 0, &mut random).encode_to_vec();
                prop_assert_eq!(json(&descriptor, &encoded).ok(), json_by_reflection(&descriptor, &encoded));
                // Two concatenated messages are one message, in any order of their records.
                let more = random_message(&descriptor, 0, &mut random).encode_to_vec();
                let both = [encoded, more].concat();
                let shuffled = shuffled(&descriptor, &both, &mut random);
                for encoded in [both, shuffled] {
                    prop_assert_eq!(json(&descriptor, &encoded).ok(), json_by_reflection(&descriptor, &encoded));
                }
            }
        }

        #[test]
        fn damaged_messages_are_refused_or_read_like_any_decoder(
            random in any::<()>().prop_perturb(|(), random| random),
        ) {
            let mut random = random;
            for descriptor in wire::descriptor_pool().all_messages() {
                let mut encoded = random_message(&descriptor, 0, &mut random).encode_to_vec();
                if encoded.is_empty() {
                    continue;
                }
                let index = random.random_range(0..encoded.len());
                match random.random_range(0..3) {
                    0 => encoded[index] = random.random(),
                    1 => encoded.truncate(index),
                    _ => encoded.insert(index, random.random()),
                }
                if let (Ok(json), Some(expected)) = (json(&descriptor, &encoded), json_by_reflection(&descriptor, &encoded)) {
                    prop_assert_eq!(json, expected);
                }
            }
        }
    }

    #[test]
    fn unknown_fields_are_skipped_and_malformed_fields_are_an_error() {
        let label = described("types.v1.LabelPair");
        assert_eq!(json(&label, b"\x0a\x01a\x7a\x01x\x12\x01b").unwrap(), r#"{"name":"a","value":"b"}"#);
        assert_eq!(json(&label, b"").unwrap(), "{}");
        for bytes in [&b"\x0a"[..], b"\x0a\x05a", b"\x0b\x0c", b"\x0a\x02\xff\xfe", b"\x08\x01", &[0xff; 11]]
        {
            assert!(json(&label, bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn an_empty_list_is_omitted_in_every_encoding() {
        let profile = described("google.v1.Sample");
        assert_eq!(json(&profile, b"\x0a\x00\x12\x00").unwrap(), "{}");
        assert_eq!(json(&profile, b"\x0a\x00\x0a\x01\x05\x08\x06").unwrap(), r#"{"locationId":["5","6"]}"#);
    }
}
