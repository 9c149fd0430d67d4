//! A cursor over the bytes of one chunk.
//!
//! Owns: numbers in both forms (compressed, and big-endian of fixed width), the encodings of a text, bounds.
//! Does not own: the order of values, which only the metadata of a chunk know.

use std::borrow::Cow;

use super::{Fault, Flaw};
use crate::varint;

/// Longest text that is read whenever something refers to it: otherwise a few bytes could refer to it very often.
const SHORT_BYTES_MAX: u32 = 1000;

/// Bytes of the longest compressed number.
const VARINT_BYTES_MAX: usize = 9;

/// A text in the recording, not decoded yet. Positions are offsets into the recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Text {
    /// Null or empty.
    #[default]
    Empty,
    /// A key in the pool of strings.
    Pooled(u64),
    Utf8 {
        start: u32,
        end: u32,
    },
    Latin1 {
        start: u32,
        end: u32,
    },
    /// UTF-16 units, each a number.
    Units {
        start: u32,
        end: u32,
    },
}

impl Text {
    /// The text, or an empty one if it is long.
    pub(super) fn if_short(self) -> Self {
        match self {
            Self::Utf8 { start, end } | Self::Latin1 { start, end } | Self::Units { start, end }
                if end - start > SHORT_BYTES_MAX =>
            {
                Self::Empty
            }
            short => short,
        }
    }
}

/// The width of a number that is not compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Width {
    Short,
    Int,
    Long,
}

/// Reads `data[at..end]`. Every position is an offset into the whole recording, so that errors can name it.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    end: usize,
    is_compressed: bool,
}

impl<'a> Reader<'a> {
    /// # Panics
    /// If `end` is outside of `data`.
    pub(super) fn new(data: &'a [u8], at: usize, end: usize, is_compressed: bool) -> Self {
        assert!(at <= end && end <= data.len());
        Self { data, at, end, is_compressed }
    }

    #[inline(always)]
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// A reader of the same bytes that begins at `at`, or at the end if that is outside of them.
    pub(super) fn moved_to(&self, at: usize) -> Self {
        Self { at: at.min(self.end), ..*self }
    }

    /// A reader of the same bytes that ends at `end`, or where this one does.
    pub(super) fn ending_at(&self, end: usize) -> Self {
        Self { end: end.clamp(self.at, self.end), ..*self }
    }

    #[inline(always)]
    pub(super) fn left(&self) -> usize {
        self.end - self.at
    }

    pub(super) fn fault(&self, flaw: Flaw) -> Fault {
        Fault::new(self.at, flaw)
    }

    #[inline(always)]
    pub(super) fn byte(&mut self) -> Result<u8, Fault> {
        let [byte] = self.fixed::<1>()?;
        Ok(byte)
    }

    #[inline(always)]
    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        match self.data[self.at..self.end].first_chunk::<N>() {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err(self.fault(Flaw::CutOff)),
        }
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<(), Fault> {
        if count > self.left() {
            return Err(self.fault(Flaw::CutOff));
        }
        self.at += count;
        Ok(())
    }

    /// A number of this width; a short or an int is extended by its sign.
    #[inline(always)]
    pub(super) fn number(&mut self, width: Width) -> Result<i64, Fault> {
        if !self.is_compressed {
            return self.uncompressed(width);
        }
        let number = self.varint()?;
        Ok(match width {
            Width::Short => i64::from(number as i16),
            Width::Int => i64::from(number as i32),
            Width::Long => number as i64,
        })
    }

    /// A number of 64 bits without a sign, such as a key.
    #[inline(always)]
    pub(super) fn key(&mut self) -> Result<u64, Fault> {
        Ok(self.number(Width::Long)? as u64)
    }

