//! Reads canonical JSON as an encoded protobuf message, without building a message in between.
//!
//! Names of fields may be in camel case or as in `proto/`; unknown fields and unknown names of enums are skipped.
//! `null` means that a field is absent. A repeated field name is an error, as protobuf's JSON mapping demands.

use std::fmt;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
use prost::encoding::{WireType, encode_key, encode_varint};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::schema::{Field, Kind, Schema};

/// Padding is optional, because some clients omit it.
const BASE64: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, BASE64);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, BASE64);

/// Appends the fields of one message to `output`.
pub(super) struct MessageReader<'a> {
    pub(super) schema: &'a Schema,
    /// Index of the message in `schema`.
    pub(super) message: usize,
    pub(super) output: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MessageReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let fields = self.schema.fields(self.message);
        let mut seen = 0_u64;
        while let Some(index) = map.next_key_seed(FieldName(fields))? {
            let Some((index, field)) = index.and_then(|index| Some((index, fields.get(index)?))) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let reader = FieldReader { schema: self.schema, field, output: self.output };
            if map.next_value_seed(reader)? == HasValue(true) {
                let bit = 1_u64.checked_shl(index as u32).unwrap_or(0);
                if seen & bit != 0 {
                    return Err(A::Error::custom(format_args!("field {:?} is given twice", field.name)));
                }
                seen |= bit;
            }
        }
        Ok(())
    }
}

/// Reads the name of a field as its index in the list of fields.
struct FieldName<'a>(&'a [Field]);

impl<'de> DeserializeSeed<'de> for FieldName<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Option<usize>, E> {
        let by_json_name = self.0.iter().position(|field| field.name == name);
        Ok(by_json_name.or_else(|| self.0.iter().position(|field| field.described_name == name)))
    }
}

/// Whether a field has a value, the default value included.
#[derive(PartialEq, Eq)]
struct HasValue(bool);

/// Appends one field to `output`.
struct FieldReader<'a> {
    schema: &'a Schema,
    field: &'a Field,
    output: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for FieldReader<'_> {
    type Value = HasValue;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<HasValue, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for FieldReader<'_> {
    type Value = HasValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or null")
    }

    fn visit_none<E: Error>(self) -> Result<HasValue, E> {
        Ok(HasValue(false))
    }

    fn visit_unit<E: Error>(self) -> Result<HasValue, E> {
        Ok(HasValue(false))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<HasValue, D::Error> {
        let Self { schema, field, output } = self;
        match field.is_list {
            true => deserializer.deserialize_any(ListReader { schema, field, output })?,
            false => {
                let keeps_default = field.has_presence;
                ValueReader { schema, field, output, position: Position::Field { keeps_default } }
                    .deserialize(deserializer)?;
            }
        }
        Ok(HasValue(true))
    }
}

struct ListReader<'a> {
    schema: &'a Schema,
    field: &'a Field,
    output: &'a mut Vec<u8>,
}

impl<'de> Visitor<'de> for ListReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { schema, field, output } = self;
        let mut read_all = |output: &mut Vec<u8>, position: Position| {
            while list.next_element_seed(ValueReader { schema, field, output, position })?.is_some() {}
            Ok(())
        };
        if matches!(field.kind, Kind::String | Kind::Bytes | Kind::Message(_)) {
            return read_all(output, Position::Field { keeps_default: true });
        }
        let before = output.len();
        put_delimited(field.number, output, |output| read_all(output, Position::Packed))?;
        if output.ends_with(&[0]) && output.len() == before + key_bytes(field.number) + 1 {
            output.truncate(before);
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Position {
    /// A record of its own. Without `keeps_default`, the default value is not written.
    Field { keeps_default: bool },
    /// An element in the record of a packed list of numbers.
    Packed,
}

/// Appends one value to `output`.
struct ValueReader<'a> {
    schema: &'a Schema,
    field: &'a Field,
    output: &'a mut Vec<u8>,
    position: Position,
}

