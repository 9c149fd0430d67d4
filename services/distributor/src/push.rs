//! The story of a push: charge memory → decode → labels → rate limit → validate → normalise → split →
//! series limit → hand over.
//!
//! Owns: the order of the steps, the work that runs on the pool instead of the connection threads, and that one
//! bad profile does not spoil the others of its request.
//! Does not own: any single step; each is a file of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use limits::{Limits, TooManySeries};
use memory::Charge;
use model::{Labels, PushItem, SeriesRows, TenantId};

use crate::Distributor;
use crate::document::{DecodedDocument, Document};
use crate::error::{Error, Errors, Failure, shown};
use crate::metrics::DocumentSize;
use crate::receipt::{Reason, Receipt};
use crate::{go_stacks, labels, normalise, source_code, split, validate};

/// Documents are prepared in pieces of about this many bytes, which may run in parallel.
const PIECE_BYTES: usize = 256 << 10;

/// The discard reason of an accepted profile without any sample to store.
const NOTHING_TO_COUNT: &str = "nothing_to_count";

/// The state that the documents of one request share.
struct Batch {
    tenant: TenantId,
    limits: Arc<Limits>,
    /// Unix nanoseconds.
    now: i64,
    /// Decompressed bytes of all documents so far, with the labels of each.
    bytes: AtomicUsize,
}

impl Batch {
    /// Adds `bytes` of decompressed content to the request.
    ///
    /// # Errors
    /// [`Error::RequestTooLarge`] if the request is now larger than its limit.
    fn grow(&self, bytes: usize) -> Result<(), Error> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.check_size(before.saturating_add(bytes))
    }

    /// # Errors
    /// [`Error::RequestTooLarge`] if the request has grown past its limit.
    fn check(&self) -> Result<(), Error> {
        self.check_size(self.bytes.load(Ordering::Relaxed))
    }

    fn check_size(&self, bytes: usize) -> Result<(), Error> {
        let limit = self.limits.ingestion_body_bytes();
        if bytes > limit { Err(Error::RequestTooLarge { limit }) } else { Ok(()) }
    }
}

/// An item for the ingester, with the memory charged for it.
struct ReadyItem {
    item: PushItem,
    charge: Charge,
}

/// The outcome of one accepted document.
#[derive(Default)]
struct Acceptance {
    /// `None` if no sample counts.
    ready: Option<ReadyItem>,
    receipt: Receipt,
}

impl Distributor {
    /// Makes the documents of one request durable. A refused document does not keep the others from it.
    ///
    /// # Errors
    /// The refused documents, or the reason why none could be stored.
    pub(crate) async fn push(
        self: &Arc<Self>,
        tenant: TenantId,
        documents: Vec<Document>,
    ) -> Result<Receipt, Errors> {
        let started = self.clock.monotonic();
        if documents.is_empty() {
            return Err(Error::NoProfiles.into());
        }
        let batch = Arc::new(Batch {
            limits: self.limits.of(&tenant),
            tenant,
            now: self.clock.unix_nanos(),
            bytes: AtomicUsize::new(0),
        });
        let pieces = pieces(documents).into_iter().map(|piece| {
            let (distributor, batch) = (self.clone(), batch.clone());
            self.pool.run(move || distributor.prepare_all(&batch, piece))
        });
        let outcomes = futures::future::join_all(pieces).await;
        let elapsed = || (self.clock.monotonic() - started).as_secs_f64();
        self.metrics.prepare_seconds.observe(elapsed());

        // A request beyond its limit is refused whole.
        batch.check()?;
        let outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
        let count = outcomes.len();
        let (mut ready, mut failures) = (Vec::with_capacity(count), Vec::new());
        let mut receipt = Receipt::default();
        for (index, outcome) in outcomes.into_iter().enumerate() {
            match outcome {
                Ok(acceptance) => {
                    receipt.add(&acceptance.receipt);
                    ready.extend(acceptance.ready);
                }
                Err(error) => failures.push(Failure { index, error }),
            }
        }
        self.hand_over(ready).await?;
        self.metrics.push_seconds.observe(elapsed());
        Errors::of(failures, count)?;
        Ok(receipt)
    }

