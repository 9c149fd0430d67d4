//! A question, and what answering it takes.

use model::{ProfileType, TimeRange, Times};

use crate::kind::{heatmap, profile, series};
use crate::selector::Selector;

/// A question, parsed and checked.
#[derive(Clone, Debug)]
pub struct Query {
    /// Profiles outside of it do not exist for this question.
    pub range: TimeRange,
    pub selector: Selector,
    /// Only this profile type; every type, if absent.
    pub profile_type: Option<ProfileType>,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// One tree of function names.
    MergeStacktraces(SampleFilter),
    /// One pprof.
    MergeProfile(profile::Question),
    /// Values over time.
    Series(series::Question),
    /// How many profiles or spans had which value at which time.
    Heatmap(heatmap::Question),
    /// Names of the labels of matching series, sorted.
    LabelNames,
    /// Values of this label, sorted.
    LabelValues(String),
    /// Distinct label sets of matching series, reduced to these labels; to all, if there are none.
    SeriesLabels(Vec<String>),
    ProfileTypes,
}

/// Which samples of the matching profiles count. What is empty excludes nothing.
#[derive(Clone, Debug, Default)]
pub struct SampleFilter {
    /// [`model::ProfileId`]s.
    pub profiles: Vec<u64>,
    pub spans: Vec<u64>,
    pub traces: Vec<u128>,
    /// Names of the first functions from the root.
    pub call_site: Vec<Box<[u8]>>,
    /// The client named profiles that this server cannot have made: nothing matches.
    pub nothing: bool,
}

/// What a dataset must bring, beyond its index, to answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    pub samples: bool,
    /// Span and trace ids of the samples.
    pub spans: bool,
    pub tree: bool,
    pub symbols: bool,
}

impl Kind {
    /// Whether the question is which series and types there are, and not how much of them.
    pub(crate) fn is_about_labels(&self) -> bool {
        matches!(self, Self::LabelNames | Self::LabelValues(_) | Self::SeriesLabels(_) | Self::ProfileTypes)
    }
}

impl Query {
    /// Whether every profile between these times, in nanoseconds, both included, counts.
    pub fn counts_all(&self, times: Times) -> bool {
        self.selector.matchers.is_empty()
            && self.profile_type.is_none()
            && self.profiles().is_none()
            && self.range.start <= times.first
            && times.last < self.range.end
    }

    pub fn needs(&self) -> Needs {
        let by_span = |filter: &SampleFilter| !filter.spans.is_empty() || !filter.traces.is_empty();
        match &self.kind {
            Kind::MergeStacktraces(filter) => {
                Needs { samples: true, tree: true, spans: by_span(filter), symbols: false }
            }
            Kind::MergeProfile(question) => {
                Needs { samples: true, symbols: true, spans: by_span(&question.filter), tree: false }
            }
            Kind::Series(question) if !question.call_site.is_empty() => {
                Needs { samples: true, tree: true, ..Needs::default() }
            }
            Kind::Heatmap(question) if question.of == heatmap::Of::Spans => {
                Needs { samples: true, spans: true, ..Needs::default() }
            }
            _ => Needs::default(),
        }
    }

    /// Whether nothing is asked of single profiles and samples: what they add up to is enough.
    pub(crate) fn may_use_sums(&self) -> bool {
        let filter = match &self.kind {
            Kind::MergeStacktraces(filter) => filter,
            Kind::MergeProfile(question) => &question.filter,
            Kind::Series(question) => return !question.exemplars && question.call_site.is_empty(),
            _ => return false,
        };
        self.profiles().is_none() && filter.spans.is_empty() && filter.traces.is_empty()
    }

    /// Profiles that alone count, if the question names some.
    pub(crate) fn profiles(&self) -> Option<&SampleFilter> {
        let filter = match &self.kind {
            Kind::MergeStacktraces(filter) => filter,
            Kind::MergeProfile(question) => &question.filter,
            _ => return None,
        };
        (filter.nothing || !filter.profiles.is_empty()).then_some(filter)
    }
}
