use std::cmp::Reverse;

/// Candidates for one key in the order of preference, best first: descending by `weight`, a hash of key and candidate.
///
/// Rendezvous hashing: each key has its own order, every candidate is first for an equal share of all keys, and a
/// candidate that comes or goes does not change the order of the others.
pub fn rendezvous<T, W: Ord>(candidates: impl IntoIterator<Item = T>, weight: impl Fn(&T) -> W) -> Vec<T> {
    let mut ranked: Vec<T> = candidates.into_iter().collect();
    ranked.sort_by_cached_key(|candidate| Reverse(weight(candidate)));
    ranked
}
