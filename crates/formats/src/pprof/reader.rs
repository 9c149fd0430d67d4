//! A cursor over protobuf wire format.
//!
//! Owns: varints, tags, lengths, skipping unknown fields. Knows no message.

use crate::varint;

/// Deepest nesting of unknown groups.
const GROUP_DEPTH_MAX: u32 = 100;

/// Bytes that are not a pprof. Positions are offsets into the decompressed bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("pprof of {bytes} bytes is larger than the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("pprof has more {kind} than the limit of {limit}")]
    TooMany { kind: &'static str, limit: usize },
    #[error("pprof is cut off: a field at byte {offset} runs past the end of its message at byte {end}")]
    CutOff { offset: usize, end: usize },
    #[error("pprof has a number of more than 64 bits at byte {offset}")]
    Varint { offset: usize },
    #[error("pprof has an impossible field number at byte {offset}")]
    FieldNumber { offset: usize },
    #[error("pprof {message} has field {field} with wire type {wire_type} before byte {offset}")]
    WireType { message: &'static str, field: u32, wire_type: u32, offset: usize },
    #[error("pprof has a group that is not closed, or deeper than {GROUP_DEPTH_MAX}, before byte {offset}")]
    Group { offset: usize },
}

/// Reads the message `data[at..end]`.
///
/// Holds all of `data`, so that eight bytes can be loaded at once near the end of a small message too.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    data: &'a [u8],
    offset: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, offset: 0, end: data.len() }
    }

    #[inline(always)]
    pub(crate) fn is_done(&self) -> bool {
        self.offset >= self.end
    }

    /// The offset of the next byte.
    #[inline(always)]
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// Bytes left in the message.
    #[inline(always)]
    pub(crate) fn left(&self) -> usize {
        self.end - self.offset
    }

    /// Number and wire type of the next field, as one value: `number << 3 | wire type`.
    #[inline(always)]
    pub(crate) fn tag(&mut self) -> Result<u32, Error> {
        let offset = self.offset;
        let tag = self.varint()?;
        if tag < 8 || tag > u64::from(u32::MAX) {
            return Err(Error::FieldNumber { offset });
        }
        Ok(tag as u32)
    }

    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64, Error> {
        match self.data.get(self.offset) {
            Some(&byte) if byte < 0x80 && self.offset < self.end => {
                self.offset += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    #[inline]
    fn long_varint(&mut self) -> Result<u64, Error> {
        let Some(chunk) = self.data.get(self.offset..).and_then(<[u8]>::first_chunk::<8>) else {
            return self.varint_by_bytes();
        };
        let Some((number, length)) = varint::first_in(u64::from_le_bytes(*chunk)) else {
            return self.varint_by_bytes();
        };
        if self.offset + length > self.end {
            return Err(Error::CutOff { offset: self.offset, end: self.end });
        }
        self.offset += length;
        Ok(number)
    }

    #[cold]
    fn varint_by_bytes(&mut self) -> Result<u64, Error> {
        let mut value = 0_u64;
        for (i, &byte) in self.data[self.offset..self.end].iter().enumerate() {
            if i == 9 && byte > 1 {
                return Err(Error::Varint { offset: self.offset });
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.offset += i + 1;
                return Ok(value);
            }
        }
        Err(Error::CutOff { offset: self.offset, end: self.end })
    }

    /// A reader of the next length-delimited field.
    #[inline(always)]
    pub(crate) fn message(&mut self) -> Result<Reader<'a>, Error> {
        let start = self.offset;
        let length = self.varint()?;
        if length > self.left() as u64 {
            return Err(Error::CutOff { offset: start, end: self.end });
        }
        let offset = self.offset;
        self.offset += length as usize;
        Ok(Reader { data: self.data, offset, end: self.offset })
    }

    /// All bytes left in the message.
    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.data[self.offset..self.end]
    }

    /// Skips the field of `tag`, which `message` does not have if its number is above `known`.
    ///
    /// # Errors
    /// [`Error::WireType`] if `message` has that field, but not of this wire type.
    #[cold]
    pub(crate) fn skip(&mut self, tag: u32, message: &'static str, known: u32) -> Result<(), Error> {
        if tag >> 3 <= known {
            return Err(Error::WireType {
                message,
                field: tag >> 3,
                wire_type: tag & 7,
                offset: self.offset,
            });
        }
        self.skip_value(tag, message, 0)
    }

    fn skip_value(&mut self, tag: u32, message: &'static str, depth: u32) -> Result<(), Error> {
        match tag & 7 {
            0 => self.varint().map(|_| ()),
            1 => self.skip_bytes(8),
            2 => self.message().map(|_| ()),
            3 if depth < GROUP_DEPTH_MAX => loop {
                if self.is_done() {
                    return Err(Error::Group { offset: self.offset });
                }
                let inner = self.tag()?;
                match inner & 7 {
                    4 if inner >> 3 == tag >> 3 => return Ok(()),
                    4 => return Err(Error::Group { offset: self.offset }),
                    _ => self.skip_value(inner, message, depth + 1)?,
                }
            },
            3 | 4 => Err(Error::Group { offset: self.offset }),
            5 => self.skip_bytes(4),
            wire_type => Err(Error::WireType { message, field: tag >> 3, wire_type, offset: self.offset }),
        }
    }

    fn skip_bytes(&mut self, count: usize) -> Result<(), Error> {
        if count > self.left() {
            return Err(Error::CutOff { offset: self.offset, end: self.end });
        }
        self.offset += count;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_every_length_are_read_with_and_without_eight_bytes_left() {
        let values = (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) - 1, u64::MAX >> bit]);
        for value in values {
            let mut bytes = Vec::new();
            super::super::encode::varint(&mut bytes, value);
            let length = bytes.len();
            assert_eq!(Reader::new(&bytes).varint(), Ok(value));
            bytes.extend([0xff; 10]);
            let mut reader = Reader::new(&bytes);
            assert_eq!((reader.varint(), reader.offset()), (Ok(value), length));
        }
    }

    #[test]
    fn a_varint_past_64_bits_is_refused() {
        assert_eq!(Reader::new(&[0xff; 11]).varint(), Err(Error::Varint { offset: 0 }));
        let two_bits_too_many = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Reader::new(&two_bits_too_many).varint(), Err(Error::Varint { offset: 0 }));
        assert_eq!(Reader::new(&[0x80; 3]).varint(), Err(Error::CutOff { offset: 0, end: 3 }));
    }

    #[test]
    fn a_varint_may_not_leave_its_message() {
        // A message of one byte, whose varint would continue behind it.
        let bytes = [1, 0x80, 1, 1, 1, 1, 1, 1, 1, 1, 1];
        let mut outer = Reader::new(&bytes);
        let mut inner = outer.message().unwrap();
        assert_eq!(inner.varint(), Err(Error::CutOff { offset: 1, end: 2 }));
    }

    #[test]
    fn groups_are_skipped_up_to_a_depth() {
        // Field 20: group with a varint, a nested group and a fixed32 in it.
        let group = [0xa3, 1, 0x08, 5, 0x13, 0x14, 0x1d, 1, 2, 3, 4, 0xa4, 1];
        let mut reader = Reader::new(&group);
        let tag = reader.tag().unwrap();
        assert_eq!(reader.skip(tag, "profile", 14), Ok(()));
        assert!(reader.is_done());

        let endless = [0xa3, 1].repeat(200);
        let mut reader = Reader::new(&endless);
        let tag = reader.tag().unwrap();
        assert!(matches!(reader.skip(tag, "profile", 14), Err(Error::Group { .. })));
    }
}
