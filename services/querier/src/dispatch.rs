//! Asks leaves for the units of a query, and merges their answers.
//!
//! Owns: asking the second leaf when the first fails or is slow, the missing objects, the explanation of each unit.
//! Does not own: which leaves a unit belongs to (`units`), when a unit is slow (`hedge`).
//!
//! Nothing is spawned: dropping the future drops every call.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use futures::stream::{self, StreamExt};
use hashbrown::HashSet;
use memory::Account;
use parking_lot::Mutex;
use query::{Partial, Query};
use rpc::{ErrorKind, FoundObject, Missing, ScanAnswer, ScanRequest};
use storage::Key;

use crate::explain::UnitExplanation;
use crate::leaves::NamedLeaf;
use crate::reason::{no_memory, unmergeable};
use crate::trace::Trace;
use crate::units::{Unit, divide};
use crate::{Error, Querier};

/// Units of one query that each leaf works on at once, on average.
const UNITS_PER_LEAF: usize = 2;

/// The calls to leaves that one query makes.
pub(crate) struct Dispatch<'a> {
    querier: &'a Querier,
    query: &'a Query,
    /// After this the answer is useless, on the scale of `Clock::monotonic`.
    deadline: Option<Duration>,
    /// Whether leaves measure their effort.
    explain: bool,
    /// Set once a snapshot was too old: objects that are gone from the next one count as missing.
    pub(crate) skip_gone: bool,
    /// Memory that the query holds in this process.
    pub(crate) memory: Account,
    leaves: Arc<[NamedLeaf]>,
    /// Indices of the leaves that failed this query; they are asked last.
    failed: Mutex<HashSet<usize>>,
}

/// The outcome of asking one leaf for one unit.
type Attempt = Result<Reply, Failure>;

struct Reply {
    leaf: usize,
    scanned: ScanAnswer,
}

struct Failure {
    leaf: usize,
    error: rpc::Error,
}

impl Failure {
    /// True if asking another leaf cannot help.
    fn is_final(&self) -> bool {
        is_final(self.error.kind)
    }
}

/// The outcome of a unit: a partial, or all of its objects as missing if no leaf answered.
struct UnitResult {
    partial: Option<Partial>,
    missing: Vec<Missing>,
    explanation: UnitExplanation,
}

impl<'a> Dispatch<'a> {
    pub(crate) fn new(
        querier: &'a Querier,
        query: &'a Query,
        deadline: Option<Duration>,
        explain: bool,
    ) -> Self {
        let leaves = querier.leaves.leaves();
        let memory = querier.memory.account();
        let failed = Mutex::default();
        Self { querier, query, deadline, explain, skip_gone: false, memory, leaves, failed }
    }

    /// Returns the merged answer of `objects`, and those that are missing from it.
    ///
    /// # Errors
    /// `NotFound` if the snapshot is too old. `Unavailable` if no object could be read and the answer is empty.
    pub(crate) async fn run(
        &self,
        objects: Vec<FoundObject>,
        trace: &mut Trace,
    ) -> Result<(Partial, Vec<Missing>), Error> {
        let clock = &self.querier.clock;
        let keys: HashSet<Key> = objects.iter().map(|object| object.key.clone()).collect();
        let units = divide(self.query, objects, &self.leaves)?;
        let concurrency = (self.leaves.len() * UNITS_PER_LEAF).max(1);
        let mut results = stream::iter(units).map(|unit| self.unit(unit)).buffer_unordered(concurrency);
        let mut merged = Partial::empty(self.query);
        let mut missing = Vec::new();
        while let Some(result) = results.next().await {
            let unit = result?;
            missing.extend(unit.missing);
            let began = clock.monotonic();
            if let Some(partial) = unit.partial {
                merged = self.merge(merged, partial).await?;
            }
            trace.unit(unit.explanation, clock.monotonic().saturating_sub(began));
        }
        self.refuse_empty(keys, &merged, &missing)?;
        Ok((merged, missing))
    }

    async fn merge(&self, mut merged: Partial, partial: Partial) -> Result<Partial, Error> {
        // A partial from another process is not charged to this one yet.
        let partial = match partial.is_charged() {
            true => partial,
            false => partial.charged_to(&self.memory).map_err(|refusal| no_memory(&refusal))?,
        };
        let result = match merged.is_heavy() {
            false => merged.merge(partial).map(|()| merged),
            true => self.querier.pool.run(move || merged.merge(partial).map(|()| merged)).await,
        };
        Ok(result.map_err(unmergeable)?)
    }

    /// Fails if every object is missing and the answer is empty.
    fn refuse_empty(
        &self,
        mut keys: HashSet<Key>,
        merged: &Partial,
        missing: &[Missing],
    ) -> Result<(), Error> {
        let Some(first) = missing.first() else { return Ok(()) };
        if merged.stats.objects > 0 || !merged.says_nothing() {
            return Ok(());
        }
        let count = keys.len();
        missing.iter().for_each(|object| {
            keys.remove(&object.key);
        });
        if !keys.is_empty() {
            return Ok(());
        }
        // So that the next query does not fail because of the same damaged objects.
        self.querier.damage.report(&self.querier.metastore, missing);
        let text = format!("none of {count} objects could be read; {}: {}", first.key, first.reason);
        Err(rpc::Error::new(ErrorKind::Unavailable, text).into())
    }