    /// A number of elements or bytes, each of which takes at least one byte of the rest.
    #[inline(always)]
    pub(super) fn count(&mut self) -> Result<usize, Fault> {
        let before = *self;
        let count = self.number(Width::Int)?;
        match usize::try_from(count) {
            Ok(count) if count <= self.left() => Ok(count),
            _ => Err(before.fault(Flaw::Count { count, left: self.left() })),
        }
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, Fault> {
        match self.data.get(self.at) {
            Some(&byte) if byte < 0x80 && self.at < self.end => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    /// A number of up to eight bytes, which are loaded at once, from behind the end as well.
    #[inline]
    fn long_varint(&mut self) -> Result<u64, Fault> {
        let Some(bytes) = self.data.get(self.at..).and_then(<[u8]>::first_chunk::<8>) else {
            return self.varint_by_bytes();
        };
        match varint::first_in(u64::from_le_bytes(*bytes)) {
            Some((number, length)) if self.at + length <= self.end => {
                self.at += length;
                Ok(number)
            }
            _ => self.varint_by_bytes(),
        }
    }

    /// Seven bits of each byte, the lowest first; the ninth byte holds eight.
    #[cold]
    fn varint_by_bytes(&mut self) -> Result<u64, Fault> {
        let mut value = 0;
        for (i, &byte) in self.data[self.at..self.end].iter().take(VARINT_BYTES_MAX).enumerate() {
            let is_last = byte < 0x80 || i + 1 == VARINT_BYTES_MAX;
            let bits = if i + 1 == VARINT_BYTES_MAX { byte } else { byte & 0x7f };
            value |= u64::from(bits) << (7 * i);
            if is_last {
                self.at += i + 1;
                return Ok(value);
            }
        }
        Err(self.fault(Flaw::CutOff))
    }

    fn uncompressed(&mut self, width: Width) -> Result<i64, Fault> {
        Ok(match width {
            Width::Short => i64::from(i16::from_be_bytes(self.fixed()?)),
            Width::Int => i64::from(i32::from_be_bytes(self.fixed()?)),
            Width::Long => i64::from_be_bytes(self.fixed()?),
        })
    }

    /// A text in any of its encodings.
    pub(super) fn text(&mut self) -> Result<Text, Fault> {
        let before = *self;
        match self.byte()? {
            0 | 1 => Ok(Text::Empty),
            2 => Ok(Text::Pooled(self.key()?)),
            3 => {
                let (start, end) = self.span()?;
                Ok(Text::Utf8 { start, end })
            }
            4 => {
                let count = self.count()?;
                let start = self.at as u32;
                for _ in 0..count {
                    self.number(Width::Short)?;
                }
                Ok(Text::Units { start, end: self.at as u32 })
            }
            5 => {
                let (start, end) = self.span()?;
                Ok(Text::Latin1 { start, end })
            }
            encoding => Err(before.fault(Flaw::TextEncoding { encoding })),
        }
    }

    fn span(&mut self) -> Result<(u32, u32), Fault> {
        let length = self.count()?;
        let start = self.at;
        self.at += length;
        Ok((start as u32, self.at as u32))
    }

    /// A text of this recording; what is no valid text is replaced. A pooled text is empty here.
    pub(super) fn text_of(&self, text: Text) -> Cow<'a, str> {
        let bytes = |start: u32, end: u32| &self.data[start as usize..end as usize];
        match text {
            Text::Empty | Text::Pooled(_) => Cow::Borrowed(""),
            Text::Utf8 { start, end } => String::from_utf8_lossy(bytes(start, end)),
            Text::Latin1 { start, end } => bytes(start, end).iter().map(|byte| char::from(*byte)).collect(),
            Text::Units { start, end } => {
                let mut units = Self { at: start as usize, end: end as usize, ..*self };
                let units = std::iter::from_fn(|| units.number(Width::Short).ok().map(|unit| unit as u16));
                char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed(bytes: &[u8]) -> Reader<'_> {
        Reader::new(bytes, 0, bytes.len(), true)
    }

    #[test]
    fn compressed_numbers_have_up_to_nine_bytes() {
        let cases: [(&[u8], Width, i64); 7] = [
            (&[0x05], Width::Long, 5),
            (&[0x80, 0x01], Width::Long, 128),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], Width::Int, -1),
            (&[0xff, 0xff, 0x03], Width::Short, -1),
            (&[0xff; 9], Width::Long, -1),
            (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80], Width::Long, i64::MIN),
            (&[0xc6, 0x80, 0x80, 0x80, 0x00], Width::Int, 70),
        ];
        for (bytes, width, expected) in cases {
            let mut reader = compressed(bytes);
            assert_eq!((reader.number(width), reader.left()), (Ok(expected), 0), "{bytes:x?}");
            let longer = [bytes, &[0xff; 8]].concat();
            let mut reader = compressed(&longer);
            assert_eq!((reader.number(width), reader.left()), (Ok(expected), 8), "{longer:x?}");
            let mut cut = Reader::new(&longer, 0, bytes.len() - 1, true);
            assert_eq!(cut.number(width), Err(Fault::new(0, Flaw::CutOff)), "{bytes:x?}");
        }
        assert_eq!(compressed(&[0x80; 3]).key(), Err(Fault::new(0, Flaw::CutOff)));
    }

    #[test]
    fn numbers_that_are_not_compressed_are_big_endian() {
        let bytes = [0xff, 0xfe, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0];
        let mut reader = Reader::new(&bytes, 0, bytes.len(), false);
        assert_eq!(reader.number(Width::Short), Ok(-2));
        assert_eq!(reader.number(Width::Int), Ok(256));
        assert_eq!(reader.number(Width::Long), Ok(512));
        assert_eq!(reader.number(Width::Short), Err(Fault::new(14, Flaw::CutOff)));
    }

    #[test]
    fn each_encoding_of_a_text_is_read_as_utf8() {
        let cases: [(&[u8], &str); 7] = [
            (b"\x00", ""),
            (b"\x01", ""),
            (b"\x03\x05w\xc3\xb6rk", "wörk"),
            (b"\x03\x03a\xffb", "a\u{fffd}b"),
            (b"\x04\x03a\xf6\x01\xac\x41", "aö€"),
            (b"\x04\x02\xbc\xb0\x03\xae\xbe\x03", "🌮"),
            (b"\x05\x04w\xf6rk", "wörk"),
        ];
        for (bytes, expected) in cases {
            let mut reader = compressed(bytes);
            let text = reader.text().unwrap();
            assert_eq!((&*reader.text_of(text), reader.left()), (expected, 0), "{bytes:x?}");
        }
        assert_eq!(compressed(b"\x02\x07").text(), Ok(Text::Pooled(7)));
        let unknown = Fault::new(0, Flaw::TextEncoding { encoding: 6 });
        assert_eq!(compressed(b"\x06\x07").text(), Err(unknown));
        let outside = Fault::new(1, Flaw::Count { count: 5, left: 1 });
        assert_eq!(compressed(b"\x03\x05x").text(), Err(outside));
    }
}
