//! Answers that can be merged: of one dataset, of one leaf, of all leaves.
//!
//! Owns: dispatch to the kinds of queries, the memory charge and the cost of an answer.
//! Does not own: the answers themselves ([`crate::kind`]).

use memory::{Account, Lease, Refusal};

use crate::cells::CellPart;
use crate::flamegraph::Part;
use crate::fold::{Dataset, FoldError, TooLarge};
use crate::kind::{heatmap, labels, merge_stacktraces, profile, series};
use crate::query::{Kind, Query};

/// A mergeable answer. Merging is associative, and, as clients see it, commutative.
#[derive(Debug)]
pub struct Partial {
    pub answer: Answer,
    pub stats: Stats,
    pub charge: Charge,
}

/// The memory charge of an answer. The default is not counted.
#[derive(Debug, Default)]
pub struct Charge {
    /// Holds, until the next measurement, the charges of merged answers too.
    lease: Lease,
    /// Bytes of the answer when it was last measured.
    measured: u64,
}

#[derive(Debug)]
pub enum Answer {
    MergeStacktraces(Vec<Part>),
    MergeProfile(Box<profile::MergedProfile>),
    Series(series::GroupedSeries),
    Heatmap(heatmap::Points),
    Labels(labels::FoundLabels),
}

/// The cost of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    pub objects: u64,
    pub datasets: u64,
    /// Datasets that cells answered, with or without rows for the edges.
    pub summed: u64,
    pub profiles: u64,
    /// Stacktraces with a value, of profiles or of cells.
    pub samples: u64,
    /// Bytes of the sections and columns that were used, encoded.
    pub bytes: u64,
}

/// Why two answers could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    #[error("the answer {0}; ask for a shorter time range or fewer series")]
    Memory(#[from] Refusal),
}

/// An answer that is slow to measure is measured again once its charge exceeds twice the last measurement plus this.
const MEASURE_BYTES: u64 = 1 << 20;

impl Charge {
    /// The lease, which must outlive the answer that is made from the partial.
    pub fn into_lease(self) -> Lease {
        self.lease
    }
}

impl Partial {
    /// The answer without any data.
    pub fn empty(query: &Query) -> Self {
        let answer = match &query.kind {
            Kind::MergeStacktraces(_) => Answer::MergeStacktraces(Vec::new()),
            Kind::MergeProfile(_) => Answer::MergeProfile(Box::default()),
            Kind::Series(_) => Answer::Series(series::GroupedSeries::default()),
            Kind::Heatmap(_) => Answer::Heatmap(heatmap::Points::default()),
            Kind::LabelNames | Kind::LabelValues(_) | Kind::SeriesLabels(_) | Kind::ProfileTypes => {
                Answer::Labels(labels::FoundLabels::default())
            }
        };
        Self { answer, stats: Stats::default(), charge: Charge::default() }
    }