    /// Asks the first leaf of a unit and, if needed, the second; never a third.
    async fn unit(&self, mut unit: Unit) -> Result<UnitResult, Error> {
        let clock = &self.querier.clock;
        if let Some(second) = unit.second
            && self.failed.lock().contains(&unit.first)
        {
            unit.second = Some(std::mem::replace(&mut unit.first, second));
        }
        let mut explanation = UnitExplanation::new(&unit);
        let began = clock.monotonic();
        let reply = self.ask(&unit, &mut explanation).await;
        explanation.took = clock.monotonic().saturating_sub(began);
        match reply {
            Ok(Reply { leaf, scanned }) => {
                self.querier.hedging.took(unit.bytes, explanation.took);
                explanation.answered(&self.leaves[leaf].0, &scanned);
                let ScanAnswer { partial, missing, .. } = scanned;
                Ok(UnitResult { partial: Some(partial), missing, explanation })
            }
            Err(error) if is_final(error.kind) => Err(error.into()),
            // An answer without the unit would look as if its objects were damaged.
            Err(error) if matches!(error.kind, ErrorKind::Exhausted { .. }) => Err(error.into()),
            Err(error) if self.deadline.is_some_and(|deadline| deadline <= clock.monotonic()) => {
                Err(error.into())
            }
            Err(error) => {
                let reason = error.to_string();
                let unread = |object: FoundObject| Missing {
                    key: object.key,
                    reason: reason.clone(),
                    is_damaged: false,
                };
                let missing = unit.objects.into_iter().map(unread).collect();
                Ok(UnitResult { partial: None, missing, explanation })
            }
        }
    }

    /// Asks the first leaf; the second as well if the first is slow, or instead if the first fails.
    async fn ask(&self, unit: &Unit, explanation: &mut UnitExplanation) -> Result<Reply, rpc::Error> {
        let querier = self.querier;
        let Some(second_leaf) = unit.second else {
            return self.attempt(unit, unit.first, true).await.map_err(|failure| failure.error);
        };
        let mut first = pin!(self.attempt(unit, unit.first, false));
        let delay = querier.hedging.delay(unit.bytes);
        let first = match querier.clock.timeout(delay, first.as_mut()).await {
            Some(first) => first,
            None if querier.hedging.pay() => {
                querier.metrics.hedged();
                explanation.hedged = true;
                let second = pin!(self.attempt(unit, second_leaf, false));
                return self.first_of_both(first, second, explanation).await;
            }
            None => first.await,
        };
        match first {
            Err(failure) if !failure.is_final() => {
                self.retry_on_second_leaf(unit, second_leaf, failure, explanation).await
            }
            first => first.map_err(|failure| failure.error),
        }
    }

    /// The first reply of two attempts that run at once; the other one is dropped. If one fails, the other still counts.
    async fn first_of_both(
        &self,
        first: impl Future<Output = Attempt> + Unpin,
        second: impl Future<Output = Attempt> + Unpin,
        explanation: &mut UnitExplanation,
    ) -> Result<Reply, rpc::Error> {
        match select(first, second).await {
            Either::Left((Err(failure), second)) if !failure.is_final() => {
                self.after_failure(failure, second.await, explanation)
            }
            Either::Right((Err(failure), first)) if !failure.is_final() => {
                self.after_failure(failure, first.await, explanation)
            }
            Either::Left((first, _)) => first.map_err(|failure| failure.error),
            Either::Right((second, _)) => {
                self.querier.metrics.hedge_won();
                second.map_err(|failure| failure.error)
            }
        }
    }

    async fn retry_on_second_leaf(
        &self,
        unit: &Unit,
        second_leaf: usize,
        first: Failure,
        explanation: &mut UnitExplanation,
    ) -> Result<Reply, rpc::Error> {
        self.querier.metrics.asked_elsewhere();
        let second = self.attempt(unit, second_leaf, true).await;
        self.after_failure(first, second, explanation)
    }

    /// The reply of the remaining attempt. If that failed as well, an error with the text of both.
    fn after_failure(
        &self,
        failure: Failure,
        remaining: Attempt,
        explanation: &mut UnitExplanation,
    ) -> Result<Reply, rpc::Error> {
        explanation.retried = Some(failure.error.to_string());
        remaining.map_err(|remaining| match remaining.is_final() {
            true => remaining.error,
            false => {
                let text = |failure: &Failure| format!("{}: {}", self.leaves[failure.leaf].0, failure.error);
                let both = format!("{}; {}", text(&failure), text(&remaining));
                rpc::Error::new(remaining.error.kind, both)
            }
        })
    }

    /// Asks one leaf once. `is_last`: no other leaf will be asked, so this one skips objects that the store does not
    /// return.
    async fn attempt(&self, unit: &Unit, leaf: usize, is_last: bool) -> Attempt {
        let now = self.querier.clock.monotonic();
        let request = ScanRequest {
            query: self.query.clone(),
            objects: unit.objects.clone(),
            time_left: self.deadline.map(|deadline| deadline.saturating_sub(now)),
            skip_gone: self.skip_gone,
            skip_unavailable: is_last,
            explain: self.explain,
            memory: self.memory.clone(),
        };
        match self.leaves[leaf].1.scan(request).await {
            Ok(scanned) => Ok(Reply { leaf, scanned }),
            Err(error) => {
                if !is_final(error.kind) {
                    self.failed.lock().insert(leaf);
                }
                Err(Failure { leaf, error })
            }
        }
    }
}

/// True if asking another leaf cannot help.
fn is_final(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::NotFound | ErrorKind::InvalidArgument | ErrorKind::TooLarge => true,
        ErrorKind::Exhausted { .. }
        | ErrorKind::Unavailable
        | ErrorKind::DeadlineExceeded
        | ErrorKind::Corrupt
        | ErrorKind::Internal => false,
    }
}
