//! Varints, strings and byte strings of rows and commits.

use thiserror::Error;

/// Bytes that do not follow the layout they should have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("{part} ends early")]
    Short { part: &'static str },
    #[error("{part} has the value {value}, which is not allowed")]
    Value { part: &'static str, value: u64 },
    #[error("{part} is not UTF-8")]
    Text { part: &'static str },
    #[error("{part} has {left} bytes too many")]
    Long { part: &'static str, left: usize },
    #[error("{part} has version {found}, this program reads up to {supported}")]
    Newer { part: &'static str, found: u8, supported: u8 },
}

/// Appends values to a buffer.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    /// LEB128.
    pub fn u64(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Zigzag, then LEB128.
    pub fn i64(&mut self, value: i64) {
        self.u64(((value << 1) ^ (value >> 63)) as u64);
    }

    /// 16 bytes, most significant first.
    pub fn u128(&mut self, value: u128) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub fn bytes(&mut self, value: &[u8]) {
        self.u64(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    /// Sorted numbers as differences.
    pub fn ascending(&mut self, values: &[u32]) {
        self.u64(values.len() as u64);
        let mut last = 0;
        for value in values {
            self.u64(u64::from(value - last));
            last = *value;
        }
    }
}

/// Takes values from the front of a buffer; never reads or reserves past its end.
pub struct Reader<'a> {
    left: &'a [u8],
    part: &'static str,
    version: u8,
}

impl<'a> Reader<'a> {
    /// Errors name the decoded thing as `part`.
    pub fn new(bytes: &'a [u8], part: &'static str) -> Self {
        Self { left: bytes, part, version: 0 }
    }

    /// Whether the buffer is used up.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, left) = self.left.split_at_checked(len).ok_or(DecodeError::Short { part: self.part })?;
        self.left = left;
        Ok(taken)
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Value { part: self.part, value })
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        let value = self.u64()?;
        u32::try_from(value).map_err(|_| DecodeError::Value { part: self.part, value })
    }

    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        let value = self.u64()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    pub fn u128(&mut self) -> Result<u128, DecodeError> {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(self.take(16)?);
        Ok(u128::from_be_bytes(bytes))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u64()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Text { part: self.part })
    }

    /// The number of values that follow, each of at least `bytes_each` bytes.
    pub fn count(&mut self, bytes_each: usize) -> Result<usize, DecodeError> {
        let value = self.u64()?;
        if value > (self.left.len() / bytes_each.max(1)) as u64 {
            return Err(DecodeError::Short { part: self.part });
        }
        Ok(value as usize)
    }

    pub fn ascending(&mut self) -> Result<Vec<u32>, DecodeError> {
        let count = self.count(1)?;
        let mut values = Vec::with_capacity(count);
        let mut last = 0u32;
        for _ in 0..count {
            let step = self.u32()?;
            last = last
                .checked_add(step)
                .ok_or(DecodeError::Value { part: self.part, value: u64::from(step) })?;
            values.push(last);
        }
        Ok(values)
    }

    /// Takes the version, which comes first; fields added by later versions depend on it.
    ///
    /// # Errors
    /// `Newer` if it is above `supported`.
    pub fn read_version(&mut self, supported: u8) -> Result<(), DecodeError> {
        self.version = self.u8()?;
        if self.version > supported {
            return Err(DecodeError::Newer { part: self.part, found: self.version, supported });
        }
        Ok(())
    }

    /// The version that [`Self::read_version`] took; 0 without one.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// # Errors
    /// `Long` if bytes are left.
    pub fn end(self) -> Result<(), DecodeError> {
        match self.left.len() {
            0 => Ok(()),
            left => Err(DecodeError::Long { part: self.part, left }),
        }
    }
}
