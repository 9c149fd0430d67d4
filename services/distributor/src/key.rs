//! The key that makes a document count once.

use clock::Clock;
use model::{ItemKey, TenantId};
use xxhash_rust::xxh3::xxh3_128;

/// The key of a document's content: equal documents of one tenant have equal keys.
///
/// `labels` and `parameters` may come in any order. `body` is decompressed, so that a client may resend
/// the same profile compressed differently.
pub(crate) fn of_content(
    tenant: &TenantId,
    labels: &[(String, String)],
    parameters: &[(&str, &str)],
    body: &[u8],
) -> ItemKey {
    let mut preamble = Vec::with_capacity(512);
    add(&mut preamble, tenant.as_str().as_bytes());
    let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    add_pairs(&mut preamble, labels.collect());
    add_pairs(&mut preamble, parameters.to_vec());
    add(&mut preamble, &xxh3_128(body).to_le_bytes());
    preamble.extend_from_slice(&(body.len() as u64).to_le_bytes());
    ItemKey(xxh3_128(&preamble))
}

/// A random key, for a document without a time: sent again, it counts again.
pub(crate) fn random(clock: &Clock) -> ItemKey {
    ItemKey(clock.random())
}

fn add_pairs(preamble: &mut Vec<u8>, mut pairs: Vec<(&str, &str)>) {
    pairs.sort_unstable();
    preamble.extend_from_slice(&(pairs.len() as u64).to_le_bytes());
    for (name, value) in pairs {
        add(preamble, name.as_bytes());
        add(preamble, value.as_bytes());
    }
}

/// Appends the length, then the part, so that different divisions into parts have different bytes.
fn add(preamble: &mut Vec<u8>, part: &[u8]) {
    preamble.extend_from_slice(&(part.len() as u64).to_le_bytes());
    preamble.extend_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: &str, labels: &[(&str, &str)], parameters: &[(&str, &str)], body: &str) -> ItemKey {
        let labels: Vec<_> = labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        of_content(&TenantId::parse(tenant).unwrap(), &labels, parameters, body.as_bytes())
    }

    #[test]
    fn the_order_of_labels_and_parameters_does_not_count() {
        assert_eq!(
            key("t", &[("a", "1"), ("b", "2")], &[("from", "1"), ("until", "2")], "body"),
            key("t", &[("b", "2"), ("a", "1")], &[("until", "2"), ("from", "1")], "body"),
        );
    }

    #[test]
    fn everything_else_counts() {
        let base = key("t", &[("a", "1")], &[("from", "1")], "body");
        assert_ne!(base, key("u", &[("a", "1")], &[("from", "1")], "body"));
        assert_ne!(base, key("t", &[("a", "2")], &[("from", "1")], "body"));
        assert_ne!(base, key("t", &[("a1", "")], &[("from", "1")], "body"));
        assert_ne!(base, key("t", &[("a", "1")], &[("from", "2")], "body"));
        assert_ne!(base, key("t", &[("a", "1"), ("from", "1")], &[], "body"));
        assert_ne!(base, key("t", &[("a", "1")], &[("from", "1")], "bodies"));
    }
}
