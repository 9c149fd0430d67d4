//! A JFR recording of `/ingest` → one document per profile in it.
//!
//! Owns: their labels, their keys, and the share of each in the size of the recording.
//! Does not own: the bytes of a recording (`formats::jfr`).

use clock::Clock;
use formats::jfr::{self, Options};
use formats::kind;
use formats::pprof::DecodedProfile;
use model::TenantId;

use crate::document::{DecodedDocument, IngestDocument};
use crate::error::Error;
use crate::receipt::DiscardCounts;

/// The documents of a recording that `sent` came with; `labels` are those of its contexts.
///
/// # Errors
/// If it is malformed or too large.
pub(crate) fn decode(
    sent: &IngestDocument,
    recording: &[u8],
    labels: &[u8],
    tenant: &TenantId,
    clock: &Clock,
) -> Result<Vec<DecodedDocument>, Error> {
    let has_rate = sent.parameters.iter().any(|(name, _)| name == "sampleRate");
    let options = Options {
        sample_rate: has_rate.then_some(sent.sample_rate),
        time_nanos: sent.from,
        duration_nanos: sent.until.saturating_sub(sent.from).max(0),
    };
    let decoded = jfr::decode(recording, labels, &options);
    let decoded = decoded.map_err(|error| not_a_recording(error, recording))?;
    let count = decoded.profiles.len();
    let bytes = recording.len() + labels.len();
    let label_text = String::from_utf8_lossy(labels);
    let service = (sent.service_label(), sent.app.service.as_str());
    let event = (!decoded.event.is_empty()).then_some(("jfr_event", decoded.event.as_str()));
    let defaults: Vec<_> = [service].into_iter().chain(event).collect();
    let documents = decoded.profiles.into_iter().enumerate().map(|(index, named)| {
        let number = index.to_string();
        let rest = [("jfr_profile", number.as_str()), ("jfr_labels", &label_text)];
        DecodedDocument {
            key: sent.key(false, &rest, tenant, recording, clock),
            labels: sent.labels(named.name, &defaults).into(),
            decoded: DecodedProfile { profile: named.profile, flaw: None },
            // Together the size of the recording.
            bytes: bytes / count + if index == 0 { bytes % count } else { 0 },
            skipped: DiscardCounts::default(),
            is_of_span: false,
        }
    });
    Ok(documents.collect())
}

fn not_a_recording(error: jfr::Error, recording: &[u8]) -> Error {
    let kind = match jfr::is_recording(recording) {
        true => None,
        false => kind::recognise_text(recording).or_else(|| kind::of_pprof(recording)),
    };
    Error::Recording { error, kind }
}
