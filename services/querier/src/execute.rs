//! The story of a query: find → admit → divide → dispatch → merge → finish.
//!
//! Owns: the order of these steps, the deadline, running again with a newer snapshot or without other queries.
//! Does not own: which queries may run (`admit`), which leaf scans which object (`units`, `dispatch`), the
//! explanation of an answer (`trace`).

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{self, BoxFuture};
use memory::{Lease, Refusal};
use query::{Charge, Kind, Partial, Query, Stats};
use rpc::{ErrorKind, FindRequest, FoundObject, Missing, Snapshot};
use tokio::sync::SemaphorePermit;
use tracing::{debug, warn};

use crate::client::Client;
use crate::dispatch::Dispatch;
use crate::explain::Explanation;
use crate::reason::{no_memory, refusal_of};
use crate::trace::{Step, Trace};
use crate::units::cost_of_all;
use crate::{Error, MEMORY_SLOTS, Querier};

/// How often a query that found no memory runs again without others, and the pause before each try but the first.
const ALONE_TRIES_MAX: u32 = 3;
const ALONE_PAUSE: Duration = Duration::from_millis(250);

/// The merged answer, not yet finished, and its report.
#[derive(Debug)]
pub struct MergedAnswer {
    pub partial: Partial,
    pub report: Report,
}

/// How a query was answered.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub stats: Stats,
    pub took: Duration,
    /// Objects that are missing from the answer.
    pub missing: Vec<Missing>,
    /// Set if the catalog had no owner or lagged behind: the age of its knowledge.
    pub stale: Option<Duration>,
    /// If the client asked for it; one for each query that was answered.
    pub(crate) explanations: Vec<Explanation>,
    /// Memory of the answer, held until the answer is sent.
    pub(crate) memory: Lease,
}

/// Size of a message of points or labels and of its encoded bytes, relative to the answer that they are made of.
const MESSAGE_SIZES: u64 = 2;

impl Report {
    /// Charges for the message that is made of an answer of points or labels.
    pub(crate) fn charge_for_message(&self) -> Result<(), Error> {
        Ok(self.memory.grow(self.memory.bytes() * MESSAGE_SIZES)?)
    }

    /// The report of several queries that are answered together.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.stats.merge(other.stats);
        self.took = self.took.max(other.took);
        let new = other.missing.into_iter().filter(|object| !self.missing.contains(object));
        let new: Vec<Missing> = new.collect();
        self.missing.extend(new);
        self.stale = self.stale.max(other.stale);
        self.explanations.extend(other.explanations);
        self.memory.absorb(other.memory);
        self
    }

    /// Sets the fields that are known only when the query is answered.
    fn complete(&mut self, kind: &'static str, took: Duration) {
        self.took = took;
        for explanation in &mut self.explanations {
            explanation.complete(kind, took, self.stats, &self.missing);
        }
    }
}

impl Querier {
    /// Answers one query.
    ///
    /// # Errors
    /// The query is refused or takes too long, or a role that it needs cannot answer.
    pub async fn execute(&self, client: &Client, query: Query) -> Result<MergedAnswer, Error> {
        let (answer, report) =
            self.execute_and(client, query, |answer, _| future::ready(Ok(answer)).boxed()).await?;
        let partial = Partial { answer, stats: report.stats, charge: Charge::default() };
        Ok(MergedAnswer { partial, report })
    }

