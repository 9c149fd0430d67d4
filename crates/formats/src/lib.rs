//! Bytes ⇄ model: every format that clients send or ask for.
//!
//! Owns: decompression, pprof, folded text, trees and tries of names, multipart bodies, the parameters of `/ingest`,
//! and the signs of files that are none of these.
//! Does not own: whether a profile is acceptable (`distributor`), or what it is called once stored (`model`).
//!
//! Everything here is synchronous and pure, and holds no more memory than its limits or a small multiple
//! of its input allow, whatever the input says about itself.

pub mod compression;
pub mod folded;
pub mod gzip;
pub mod ingest;
pub mod kind;
pub mod multipart;
pub mod pprof;
pub mod trees;