impl<'de> DeserializeSeed<'de> for ValueReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { schema, field, output, position } = self;
        let number = match &field.kind {
            Kind::Message(message) => {
                return put_delimited(field.number, output, |output| {
                    MessageReader { schema, message: *message, output }.deserialize(deserializer)
                });
            }
            Kind::String | Kind::Bytes => {
                return deserializer.deserialize_str(TextReader { field, output, position });
            }
            Kind::Enum(values) => match deserializer.deserialize_any(EnumVisitor(values))? {
                Some(number) => Number::Varint(i64::from(number) as u64),
                None => return Ok(()),
            },
            Kind::Bool => Number::Varint(bool::deserialize(deserializer)?.into()),
            Kind::Float => {
                let value = deserializer.deserialize_any(FloatVisitor { is_single: true })?;
                Number::Fixed32((value as f32).to_bits())
            }
            Kind::Double => {
                let value = deserializer.deserialize_any(FloatVisitor { is_single: false })?;
                Number::Fixed64(value.to_bits())
            }
            kind => kind.number(deserializer.deserialize_any(kind.integers())?),
        };
        number.put(field.number, position, output);
        Ok(())
    }
}

/// A number in its wire type.
enum Number {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
}

impl Number {
    fn put(&self, field: u32, position: Position, output: &mut Vec<u8>) {
        let (wire_type, is_default) = match *self {
            Self::Varint(value) => (WireType::Varint, value == 0),
            // The bits of negative zero differ from the default, so it is kept.
            Self::Fixed32(value) => (WireType::ThirtyTwoBit, value == 0),
            Self::Fixed64(value) => (WireType::SixtyFourBit, value == 0),
        };
        match position {
            Position::Field { keeps_default: false } if is_default => return,
            Position::Field { .. } => encode_key(field, wire_type, output),
            Position::Packed => {}
        }
        match *self {
            Self::Varint(value) => encode_varint(value, output),
            Self::Fixed32(value) => output.extend_from_slice(&value.to_le_bytes()),
            Self::Fixed64(value) => output.extend_from_slice(&value.to_le_bytes()),
        }
    }
}

impl Kind {
    fn integers(&self) -> IntegerVisitor {
        let (min, max) = match self {
            Self::Int32 | Self::Sint32 | Self::Sfixed32 => (i32::MIN.into(), i32::MAX.into()),
            Self::Uint32 | Self::Fixed32 => (0, u32::MAX.into()),
            Self::Uint64 | Self::Fixed64 => (0, u64::MAX.into()),
            _ => (i64::MIN.into(), i64::MAX.into()),
        };
        IntegerVisitor { min, max }
    }

    /// Encodes `value`, which [`Self::integers`] has accepted.
    fn number(&self, value: i128) -> Number {
        match self {
            Self::Sint32 | Self::Sint64 => {
                let value = value as i64;
                Number::Varint(((value << 1) ^ (value >> 63)) as u64)
            }
            Self::Fixed32 | Self::Sfixed32 => Number::Fixed32(value as u32),
            Self::Fixed64 | Self::Sfixed64 => Number::Fixed64(value as u64),
            _ => Number::Varint(value as u64),
        }
    }
}

struct IntegerVisitor {
    min: i128,
    max: i128,
}

impl IntegerVisitor {
    fn check<E: Error>(&self, value: i128) -> Result<i128, E> {
        match (self.min..=self.max).contains(&value) {
            true => Ok(value),
            false => Err(E::custom(format_args!("{value} is not from {} to {}", self.min, self.max))),
        }
    }
}

