//! The one place where bytes from outside are decompressed.
//!
//! Owns: the cap. Neither the output nor its allocation ever exceeds the caller's limit.

use std::io::Read;

use bytes::Bytes;
use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor};

/// Shortest possible gzip member: header, an empty deflate block, trailer.
const MEMBER_BYTES_MIN: usize = 18;

/// Magic number and the only defined compression method.
const MEMBER_START: [u8; 3] = [0x1f, 0x8b, 8];

/// Most bytes that deflate can make of one byte.
const DEFLATE_RATIO_MAX: usize = 1032;

/// Assumed expansion when the trailer is implausible: deflate rarely does better than 1:8 on profiles.
const EXPANSION_GUESS: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{bytes} bytes are more than the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("gzip data of {bytes} bytes expand to more than the limit of {limit} bytes")]
    ExpandsTooFar { bytes: usize, limit: usize },
    #[error("gzip data of {bytes} bytes are corrupt or cut off")]
    Corrupt { bytes: usize },
}

/// Whether the bytes begin like gzip.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// The content of `bytes`: decompressed if they are gzip, otherwise unchanged and uncopied.
///
/// # Errors
/// As [`decompress`]; [`Error::TooLarge`] if plain bytes exceed `limit`.
pub fn content(bytes: Bytes, limit: usize) -> Result<Bytes, Error> {
    if is_gzip(&bytes) {
        return decompress(&bytes, limit);
    }
    if bytes.len() > limit {
        return Err(Error::TooLarge { bytes: bytes.len(), limit });
    }
    Ok(bytes)
}

/// The size that the last member announces: the first allocation of [`decompress`], and as a rule the only one. If
/// the sender lies, [`decompress`] with this limit fails.
///
/// # Errors
/// [`Error::ExpandsTooFar`] if that is more than `limit`: no output could be right.
pub fn announced_bytes(bytes: &[u8], limit: usize) -> Result<usize, Error> {
    let size = trailer_size(bytes) as usize;
    let may_be_true = size / DEFLATE_RATIO_MAX <= bytes.len();
    match may_be_true && size > limit {
        true => Err(Error::ExpandsTooFar { bytes: bytes.len(), limit }),
        false => Ok(promised_size(bytes).min(limit)),
    }
}

/// The content of one or several gzip members, at most `limit` bytes.
///
/// # Errors
/// [`Error::ExpandsTooFar`] or [`Error::Corrupt`]; also for anything but a gzip member after the first one.
pub fn decompress(bytes: &[u8], limit: usize) -> Result<Bytes, Error> {
    let corrupt = || Error::Corrupt { bytes: bytes.len() };
    let too_far = || Error::ExpandsTooFar { bytes: bytes.len(), limit };
    if bytes.len() < MEMBER_BYTES_MIN || !is_gzip(bytes) {
        return Err(corrupt());
    }
    // Three bytes of compressed data may look like the start of a member by chance: this costs time only.
    if memchr::memmem::find(&bytes[MEMBER_BYTES_MIN..], &MEMBER_START).is_some() {
        return decompress_members(bytes, limit);
    }
    let mut capacity = promised_size(bytes).min(limit);
    let mut output = Vec::new();
    let mut inflater = Decompressor::new();
    loop {
        output.resize(capacity, 0);
        match inflater.gzip_decompress(bytes, &mut output) {
            Ok(size) if size as u32 == trailer_size(bytes) => {
                output.truncate(size);
                return Ok(output.into());
            }
            // The last four bytes are not the trailer, but garbage after it.
            Ok(_) => return Err(corrupt()),
            Err(DecompressionError::InsufficientSpace) if capacity < limit => {
                capacity = (capacity * 2).max(4096).min(limit);
            }
            Err(DecompressionError::InsufficientSpace) => return Err(too_far()),
            Err(DecompressionError::BadData) => return Err(corrupt()),
        }
    }
}

/// One gzip member holding `bytes`. `level` is 1 (fast) to 12 (small).
pub fn compress(bytes: &[u8], level: i32) -> Vec<u8> {
    let level = CompressionLvl::new(level).unwrap_or_default();
    let mut compressor = Compressor::new(level);
    let mut output = vec![0; compressor.gzip_compress_bound(bytes.len())];
    let size = compressor.gzip_compress(bytes, &mut output).unwrap_or_default();
    output.truncate(size);
    output
}

