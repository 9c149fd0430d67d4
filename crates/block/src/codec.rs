//! Variable-length integers, checked reading, tables of strings and symbols, and compressed sections.
//!
//! Public because messages between roles contain columns of the same kind.

use std::cell::RefCell;
use std::io;

use xxhash_rust::xxh3::xxh3_64;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::CParameter;

use crate::Section;
use crate::error::Error;
pub use crate::error::Malformed;
pub use crate::symbols::{decode as decode_symbols, encode as encode_symbols};

/// Largest section after decompression, in bytes. Beyond it a reader refuses, so a writer must too.
pub(crate) const SECTION_RAW_BYTES_MAX: u64 = 1 << 30;

thread_local! {
    // Creating one for each section and page took an eighth of the CPU of a simulated cluster.
    static DECOMPRESSOR: RefCell<Decompressor<'static>> = RefCell::default();
    // Keeps its tables: about 1 MiB in a thread that merges, less in one that only flushes.
    static COMPRESSOR: RefCell<Compressor<'static>> = RefCell::default();
}

/// Writes an unsigned LEB128 integer.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Writes a signed integer as zigzag LEB128.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, zigzag(value));
}

/// Writes the length in bytes, then the bytes.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Writes each value as its difference to the one before, wrapping.
#[derive(Default)]
pub struct Delta(i64);

impl Delta {
    pub fn put(&mut self, out: &mut Vec<u8>, value: i64) {
        put_signed(out, value.wrapping_sub(self.0));
        self.0 = value;
    }

    pub fn read(&mut self, cursor: &mut Cursor<'_>) -> Result<i64, Malformed> {
        self.0 = self.0.wrapping_add(cursor.signed()?);
        Ok(self.0)
    }
}

/// Reads untrusted bytes from front to back.
pub struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    pub fn malformed(&self, problem: &'static str) -> Malformed {
        Malformed { byte: self.position as u64, problem }
    }

    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    #[inline]
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let Some(byte) = self.bytes.get(self.position) else {
            return Err(self.malformed("ends too early"));
        };
        self.position += 1;
        Ok(*byte)
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.malformed("an integer has more than ten bytes"))
    }

    #[inline]
    pub fn signed(&mut self) -> Result<i64, Malformed> {
        Ok(unzigzag(self.varint()?))
    }

    #[inline]
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        let value = self.varint()?;
        u32::try_from(value).map_err(|_| self.malformed("an integer has more than 32 bits"))
    }

    /// Reads a number below `limit`.
    #[inline]
    pub fn index(&mut self, limit: usize, problem: &'static str) -> Result<u32, Malformed> {
        let value = self.varint()?;
        if value >= limit as u64 {
            return Err(self.malformed(problem));
        }
        u32::try_from(value).map_err(|_| self.malformed(problem))
    }

    /// Reads the number of elements that follow. Every element takes at least one of the remaining bytes, so
    /// an allocation of this length is bounded by the section's size.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        let value = self.varint()?;
        if value > self.remaining() as u64 || value > u64::from(u32::MAX - 1) {
            return Err(self.malformed("a count is larger than what follows"));
        }
        Ok(value as usize)
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        if length > self.remaining() {
            return Err(self.malformed("ends too early"));
        }
        let bytes = &self.bytes[self.position..self.position + length];
        self.position += length;
        Ok(bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.count()?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed("text is not UTF-8"))
    }

    pub fn end(&self) -> Result<(), Malformed> {
        if self.remaining() > 0 {
            return Err(self.malformed("has bytes after its end"));
        }
        Ok(())
    }
}

