//! The story of a question: admit → find → plan → dispatch → merge.

use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use model::TenantId;
use query::{Kind, Partial, Query, Stats};
use rpc::{ErrorKind, FindRequest, Found, ScanRequest, Snapshot};

use crate::leaves::{NamedLeaf, rank};
use crate::{Error, Querier};

/// The merged answer, not yet finished, and what it took.
pub struct Answered {
    pub partial: Partial,
    pub report: Report,
}

/// What a client may know of how its question was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    pub stats: Stats,
    pub took: Duration,
    /// Objects in range that could not be read.
    pub missing: usize,
}

impl Report {
    /// That of several questions that are answered as one.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.stats.merge(other.stats);
        self.took = self.took.max(other.took);
        self.missing = self.missing.max(other.missing);
        self
    }
}

impl Querier {
    /// Answers one question of `tenants` together.
    ///
    /// # Errors
    /// It is refused, takes too long, or a role that it needs cannot answer.
    pub async fn execute(&self, tenants: &[TenantId], query: Query) -> Result<Answered, Error> {
        let started = self.clock.monotonic();
        let kind = kind_name(&query.kind);
        let limit = Duration::from_nanos(self.config.query_timeout.nanos().max(0) as u64);
        let answered = async {
            let _turn = self.admission.enter().await?;
            let _running = self.metrics.started();
            self.answer(tenants, &query).await
        };
        let answered = match limit.is_zero() {
            true => answered.await,
            false => match self.clock.timeout(limit, answered).await {
                Some(answered) => answered,
                None => Err(Error::Deadline { limit }),
            },
        };
        let took = self.clock.monotonic().saturating_sub(started);
        self.metrics.finished(kind, answered.is_ok(), took);
        let (partial, missing) = answered?;
        self.metrics.used(&partial.stats);
        if missing > 0 {
            self.metrics.partial();
        }
        let report = Report { stats: partial.stats, took, missing };
        Ok(Answered { partial, report })
    }

    /// Gives the merged answer and how many objects it lacks.
    async fn answer(&self, tenants: &[TenantId], query: &Query) -> Result<(Partial, usize), Error> {
        let mut started_over = false;
        loop {
            let snapshot = self.find(tenants, query).await?;
            let missing = snapshot.quarantined.len();
            match self.dispatch(query, snapshot).await {
                Err(Error::Role(error)) if error.kind == ErrorKind::NotFound && !started_over => {
                    started_over = true;
                    self.metrics.retried();
                }
                partial => return Ok((partial?, missing)),
            }
        }
    }

    pub(crate) async fn find(&self, tenants: &[TenantId], query: &Query) -> Result<Snapshot, Error> {
        let request = FindRequest {
            tenants: tenants.to_vec(),
            range: query.range,
            services: query.selector.services(),
            profile_type: query.profile_type.clone(),
        };
        Ok(self.metastore.find(request).await?)
    }

    async fn dispatch(&self, query: &Query, snapshot: Snapshot) -> Result<Partial, Error> {
        let leaves = self.leaves.leaves();
        let mut scans: FuturesUnordered<_> = plan(snapshot.objects, &leaves)?
            .into_iter()
            .enumerate()
            .filter(|(_, objects)| !objects.is_empty())
            .map(|(leaf, objects)| leaves[leaf].1.scan(ScanRequest { query: query.clone(), objects }))
            .collect();
        let mut merged = Partial::empty(query);
        while let Some(partial) = scans.next().await {
            merged.merge(partial?)?;
        }
        Ok(merged)
    }
}

/// What each leaf scans.
fn plan(objects: Vec<Found>, leaves: &[NamedLeaf]) -> Result<Vec<Vec<Found>>, rpc::Error> {
    let mut plan: Vec<Vec<Found>> = leaves.iter().map(|_| Vec::new()).collect();
    for object in objects {
        let Some(leaf) = rank(object.key.as_str(), leaves).first().copied() else {
            return Err(rpc::Error::new(ErrorKind::Unavailable, "no querier is there to scan"));
        };
        plan[leaf].push(object);
    }
    Ok(plan)
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
