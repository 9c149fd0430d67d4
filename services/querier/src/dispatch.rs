//! Asks leaves for units, merges what they answer.
//!
//! Owns: asking again elsewhere, asking twice what is slow, what is missing in the end, what it took.
//! Does not own: which unit belongs to whom (`units`), when a unit is slow (`hedge`).
//!
//! Nothing is spawned: whoever drops the future drops every call.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use futures::stream::{self, StreamExt};
use hashbrown::HashSet;
use memory::Account;
use parking_lot::Mutex;
use query::{Partial, Query};
use rpc::{ErrorKind, Found, Missing, ScanRequest, Scanned};
use storage::Key;

use crate::explain::{Explained, UnitExplained};
use crate::leaf::{no_room, unmergeable};
use crate::leaves::NamedLeaf;
use crate::units::{Unit, divide};
use crate::{Error, Querier};

/// Units of one question that each leaf works on at once, on average.
const UNITS_PER_LEAF: usize = 2;

/// One question on its way through the leaves.
pub(crate) struct Dispatch<'a> {
    pub(crate) querier: &'a Querier,
    pub(crate) query: &'a Query,
    /// When the answer is of no use any more, on the scale of `Clock::monotonic`.
    pub(crate) deadline: Option<Duration>,
    /// A new snapshot did not help: what is gone is missing.
    pub(crate) skip_gone: bool,
    /// What the question holds in this process.
    pub(crate) memory: Account,
    leaves: Arc<[NamedLeaf]>,
    /// Places of leaves that failed this question; they are asked last.
    failed: Mutex<HashSet<usize>>,
}

/// A unit that was answered, or that nobody could answer.
struct Done {
    scanned: Option<Scanned>,
    missing: Vec<Missing>,
    told: UnitExplained,
}

/// Both leaves' reasons, if there are two.
struct Refused {
    first: rpc::Error,
    place: usize,
}

impl<'a> Dispatch<'a> {
    pub(crate) fn new(querier: &'a Querier, query: &'a Query, deadline: Option<Duration>) -> Self {
        let leaves = querier.leaves.leaves();
        let memory = querier.memory.account();
        Self { querier, query, deadline, skip_gone: false, memory, leaves, failed: Mutex::default() }
    }

    /// The merged answer of `objects`, and what is missing of it.
    ///
    /// # Errors
    /// `NotFound` if the snapshot is too old. `Unavailable` if no object could be read, and nothing is known without.
    pub(crate) async fn run(
        &self,
        objects: Vec<Found>,
        mut explained: Option<&mut Explained>,
    ) -> Result<(Partial, Vec<Missing>), Error> {
        let clock = &self.querier.clock;
        let mut keys: HashSet<Key> = objects.iter().map(|object| object.key.clone()).collect();
        let count = keys.len();
        let units = divide(self.query, objects, &self.leaves)?;
        let at_once = (self.leaves.len() * UNITS_PER_LEAF).max(1);
        let explain = explained.is_some();
        let mut done = stream::iter(units).map(|unit| self.unit(unit, explain)).buffer_unordered(at_once);
        let mut merged = Partial::empty(self.query);
        let mut missing = Vec::new();
        while let Some(unit) = done.next().await {
            let Done { scanned, missing: lacks, told } = unit?;
            missing.extend(lacks);
            let began = clock.monotonic();
            if let Some(Scanned { partial, missing: lacks, .. }) = scanned {
                missing.extend(lacks);
                // One that came from another process is not charged for here yet.
                let partial = match partial.is_charged() {
                    true => partial,
                    false => partial.charged_to(&self.memory).map_err(|refused| no_room(&refused))?,
                };
                merged = self.join(merged, partial).await?;
            }
            if let Some(explained) = explained.as_deref_mut() {
                explained.merge(told, clock.monotonic().saturating_sub(began));
            }
        }
        if merged.stats.objects == 0
            && merged.says_nothing()
            && let Some(first) = missing.first()
        {
            let lacking: HashSet<&Key> = missing.iter().map(|lack| &lack.key).collect();
            keys.retain(|key| !lacking.contains(key));
            if keys.is_empty() {
                // The next question is not to fail of a damaged object again.
                self.querier.damage.tell(&self.querier.metastore, &missing);
                let what = format!("none of {count} objects could be read; {}: {}", first.key, first.reason);
                return Err(rpc::Error::new(ErrorKind::Unavailable, what).into());
            }
        }
        Ok((merged, missing))
    }

    async fn join(&self, mut merged: Partial, partial: Partial) -> Result<Partial, Error> {
        match merged.is_heavy() {
            false => {
                merged.merge(partial).map_err(unmergeable)?;
                Ok(merged)
            }
            true => {
                let joined = self.querier.pool.run(move || merged.merge(partial).map(|()| merged)).await;
                Ok(joined.map_err(unmergeable)?)
            }
        }
    }

