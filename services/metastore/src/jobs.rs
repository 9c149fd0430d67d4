//! The life of a job: claimed, then published, failed or lapsed.
//!
//! Owns: attempts, and the one commit that replaces inputs by outputs.
//! Does not own: which objects are worth merging (`plan`), merging (`compactor`).
//!
//! Leases only save work; correctness does not rest on them. A publish commits only if its attempt is open and its job
//! still claims every input. Both are checked before the commit, in the same turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use block::Origin;
use bytes::Bytes;
use catalog::Batch;
use catalog::rows::{self, Block, JobProgress, Row, Work};
use clock::Now;
use model::{BlockId, DAY, JobId};
use rpc::{Error, ErrorKind, Job, JobFailure, JobInput, JobOutput, Publication, PublishOutcome};
use storage::Key;
use tracing::{error, info, warn};

use crate::record::{Output, Record};
use crate::state::{Death, JobState, State, put_block, row_count, summaries};
use crate::{Metastore, plan};

/// Failed attempts of a job before its inputs are divided.
const TRIES_MAX: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// A published job is remembered this long: until then a compactor may ask about it.
const REMEMBERED_MILLIS: i64 = DAY * 1_000;

impl Metastore {
    pub(crate) async fn claim(self: Arc<Self>) -> Result<Option<Job>, Error> {
        let turn = self.take_turn().await?;
        let now = self.clock.now();
        let (job, batch) = {
            let mut state = self.state.lock();
            let mut batch = Batch::default();
            let lapsed = close_lapsed(&mut state, now, &|| self.new_job(), &mut batch);
            self.metrics.attempts_lapsed.inc_by(lapsed as u64);
            let job = self.open_attempt(&mut state, now, &mut batch);
            (job, batch)
        };
        if !batch.is_empty() {
            self.commit_in_turn(&turn, batch).await?;
        }
        if job.is_some() {
            self.metrics.jobs_claimed.inc();
        }
        Ok(job)
    }

    /// A random id for a job of this cluster.
    pub(crate) fn new_job(&self) -> JobId {
        JobId(self.store.new_id(&self.clock))
    }

    /// Opens the next attempt of a waiting job, or of a new one.
    fn open_attempt(&self, state: &mut State, now: Now, batch: &mut Batch) -> Option<Job> {
        let waiting = state.jobs().values().filter(|job| {
            matches!(job.row.state, JobProgress::Working { open: false, .. }) && job.due <= now.monotonic
        });
        let id = match waiting.map(|job| (job.due, job.row.id)).min() {
            Some((_, id)) => id,
            None => {
                let work = plan::next(state, &self.config, now.unix_millis)?;
                add_job(state, self.new_job(), work, 0, now.unix_millis)
            }
        };
        let floor = state.deletions.floor();
        let JobProgress::Working { work, .. } = state.jobs().get(&id)?.row.state.clone() else {
            return None;
        };
        let shard_bits = plan::shard_bits(state, &self.config, &work);
        let inputs = work.inputs.iter().filter_map(|key| {
            let object = state.object(key)?;
            let mut datasets: Vec<u32> = object.datasets.iter().map(|dataset| dataset.position).collect();
            datasets.sort_unstable();
            Some(JobInput {
                key: key.clone(),
                bytes: object.bytes,
                masked: object.masked.clone(),
                datasets,
                deletions: state.deletions.needed_by(object.floor, &object.datasets),
            })
        });
        let inputs = inputs.collect();
        let job = state.job_mut(id)?;
        if let JobProgress::Working { open, .. } = &mut job.row.state {
            *open = true;
        }
        job.row.attempt += 1;
        job.row.floor = floor;
        job.due = now.monotonic + self.config.attempt_time.get();
        job.row.put_into(batch);
        let (attempt, Work { level, windows, .. }) = (job.row.attempt, work);
        Some(Job { id, attempt, inputs, level, windows, shard_bits })
    }

