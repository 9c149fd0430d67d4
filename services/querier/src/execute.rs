//! The story of a question: find → admit → divide → dispatch → merge.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{self, BoxFuture};
use memory::{Lease, Refused};
use query::{Charge, Kind, Partial, Query, Stats};
use rpc::{ErrorKind, FindRequest, Missing, Snapshot};
use tokio::sync::SemaphorePermit;
use tracing::{debug, warn};

use crate::asker::Asker;
use crate::dispatch::Dispatch;
use crate::explain::Explained;
use crate::leaf::{no_room, refusal_of};
use crate::units::cost_of_all;
use crate::{Error, PLACES, Querier};

/// How often a question that found no room runs again without others, and the pause between.
const ALONE_TRIES_MAX: u32 = 3;
const ALONE_PAUSE: Duration = Duration::from_millis(250);

/// The merged answer, not yet finished, and what it took.
#[derive(Debug)]
pub struct Answered {
    pub partial: Partial,
    pub report: Report,
}

/// What a client may know of how its question was answered.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub stats: Stats,
    pub took: Duration,
    /// What the answer lacks.
    pub missing: Vec<Missing>,
    /// Given if nobody owned the catalog, or it lagged behind: the answer is of what was known this long ago.
    pub stale: Option<Duration>,
    /// If the client asked; one for each question that was answered.
    pub(crate) explained: Vec<Explained>,
    /// What the answer holds, until it was sent.
    pub(crate) memory: Lease,
}

/// A message of points or labels, and its bytes, beside what they are made of: so many times as large.
const MESSAGE_SIZES: u64 = 2;

impl Report {
    /// Charges for the message that is made of an answer of points or labels.
    pub(crate) fn charge_for_message(&self) -> Result<(), Error> {
        Ok(self.memory.grow(self.memory.bytes() * MESSAGE_SIZES)?)
    }

    /// That of several questions that are answered as one.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.stats.merge(other.stats);
        self.took = self.took.max(other.took);
        let new = other.missing.into_iter().filter(|lack| !self.missing.contains(lack));
        let new: Vec<Missing> = new.collect();
        self.missing.extend(new);
        self.stale = self.stale.max(other.stale);
        self.explained.extend(other.explained);
        self.memory.absorb(other.memory);
        self
    }
}

impl Querier {
    /// Answers one question.
    ///
    /// # Errors
    /// It is refused, takes too long, or a role that it needs cannot answer.
    pub async fn execute(&self, asker: &Asker, query: Query) -> Result<Answered, Error> {
        let (answer, report) =
            self.execute_and(asker, query, |answer, _| future::ready(Ok(answer)).boxed()).await?;
        let partial = Partial { answer, stats: report.stats, charge: Charge::default() };
        Ok(Answered { partial, report })
    }

    /// Answers one question, and makes of the answer what is sent. `finish` charges the lease that it is given, which
    /// holds the answer; where that finds no room beside other questions, all of it is done again without them.
    ///
    /// # Errors
    /// As [`Self::execute`].
    pub(crate) async fn execute_and<T: Send>(
        &self,
        asker: &Asker,
        query: Query,
        finish: impl Fn(query::Answer, Lease) -> BoxFuture<'static, Result<T, Refused>> + Sync,
    ) -> Result<(T, Report), Error> {
        let started = self.clock.monotonic();
        let kind = kind_name(&query.kind);
        let limit = Duration::from_nanos(self.config.query_timeout.nanos().max(0) as u64);
        // Whichever is over first: the client's patience, or ours.
        let own = (!limit.is_zero()).then(|| started.saturating_add(limit));
        let deadline = [own, asker.deadline].into_iter().flatten().min();
        let answer = self.answer(asker, &query, deadline, &finish);
        let answered = match deadline {
            None => answer.await,
            Some(deadline) => {
                let left = deadline.saturating_sub(started);
                self.clock.timeout(left, answer).await.unwrap_or(Err(Error::Deadline { limit: left }))
            }
        };
        let took = self.clock.monotonic().saturating_sub(started);
        self.metrics.finished(kind, answered.is_ok(), took);
        let (answer, mut report) = answered?;
        report.took = took;
        self.metrics.used(&report.stats);
        if !report.missing.is_empty() {
            self.metrics.partial();
        }
        if report.stale.is_some() {
            self.metrics.stale();
        }
        for explained in &mut report.explained {
            explained.kind = kind;
            explained.took = took;
            explained.stats = report.stats;
            explained.missing.clone_from(&report.missing);
        }
        Ok((answer, report))
    }

