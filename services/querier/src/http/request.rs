//! Limits and fields that requests have in common: ranges, nodes, selectors, ids.
//!
//! Owns: checking them and turning them into a `Query`. Does not own: the values of the limits (`limits`).

use limits::Limits;
use model::{ProfileId, ProfileType, TimeRange};
use query::{Query, SampleFilter, Selector};
use wire::types::v1::StackTraceSelector;

use crate::{Client, Error, Querier};

/// Most ids in one span, trace or profile selector.
const IDS_MAX: usize = 10_000;

/// Most functions in one call site.
const CALL_SITE_MAX: usize = 10_000;

/// The limits of a query over all of its tenants: for each limit the smallest that is set.
pub(crate) struct RequestLimits {
    /// Length and lookback in nanoseconds; 0: no limit.
    query_length: i64,
    query_lookback: i64,
    nodes_default: i64,
    nodes_max: i64,
    nodes_on_profiles: bool,
}

impl RequestLimits {
    pub(crate) fn new(querier: &Querier, client: &Client) -> Self {
        let limits: Vec<_> = client.tenants().iter().map(|tenant| querier.limits.of(tenant)).collect();
        let smallest = |value: &dyn Fn(&Limits) -> i64| {
            limits.iter().map(|limits| value(limits)).filter(|limit| *limit > 0).min().unwrap_or_default()
        };
        Self {
            query_length: smallest(&|limits| limits.max_query_length.nanos()),
            query_lookback: smallest(&|limits| limits.max_query_lookback.nanos()),
            nodes_default: smallest(&|limits| limits.max_flamegraph_nodes_default),
            nodes_max: smallest(&|limits| limits.max_flamegraph_nodes_max),
            nodes_on_profiles: limits.iter().any(|l| l.max_flamegraph_nodes_on_select_merge_profile),
        }
    }

    /// Checks a range in Unix milliseconds, and cuts its start to the lookback limit. Returns `None` if all of it is
    /// before that limit: the answer is empty.
    pub(crate) fn range(&self, start: i64, end: i64, now_millis: i64) -> Result<Option<(i64, i64)>, Error> {
        if start == 0 || end == 0 {
            return Err(Error::invalid("missing time range in the query"));
        }
        if start > end {
            return Err(Error::invalid(format!(
                "start time {start} of the query is after its end time {end}"
            )));
        }
        let mut start = start;
        if self.query_lookback > 0 {
            let oldest = now_millis.saturating_sub(self.query_lookback / 1_000_000);
            if end < oldest {
                return Ok(None);
            }
            start = start.max(oldest);
        }
        let length_millis = self.query_length / 1_000_000;
        let length = end.saturating_sub(start);
        if length_millis > 0 && length > length_millis {
            return Err(Error::invalid(format!(
                "the query time range exceeds the limit (query length: {}, limit: {})",
                seconds(length),
                seconds(length_millis)
            )));
        }
        Ok(Some((start, end)))
    }

    /// Nodes of a flame graph; 0 or none: the tenant's default.
    pub(crate) fn nodes(&self, requested: Option<i64>) -> Result<usize, Error> {
        let max = self.nodes_max;
        let nodes = match requested.unwrap_or_default() {
            0 => self.nodes_default,
            nodes => nodes,
        };
        if nodes < 0 || (nodes == 0 && max > 0) {
            return Err(Error::invalid(format!(
                "max flamegraph nodes limit must be set (max allowed {max})"
            )));
        }
        if max > 0 && nodes > max {
            return Err(Error::invalid(format!(
                "max flamegraph nodes limit {nodes} is greater than allowed {max}"
            )));
        }
        Ok(usize::try_from(nodes).unwrap_or(usize::MAX))
    }

    /// Nodes of a pprof; 0: all of them.
    pub(crate) fn profile_nodes(&self, requested: Option<i64>) -> Result<usize, Error> {
        if self.nodes_on_profiles {
            return self.nodes(requested);
        }
        Ok(usize::try_from(requested.unwrap_or_default()).unwrap_or_default())
    }
}

fn seconds(millis: i64) -> String {
    format!("{}s", millis / 1000)
}

/// Parses the selector of a request field.
pub(crate) fn selector(text: &str) -> Result<Selector, Error> {
    Selector::parse(text).map_err(|error| Error::selector(text, &error))
}

/// Parses several selectors, all of which must match.
pub(crate) fn selectors(texts: &[String]) -> Result<Selector, Error> {
    Selector::parse_all(texts).map_err(|(text, error)| Error::selector(&text, &error))
}

/// Parses a query for one profile type.
pub(crate) fn parse_query(
    (start, end): (i64, i64),
    profile_type: &str,
    label_selector: &str,
    kind: query::Kind,
) -> Result<Query, Error> {
    Ok(Query {
        range: TimeRange::from_millis_inclusive(start, end),
        selector: selector(label_selector)?,
        profile_type: Some(profile_type.parse::<ProfileType>()?),
        kind,
    })
}