    pub(crate) async fn publish_job(
        self: Arc<Self>,
        publication: Publication,
    ) -> Result<PublishOutcome, Error> {
        let turn = self.take_turn().await?;
        let id = publication.job;
        let unix_millis = self.clock.unix_millis();
        let (record, batch, blocks, deaths) = {
            let state = self.state.lock();
            let Some(job) = state.jobs().get(&id) else {
                return Ok(PublishOutcome::Rejected);
            };
            if job.row.attempt != publication.attempt {
                return Ok(PublishOutcome::Rejected);
            }
            let work = match &job.row.state {
                JobProgress::Published { .. } => return Ok(PublishOutcome::Done),
                JobProgress::Working { open: false, .. } => return Ok(PublishOutcome::Rejected),
                JobProgress::Working { open: true, work } => work,
            };
            let is_claimed = |key: &Key| state.live().get(key).is_some_and(|live| live.claimed == Some(id));
            if !work.inputs.iter().all(is_claimed) {
                return Ok(PublishOutcome::Rejected);
            }
            let floor = job.row.floor;
            let blocks = publication.outputs.iter().map(|output| block_of(output, &publication, work, floor));
            let blocks: Vec<Block> = blocks.collect::<Result<_, _>>()?;
            let record = record_of(&state, &job.row, work, &publication, unix_millis).encode();
            let mut batch = Batch::default();
            for (block, output) in blocks.iter().zip(&publication.outputs) {
                put_block(block, &summaries(&output.directory), &mut batch);
            }
            let row = rows::Job {
                state: JobProgress::Published { record: Some(record.clone()) },
                ..job.row.clone()
            };
            row.put_into(&mut batch);
            let deaths = work.inputs.iter();
            let deaths: Vec<Death> = deaths
                .filter_map(|key| state.prepare_death(key, Some(id), unix_millis, &mut batch))
                .collect();
            (record, batch, blocks, deaths)
        };
        self.commit_in_turn(&turn, batch).await?;
        {
            let mut state = self.state.lock();
            for death in deaths {
                state.apply(death);
            }
            for (block, output) in blocks.iter().zip(&publication.outputs) {
                state.add_block(block, summaries(&output.directory));
            }
            if let Some(job) = state.job_mut(id) {
                job.row.state = JobProgress::Published { record: Some(record) };
            }
            self.metrics.jobs_published.inc();
            self.metrics.count(&state);
        }
        drop(turn);
        // Inputs are not swept before it exists; the next call or the next owner creates it.
        if let Err(error) = self.create_records().await {
            warn!(job = %id, %error, "publish record is not created yet");
        }
        Ok(PublishOutcome::Done)
    }

    /// Creates every publish record that is not known to be in the bucket, up to the first that fails. A record never
    /// comes before those of the jobs that made its inputs: a rebuild would count these inputs twice.
    pub(crate) async fn create_records(&self) -> Result<(), Error> {
        let missing: BTreeMap<JobId, (i64, Bytes)> = {
            let state = self.state.lock();
            let jobs = state.jobs().values().filter_map(|job| match &job.row.state {
                JobProgress::Published { record: Some(record) } => {
                    Some((job.row.id, (job.row.created_millis, record.clone())))
                }
                _ => None,
            });
            jobs.collect()
        };
        for (id, created_millis, record) in producers_first(missing)? {
            let key = Key::publish(created_millis.div_euclid(DAY * 1_000), id);
            self.store.settle_create(&key, record).await.map_err(crate::error::of_store)?;
            let mut state = self.state.lock();
            if let Some(job) = state.job_mut(id) {
                job.row.state = JobProgress::Published { record: None };
                let row = job.row.clone();
                row.put_into(state.pending_rows());
            }
        }
        Ok(())
    }

