//! The text forms of the metrics: OpenMetrics, and Prometheus' older one for clients that know no other.
//!
//! Prometheus asks for OpenMetrics. `promtool check metrics`, Telegraf and other agents read the older form alone.

use http::{HeaderMap, header};

pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub(crate) const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether the client accepts OpenMetrics by name; `*/*` stands for the form that every client reads.
pub(crate) fn accepts_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_open_metrics =
            parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"));
        let is_excluded =
            |parameter: &str| parameter.strip_prefix("q=").is_some_and(|weight| weight.parse() == Ok(0.0));
        is_open_metrics && !parts.any(is_excluded)
    })
}

/// OpenMetrics as classic text: families have the names of their samples, types that are unknown to it have others, and
/// units and the end mark are left out. No metric of this process has exemplars.
pub(crate) fn classic(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    // The help of a family comes before its type, which decides about the name.
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(text) = line.strip_prefix("# HELP ") {
            help = text.split_once(' ');
        } else if let Some(family) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = family.split_once(' ') else { continue };
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, text)) = help.take().filter(|(family, _)| *family == name) {
                out.extend(["# HELP ", name, suffix, " ", text, "\n"]);
            }
            out.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            out.extend([line, "\n"]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_a_client_that_names_open_metrics_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.2";
        for (accept, expected) in [
            (None, false),
            (Some("*/*"), false),
            (Some("text/plain;version=0.0.4"), false),
            (Some(prometheus), true),
            (Some("text/plain, Application/OpenMetrics-Text"), true),
            (Some("application/openmetrics-text;q=0"), false),
            (Some("application/openmetrics-text;q=0.000, */*"), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|accept| (header::ACCEPT, HeaderValue::from_static(accept))));
            assert_eq!(accepts_open_metrics(&headers), expected, "{accept:?}");
        }
    }

    #[test]
    fn classic_text_has_the_same_samples_under_types_that_it_knows() {
        let open_metrics = concat!(
            "# HELP pushes Pushes by answer.\n# TYPE pushes counter\n",
            "pushes_total{answer=\"a # b\"} 3\npushes_total{answer=\"c\"} 4\n",
            "# HELP wait_seconds Wait.\n# TYPE wait_seconds histogram\n# UNIT wait_seconds seconds\n",
            "wait_seconds_sum 0.5\nwait_seconds_count 1\nwait_seconds_bucket{le=\"+Inf\"} 1\n",
            "# HELP build Build.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n",
            "# TYPE free gauge\nfree 7\n# EOF\n",
        );
        let expected = concat!(
            "# HELP pushes_total Pushes by answer.\n# TYPE pushes_total counter\n",
            "pushes_total{answer=\"a # b\"} 3\npushes_total{answer=\"c\"} 4\n",
            "# HELP wait_seconds Wait.\n# TYPE wait_seconds histogram\n",
            "wait_seconds_sum 0.5\nwait_seconds_count 1\nwait_seconds_bucket{le=\"+Inf\"} 1\n",
            "# HELP build_info Build.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n",
            "# TYPE free gauge\nfree 7\n",
        );
        assert_eq!(classic(open_metrics), expected);
    }
}