/// Compresses `raw`. The caller sets the offset of the section.
pub(crate) fn pack(raw: &[u8], level: i32) -> Result<(Vec<u8>, Section), Error> {
    let part = "section";
    if raw.len() as u64 > SECTION_RAW_BYTES_MAX {
        return Err(Error::encode(
            part,
            format!("it has {} bytes, limit is {SECTION_RAW_BYTES_MAX}", raw.len()),
        ));
    }
    let packed = compress(raw, level).map_err(|e| Error::encode(part, e))?;
    let section = Section {
        offset: 0,
        bytes: packed.len() as u32,
        raw_bytes: raw.len() as u32,
        checksum: xxh3_64(&packed),
    };
    Ok((packed, section))
}

fn compress(raw: &[u8], level: i32) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|compressor| {
        // Not `set_compression_level`, which zstd refuses after a frame that failed.
        compressor.set_parameter(CParameter::CompressionLevel(level))?;
        compressor.compress(raw)
    })
}

/// Checks and decompresses the bytes of `section`.
pub(crate) fn unpack(packed: &[u8], section: &Section) -> Result<Vec<u8>, Malformed> {
    let malformed = |problem| Malformed { byte: section.offset, problem };
    if packed.len() != section.bytes as usize {
        return Err(malformed("has another length than its directory says"));
    }
    if xxh3_64(packed) != section.checksum {
        return Err(malformed("checksum does not match"));
    }
    if u64::from(section.raw_bytes) > SECTION_RAW_BYTES_MAX {
        return Err(malformed("is larger than allowed"));
    }
    let raw = DECOMPRESSOR
        .with_borrow_mut(|decompressor| decompressor.decompress(packed, section.raw_bytes as usize))
        .map_err(|_| malformed("cannot be decompressed"))?;
    if raw.len() != section.raw_bytes as usize {
        return Err(malformed("has another size than its directory says"));
    }
    Ok(raw)
}

/// Decompresses into `raw`; returns the number of bytes written.
pub(crate) fn decompress(packed: &[u8], raw: &mut [u8]) -> io::Result<usize> {
    DECOMPRESSOR.with_borrow_mut(|decompressor| decompressor.decompress_to_buffer(packed, raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_round_trip() {
        let mut out = Vec::new();
        let values = [0, 1, -1, 63, -64, 64, i64::MAX, i64::MIN];
        for value in values {
            put_signed(&mut out, value);
        }
        let mut delta = Delta::default();
        for value in values {
            delta.put(&mut out, value);
        }
        let mut cursor = Cursor::new(&out);
        for value in values {
            assert_eq!(cursor.signed(), Ok(value));
        }
        let mut delta = Delta::default();
        for value in values {
            assert_eq!(delta.read(&mut cursor), Ok(value));
        }
        assert_eq!(cursor.end(), Ok(()));
    }

    #[test]
    fn a_count_beyond_the_bytes_that_follow_is_refused() {
        let mut out = Vec::new();
        put(&mut out, 1 << 30);
        assert!(Cursor::new(&out).count().is_err());
    }

    #[test]
    fn a_flipped_bit_breaks_the_checksum() {
        let (mut packed, section) = pack(b"hello hello hello", 1).expect("small");
        assert_eq!(unpack(&packed, &section).as_deref(), Ok(b"hello hello hello".as_slice()));
        packed[4] ^= 1;
        assert!(unpack(&packed, &section).is_err());
    }

    #[test]
    fn earlier_and_failed_compressions_of_a_thread_do_not_change_the_output() {
        let text: Vec<u8> =
            (0..300_000_u32).flat_map(|i| (i / 3).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for (length, level) in [(100, 1), (1_000_000, 3), (7_000, 3), (0, 1), (1_200_000, 1), (40_000, 3)] {
            let raw = &text[..length];
            let too_small = &mut [0; 4][..];
            COMPRESSOR.with_borrow_mut(|c| c.compress_to_buffer(raw, too_small)).expect_err("no room");
            let (packed, section) = pack(raw, level).expect("fits");
            assert!(
                packed == zstd::bulk::compress(raw, level).expect("fits"),
                "{length} bytes, level {level}"
            );
            assert!(unpack(&packed, &section).is_ok_and(|unpacked| unpacked == raw));
        }
    }
}