    pub(crate) async fn fail(self: Arc<Self>, failure: JobFailure) -> Result<(), Error> {
        let turn = self.take_turn().await?;
        let now = self.clock.now();
        let mut batch = Batch::default();
        {
            let mut state = self.state.lock();
            let is_open = state.jobs().get(&failure.job).is_some_and(|job| {
                job.row.attempt == failure.attempt
                    && matches!(job.row.state, JobProgress::Working { open: true, .. })
            });
            if !is_open {
                return Ok(());
            }
            self.metrics.jobs_failed.inc();
            close_attempt(&mut state, &failure, now, &|| self.new_job(), &mut batch);
        }
        self.commit_in_turn(&turn, batch).await
    }

    /// Forgets published jobs that no compactor can ask about any more.
    pub(crate) fn forget_jobs(&self, state: &mut State, unix_millis: i64) {
        let old: Vec<JobId> = state
            .jobs()
            .values()
            .filter(|job| matches!(job.row.state, JobProgress::Published { record: None }))
            .filter(|job| unix_millis - job.row.created_millis > REMEMBERED_MILLIS)
            .map(|job| job.row.id)
            .collect();
        for id in old {
            if let Some(job) = state.remove_job(id) {
                state.pending_rows().delete(job.row.key());
            }
        }
    }
}

/// Sorts records so that each comes after those of the jobs that made its inputs. Their times do not show the order:
/// earlier owners had other clocks.
fn producers_first(mut left: BTreeMap<JobId, (i64, Bytes)>) -> Result<Vec<(JobId, i64, Bytes)>, Error> {
    let mut made_by: BTreeMap<JobId, BTreeSet<JobId>> = BTreeMap::new();
    for (id, (_, record)) in &left {
        let record = Record::decode(record)
            .map_err(|e| Error::with_source(ErrorKind::Corrupt, "a publish record cannot be read", e))?;
        let jobs = record.inputs.iter().filter_map(|(key, _)| key.parse_block().map(|block| block.job));
        made_by.insert(*id, jobs.filter(|job| left.contains_key(job)).collect());
    }
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let ready = left.keys().filter(|id| made_by[*id].iter().all(|job| !left.contains_key(job)));
        let ready: Vec<JobId> = ready.copied().collect();
        if ready.is_empty() {
            return Err(Error::new(ErrorKind::Corrupt, "publish records name each other's outputs"));
        }
        for id in ready {
            if let Some((created_millis, record)) = left.remove(&id) {
                ordered.push((id, created_millis, record));
            }
        }
    }
    Ok(ordered)
}