impl Visitor<'_> for IntegerVisitor {
    type Value = i128;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an integer from {} to {}, as a number or as text", self.min, self.max)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<i128, E> {
        self.check(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<i128, E> {
        self.check(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<i128, E> {
        if value.fract() != 0.0 || value < self.min as f64 || value > self.max as f64 {
            return Err(E::custom(format_args!("{value} is no integer from {} to {}", self.min, self.max)));
        }
        // The largest integers have no exact float: the next float above them stands for them.
        Ok((value as i128).clamp(self.min, self.max))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<i128, E> {
        match text.parse().ok().or_else(|| decimal_integer(text)) {
            Some(value) => self.check(value),
            None => Err(E::custom(format_args!("{text:?} is no integer"))),
        }
    }
}

/// The value of a JSON number that is an integer, such as `16.0` or `1.7e12`.
fn decimal_integer(text: &str) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let (sign, whole) = whole.strip_prefix('-').map_or((1, whole), |whole| (-1, whole));
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole) || !are_digits(fraction) {
        return None;
    }
    let digits = [whole, fraction].concat();
    let significant = digits.trim_end_matches('0');
    let zeros = (digits.len() - significant.len()) as i64;
    if significant.is_empty() {
        return Some(0);
    }
    let power = u32::try_from(i64::from(exponent) - fraction.len() as i64 + zeros).ok()?;
    significant.parse::<i128>().ok()?.checked_mul(10_i128.checked_pow(power)?)?.checked_mul(sign)
}

struct FloatVisitor {
    is_single: bool,
}

impl FloatVisitor {
    fn check<E: Error>(&self, value: f64) -> Result<f64, E> {
        match self.is_single && value.is_finite() && value.abs() > f32::MAX.into() {
            true => Err(E::custom(format_args!("{value} is no float of 32 bits"))),
            false => Ok(value),
        }
    }
}

impl Visitor<'_> for FloatVisitor {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, as a number or as text")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
        self.check(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        text.parse().map_err(|_| E::custom(format_args!("{text:?} is no number")))
    }
}

/// The number of an enum's value; absent if its name is unknown.
struct EnumVisitor<'a>(&'a prost_reflect::EnumDescriptor);

impl Visitor<'_> for EnumVisitor<'_> {
    type Value = Option<i32>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name or the number of an enum's value")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Option<i32>, E> {
        Ok(self.0.get_value_by_name(name).map(|value| value.number()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Option<i32>, E> {
        i32::try_from(value).map(Some).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Option<i32>, E> {
        i32::try_from(value).map(Some).map_err(E::custom)
    }
}

/// Appends a string, or bytes that are written in base64.
struct TextReader<'a> {
    field: &'a Field,
    output: &'a mut Vec<u8>,
    position: Position,
}

impl Visitor<'_> for TextReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self.field.kind, Kind::Bytes) { "bytes in base64" } else { "a string" })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if text.is_empty() && matches!(self.position, Position::Field { keeps_default: false }) {
            return Ok(());
        }
        put_delimited(self.field.number, self.output, |output| match self.field.kind {
            Kind::Bytes => {
                let start = output.len();
                let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
                alphabet.decode_vec(text, output).map_err(|error| {
                    output.truncate(start);
                    E::custom(format_args!("invalid base64: {error}"))
                })
            }
            _ => {
                output.extend_from_slice(text.as_bytes());
                Ok(())
            }
        })
    }
}

fn key_bytes(field: u32) -> usize {
    prost::encoding::key_len(field)
}

