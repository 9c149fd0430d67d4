//! Bytes ⇄ model: every format that clients send or ask for.
//!
//! Owns: decompression, pprof, JFR, folded text, trees and tries of names, multipart bodies, the parameters of `/ingest`,
//! and the signatures of other kinds of files.
//! Does not own: whether a profile is acceptable (`distributor`), or the form of a stored profile (`model`).
//!
//! Everything here is synchronous and pure. Its memory is bounded by its limits or by a small multiple of its
//! input, whatever sizes the input announces.

pub mod compression;
pub mod folded;
pub mod gzip;
pub mod ingest;
pub mod jfr;
pub mod kind;
pub mod multipart;
pub mod pprof;
pub mod trees;
mod varint;