fn block_of(output: &JobOutput, publication: &Publication, work: &Work, floor: u64) -> Result<Block, Error> {
    let Origin::Block { job, attempt, part, level } = output.directory.origin else {
        let message = format!("output {} is a segment", output.key);
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    };
    if (job, attempt, level) != (publication.job, publication.attempt, work.level) {
        let message = format!("output {} says it is of job {job}, attempt {attempt}", output.key);
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(Block {
        id: BlockId { job, attempt, part },
        key: output.key.clone(),
        tenant: output.tenant.clone(),
        level,
        window: output.window,
        bytes: output.bytes,
        created_millis: output.directory.created_millis,
        quarantine: None,
        floor,
        rows: row_count(&output.directory),
    })
}

fn record_of(
    state: &State,
    job: &rows::Job,
    work: &Work,
    publication: &Publication,
    unix_millis: i64,
) -> Record {
    let masked = |key: &Key| state.object(key).map(|object| object.masked.clone()).unwrap_or_default();
    let outputs = publication.outputs.iter().map(|output| Output {
        key: output.key.clone(),
        bytes: output.bytes,
        window: output.window,
        floor: job.floor,
    });
    Record {
        job: publication.job,
        attempt: publication.attempt,
        published_millis: unix_millis,
        inputs: work.inputs.iter().map(|key| (key.clone(), masked(key))).collect(),
        outputs: outputs.collect(),
        records_deaths: true,
    }
}

fn add_job(state: &mut State, id: JobId, work: Work, tries: u32, unix_millis: i64) -> JobId {
    for key in &work.inputs {
        state.claim(key, id);
    }
    let row = rows::Job {
        id,
        created_millis: unix_millis,
        attempt: 0,
        tries,
        floor: 0,
        state: JobProgress::Working { open: false, work },
    };
    state.insert_job(JobState { row, due: Duration::ZERO });
    id
}

/// Takes an input out of the job that claims it. An open attempt is closed, because it still reads the input; the next
/// one may begin at once.
pub(crate) fn leave_job(state: &mut State, input: &Key, now: Duration, batch: &mut Batch) {
    let Some(id) = state.release(input) else {
        return;
    };
    let Some(job) = state.job_mut(id) else {
        return;
    };
    let JobProgress::Working { open, work } = &mut job.row.state else {
        return;
    };
    *open = false;
    work.inputs.retain(|key| key != input);
    job.due = now;
    if !work.inputs.is_empty() {
        job.row.put_into(batch);
    } else if let Some(job) = state.remove_job(id) {
        batch.delete(job.row.key());
    }
}

/// Closes attempts whose time is over. Returns their number.
fn close_lapsed(state: &mut State, now: Now, new_job: &dyn Fn() -> JobId, batch: &mut Batch) -> usize {
    let open = state.jobs().values().filter(|job| {
        matches!(job.row.state, JobProgress::Working { open: true, .. }) && job.due <= now.monotonic
    });
    // The inputs may have ended the process, so they are divided. A single input is not quarantined: it may be sound.
    let failure = |job: &JobState| JobFailure {
        job: job.row.id,
        attempt: job.row.attempt,
        reason: "its time is over".to_owned(),
        inputs_sound: true,
    };
    let lapsed: Vec<JobFailure> = open.map(failure).collect();
    for failure in &lapsed {
        close_attempt(state, failure, now, new_job, batch);
    }
    lapsed.len()
}

/// Closes the open attempt of a job. After the last try, its inputs are divided between two jobs that are tried once,
/// until an input that fails is alone; it is quarantined.
fn close_attempt(
    state: &mut State,
    failure: &JobFailure,
    now: Now,
    new_job: &dyn Fn() -> JobId,
    batch: &mut Batch,
) {
    let JobFailure { job: id, attempt, ref reason, inputs_sound } = *failure;
    let Some(job) = state.job_mut(id) else {
        return;
    };
    let JobProgress::Working { open, work } = &mut job.row.state else {
        return;
    };
    *open = false;
    // A sound input alone can neither be divided nor quarantined, so its job is tried without end.
    let is_endless = inputs_sound && work.inputs.len() == 1;
    let tries = (job.row.tries + 1).min(TRIES_MAX);
    if tries < TRIES_MAX || is_endless {
        job.row.tries = tries.min(TRIES_MAX - 1);
        warn!(job = %id, attempt, reason, "attempt failed, another follows");
        job.due = now.monotonic + RETRY_PAUSE * tries;
        job.row.put_into(batch);
        return;
    }
    let work = work.clone();
    let row = job.row.key();
    state.remove_job(id);
    batch.delete(row);
    if let [input] = work.inputs.as_slice() {
        error!(job = %id, %input, reason, "input cannot be merged and is quarantined");
        state.release(input);
        state.quarantine(input, reason.clone(), batch);
        return;
    }
    info!(job = %id, attempt, reason, inputs = work.inputs.len(), "job failed and is divided");
    let (left, right) = work.inputs.split_at(work.inputs.len() / 2);
    for inputs in [left, right] {
        let work = Work { inputs: inputs.to_vec(), ..work.clone() };
        let part = add_job(state, new_job(), work, TRIES_MAX - 1, now.unix_millis);
        if let Some(part) = state.jobs().get(&part) {
            part.row.put_into(batch);
        }
    }
}
