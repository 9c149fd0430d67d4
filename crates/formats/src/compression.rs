//! Decompression of gzip, deflate (with or without its zlib header) and zstd.
//!
//! Owns: the encodings that `Content-Encoding` names, recognising one by its first bytes, the cap of each.
//! Does not own: the gzip decoder ([`crate::gzip`]).

use std::fmt;
use std::io::Read;

use bytes::Bytes;

use crate::gzip;

/// Most encodings of one body, one around the other.
pub const ENCODINGS_MAX: usize = 4;

/// Largest window of zstd, as a power of two: 8 MiB, which every decoder must support (RFC 9659). A frame may request
/// far more before its first byte of content.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// How bytes are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    Gzip,
    /// A zlib stream, or the deflate stream inside one.
    Deflate,
    Zstd,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Gzip(#[from] gzip::Error),
    #[error("{encoding} data of {bytes} bytes expand to more than the limit of {limit} bytes")]
    ExpandsTooFar { encoding: Encoding, bytes: usize, limit: usize },
    #[error("{encoding} data of {bytes} bytes are corrupt or cut off")]
    Corrupt { encoding: Encoding, bytes: usize },
}

impl Error {
    /// The limit that was reached while decompressing.
    pub fn reached_limit(&self) -> Option<usize> {
        match self {
            Self::Gzip(gzip::Error::ExpandsTooFar { limit, .. }) | Self::ExpandsTooFar { limit, .. } => {
                Some(*limit)
            }
            _ => None,
        }
    }

    /// Whether the bytes are damaged, and not merely too many.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Gzip(gzip::Error::Corrupt { .. }) | Self::Corrupt { .. })
    }
}

/// A `Content-Encoding` that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedEncoding {
    #[error("content encoding {0:?} is not accepted; accepted are gzip, deflate, zstd and identity")]
    Unknown(String),
    #[error("{count} content encodings, limit is {ENCODINGS_MAX}")]
    TooMany { count: usize },
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
        })
    }
}

impl Encoding {
    /// The encodings of a `Content-Encoding` header, in the order in which they were applied.
    ///
    /// # Errors
    /// If one of them is unknown, or there are more than [`ENCODINGS_MAX`].
    pub fn parse_header(header: &str) -> Result<Vec<Self>, UnsupportedEncoding> {
        let names = header.split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut encodings = Vec::new();
        for name in names {
            let encoding = match name.to_ascii_lowercase().as_str() {
                "identity" => continue,
                "gzip" | "x-gzip" => Self::Gzip,
                "deflate" => Self::Deflate,
                "zstd" => Self::Zstd,
                _ => return Err(UnsupportedEncoding::Unknown(name.chars().take(100).collect())),
            };
            encodings.push(encoding);
        }
        match encodings.len() {
            0..=ENCODINGS_MAX => Ok(encodings),
            count => Err(UnsupportedEncoding::TooMany { count }),
        }
    }

    /// The encoding recognised by the first bytes. Text may begin like a zlib stream by chance.
    pub fn detect(bytes: &[u8]) -> Option<Self> {
        if gzip::is_gzip(bytes) {
            return Some(Self::Gzip);
        }
        if bytes.starts_with(&ZSTD_MAGIC) {
            return Some(Self::Zstd);
        }
        has_zlib_header(bytes).then_some(Self::Deflate)
    }

    /// The content of `bytes`, at most `limit` bytes.
    ///
    /// # Errors
    /// [`Error`] if they have another encoding, or expand further.
    pub fn decode(self, bytes: &[u8], limit: usize) -> Result<Bytes, Error> {
        match self {
            Self::Gzip => Ok(gzip::decompress(bytes, limit)?),
            Self::Deflate if has_zlib_header(bytes) => {
                self.read(flate2::read::ZlibDecoder::new(bytes), bytes.len(), limit)
            }
            Self::Deflate => self.read(flate2::read::DeflateDecoder::new(bytes), bytes.len(), limit),
            Self::Zstd => {
                let corrupt = |_| Error::Corrupt { encoding: self, bytes: bytes.len() };
                let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(corrupt)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(corrupt)?;
                self.read(decoder, bytes.len(), limit)
            }
        }
    }

    fn read(self, decoder: impl Read, bytes: usize, limit: usize) -> Result<Bytes, Error> {
        let mut content = Vec::new();
        let read = decoder.take(limit as u64 + 1).read_to_end(&mut content);
        if content.len() > limit {
            return Err(Error::ExpandsTooFar { encoding: self, bytes, limit });
        }
        read.map_err(|_| Error::Corrupt { encoding: self, bytes })?;
        Ok(content.into())
    }
}