    fn prepare_all(&self, batch: &Batch, documents: Vec<Document>) -> Vec<Result<Acceptance, Error>> {
        let outcomes = documents.into_iter().flat_map(|document| self.prepare(batch, document));
        let outcomes = outcomes.map(|(bytes, outcome)| {
            let discard_reason = match &outcome {
                Ok(Acceptance { ready: Some(_), .. }) => None,
                Ok(Acceptance { ready: None, .. }) => Some(NOTHING_TO_COUNT),
                Err(error) => Some(error.reason()),
            };
            if let Some(reason) = discard_reason {
                self.metrics.discarded(&batch.tenant, reason, bytes);
            }
            if let Ok(acceptance) = &outcome {
                self.metrics.discarded_samples(&batch.tenant, &acceptance.receipt.discarded);
            }
            outcome
        });
        outcomes.collect()
    }

    /// Prepares one document for the ingester: one outcome for each profile of it. Returns the size of each as well:
    /// of its content, or on the wire if it was not decoded.
    fn prepare(&self, batch: &Batch, document: Document) -> Vec<(usize, Result<Acceptance, Error>)> {
        let wire_bytes = document.wire_bytes();
        match self.decode(batch, document) {
            Ok((documents, _)) if documents.is_empty() => vec![(wire_bytes, Ok(Acceptance::default()))],
            Ok((documents, charge)) => self.accept_all(batch, documents, charge),
            Err(error) => vec![(wire_bytes, Err(error))],
        }
    }

    /// Decodes a document, unless the request has grown past its limit.
    fn decode(&self, batch: &Batch, document: Document) -> Result<(Vec<DecodedDocument>, Charge), Error> {
        // Charged before decompression, by the size that the document announces.
        let charge = self.budget.charge(document.decoding_bytes(&batch.limits)?)?;
        // Labels are completed and checked once for each sample of a series.
        batch.grow(document.shared_bytes())?;
        let mut wire_bytes = document.wire_bytes();
        let decoded = document.decode(&batch.tenant, &batch.limits, &self.clock);
        if let Err(Error::Decompress(error)) = &decoded
            && let Some(limit) = error.reached_limit()
        {
            // It was decompressed up to its limit. Counted, so that a request made of bombs ends too.
            batch.grow(limit)?;
        }
        let documents = decoded?;
        for document in &documents {
            batch.grow(document.bytes)?;
            let samples = document.decoded.profile.samples.len();
            let size = DocumentSize { wire_bytes, bytes: document.bytes, samples };
            self.metrics.received(&batch.tenant, size);
            // Those of all profiles of the document.
            wire_bytes = 0;
        }
        Ok((documents, charge))
    }

    fn accept_all(
        &self,
        batch: &Batch,
        documents: Vec<DecodedDocument>,
        mut charge: Charge,
    ) -> Vec<(usize, Result<Acceptance, Error>)> {
        let shares = (1..=documents.len()).rev().map(|left| charge.split(charge.bytes().div_ceil(left)));
        // All at once: a refused document returns its share, and no other's.
        let shares: Vec<_> = shares.collect();
        let accept = |(document, share): (DecodedDocument, Charge)| {
            (document.bytes, self.accept(batch, document, share))
        };
        documents.into_iter().zip(shares).map(accept).collect()
    }