/// Appends a record whose content `write` appends.
fn put_delimited<E>(
    field: u32,
    output: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    encode_key(field, WireType::LengthDelimited, output);
    // Most lengths take one byte; content moves if its length takes more.
    let length_at = output.len();
    output.push(0);
    write(output)?;
    let length = output.len() - length_at - 1;
    let mut encoded = Vec::with_capacity(prost::encoding::encoded_len_varint(u64::MAX));
    encode_varint(length as u64, &mut encoded);
    output.splice(length_at..=length_at, encoded);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};

    use super::*;
    use crate::bridge::json::writer::tests::random_message;

    fn read(descriptor: &MessageDescriptor, json: &[u8]) -> Result<DynamicMessage, String> {
        let mut schema = Schema::default();
        let message = schema.add(descriptor);
        let mut output = Vec::new();
        let mut input = serde_json::Deserializer::from_slice(json);
        let reader = MessageReader { schema: &schema, message, output: &mut output };
        reader.deserialize(&mut input).and_then(|()| input.end()).map_err(|error| error.to_string())?;
        Ok(DynamicMessage::decode(descriptor.clone(), &output[..]).unwrap())
    }

    fn read_by_reflection(descriptor: &MessageDescriptor, json: &[u8]) -> Result<DynamicMessage, String> {
        let options = DeserializeOptions::new().deny_unknown_fields(false);
        let mut input = serde_json::Deserializer::from_slice(json);
        DynamicMessage::deserialize_with_options(descriptor.clone(), &mut input, &options)
            .and_then(|message| input.end().map(|()| message))
            .map_err(|error| error.to_string())
    }

    /// JSON text of a message, for comparisons: NaN is equal to NaN there.
    fn text(message: &DynamicMessage) -> String {
        serde_json::to_string(message).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_json_form_of_a_message_is_read(random in any::<()>().prop_perturb(|(), random| random)) {
            let mut random = random;
            for descriptor in wire::descriptor_pool().all_messages() {
                let message = random_message(&descriptor, 0, &mut random);
                let options = SerializeOptions::new()
                    .stringify_64_bit_integers(random.random())
                    .use_enum_numbers(random.random())
                    .use_proto_field_name(random.random())
                    .skip_default_fields(random.random());
                let mut json = serde_json::Serializer::new(Vec::new());
                message.serialize_with_options(&mut json, &options).unwrap();
                let json = json.into_inner();
                let expected = read_by_reflection(&descriptor, &json).unwrap();
                prop_assert_eq!(read(&descriptor, &json).map(|read| text(&read)), Ok(text(&expected)));
            }
        }

        #[test]
        fn damaged_json_is_read_like_by_reflection(random in any::<()>().prop_perturb(|(), random| random)) {
            let mut random = random;
            for descriptor in wire::descriptor_pool().all_messages() {
                let mut json = text(&random_message(&descriptor, 0, &mut random)).into_bytes();
                for _ in 0..random.random_range(1..3) {
                    let index = random.random_range(0..json.len());
                    let byte = b"\"{}[],:0-.e1nul"[random.random_range(0..15_usize)];
                    match random.random_range(0..3) {
                        0 => json[index] = byte,
                        1 => json.insert(index, byte),
                        _ => drop(json.remove(index)),
                    }
                    if json.is_empty() {
                        break;
                    }
                }
                match (read(&descriptor, &json), read_by_reflection(&descriptor, &json)) {
                    (Ok(read), Ok(expected)) => prop_assert_eq!(text(&read), text(&expected)),
                    // Decimal text of integers, which reflection does not read.
                    (Ok(_), Err(error)) => prop_assert!(error.contains("invalid digit"), "{}", error),
                    (Err(error), Ok(_)) => prop_assert!(error.contains("is given twice"), "{}", error),
                    (Err(_), Err(_)) => {}
                }
            }
        }
    }

    #[test]
    fn integers_may_be_written_as_any_whole_number() {
        let setting = wire::descriptor_pool().get_message_by_name("settings.v1.Setting").unwrap();
        let check = |written: &str, expected: Option<&str>| {
            let json = format!(r#"{{"modifiedAt":{written}}}"#);
            let read = read(&setting, json.as_bytes()).map(|message| text(&message));
            let expected = expected.map(|number| format!(r#"{{"modifiedAt":"{number}"}}"#));
            assert_eq!(read.ok(), expected, "{written}");
        };
        check("\"16.0\"", Some("16"));
        check("\"1.7e12\"", Some("1700000000000"));
        check("\"-1700000000000000001.0\"", Some("-1700000000000000001"));
        check("\"1200e-2\"", Some("12"));
        check("1.7e12", Some("1700000000000"));
        check("\"9223372036854775807\"", Some("9223372036854775807"));
        let bad = [
            "1.5",
            "1e-1",
            "9223372036854775808",
            "1e19",
            "1e400",
            "1e-400",
            ".5",
            "5.",
            "0x1",
            "1e",
            "--1",
            "",
        ];
        for bad in bad {
            check(&format!("{bad:?}"), None);
        }
        check("9223372036854775808", None);
        check("1.5", None);
    }

    #[test]
    fn a_repeated_field_is_refused_and_null_means_absent() {
        let setting = wire::descriptor_pool().get_message_by_name("settings.v1.Setting").unwrap();
        let flag = wire::descriptor_pool().get_message_by_name("capabilities.v1.FeatureFlag").unwrap();
        let json = br#"{"documentationUrl":"a","documentation_url":"b"}"#;
        let error = read(&flag, json).unwrap_err();
        assert!(error.contains("field \"documentationUrl\" is given twice"), "{error}");
        let message = read(&setting, br#"{"name":null,"name":"a","name":null}"#).unwrap();
        assert_eq!(text(&message), r#"{"name":"a"}"#);
    }
}
