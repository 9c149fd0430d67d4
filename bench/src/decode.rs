//! Decoding pprof, beside a decoder that `prost` generates.

use std::time::Duration;

use bytes::Bytes;
use clock::Clock;
use prost::Message;

use crate::Error;
use crate::report::{Report, Runs};
use crate::workload::Fresh;

const DOCUMENTS: usize = 200;
const ROUNDS: usize = 9;

pub(crate) fn run(clock: &Clock) -> Result<(), Error> {
    let mut fresh = Fresh::new();
    let documents: Vec<Bytes> =
        (0..DOCUMENTS).map(|index| fresh.document(clock.unix_nanos() + index as i64).into()).collect();
    let limits = formats::pprof::Limits::default();
    let ours = rounds(clock, &documents, |document| {
        std::hint::black_box(formats::pprof::decode(document, &limits)?);
        Ok(())
    })?;
    let prost = rounds(clock, &documents, |document| {
        std::hint::black_box(wire::google::v1::Profile::decode(document)?);
        Ok(())
    })?;
    let kib = documents.iter().map(Bytes::len).sum::<usize>() / DOCUMENTS / 1024;
    let mut report = Report::new(&format!("Decode: one document of {kib} KiB, one thread"));
    report.line("pyrograph", ours.to_string());
    report.line("prost", prost.to_string());
    report.print();
    Ok(())
}

/// Per document, in each round.
fn rounds(
    clock: &Clock,
    documents: &[Bytes],
    decode: impl Fn(Bytes) -> Result<(), Error>,
) -> Result<Runs, Error> {
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..ROUNDS {
        let began = clock.monotonic();
        documents.iter().cloned().try_for_each(&decode)?;
        times.push((clock.monotonic() - began) / DOCUMENTS as u32);
    }
    Ok(Runs::millis(times))
}