    /// Asks for one unit until it is answered or nobody is left to ask.
    async fn unit(&self, mut unit: Unit, explain: bool) -> Result<Done, Error> {
        let clock = &self.querier.clock;
        if let Some(second) = unit.second
            && self.failed.lock().contains(&unit.first)
        {
            unit.second = Some(std::mem::replace(&mut unit.first, second));
        }
        let mut told = UnitExplained::new(&unit);
        let began = clock.monotonic();
        let answer = self.ask_around(&unit, explain, &mut told).await;
        told.took = clock.monotonic().saturating_sub(began);
        match answer {
            Ok((place, scanned)) => {
                self.querier.hedging.took(unit.bytes, told.took);
                told.answered(&self.leaves[place].0, &scanned);
                Ok(Done { scanned: Some(scanned), missing: Vec::new(), told })
            }
            Err(error) if is_final(error.kind) => Err(error.into()),
            // An answer without it would be taken for one that lacks damaged objects.
            Err(error) if matches!(error.kind, ErrorKind::Exhausted { .. }) => Err(error.into()),
            Err(error) if self.deadline.is_some_and(|deadline| deadline <= clock.monotonic()) => {
                Err(error.into())
            }
            Err(error) => {
                let reason = error.to_string();
                let lacks =
                    |object: Found| Missing { key: object.key, reason: reason.clone(), is_damaged: false };
                let missing = unit.objects.into_iter().map(lacks).collect();
                Ok(Done { scanned: None, missing, told })
            }
        }
    }

    /// The first answer counts; a call that is not needed any more is dropped.
    async fn ask_around(
        &self,
        unit: &Unit,
        explain: bool,
        told: &mut UnitExplained,
    ) -> Result<(usize, Scanned), rpc::Error> {
        let querier = self.querier;
        let Some(second) = unit.second else {
            return self.ask(unit, unit.first, true, explain).await.map_err(|refused| refused.first);
        };
        let mut first = pin!(self.ask(unit, unit.first, false, explain));
        let delay = querier.hedging.delay(unit.bytes);
        let early = match querier.clock.timeout(delay, first.as_mut()).await {
            None if querier.hedging.pay() => {
                querier.metrics.hedged();
                told.hedged = true;
                let hedge = pin!(self.ask(unit, second, false, explain));
                // Whichever fails leaves the other to answer.
                return match select(first, hedge).await {
                    Either::Left((Err(refused), other)) if !is_final(refused.first.kind) => {
                        self.or_both(refused, other.await, told)
                    }
                    Either::Right((Err(refused), other)) if !is_final(refused.first.kind) => {
                        self.or_both(refused, other.await, told)
                    }
                    Either::Left((answer, _)) => answer.map_err(|refused| refused.first),
                    Either::Right((answer, _)) => {
                        querier.metrics.hedge_won();
                        answer.map_err(|refused| refused.first)
                    }
                };
            }
            None => first.await,
            Some(answer) => answer,
        };
        match early {
            Err(refused) if !is_final(refused.first.kind) => {
                querier.metrics.asked_elsewhere();
                told.retried = Some(refused.first.to_string());
                let again = self.ask(unit, second, true, explain).await;
                self.or_both(refused, again, told)
            }
            answer => answer.map_err(|refused| refused.first),
        }
    }

    /// `second`, and if that is a refusal, too, what both said.
    fn or_both(
        &self,
        refused: Refused,
        second: Result<(usize, Scanned), Refused>,
        told: &mut UnitExplained,
    ) -> Result<(usize, Scanned), rpc::Error> {
        told.retried = Some(refused.first.to_string());
        second.map_err(|again| match is_final(again.first.kind) {
            true => again.first,
            false => {
                let name = |place: usize| &self.leaves[place].0;
                let what = format!(
                    "{}: {}; {}: {}",
                    name(refused.place),
                    refused.first,
                    name(again.place),
                    again.first
                );
                rpc::Error::new(again.first.kind, what)
            }
        })
    }

    async fn ask(
        &self,
        unit: &Unit,
        place: usize,
        is_last: bool,
        explain: bool,
    ) -> Result<(usize, Scanned), Refused> {
        let now = self.querier.clock.monotonic();
        let request = ScanRequest {
            query: self.query.clone(),
            objects: unit.objects.clone(),
            time_left: self.deadline.map(|deadline| deadline.saturating_sub(now)),
            skip_gone: self.skip_gone,
            skip_unavailable: is_last,
            explain,
            memory: self.memory.clone(),
        };
        match self.leaves[place].1.scan(request).await {
            Ok(scanned) => Ok((place, scanned)),
            Err(first) => {
                if !is_final(first.kind) {
                    self.failed.lock().insert(place);
                }
                Err(Refused { first, place })
            }
        }
    }
}

/// Whether nobody else would say anything better.
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