    async fn answer<T: Send>(
        &self,
        asker: &Asker,
        query: &Query,
        deadline: Option<Duration>,
        finish: &(impl Fn(query::Answer, Lease) -> BoxFuture<'static, Result<T, Refused>> + Sync),
    ) -> Result<(T, Report), Error> {
        let mut explained = asker.explain.then(Explained::default);
        let mut dispatch = Dispatch::new(self, query, deadline);
        let mut permit = None;
        let mut alone = 0;
        loop {
            let began = self.clock.monotonic();
            let snapshot = self.find(asker, query).await?;
            let found = self.clock.monotonic();
            let cost = cost_of_all(query, &snapshot.objects);
            if permit.is_none() {
                let admitted = self.admission.enter(asker.tenants(), cost).await?;
                permit = Some((admitted, self.metrics.started()));
            }
            let place = self.take_places(query, alone > 0).await?;
            let admitted = self.clock.monotonic();
            if let Some(explained) = &mut explained {
                explained.find += found.saturating_sub(began);
                explained.admit += admitted.saturating_sub(found);
                explained.found(&snapshot, cost);
            }
            let Snapshot { objects, quarantined, stale, .. } = snapshot;
            let result = match dispatch.run(objects, explained.as_mut()).await {
                Ok((Partial { answer, stats, charge }, missing)) => {
                    let memory = charge.into_lease();
                    let finished = finish(answer, memory.clone()).await;
                    let finished = finished.map_err(|refused| no_room(&refused).into());
                    finished.map(|answer| (answer, missing, Report { stats, memory, ..Report::default() }))
                }
                Err(error) => Err(error),
            };
            let scanned = self.clock.monotonic();
            if let Some(explained) = &mut explained {
                explained.scan += scanned.saturating_sub(admitted);
            }
            match result {
                Err(Error::Role(error)) if alone < ALONE_TRIES_MAX && may_fit_alone(&error) => {
                    debug!(%error, "a question found no room beside others, it runs again without them");
                    // Its partials are gone, and with them what they held.
                    dispatch.memory = self.memory.account();
                    drop(place);
                    if alone > 0 {
                        // Answers that are being sent hold memory, too.
                        self.clock.sleep(ALONE_PAUSE).await;
                    }
                    alone += 1;
                    if let Some(explained) = &mut explained {
                        explained.start_over();
                    }
                }
                Err(Error::Role(error)) if error.kind == ErrorKind::NotFound && !dispatch.skip_gone => {
                    // Partials of the old snapshot are gone with the result.
                    dispatch.skip_gone = true;
                    self.metrics.started_over();
                    if let Some(explained) = &mut explained {
                        explained.start_over();
                    }
                }
                result => {
                    let (answer, mut missing, report) = result?;
                    if let Some(Missing { key, reason, .. }) = missing.first() {
                        warn!(objects = missing.len(), first = %key, reason, "an answer lacks what could not be read");
                    }
                    self.damage.tell(&self.metastore, &missing);
                    let known = quarantined.into_iter();
                    missing.extend(known.map(|(key, reason)| Missing { key, reason, is_damaged: false }));
                    let explained = explained.into_iter().collect();
                    return Ok((answer, Report { missing, stale, explained, ..report }));
                }
            }
        }
    }

    /// One place, or all of them: then no other question that needs memory runs.
    async fn take_places(&self, query: &Query, all: bool) -> Result<Option<SemaphorePermit<'_>>, Error> {
        let places = if all { PLACES } else { 1 };
        match query.needs().samples {
            // Waiting behind one that runs alone would take longer than what they hold is worth.
            false if !all => Ok(None),
            _ => {
                let taken = self.places.acquire_many(places).await;
                taken.map(Some).map_err(|_| Error::Internal("the querier has stopped".into()))
            }
        }
    }

    /// One snapshot of the catalog, never of an earlier owner than one that answered before.
    pub(crate) async fn find(&self, asker: &Asker, query: &Query) -> Result<Snapshot, Error> {
        let request = FindRequest {
            tenants: asker.tenants().to_vec(),
            range: query.range,
            services: query.selector.services(),
            profile_type: query.profile_type.clone(),
            explain: asker.explain,
        };
        let snapshot = self.metastore.find(request).await?;
        let newest = self.newest_epoch.fetch_max(snapshot.epoch, Ordering::Relaxed);
        if snapshot.epoch < newest {
            let what = format!(
                "the catalog's owner of epoch {} answered, but that of epoch {newest} did before",
                snapshot.epoch
            );
            return Err(rpc::Error::new(ErrorKind::Unavailable, what).into());
        }
        Ok(snapshot)
    }
}

/// Whether a question that was refused for want of memory has a chance without others.
fn may_fit_alone(error: &rpc::Error) -> bool {
    let is_without_others = refusal_of(error).is_some_and(|refused| refused.others == 0);
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
