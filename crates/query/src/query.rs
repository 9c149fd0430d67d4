//! A query, and the sections of a dataset that answering it needs.

use model::{ProfileType, TimeRange, Times};

use crate::grid::Grid;
use crate::selector::Selector;

/// A query, parsed and checked.
#[derive(Clone, Debug)]
pub struct Query {
    /// Profiles outside of it are ignored.
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
    MergeProfile(ProfileParameters),
    /// Values over time.
    Series(SeriesParameters),
    /// Counts of profiles or spans by time and value.
    Heatmap(HeatmapParameters),
    /// Names of the labels of matching series, sorted.
    LabelNames,
    /// Values of this label, sorted.
    LabelValues(String),
    /// Distinct label sets of matching series, reduced to these labels; to all, if there are none.
    SeriesLabels(Vec<String>),
    ProfileTypes,
}

/// Which samples of the matching profiles count. An empty list excludes nothing.
#[derive(Clone, Debug, Default)]
pub struct SampleFilter {
    /// [`model::ProfileId`]s.
    pub profiles: Vec<u64>,
    pub spans: Vec<u64>,
    pub traces: Vec<u128>,
    /// Names of the first functions from the root.
    pub call_site: Vec<Box<[u8]>>,
    /// The client named profiles that this server cannot have made: no profile matches.
    pub nothing: bool,
}

/// [`Kind::MergeProfile`].
#[derive(Clone, Debug, Default)]
pub struct ProfileParameters {
    pub filter: SampleFilter,
    /// Reduces stacktraces to the part that a compiler needs.
    pub go_pgo: Option<GoPgo>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GoPgo {
    /// Locations to keep of each stacktrace, from the leaf; 0 keeps all.
    pub keep_locations: u32,
    /// Drops the line of each location that is the leaf of any stacktrace, so that equal callees become one.
    pub aggregate_callees: bool,
}

/// [`Kind::Series`].
#[derive(Clone, Debug)]
pub struct SeriesParameters {
    /// The first grid point, in Unix milliseconds.
    pub start_millis: i64,
    /// No grid point is later.
    pub end_millis: i64,
    /// At least 1.
    pub step_millis: i64,
    pub group_by: Vec<String>,
    pub exemplars: bool,
    /// Names of the first functions from the root; only samples below them count.
    pub call_site: Vec<Box<[u8]>>,
}

/// [`Kind::Heatmap`].
#[derive(Clone, Debug)]
pub struct HeatmapParameters {
    pub start_millis: i64,
    pub end_millis: i64,
    /// At least 1.
    pub step_millis: i64,
    pub point_kind: PointKind,
    pub group_by: Vec<String>,
    pub exemplars: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PointKind {
    /// A point is a profile; its value is the profile's total.
    Profiles,
    /// A point is a span within a profile; its value is the sum of its samples.
    Spans,
}

/// The sections of a dataset that an answer needs, beyond its index.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    pub samples: bool,
    /// Span and trace ids of the samples.
    pub spans: bool,
    pub tree: bool,
    pub symbols: bool,
}

impl Kind {
    /// Whether the query is about the existence of series and types, not about their values.
    pub(crate) fn is_about_labels(&self) -> bool {
        matches!(self, Self::LabelNames | Self::LabelValues(_) | Self::SeriesLabels(_) | Self::ProfileTypes)
    }
}

impl SeriesParameters {
    pub(crate) fn grid(&self) -> Grid {
        let Self { start_millis, end_millis, step_millis, .. } = *self;
        Grid { start_millis, end_millis, step_millis }
    }

    /// The time of grid point `bucket`, in Unix milliseconds.
    pub fn time(&self, bucket: i64) -> i64 {
        self.grid().time(bucket)
    }
}

impl Query {
    /// Whether every profile within `times` counts.
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
            Kind::MergeProfile(parameters) => {
                Needs { samples: true, symbols: true, spans: by_span(&parameters.filter), tree: false }
            }
            Kind::Series(parameters) if !parameters.call_site.is_empty() => {
                Needs { samples: true, tree: true, ..Needs::default() }
            }
            Kind::Heatmap(parameters) if parameters.point_kind == PointKind::Spans => {
                Needs { samples: true, spans: true, ..Needs::default() }
            }
            _ => Needs::default(),
        }
    }

    /// Whether sums over profiles answer the query: it does not select single profiles or samples.
    pub(crate) fn may_use_sums(&self) -> bool {
        let filter = match &self.kind {
            Kind::MergeStacktraces(filter) => filter,
            Kind::MergeProfile(parameters) => &parameters.filter,
            Kind::Series(parameters) => return !parameters.exemplars && parameters.call_site.is_empty(),
            _ => return false,
        };
        self.profiles().is_none() && filter.spans.is_empty() && filter.traces.is_empty()
    }

    /// The filter, if it restricts the query to certain profiles.
    pub(crate) fn profiles(&self) -> Option<&SampleFilter> {
        let filter = match &self.kind {
            Kind::MergeStacktraces(filter) => filter,
            Kind::MergeProfile(parameters) => &parameters.filter,
            _ => return None,
        };
        (filter.nothing || !filter.profiles.is_empty()).then_some(filter)
    }
}