/// The size of the content modulo 2³² according to the trailer. The sender may lie.
fn trailer_size(bytes: &[u8]) -> u32 {
    bytes.last_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size))
}

/// The trailer's size if deflate can reach it at all (at most 1:1032), otherwise a guess.
fn promised_size(bytes: &[u8]) -> usize {
    let size = trailer_size(bytes) as usize;
    match size / DEFLATE_RATIO_MAX > bytes.len() {
        true => bytes.len().saturating_mul(EXPANSION_GUESS),
        false => size,
    }
}

fn decompress_members(bytes: &[u8], limit: usize) -> Result<Bytes, Error> {
    let mut output = Vec::new();
    let members = flate2::read::MultiGzDecoder::new(bytes);
    members
        .take(limit as u64 + 1)
        .read_to_end(&mut output)
        .map_err(|_| Error::Corrupt { bytes: bytes.len() })?;
    if output.len() > limit {
        return Err(Error::ExpandsTooFar { bytes: bytes.len(), limit });
    }
    Ok(output.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decompressing_returns_the_compressed_content() {
        for size in [0, 1, 100, 100_000] {
            let plain: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            assert_eq!(decompress(&compress(&plain, 1), 100_000).as_deref(), Ok(&plain[..]));
        }
    }

    #[test]
    fn several_members_are_joined() {
        let both = [compress(&[7; 1000], 6), compress(b"second", 6)].concat();
        let plain = decompress(&both, 1006).unwrap();
        assert_eq!((plain.len(), &plain[1000..]), (1006, &b"second"[..]));
        assert_eq!(decompress(&both, 1005), Err(Error::ExpandsTooFar { bytes: both.len(), limit: 1005 }));
    }

    #[test]
    fn members_of_equal_size_are_joined_too() {
        let both = [compress(&[7; 1000], 6), compress(&[8; 1000], 6)].concat();
        assert_eq!(decompress(&both, 2000).map(|plain| plain.len()), Ok(2000));
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit_whatever_its_trailer_says() {
        let mut bomb = compress(&vec![0; 10 << 20], 9);
        let limit = 1 << 20;
        let refused = Err(Error::ExpandsTooFar { bytes: bomb.len(), limit });
        assert_eq!(decompress(&bomb, limit), refused);
        let end = bomb.len();
        for lie in [0_u32, 1, u32::MAX] {
            bomb[end - 4..].copy_from_slice(&lie.to_le_bytes());
            assert_eq!(decompress(&bomb, limit), refused);
        }
    }

    #[test]
    fn the_size_in_the_trailer_is_known_before_decompression() {
        let zipped = compress(&vec![0; 10 << 20], 9);
        assert_eq!(announced_bytes(&zipped, 10 << 20), Ok(10 << 20));
        let limit = (10 << 20) - 1;
        assert_eq!(announced_bytes(&zipped, limit), Err(Error::ExpandsTooFar { bytes: zipped.len(), limit }));
        let mut liar = zipped.clone();
        let end = liar.len();
        liar[end - 4..].copy_from_slice(&u32::MAX.to_le_bytes());
        // Deflate cannot expand that far: this is garbage, or several members.
        assert_eq!(announced_bytes(&liar, 1 << 30), Ok(zipped.len() * EXPANSION_GUESS));
    }

    #[test]
    fn exactly_the_limit_is_accepted() {
        let zipped = compress(&[1; 5000], 6);
        assert!(decompress(&zipped, 5000).is_ok());
        assert!(decompress(&zipped, 4999).is_err());
        assert!(content(Bytes::from_static(b"plain"), 5).is_ok());
        assert_eq!(content(Bytes::from_static(b"plain"), 4), Err(Error::TooLarge { bytes: 5, limit: 4 }));
    }

    #[test]
    fn damage_is_an_error() {
        let zipped = compress(&[1; 5000], 6);
        for end in 0..zipped.len() {
            assert!(decompress(&zipped[..end], 1 << 20).is_err());
        }
        let mut bad_sum = zipped.clone();
        let sum_at = zipped.len() - 8;
        bad_sum[sum_at] ^= 1;
        assert_eq!(decompress(&bad_sum, 5000), Err(Error::Corrupt { bytes: zipped.len() }));
        let rubbish = [&zipped[..], b"rubbish!"].concat();
        assert!(decompress(&rubbish, 1 << 20).is_err());
    }
}
