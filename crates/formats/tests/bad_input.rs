//! No decoder panics on meaningless bytes, and no output grows past its limit.

mod corpus;

use bytes::Bytes;
use formats::compression::{self, Encoding};
use formats::{folded, gzip, ingest, jfr, kind, multipart, pprof};
use proptest::prelude::*;

/// Limits of a server that accepts profiles of 4 MiB.
const LIMIT: usize = 4 << 20;

fn try_everything(bytes: Bytes) {
    if let Ok(plain) = gzip::content(bytes.clone(), LIMIT) {
        assert!(plain.len() <= LIMIT);
        let limits = pprof::Limits::default();
        let _ = pprof::decode_dotnet(plain.clone(), &limits);
        let _ = jfr::decode(&plain, &plain, &jfr::Options::default());
        if let Ok(decoded) = pprof::decode(plain, &limits) {
            pprof::encode(&decoded.profile);
        }
    }
    for encodings in [&[][..], &[Encoding::Gzip], &[Encoding::Deflate], &[Encoding::Zstd, Encoding::Deflate]]
    {
        if let Ok(plain) = compression::content(bytes.clone(), encodings, LIMIT) {
            assert!(plain.len() <= LIMIT);
        }
    }
    let _ = kind::recognise_text(&bytes);
    let _ = kind::of_pprof(&bytes);
    let _ = multipart::Form::parse("multipart/form-data; boundary=x", &bytes);
    if let Ok(column) = ingest::column("cpu", 1) {
        let _ = folded::decode_groups(bytes.clone(), &column, 0);
        let _ = folded::decode_lines(bytes.clone(), &column, 0);
    }
    let _ = ingest::SampleTypeConfig::parse(&bytes);
    let text = String::from_utf8_lossy(&bytes);
    let _ = ingest::AppName::parse(&text);
    ingest::attime(&text, 0);
}

#[test]
fn no_decoder_panics_on_a_file_of_the_corpus() {
    for (_, bytes) in corpus::files(&["corrupt", "folded", "jfr", "speedscope"]) {
        try_everything(bytes.into());
    }
}

#[test]
fn a_document_of_empty_messages_stays_within_its_limits() {
    for tag in [0x0a, 0x12, 0x1a, 0x22, 0x2a, 0x32] {
        let document = Bytes::from([tag, 0].repeat(LIMIT / 2));
        if let Ok(decoded) = pprof::decode(document, &pprof::Limits::default()) {
            assert!(decoded.profile.symbols.byte_len() <= 16 * LIMIT, "field {}", tag >> 3);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_decoder_panics_on_random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        try_everything(bytes.into());
    }

    #[test]
    fn no_decoder_panics_on_text_made_of_valid_pieces(pieces in prop::collection::vec(
        prop::sample::select(vec![
            "--x", "\r\n", "\n", "--", " ", ";", "a", "1", "-", "{", "}", "=", ",", "\"", "\\", "é",
            "Content-Disposition: form-data; name=\"a\"; filename=b", ":", "name", "now", "20240101",
        ]),
        0..30,
    )) {
        try_everything(pieces.concat().into());
    }
}