/// The filter of samples by the ids and the call site of a request.
pub(crate) fn sample_filter(
    spans: &[String],
    traces: &[String],
    profiles: &[String],
    stacks: Option<&StackTraceSelector>,
) -> Result<SampleFilter, Error> {
    if !spans.is_empty() && !traces.is_empty() {
        return Err(Error::invalid("span_selector and trace_id_selector cannot be combined"));
    }
    for (name, ids) in [("span", spans), ("trace id", traces), ("profile id", profiles)] {
        if ids.len() > IDS_MAX {
            let count = ids.len();
            return Err(Error::invalid(format!("{name} selector has {count} ids, limit is {IDS_MAX}")));
        }
    }
    let mut filter = SampleFilter { call_site: call_site(stacks)?, ..SampleFilter::default() };
    for span in spans {
        filter.spans.push(hex(span, 16, "span id")? as u64);
    }
    for trace in traces {
        filter.traces.push(hex(trace, 32, "trace id")?);
    }
    for profile in profiles {
        let id = uuid(profile)?;
        // A UUID in a form that this server does not generate matches no profile.
        match profile.parse::<ProfileId>() {
            Ok(own) if uuid(&own.to_string())? == id => filter.profiles.push(own.0),
            _ => filter.nothing = filter.profiles.is_empty(),
        }
    }
    filter.nothing &= filter.profiles.is_empty();
    Ok(filter)
}

pub(crate) fn call_site(stacks: Option<&StackTraceSelector>) -> Result<Vec<Box<[u8]>>, Error> {
    let Some(stacks) = stacks else { return Ok(Vec::new()) };
    let count = stacks.call_site.len();
    if count > CALL_SITE_MAX {
        return Err(Error::invalid(format!("call site has {count} functions, limit is {CALL_SITE_MAX}")));
    }
    Ok(stacks.call_site.iter().map(|location| location.name.as_bytes().into()).collect())
}

fn hex(text: &str, digits: usize, name: &str) -> Result<u128, Error> {
    let wrong = || Error::invalid(format!("{name} {text:?} does not have {digits} hexadecimal digits"));
    if text.len() != digits || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    u128::from_str_radix(text, 16).map_err(|_| wrong())
}

fn uuid(text: &str) -> Result<u128, Error> {
    let digits = text.replace('-', "");
    hex(&digits, 32, "profile id").map_err(|_| Error::invalid(format!("profile id {text:?} is no UUID")))
}

#[cfg(test)]
mod tests {
    use model::HOUR;

    use super::*;

    fn limits(length_hours: i64, lookback_hours: i64) -> RequestLimits {
        RequestLimits {
            query_length: length_hours * HOUR * 1_000_000_000,
            query_lookback: lookback_hours * HOUR * 1_000_000_000,
            nodes_default: 8192,
            nodes_max: 1_048_576,
            nodes_on_profiles: false,
        }
    }

    #[test]
    fn ranges_are_refused_cut_or_empty() {
        const HOUR_MILLIS: i64 = HOUR * 1_000;
        let now = 1000 * HOUR_MILLIS;
        let text = |limits: &RequestLimits, start, end| match limits.range(start, end, now) {
            Ok(range) => format!("{range:?}"),
            Err(error) => error.to_string(),
        };
        let free = limits(0, 0);
        assert_eq!(text(&free, 0, 5), "missing time range in the query");
        assert_eq!(text(&free, 5, 0), "missing time range in the query");
        assert!(text(&free, 6, 5).contains("after its end"));
        assert_eq!(text(&free, 5, 5), "Some((5, 5))");
        assert_eq!(text(&free, -5, i64::MAX), format!("Some((-5, {}))", i64::MAX));
        let tight = limits(24, 48);
        assert_eq!(text(&tight, 1000, 4000), "None");
        assert_eq!(
            text(&tight, 900 * HOUR_MILLIS, 975 * HOUR_MILLIS),
            format!("Some(({}, {}))", 952 * HOUR_MILLIS, 975 * HOUR_MILLIS)
        );
        assert!(text(&tight, 960 * HOUR_MILLIS, now).starts_with("the query time range exceeds the limit"));
    }

    #[test]
    fn nodes_have_a_default_and_a_limit() {
        let limits = limits(0, 0);
        assert_eq!(limits.nodes(None).ok(), Some(8192));
        assert_eq!(limits.nodes(Some(0)).ok(), Some(8192));
        assert_eq!(limits.nodes(Some(1_048_576)).ok(), Some(1_048_576));
        assert!(limits.nodes(Some(1_048_577)).is_err());
        assert!(limits.nodes(Some(-1)).is_err());
        assert_eq!(limits.profile_nodes(None).ok(), Some(0));
        assert_eq!(limits.profile_nodes(Some(-1)).ok(), Some(0));
        assert_eq!(limits.profile_nodes(Some(5_000_000)).ok(), Some(5_000_000));
    }

    #[test]
    fn ids_are_hexadecimal_of_exact_length() {
        let spans = |id: &str| sample_filter(&[id.into()], &[], &[], None).map(|f| f.spans);
        assert_eq!(spans("00000BAC2a5ab0c7").ok(), Some(vec![0xbac_2a5a_b0c7]));
        assert!(spans("bac").is_err());
        assert!(spans("zzzzzzzzzzzzzzzz").is_err());
        assert!(spans("+000000000000001").is_err());
        let both = sample_filter(&["0".repeat(16)], &["0".repeat(32)], &[], None);
        assert!(both.is_err());
    }

    #[test]
    fn profile_ids_are_uuids_and_foreign_ones_match_nothing() {
        let filter = |id: &str| sample_filter(&[], &[], &[id.into()], None);
        assert!(filter("not-a-uuid").is_err());
        let own = ProfileId(7).to_string();
        assert_eq!(filter(&own).map(|f| f.profiles).ok(), Some(vec![7]));
        let foreign = filter("00000000-0000-4000-8000-000000000000").expect("a UUID");
        assert!(foreign.nothing && foreign.profiles.is_empty());
    }
}