    /// Checks a decoded document against the limits and makes an item of it.
    fn accept(
        &self,
        batch: &Batch,
        document: DecodedDocument,
        mut charge: Charge,
    ) -> Result<Acceptance, Error> {
        let (tenant, limits) = (&batch.tenant, &batch.limits);
        let mut receipt = Receipt { stored: 0, discarded: document.skipped.clone() };
        if document.is_of_span {
            receipt.discarded.count(Reason::SpanProfile, document.decoded.profile.samples.len());
            return Ok(Acceptance { ready: None, receipt });
        }
        charge.resize(document.memory_bytes())?;
        let labels = labels::from_pushed(&document.labels, limits)?;
        self.admit(batch, &labels, document.bytes)?;
        let mut profile = validate::validate(document.decoded, &labels, limits, batch.now)?;
        normalise::strip_go_shapes(&mut profile);
        go_stacks::restore_cut_stacktraces(&mut profile);
        let normalise::CountedSamples { samples: counted, discarded } = normalise::normalise(&mut profile);
        validate::check_counted(&profile, &counted, &discarded)?;
        receipt.discarded.add(&discarded);
        receipt.stored = counted.len();
        if counted.is_empty() {
            return Ok(Acceptance { ready: None, receipt });
        }
        let series = split::split(&profile, counted, &labels, limits)?;
        charge.grow(source_code::note_in_build_ids(&mut profile, &labels)?)?;
        self.admit_series(batch, &series)?;
        let item = PushItem {
            tenant: tenant.clone(),
            key: document.key,
            profile: Arc::new(profile),
            series: series.into(),
        };
        Ok(Acceptance { ready: Some(ReadyItem { item, charge }), receipt })
    }

    /// Charges the tenant's rate for one profile.
    fn admit(&self, batch: &Batch, labels: &Labels, content_bytes: usize) -> Result<(), Error> {
        let limits = &batch.limits;
        let bytes = labels.byte_len() + content_bytes;
        let (rate, burst) = (limits.ingestion_rate_bytes(), limits.ingestion_burst_bytes());
        let now = self.clock.monotonic();
        self.rates.admit(&batch.tenant, bytes as f64, rate, burst, now).map_err(|limited| {
            Error::RateLimited {
                tenant: shown(&batch.tenant),
                rate_mb: limits.ingestion_rate_mb,
                burst_mb: limits.ingestion_burst_size_mb,
                bytes,
                retry_after: limited.retry_after,
            }
        })
    }

    /// Counts the series of one profile towards those of the tenant.
    fn admit_series(&self, batch: &Batch, series: &[SeriesRows]) -> Result<(), Error> {
        let limit = batch.limits.max_global_series_per_tenant;
        if limit == 0 {
            return Ok(());
        }
        let hashes = split::series_hashes(series);
        let now = self.clock.monotonic();
        self.series.admit(&batch.tenant, &hashes, limit, now).map_err(|TooManySeries { active, new }| {
            let labels = series.first().map(|rows| shown(&rows.labels)).unwrap_or_default();
            Error::ActiveSeries { tenant: shown(&batch.tenant), labels, active, new, limit }
        })
    }

    async fn hand_over(&self, ready: Vec<ReadyItem>) -> Result<(), Error> {
        if ready.is_empty() {
            return Ok(());
        }
        // The charges are held until the items are durable or refused.
        let (items, _charges): (Vec<PushItem>, Vec<Charge>) =
            ready.into_iter().map(|ready| (ready.item, ready.charge)).unzip();
        let limit = self.config.push_timeout.get();
        match self.clock.timeout(limit, self.ingester.push(items)).await {
            Some(outcome) => outcome.map_err(Error::Ingester),
            None => Err(Error::TimedOut { limit }),
        }
    }
}

/// The documents in their order, in runs of about [`PIECE_BYTES`].
fn pieces(documents: Vec<Document>) -> Vec<Vec<Document>> {
    let mut pieces = vec![Vec::new()];
    let mut bytes = 0;
    for document in documents {
        if bytes >= PIECE_BYTES {
            pieces.push(Vec::new());
            bytes = 0;
        }
        bytes += document.wire_bytes();
        if let Some(piece) = pieces.last_mut() {
            piece.push(document);
        }
    }
    pieces
}

#[cfg(test)]
mod tests;
