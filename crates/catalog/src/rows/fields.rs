//! Fields of keys.

use model::TenantId;

use super::Kind;
use crate::codec::{DecodeError, Reader, Writer};

pub(super) fn start(kind: Kind) -> Writer {
    Writer(vec![kind as u8])
}

pub(super) fn tenant(text: &str) -> Result<TenantId, DecodeError> {
    TenantId::parse(text).map_err(|_| DecodeError::Text { part: "tenant of a row" })
}

/// Tenant ids have at most 150 bytes.
pub(super) fn short_text(key: &mut Writer, text: &str) {
    key.u8(text.len() as u8);
    key.0.extend_from_slice(text.as_bytes());
}

pub(super) fn take_short_text<'a>(key: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let len = key.u8()? as usize;
    std::str::from_utf8(key.take(len)?).map_err(|_| DecodeError::Text { part: "text of a row key" })
}

/// Big-endian with the sign flipped, so that keys sort like numbers.
pub(super) fn put_signed(key: &mut Writer, value: i64) {
    key.0.extend_from_slice(&((value as u64) ^ (1 << 63)).to_be_bytes());
}

pub(super) fn take_signed(key: &mut Reader<'_>) -> Result<i64, DecodeError> {
    Ok((fixed_u64(key)? ^ (1 << 63)) as i64)
}

pub(super) fn fixed_u64(key: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(key.take(8)?);
    Ok(u64::from_be_bytes(bytes))
}

pub(super) fn fixed_u32(key: &mut Reader<'_>) -> Result<u32, DecodeError> {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(key.take(4)?);
    Ok(u32::from_be_bytes(bytes))
}
