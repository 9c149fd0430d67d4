//! The labels of a series: completed, relabelled, checked.
//!
//! Owns: the rules of one label set. Does not own: which samples get which set (`split`).

use limits::Limits;
use model::Labels;
use model::label_names::{DERIVED_SERVICE_NAME, NAME, SERVICE_NAME, is_of_type};

use crate::error::{Error, shown};

const UNKNOWN_SERVICE: &str = "unknown_service";
const SESSION_ID: &str = "__session_id__";

/// Whether a label is stored. `__delta__` and `__order__` have no meaning here; the others are derived on reads.
fn is_stored(name: &str) -> bool {
    !matches!(name, "__delta__" | "__order__" | DERIVED_SERVICE_NAME) && !is_of_type(name)
}

/// The label set of a pushed series: sorted, with a service name, sessions folded.
///
/// # Errors
/// If a name occurs twice, or sanitisation is on and a name cannot be sanitised.
pub(crate) fn from_pushed(pairs: &[(String, String)], limits: &Limits) -> Result<Labels, Error> {
    let count = pairs.len();
    let mut labels = if limits.disable_label_sanitization {
        let labels = Labels::from_pairs(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        if labels.len() != count {
            return Err(duplicate(pairs, &labels));
        }
        labels
    } else {
        sanitise(pairs)?
    };
    if labels.get(SERVICE_NAME).is_none() {
        labels.set(SERVICE_NAME, UNKNOWN_SERVICE);
    }
    fold_session(&mut labels, limits.max_sessions_per_series as u64);
    Ok(labels)
}

fn duplicate(pairs: &[(String, String)], labels: &Labels) -> Error {
    let mut names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
    let name = twice.map(|pair| shown(pair[0])).unwrap_or_default();
    Error::DuplicateLabel { labels: shown(labels), name }
}

/// Rewrites names to the old rules of Prometheus: dots become underscores. Names that become equal must have equal
/// values.
fn sanitise(pairs: &[(String, String)]) -> Result<Labels, Error> {
    let mut labels = Labels::default();
    for (name, value) in pairs {
        let legal = |(i, c): (usize, char)| {
            c == '_' || c.is_ascii_alphabetic() || (i > 0 && (c == '.' || c.is_ascii_digit()))
        };
        if name.is_empty() || !name.char_indices().all(legal) {
            return Err(Error::LabelName { labels: shown(&labels), name: shown(name) });
        }
        let name = name.replace('.', "_");
        match labels.get(&name) {
            Some(other) if other != value => return Err(duplicate_of(&labels, &name)),
            Some(_) => {}
            None => labels.set(&name, value),
        }
    }
    Ok(labels)
}

fn duplicate_of(labels: &Labels, name: &str) -> Error {
    Error::DuplicateLabel { labels: shown(labels), name: shown(name) }
}

/// Maps the session to one of `max` values, or removes it if `max` is 0. Otherwise every restart would be a new
/// series.
fn fold_session(labels: &mut Labels, max: u64) {
    let Some(session) = labels.remove(SESSION_ID) else {
        return;
    };
    let well_formed = session.len() == 16;
    let id = u64::from_str_radix(&session, 16).ok().filter(|_| well_formed);
    if let Some(folded) = id.and_then(|id| id.swap_bytes().checked_rem(max)) {
        labels.set(SESSION_ID, &format!("{:016x}", folded.swap_bytes()));
    }
}

/// Applies the fixed relabelling rules: profiles of the Go library godeltaprof are stored under the plain name, and
/// CPU profiles named `wall` as `process_cpu`.
pub(crate) fn relabel(labels: &mut Labels) {
    let name = labels.get(NAME).unwrap_or_default().to_owned();
    if let Some(plain) = name.strip_prefix("godeltaprof_") {
        labels.set("__name_replaced__", &name);
        labels.set("__delta__", "false");
        labels.set(NAME, plain);
    } else if name == "wall" && labels.get("__type__") == Some("cpu") {
        labels.set("__name_replaced__", &name);
        labels.set(NAME, "process_cpu");
    }
}

/// Checks a complete set, including labels that are not stored.
///
/// # Errors
/// The first broken rule.
pub(crate) fn check(labels: &Labels, limits: &Limits) -> Result<(), Error> {
    let (count, limit) = (labels.len(), limits.max_label_names_per_series);
    if limit > 0 && count > limit {
        return Err(Error::LabelNames { labels: shown(labels), count, limit });
    }
    let name = labels.get(NAME).unwrap_or_default();
    if name.is_empty() {
        return Err(Error::NoMetricName { labels: shown(labels) });
    }
    // The name becomes the first part of a profile type, whose parts are separated by colons.
    if name.contains(':') {
        return Err(Error::Colon { part: "metric name (label \"__name__\")", text: shown(name) });
    }
    if labels.get(SERVICE_NAME).unwrap_or_default().is_empty() {
        return Err(Error::NoServiceName { labels: shown(labels) });
    }
    for (name, value) in labels.iter() {
        if name.len() > limits.max_label_name_length {
            return Err(Error::LabelNameTooLong {
                name: shown(name),
                bytes: name.len(),
                limit: limits.max_label_name_length,
            });
        }
        if value.len() > limits.max_label_value_length {
            return Err(Error::LabelValueTooLong {
                name: shown(name),
                bytes: value.len(),
                limit: limits.max_label_value_length,
            });
        }
        if name.is_empty() {
            return Err(Error::LabelName { labels: shown(labels), name: String::new() });
        }
    }
    Ok(())
}

/// The stored labels of a checked set.
pub(crate) fn stored(mut labels: Labels) -> Labels {
    labels.retain(|name, _| is_stored(name));
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        Labels::from_pairs(pairs)
    }

    fn pairs(text: &str) -> Vec<(String, String)> {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_service_is_added_only_where_none_is_named() {
        let check = |sent, expected| {
            assert_eq!(from_pushed(&pairs(sent), &Limits::default()).unwrap(), labels(expected));
        };
        check("b=1,a=2", "a=2,b=1,service_name=unknown_service");
        check("service_name=app", "service_name=app");
        check("service_name=", "service_name=");
    }

    #[test]
    fn a_name_sent_twice_is_refused() {
        let error = from_pushed(&pairs("a=1,b=2,a=1"), &Limits::default()).unwrap_err();
        assert_eq!(error.reason(), "duplicate_label_names");
        assert!(error.to_string().contains("\"a\" twice"), "{error}");
    }

    #[test]
    fn sessions_are_folded_or_dropped() {
        let check = |sessions, sent: &str, expected: Option<&str>| {
            let limits = Limits { max_sessions_per_series: sessions, ..Limits::default() };
            let completed = from_pushed(&pairs(&format!("__session_id__={sent}")), &limits).unwrap();
            assert_eq!(completed.get("__session_id__"), expected, "{sessions} {sent}");
        };
        check(0, "0102030405060708", None);
        check(1000, "0a00000000000000", Some("0a00000000000000"));
        check(4, "0a00000000000000", Some("0200000000000000"));
        check(4, "7", None);
        check(4, "not hexadecimal!", None);
    }

    #[test]
    fn sanitised_names_may_collide_only_if_they_agree() {
        let limits = Limits { disable_label_sanitization: false, ..Limits::default() };
        let sanitised = |text| from_pushed(&pairs(text), &limits).map(|l| l.to_string());
        assert_eq!(sanitised("a.b=1,a_b=1,service_name=s").unwrap(), r#"{a_b="1", service_name="s"}"#);
        assert_eq!(sanitised("a.b=1,a_b=2").unwrap_err().reason(), "duplicate_label_names");
        assert_eq!(sanitised("a-b=1").unwrap_err().reason(), "invalid_labels");
        assert_eq!(sanitised("1a=1").unwrap_err().reason(), "invalid_labels");
    }

    #[test]
    fn names_of_godeltaprof_become_plain() {
        let check = |before, after| {
            let mut set = labels(before);
            relabel(&mut set);
            assert_eq!(set, labels(after));
        };
        check(
            "__name__=godeltaprof_memory",
            "__name__=memory,__name_replaced__=godeltaprof_memory,__delta__=false",
        );
        check("__name__=wall,__type__=cpu", "__name__=process_cpu,__name_replaced__=wall,__type__=cpu");
        check("__name__=wall", "__name__=wall");
    }

    #[test]
    fn each_broken_rule_has_a_reason() {
        let long = "x".repeat(2049);
        let many: Vec<String> = (0..30).map(|i| format!("l{i}=v")).collect();
        let check = |text: &str, expected: Option<&str>| {
            let outcome = check(&labels(text), &Limits::default());
            assert_eq!(outcome.err().map(|e| e.reason()), expected, "{text:.80}");
        };
        check("__name__=cpu,service_name=app", None);
        check("service_name=app", Some("invalid_labels"));
        check("__name__=,service_name=app", Some("invalid_labels"));
        check("__name__=my:cpu,service_name=app", Some("invalid_labels"));
        check("__name__=cpu", Some("missing_labels"));
        check("__name__=cpu,service_name=", Some("missing_labels"));
        check("__name__=cpu,service_name=app,=v", Some("invalid_labels"));
        check(&format!("__name__=cpu,service_name=app,{}=v", &long[..1024]), None);
        check(&format!("__name__=cpu,service_name=app,{}=v", &long[..1025]), Some("label_name_too_long"));
        check(&format!("__name__=cpu,service_name=app,v={}", &long[..2048]), None);
        check(&format!("__name__=cpu,service_name=app,v={long}"), Some("label_value_too_long"));
        check(&format!("__name__=cpu,service_name=app,{}", many[..28].join(",")), None);
        check(
            &format!("__name__=cpu,service_name=app,{}", many[..29].join(",")),
            Some("max_label_names_per_series"),
        );
    }

    #[test]
    fn derived_labels_are_not_stored() {
        let set = labels("__name__=cpu,__delta__=false,__type__=t,__private__=x,a=1,service_name=s");
        assert_eq!(stored(set), labels("__private__=x,a=1,service_name=s"));
    }
}