    /// Charges the answer to `account`, from now on.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn charged_to(mut self, account: &Account) -> Result<Self, Refusal> {
        let lease = account.lease();
        let measured = self.answer.byte_len();
        lease.resize(measured)?;
        self.charge = Charge { lease, measured };
        Ok(self)
    }

    /// Adds one dataset.
    ///
    /// # Errors
    /// The answer would outgrow its limit or the available memory, or the samples are damaged.
    pub fn fold(&mut self, query: &Query, dataset: Dataset<'_>) -> Result<(), FoldError> {
        self.stats.datasets += 1;
        self.stats.profiles += dataset.selection.profiles();
        for part in dataset.cells {
            self.stats.profiles = self.stats.profiles.saturating_add(part.profiles());
        }
        if dataset.samples.is_some() {
            self.stats.samples += dataset.selection.rows(dataset.index);
            self.stats.samples += dataset.cells.iter().map(CellPart::rows).sum::<u64>();
        }
        self.stats.summed += u64::from(!dataset.cells.is_empty());
        match (&mut self.answer, &query.kind) {
            (Answer::MergeStacktraces(parts), Kind::MergeStacktraces(filter)) => {
                merge_stacktraces::fold(parts, filter, dataset)
            }
            (Answer::MergeProfile(merged), Kind::MergeProfile(parameters)) => {
                merged.fold(parameters, dataset)
            }
            (Answer::Series(grouped), Kind::Series(parameters)) => grouped.fold(parameters, dataset),
            (Answer::Heatmap(points), Kind::Heatmap(parameters)) => points.fold(parameters, dataset),
            (Answer::Labels(found), kind) => Ok(found.fold(kind, dataset)?),
            (answer, _) => Ok(unreachable_answer(answer)?),
        }
    }

    /// Whether the answer equals that without any data. Stacktraces whose values are all 0 count as data.
    pub fn says_nothing(&self) -> bool {
        match &self.answer {
            Answer::MergeStacktraces(parts) => parts.is_empty(),
            Answer::MergeProfile(merged) => merged.values.is_empty(),
            Answer::Series(grouped) => grouped.groups().next().is_none(),
            Answer::Heatmap(points) => points.as_slice().is_empty(),
            Answer::Labels(found) => found.texts.is_empty() && found.sets.is_empty(),
        }
    }

    /// Whether it is charged to an account.
    pub fn is_charged(&self) -> bool {
        self.charge.lease.is_counted()
    }

    /// Whether merging another answer into it takes noticeable time.
    pub fn is_heavy(&self) -> bool {
        matches!(&self.answer, Answer::MergeProfile(merged) if !merged.values.is_empty())
    }

    /// Merges two answers of one query.
    ///
    /// # Errors
    /// The answer would outgrow its limit or the available memory.
    pub fn merge(&mut self, other: Self) -> Result<(), MergeError> {
        self.stats.merge(other.stats);
        let Self { answer, charge, .. } = self;
        charge.lease.absorb(other.charge.lease);
        charge.measured = charge.measured.max(other.charge.measured);
        match (answer, other.answer) {
            (Answer::MergeStacktraces(parts), Answer::MergeStacktraces(others)) => {
                merge_stacktraces::merge(parts, others, &charge.lease);
            }
            (Answer::MergeProfile(merged), Answer::MergeProfile(other)) => {
                charge.lease.grow(merged.merging_bytes(&other))?;
                merged.merge(*other)?;
            }
            (Answer::Series(grouped), Answer::Series(other)) => grouped.merge(other)?,
            (Answer::Heatmap(points), Answer::Heatmap(other)) => points.merge(other)?,
            (Answer::Labels(found), Answer::Labels(other)) => found.merge(other)?,
            (answer, _) => unreachable_answer(answer)?,
        }
        self.measure();
        Ok(())
    }

    /// Releases the charge beyond the bytes of the answer. Measuring some kinds takes as long as making them, so they
    /// are measured only after their charge has doubled.
    fn measure(&mut self) {
        let Self { answer, charge, .. } = self;
        let is_cheap = matches!(answer, Answer::MergeProfile(_) | Answer::MergeStacktraces(_));
        if is_cheap || charge.lease.bytes() > charge.measured.saturating_mul(2).saturating_add(MEASURE_BYTES)
        {
            charge.measured = answer.byte_len();
            charge.lease.shrink_to(charge.measured);
        }
    }
}

impl Answer {
    /// Bytes held in memory, roughly.
    pub fn byte_len(&self) -> u64 {
        let bytes = match self {
            Self::MergeStacktraces(parts) => parts.iter().map(Part::byte_len).sum(),
            Self::MergeProfile(merged) => merged.byte_len(),
            Self::Series(grouped) => grouped.byte_len(),
            Self::Heatmap(points) => points.byte_len(),
            Self::Labels(found) => found.byte_len(),
        };
        bytes as u64
    }
}

/// Answers of two kinds meet only if a caller mixes up queries.
fn unreachable_answer(answer: &Answer) -> Result<(), TooLarge> {
    debug_assert!(false, "answers of different queries meet: {answer:?}");
    Ok(())
}

impl Stats {
    pub fn merge(&mut self, other: Self) {
        let pairs = [
            (&mut self.objects, other.objects),
            (&mut self.datasets, other.datasets),
            (&mut self.summed, other.summed),
            (&mut self.profiles, other.profiles),
            (&mut self.samples, other.samples),
            (&mut self.bytes, other.bytes),
        ];
        pairs.into_iter().for_each(|(sum, part)| *sum = sum.saturating_add(part));
    }
}