    /// Answers one query, and turns the answer into the message with `finish`, which charges the lease of the
    /// answer. If `finish` finds no memory while other queries run, the whole query runs again without them.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub(crate) async fn execute_and<T: Send>(
        &self,
        client: &Client,
        query: Query,
        finish: impl Fn(query::Answer, Lease) -> BoxFuture<'static, Result<T, Refusal>> + Sync,
    ) -> Result<(T, Report), Error> {
        let started = self.clock.monotonic();
        let kind = kind_name(&query.kind);
        let limit = Duration::from_nanos(self.config.query_timeout.nanos().max(0) as u64);
        // The earlier of the client's deadline and ours.
        let own = (!limit.is_zero()).then(|| started.saturating_add(limit));
        let deadline = [own, client.deadline].into_iter().flatten().min();
        let answer = self.answer(client, &query, deadline, &finish);
        let result = match deadline {
            None => answer.await,
            Some(deadline) => {
                let left = deadline.saturating_sub(started);
                self.clock.timeout(left, answer).await.unwrap_or(Err(Error::Deadline { limit: left }))
            }
        };
        let took = self.clock.monotonic().saturating_sub(started);
        self.metrics.finished(kind, result.is_ok(), took);
        let (answer, mut report) = result?;
        report.complete(kind, took);
        self.metrics.used(&report.stats);
        if !report.missing.is_empty() {
            self.metrics.partial();
        }
        if report.stale.is_some() {
            self.metrics.stale();
        }
        Ok((answer, report))
    }

    async fn answer<T: Send>(
        &self,
        client: &Client,
        query: &Query,
        deadline: Option<Duration>,
        finish: &(impl Fn(query::Answer, Lease) -> BoxFuture<'static, Result<T, Refusal>> + Sync),
    ) -> Result<(T, Report), Error> {
        let mut trace = Trace::new(&self.clock, client.explain);
        let mut dispatch = Dispatch::new(self, query, deadline, client.explain);
        let mut permit = None;
        let mut tries_alone = 0;
        loop {
            trace.start();
            let snapshot = self.find(client, query).await?;
            trace.step(Step::Find);
            let cost = cost_of_all(query, &snapshot.objects);
            trace.found(&snapshot, cost);
            if permit.is_none() {
                let admitted = self.admission.enter(client.tenants(), cost).await?;
                permit = Some((admitted, self.metrics.started()));
            }
            let slots = self.take_memory_slots(query, tries_alone > 0).await?;
            trace.step(Step::Admit);
            let Snapshot { objects, quarantined, stale, .. } = snapshot;
            let result = scan(&dispatch, objects, finish, &mut trace).await;
            trace.step(Step::Scan);
            match result {
                Err(Error::Role(error)) if tries_alone < ALONE_TRIES_MAX && may_fit_alone(&error) => {
                    debug!(%error, "a query found no memory while others ran; it runs again without them");
                    // The partials of this run are dropped, and the memory that they held is free.
                    dispatch.memory = self.memory.account();
                    drop(slots);
                    if tries_alone > 0 {
                        // Answers that are being sent hold memory, too.
                        self.clock.sleep(ALONE_PAUSE).await;
                    }
                    tries_alone += 1;
                    trace.start_over();
                }
                Err(Error::Role(error)) if error.kind == ErrorKind::NotFound && !dispatch.skip_gone => {
                    // The partials of the old snapshot are dropped with the result.
                    dispatch.skip_gone = true;
                    self.metrics.started_over();
                    trace.start_over();
                }
                result => {
                    let (answer, mut report) = result?;
                    self.report_missing(&report.missing);
                    let quarantined = quarantined.into_iter();
                    report.missing.extend(quarantined.map(|(key, reason)| Missing {
                        key,
                        reason,
                        is_damaged: false,
                    }));
                    report.stale = stale;
                    report.explanations.extend(trace.into_explanation());
                    return Ok((answer, report));
                }
            }
        }
    }

    /// Logs the objects that could not be read, and reports the damaged ones to the metastore.
    fn report_missing(&self, missing: &[Missing]) {
        if let Some(Missing { key, reason, .. }) = missing.first() {
            warn!(objects = missing.len(), first = %key, reason, "an answer lacks objects that could not be read");
        }
        self.damage.report(&self.metastore, missing);
    }

    /// Waits for one slot, or for all of them: then no other query that needs memory runs.
    async fn take_memory_slots(
        &self,
        query: &Query,
        is_alone: bool,
    ) -> Result<Option<SemaphorePermit<'_>>, Error> {
        // Without samples a query holds so little memory that it is not worth waiting behind one that runs alone.
        if !is_alone && !query.needs().samples {
            return Ok(None);
        }
        let slots = if is_alone { MEMORY_SLOTS } else { 1 };
        let taken = self.memory_slots.acquire_many(slots).await;
        taken.map(Some).map_err(|_| Error::Internal("the querier has stopped".into()))
    }

    /// Finds in the catalog. Fails if the owner that answers has a smaller epoch than one that answered earlier.
    pub(crate) async fn find(&self, client: &Client, query: &Query) -> Result<Snapshot, Error> {
        let request = FindRequest {
            tenants: client.tenants().to_vec(),
            range: query.range,
            services: query.selector.services(),
            profile_type: query.profile_type.clone(),
            explain: client.explain,
        };
        let snapshot = self.metastore.find(request).await?;
        let newest = self.newest_epoch.fetch_max(snapshot.epoch, Ordering::Relaxed);
        if snapshot.epoch < newest {
            let text = format!(
                "the catalog's owner of epoch {} answered, but that of epoch {newest} did before",
                snapshot.epoch
            );
            return Err(rpc::Error::new(ErrorKind::Unavailable, text).into());
        }
        Ok(snapshot)
    }
}

/// Scans the objects of one snapshot and finishes the merged answer.
async fn scan<T: Send>(
    dispatch: &Dispatch<'_>,
    objects: Vec<FoundObject>,
    finish: &(impl Fn(query::Answer, Lease) -> BoxFuture<'static, Result<T, Refusal>> + Sync),
    trace: &mut Trace,
) -> Result<(T, Report), Error> {
    let (Partial { answer, stats, charge }, missing) = dispatch.run(objects, trace).await?;
    let memory = charge.into_lease();
    let answer = finish(answer, memory.clone()).await.map_err(|refusal| no_memory(&refusal))?;
    Ok((answer, Report { stats, memory, missing, ..Report::default() }))
}

/// True if a query that was refused for lack of memory may fit when it runs without others.
fn may_fit_alone(error: &rpc::Error) -> bool {
    let is_without_others = refusal_of(error).is_some_and(|refusal| refusal.others == 0);
    matches!(error.kind, ErrorKind::Exhausted { .. }) && !is_without_others
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::MergeStacktraces(_) => "merge_stacktraces",
        Kind::MergeProfile(_) => "merge_profile",
        Kind::Series(_) => "series",
        Kind::Heatmap(_) => "heatmap",
        Kind::LabelNames => "label_names",
        Kind::LabelValues(_) => "label_values",
        Kind::SeriesLabels(_) => "series_labels",
        Kind::ProfileTypes => "profile_types",
    }
}
