//! The story of a push: open → admit → validate → complete → normalise → split → hand over.
//!
//! Owns: the order, what is computed off the connection threads, and that one bad profile does not spoil
//! the others of its request.
//! Does not own: any single step; each is a file of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use limits::{Limits, TooManySeries};
use model::{Labels, PushItem, SeriesRows, TenantId};

use crate::Distributor;
use crate::budget::Share;
use crate::document::{Document, Opened};
use crate::error::{Error, Errors, Failure, shown};
use crate::metrics::Received;
use crate::receipt::{Reason, Receipt};
use crate::{go_stacks, labels, normalise, source_code, split, validate};

/// Documents are prepared in pieces of about this many bytes, which may run beside one another.
const PIECE_BYTES: usize = 256 << 10;

/// The reason under which a profile is counted that was accepted and had nothing to store.
const NOTHING_TO_COUNT: &str = "nothing_to_count";

/// What the documents of one request have in common.
struct Batch {
    tenant: TenantId,
    limits: Arc<Limits>,
    /// Unix nanoseconds.
    now: i64,
    /// Decompressed, of all documents so far, with the labels of each.
    bytes: AtomicUsize,
}

impl Batch {
    /// Counts `bytes` more of decompressed content.
    fn grow(&self, bytes: usize) -> Result<(), Error> {
        let limit = self.limits.ingestion_body_bytes();
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > limit {
            return Err(Error::RequestTooLarge { limit });
        }
        Ok(())
    }
}

/// A profile that is ready, with the memory it was charged for.
struct Prepared {
    item: PushItem,
    share: Share,
}

/// One document that was accepted; `prepared` is none if it has nothing that counts.
#[derive(Default)]
struct Accepted {
    prepared: Option<Prepared>,
    receipt: Receipt,
}

impl Distributor {
    /// Makes the documents of one request durable. What is refused does not keep the others from it.
    ///
    /// # Errors
    /// What was refused, or why nothing could be stored.
    pub(crate) async fn push(
        self: &Arc<Self>,
        tenant: TenantId,
        documents: Vec<Document>,
    ) -> Result<Receipt, Errors> {
        let started = self.clock.monotonic();
        if documents.is_empty() {
            return Err(Error::NoProfiles.into());
        }
        let count = documents.len();
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
        let prepared = futures::future::join_all(pieces).await;
        let elapsed = || (self.clock.monotonic() - started).as_secs_f64();
        self.metrics.prepare_seconds.observe(elapsed());

        // Beyond the limit of the request none of it is stored.
        batch.grow(0)?;
        let (mut ready, mut failures) = (Vec::with_capacity(count), Vec::new());
        let mut receipt = Receipt::default();
        for (index, outcome) in prepared.into_iter().flatten().enumerate() {
            match outcome {
                Ok(accepted) => {
                    receipt.add(&accepted.receipt);
                    ready.extend(accepted.prepared);
                }
                Err(error) => failures.push(Failure { index, error }),
            }
        }
        self.hand_over(ready).await?;
        self.metrics.push_seconds.observe(elapsed());
        Errors::of(failures, count)?;
        Ok(receipt)
    }

    fn prepare_all(&self, batch: &Batch, documents: Vec<Document>) -> Vec<Result<Accepted, Error>> {
        let outcomes = documents.into_iter().map(|document| {
            let mut bytes = document.wire_bytes();
            let outcome = self.prepare(batch, document, &mut bytes);
            let discarded = match &outcome {
                Ok(Accepted { prepared: Some(_), .. }) => None,
                Ok(Accepted { prepared: None, .. }) => Some(NOTHING_TO_COUNT),
                Err(error) => Some(error.reason()),
            };
            if let Some(reason) = discarded {
                self.metrics.discarded(&batch.tenant, reason, bytes);
            }
            if let Ok(accepted) = &outcome {
                self.metrics.discarded_samples(&batch.tenant, &accepted.receipt.discarded);
            }
            outcome
        });
        outcomes.collect()
    }

    /// One document as the ingester takes it. `bytes` becomes the size of its content.
    fn prepare(&self, batch: &Batch, document: Document, bytes: &mut usize) -> Result<Accepted, Error> {
        let (tenant, limits) = (&batch.tenant, &batch.limits);
        // Before it is decompressed and decoded, by what it announces.
        let mut share = self.budget.take(document.decoding_bytes(limits)?)?;
        let Some(opened) = self.open(batch, document)? else {
            return Ok(Accepted::default());
        };
        *bytes = opened.bytes;
        let mut receipt = Receipt { stored: 0, discarded: opened.skipped.clone() };
        if opened.is_of_span {
            receipt.discarded.count(Reason::SpanProfile, opened.decoded.profile.samples.len());
            return Ok(Accepted { prepared: None, receipt });
        }
        share.resize(opened.memory_bytes())?;
        let labels = labels::complete(&opened.labels, limits)?;
        self.admit(batch, &labels, opened.bytes)?;
        let mut profile = validate::validate(opened.decoded, &labels, limits, batch.now)?;
        normalise::strip_go_shapes(&mut profile);
        go_stacks::complete(&mut profile);
        let normalise::Counted { samples: counted, discarded } = normalise::normalise(&mut profile);
        validate::check_counted(&profile, &counted, &discarded)?;
        receipt.discarded.add(&discarded);
        receipt.stored = counted.len();
        if counted.is_empty() {
            return Ok(Accepted { prepared: None, receipt });
        }
        let series = split::split(&profile, counted, &labels, limits)?;
        share.grow(source_code::note_in_build_ids(&mut profile, &labels)?)?;
        self.admit_series(batch, &series)?;
        let item = PushItem {
            tenant: tenant.clone(),
            key: opened.key,
            profile: Arc::new(profile),
            series: series.into(),
        };
        Ok(Accepted { prepared: Some(Prepared { item, share }), receipt })
    }

    /// Opens a document, unless the request has grown past its limit.
    fn open(&self, batch: &Batch, document: Document) -> Result<Option<Opened>, Error> {
        // Each is completed and checked with labels of its own, however many samples its series has.
        batch.grow(document.shared_bytes())?;
        let wire_bytes = document.wire_bytes();
        let opened = document.open(&batch.tenant, &batch.limits, &self.clock);
        if let Err(Error::Decompress(error)) = &opened
            && let Some(limit) = error.reached_limit()
        {
            // It was decompressed up to there: a request made of bombs ends too.
            batch.grow(limit)?;
        }
        let opened = opened?;
        if let Some(opened) = &opened {
            batch.grow(opened.bytes)?;
            let samples = opened.decoded.profile.samples.len();
            let bytes = opened.bytes;
            let received = Received { wire_bytes, bytes, samples };
            self.metrics.received(&batch.tenant, received);
        }
        Ok(opened)
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

    async fn hand_over(&self, ready: Vec<Prepared>) -> Result<(), Error> {
        if ready.is_empty() {
            return Ok(());
        }
        // The shares are held until the items are durable or refused.
        let (items, _shares): (Vec<PushItem>, Vec<Share>) =
            ready.into_iter().map(|prepared| (prepared.item, prepared.share)).unzip();
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
