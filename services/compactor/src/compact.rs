//! One job after the other: claim, merge, put, publish.
//!
//! Owns: attempts, their retries, and the report of a failure.
//! Does not own: the merge itself (`block::merge`), which job comes next (`metastore`).

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use block::{Cache, DatasetEntry, DatasetIndex, Erasure, MergeInput, MergeOptions, MergeOutput, Reader};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use model::BlockId;
use query::Deletion;
use rpc::{Job, JobFailure, JobOutput, Publication, PublishOutcome};
use storage::{CreateOutcome, Key, Place};
use tracing::{debug, error, info, warn};

use crate::error::Fault;
use crate::{Compactor, Error};

/// Most inputs opened, and most outputs written, in parallel.
const OBJECTS_AT_ONCE: usize = 8;
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Most tries to publish while the metastore is unavailable; then the attempt lapses.
const TRIES_MAX: u32 = 5;

impl Compactor {
    pub(crate) async fn keep_compacting(&self) {
        let mut pause = RETRY_PAUSE_MIN;
        while !*self.stop.borrow() {
            match self.metastore.claim_job().await {
                Ok(Some(job)) => {
                    pause = RETRY_PAUSE_MIN;
                    self.attempt(&job).await;
                }
                Ok(None) => {
                    pause = RETRY_PAUSE_MIN;
                    self.pause(self.config.poll_interval.get()).await;
                }
                Err(error) => {
                    warn!(%error, "cannot claim a job");
                    self.pause(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
            }
        }
    }

    async fn attempt(&self, job: &Job) {
        let began = self.clock.monotonic();
        let (id, attempt, inputs) = (job.id, job.attempt, job.inputs.len());
        // A panic is attributed to the inputs, which are then merged separately: the cause is unknown.
        let (reason, fault) = match AssertUnwindSafe(self.compact(job)).catch_unwind().await {
            Err(_) => {
                self.metrics.jobs_failed.inc();
                error!(job = %id, attempt, inputs, "the merge panicked");
                ("the merge panicked".to_owned(), Fault::Inputs)
            }
            Ok(Ok((PublishOutcome::Done, outputs))) => {
                let took = self.clock.monotonic() - began;
                self.metrics.merged(job.level, took);
                let millis = took.as_millis() as u64;
                debug!(job = %id, inputs, outputs, level = job.level, millis, "merged");
                return;
            }
            Ok(Ok((PublishOutcome::Rejected, _))) => {
                self.metrics.jobs_failed.inc();
                info!(job = %id, attempt, "merged too late, the outputs stay unused");
                return;
            }
            Ok(Err(error)) => {
                self.metrics.jobs_failed.inc();
                let reason = model::with_causes(&error);
                warn!(job = %id, attempt, inputs, reason, "attempt failed");
                (reason, error.fault())
            }
        };
        if fault == Fault::Outside {
            return;
        }
        let failure = JobFailure { job: id, attempt, reason, inputs_sound: fault == Fault::Memory };
        if let Err(error) = self.metastore.fail_job(failure).await {
            warn!(job = %id, attempt, %error, "cannot report a failed attempt, it will lapse");
        }
    }

    /// Merges and publishes; returns the number of outputs.
    async fn compact(&self, job: &Job) -> Result<(PublishOutcome, usize), Error> {
        let merged = self.merge(job).await?;
        let outputs: Vec<JobOutput> = stream::iter(merged.into_iter().map(|output| self.put(job, output)))
            .buffered(OBJECTS_AT_ONCE)
            .try_collect()
            .await?;
        let count = outputs.len();
        let bytes = outputs.iter().map(|output| output.bytes).sum();
        let published = self.publish(Publication { job: job.id, attempt: job.attempt, outputs }).await?;
        if published == PublishOutcome::Done {
            self.metrics.input_bytes.inc_by(job.inputs.iter().map(|input| input.bytes).sum());
            self.metrics.output_bytes.inc_by(bytes);
        }
        Ok((published, count))
    }

    async fn merge(&self, job: &Job) -> Result<Vec<MergeOutput>, Error> {
        // A separate cache: the contents of merged inputs are not needed again.
        let cache = Cache::new(self.config.cache_bytes);
        let options = MergeOptions {
            job: job.id,
            attempt: job.attempt,
            level: job.level,
            created_millis: self.clock.unix_millis(),
            windows: job.windows.clone(),
            shard_bits: job.shard_bits,
            memory: self.memory.account(),
        };
        let open = |input: &rpc::JobInput| {
            let (input, cache) = (input.clone(), cache.clone());
            async move {
                let block = Reader::open(&self.store, &input.key, input.bytes, &cache).await?;
                let erase = erase(input.deletions);
                let datasets = Some(input.datasets);
                Ok::<_, block::Error>(MergeInput { block, masked: input.masked, datasets, erase })
            }
        };
        let inputs =
            stream::iter(job.inputs.iter().map(open)).buffered(OBJECTS_AT_ONCE).try_collect().await?;
        Ok(block::merge(inputs, &options, &self.pool).await?)
    }

    async fn put(&self, job: &Job, output: MergeOutput) -> Result<JobOutput, Error> {
        let MergeOutput { tenant, window, shard, encoded } = output;
        let part = match encoded.directory.origin {
            block::Origin::Block { part, .. } => part,
            block::Origin::Segment { .. } => 0,
        };
        let place = Place { level: job.level, window, shard };
        let key = Key::block(&tenant, place, BlockId { job: job.id, attempt: job.attempt, part });
        let bytes = encoded.bytes.len() as u64;
        match self.store.settle_create(&key, encoded.bytes).await? {
            CreateOutcome::Mine => Ok(JobOutput { key, bytes, tenant, window, directory: encoded.directory }),
            CreateOutcome::Other => Err(Error::Taken(key)),
        }
    }

    /// Repeats the publication until the metastore answers, at most [`TRIES_MAX`] times. Publishing twice is
    /// harmless.
    async fn publish(&self, publication: Publication) -> Result<PublishOutcome, Error> {
        let mut pause = RETRY_PAUSE_MIN;
        let mut tries = 1;
        loop {
            match self.metastore.publish(publication.clone()).await {
                Err(error) if error.kind == rpc::ErrorKind::Unavailable && tries < TRIES_MAX => {
                    warn!(job = %publication.job, %error, "cannot publish, trying again");
                    self.pause(pause).await;
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                    tries += 1;
                }
                answer => return Ok(answer?),
            }
        }
    }
}

/// A function that applies `deletions` to the datasets of one input; `None` without deletions.
fn erase(deletions: Vec<Arc<Deletion>>) -> Option<Erasure> {
    if deletions.is_empty() {
        return None;
    }
    Some(Arc::new(move |entry: &DatasetEntry, index: &DatasetIndex| {
        let touches = |deletion: &&Arc<Deletion>| {
            deletion.touches(&entry.tenant, &entry.service, &entry.profile_types, entry.times)
        };
        query::deletion::erased(index, deletions.iter().filter(touches).map(|deletion| &**deletion))
    }))
}