/// The content of a body that was sent with `encodings`, decompressed once more if it is still compressed: many
/// clients send a compressed file without declaring it. At most `limit` bytes.
///
/// Bytes that do not begin like the declared encoding are kept unchanged: proxies decompress and leave the header.
///
/// # Errors
/// If compressed bytes are corrupt or expand further; [`gzip::Error::TooLarge`] if plain bytes exceed `limit`.
pub fn content(body: Bytes, encodings: &[Encoding], limit: usize) -> Result<Bytes, Error> {
    let mut bytes = body;
    for encoding in encodings.iter().rev() {
        // Deflate without its zlib header cannot be recognised.
        if Encoding::detect(&bytes).unwrap_or(Encoding::Deflate) == *encoding {
            bytes = decode_if_encoded(bytes, *encoding, limit)?;
        }
    }
    if let Some(encoding) = Encoding::detect(&bytes) {
        bytes = decode_if_encoded(bytes, encoding, limit)?;
    }
    if bytes.len() > limit {
        return Err(gzip::Error::TooLarge { bytes: bytes.len(), limit }.into());
    }
    Ok(bytes)
}

fn decode_if_encoded(bytes: Bytes, encoding: Encoding, limit: usize) -> Result<Bytes, Error> {
    match encoding.decode(&bytes, limit) {
        // Deflate has no magic number: only its checksum and its end show that bytes are not deflate.
        Err(error) if encoding == Encoding::Deflate && error.is_corrupt() => Ok(bytes),
        decoded => decoded,
    }
}

/// RFC 1950: method 8, a window of at most 32 KiB, no dictionary, and a checksum of both bytes.
fn has_zlib_header(bytes: &[u8]) -> bool {
    let [method, flags, ..] = *bytes else { return false };
    method & 0x0f == 8
        && method >> 4 <= 7
        && flags & 0x20 == 0
        && u16::from_be_bytes([method, flags]) % 31 == 0
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TEXT: &[u8] = b"main;work 3\nmain;idle 1\n";

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 3).unwrap()
    }

    fn read(body: &[u8], header: &str) -> Result<Bytes, Error> {
        content(Bytes::copy_from_slice(body), &Encoding::parse_header(header).unwrap(), 1000)
    }

    #[test]
    fn each_encoding_is_undone_with_and_without_a_header() {
        let gzip = gzip::compress(TEXT, 6);
        for (body, header) in [
            (&gzip[..], ""),
            (&gzip, "gzip"),
            (&zlib(TEXT), ""),
            (&zlib(TEXT), "deflate"),
            (&deflate(TEXT), "Deflate"),
            (&zstd(TEXT), ""),
            (&zstd(TEXT), "zstd"),
            (&zstd(&gzip), "gzip, zstd"),
            (&gzip::compress(&gzip, 6), "gzip"),
            (TEXT, ""),
            (TEXT, "identity"),
        ] {
            assert_eq!(read(body, header).as_deref(), Ok(TEXT), "{header}");
        }
    }

    #[test]
    fn plain_bytes_under_a_header_are_kept_unchanged() {
        for header in ["gzip", "deflate", "zstd"] {
            assert_eq!(read(TEXT, header).as_deref(), Ok(TEXT), "{header}");
        }
        // The first two bytes are a zlib header by accident.
        assert!(has_zlib_header(b"x^y 3"));
        assert_eq!(read(b"x^y 3", "").as_deref(), Ok(&b"x^y 3"[..]));
    }

    #[test]
    fn no_encoding_passes_the_limit() {
        let zeros = vec![0; 1 << 20];
        for (body, header) in [
            (gzip::compress(&zeros, 9), ""),
            (zlib(&zeros), ""),
            (deflate(&zeros), "deflate"),
            (zstd(&zeros), "zstd"),
            (gzip::compress(&zstd(&vec![0; 100 << 20]), 9), "gzip"),
        ] {
            let refused = read(&body, header).unwrap_err();
            assert_eq!(refused.reached_limit(), Some(1000), "{header}: {refused}");
        }
        assert_eq!(read(&[b'a'; 1000], "").map(|content| content.len()), Ok(1000));
        assert!(matches!(read(&[b'a'; 1001], ""), Err(Error::Gzip(gzip::Error::TooLarge { .. }))));
    }

    #[test]
    fn damage_is_an_error_where_the_encoding_is_certain() {
        let (gzip, zstd) = (gzip::compress(TEXT, 6), zstd(TEXT));
        assert!(read(&gzip[..gzip.len() - 1], "").is_err_and(|error| error.is_corrupt()));
        assert!(read(&zstd[..zstd.len() - 1], "").is_err_and(|error| error.is_corrupt()));
    }

    #[test]
    fn a_frame_that_wants_a_large_window_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(ZSTD_WINDOW_LOG_MAX + 1).unwrap();
        encoder.write_all(TEXT).unwrap();
        assert!(read(&encoder.finish().unwrap(), "").is_err_and(|error| error.is_corrupt()));
    }

    #[test]
    fn headers_name_known_encodings_in_their_order() {
        use Encoding::{Deflate, Gzip, Zstd};
        assert_eq!(Encoding::parse_header("x-gzip , ,ZSTD,identity, deflate"), Ok(vec![Gzip, Zstd, Deflate]));
        let unknown = Encoding::parse_header("gzip, br").unwrap_err();
        assert!(unknown.to_string().starts_with("content encoding \"br\" is not accepted"), "{unknown}");
        let many = Encoding::parse_header(&"gzip,".repeat(5));
        assert_eq!(many, Err(UnsupportedEncoding::TooMany { count: 5 }));
    }
}
