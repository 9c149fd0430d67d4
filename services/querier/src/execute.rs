//! The story of a question: find → admit → divide → dispatch → merge.

use std::sync::atomic::Ordering;
use std::time::Duration;

use query::{Kind, Partial, Query, Stats};
use rpc::{ErrorKind, FindRequest, Missing, Snapshot};
use tracing::warn;

use crate::asker::Asker;
use crate::dispatch::Dispatch;
use crate::explain::Explained;
use crate::units::cost_of_all;
use crate::{Error, Querier};

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
}

impl Report {
    /// That of several questions that are answered as one.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.stats.merge(other.stats);
        self.took = self.took.max(other.took);
        let new = other.missing.into_iter().filter(|lack| !self.missing.contains(lack));
        let new: Vec<Missing> = new.collect();
        self.missing.extend(new);
        self.stale = self.stale.max(other.stale);
        self.explained.extend(other.explained);
        self
    }
}

impl Querier {
    /// Answers one question.
    ///
    /// # Errors
    /// It is refused, takes too long, or a role that it needs cannot answer.
    pub async fn execute(&self, asker: &Asker, query: Query) -> Result<Answered, Error> {
        let started = self.clock.monotonic();
        let kind = kind_name(&query.kind);
        let limit = Duration::from_nanos(self.config.query_timeout.nanos().max(0) as u64);
        // Whichever is over first: the client's patience, or ours.
        let own = (!limit.is_zero()).then(|| started.saturating_add(limit));
        let deadline = [own, asker.deadline].into_iter().flatten().min();
        let answer = self.answer(asker, &query, deadline);
        let answered = match deadline {
            None => answer.await,
            Some(deadline) => {
                let left = deadline.saturating_sub(started);
                self.clock.timeout(left, answer).await.unwrap_or(Err(Error::Deadline { limit: left }))
            }
        };
        let took = self.clock.monotonic().saturating_sub(started);
        self.metrics.finished(kind, answered.is_ok(), took);
        let mut answered = answered?;
        let report = &mut answered.report;
        report.took = took;
        report.stats = answered.partial.stats;
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
        Ok(answered)
    }

    async fn answer(
        &self,
        asker: &Asker,
        query: &Query,
        deadline: Option<Duration>,
    ) -> Result<Answered, Error> {
        let mut explained = asker.explain.then(Explained::default);
        let mut dispatch = Dispatch::new(self, query, deadline);
        let mut turn = None;
        loop {
            let began = self.clock.monotonic();
            let snapshot = self.find(asker, query).await?;
            let found = self.clock.monotonic();
            let cost = cost_of_all(query, &snapshot.objects);
            if turn.is_none() {
                let admitted = self.admission.enter(asker.tenants(), cost).await?;
                turn = Some((admitted, self.metrics.started()));
            }
            let admitted = self.clock.monotonic();
            if let Some(explained) = &mut explained {
                explained.find += found.saturating_sub(began);
                explained.admit += admitted.saturating_sub(found);
                explained.found(&snapshot, cost);
            }
            let Snapshot { objects, quarantined, stale, .. } = snapshot;
            let result = dispatch.run(objects, explained.as_mut()).await;
            let scanned = self.clock.monotonic();
            if let Some(explained) = &mut explained {
                explained.scan += scanned.saturating_sub(admitted);
            }
            match result {
                Err(Error::Role(error)) if error.kind == ErrorKind::NotFound && !dispatch.skip_gone => {
                    // Partials of the old snapshot are gone with the result.
                    dispatch.skip_gone = true;
                    self.metrics.started_over();
                    if let Some(explained) = &mut explained {
                        explained.start_over();
                    }
                }
                result => {
                    let (partial, mut missing) = result?;
                    if let Some(Missing { key, reason, .. }) = missing.first() {
                        warn!(objects = missing.len(), first = %key, reason, "an answer lacks what could not be read");
                    }
                    self.damage.tell(&self.metastore, &missing);
                    let known = quarantined.into_iter();
                    missing.extend(known.map(|(key, reason)| Missing { key, reason, is_damaged: false }));
                    let explained = explained.into_iter().collect();
                    let report = Report { missing, stale, explained, ..Report::default() };
                    return Ok(Answered { partial, report });
                }
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
