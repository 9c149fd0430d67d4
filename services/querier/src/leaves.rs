//! The leaves of a root, and which of them an object belongs to.

use std::sync::Arc;

use model::rendezvous;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// A leaf and its name. The name stays the same as long as the process lives: objects are assigned by it, so that a
/// process finds its objects in its own cache.
pub type NamedLeaf = (String, Arc<dyn rpc::Leaf>);

/// The leaves that exist now. A root asks for them at each query, so leaves may come and go.
pub trait Leaves: Send + Sync {
    /// In any order, each name once.
    fn leaves(&self) -> Arc<[NamedLeaf]>;
}

/// Leaves that never change.
pub struct FixedLeaves(pub Arc<[NamedLeaf]>);

impl Leaves for FixedLeaves {
    fn leaves(&self) -> Arc<[NamedLeaf]> {
        self.0.clone()
    }
}

/// Ranks `leaves` for an object by [`rendezvous`], and returns their indices. The first leaf usually has the object cached;
/// the second takes it over if the first leaves.
pub(crate) fn rank(object: &str, leaves: &[NamedLeaf]) -> Vec<usize> {
    rendezvous(0..leaves.len(), |index| {
        let name = &leaves[*index].0;
        (xxh3_64_with_seed(object.as_bytes(), xxh3_64(name.as_bytes())), name)
    })
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use rpc::{Error, ErrorKind, ScanAnswer, ScanRequest};

    use super::*;

    struct DeadLeaf;

    #[async_trait]
    impl rpc::Leaf for DeadLeaf {
        async fn scan(&self, _: ScanRequest) -> Result<ScanAnswer, Error> {
            Err(Error::new(ErrorKind::Unavailable, "dead"))
        }
    }

    fn named(names: &[&str]) -> Arc<[NamedLeaf]> {
        names.iter().map(|name| (String::from(*name), Arc::new(DeadLeaf) as _)).collect()
    }

    fn first(object: &str, leaves: &[NamedLeaf]) -> String {
        leaves[rank(object, leaves)[0]].0.clone()
    }

    #[test]
    fn roots_of_every_version_agree_on_the_ranking() {
        let leaves = named(&["querier-0", "querier-1", "querier-2", "querier-3", "querier-4"]);
        for (object, expected) in [
            ("block/t/0", [0, 1, 4, 3, 2]),
            ("block/t/1", [4, 3, 0, 1, 2]),
            ("log/w/7#0", [2, 4, 3, 1, 0]),
            ("log/w/7#1", [4, 1, 3, 2, 0]),
        ] {
            assert_eq!(rank(object, &leaves), expected, "{object}");
        }
    }

    #[test]
    fn a_leaf_that_goes_moves_only_its_own_objects_each_to_its_second_leaf() {
        let all = named(&["a", "b", "c", "d"]);
        let left = named(&["d", "a", "b"]);
        let mut moved = 0;
        for object in (0..1000).map(|number| format!("block/t/{number}")) {
            let ranking = rank(&object, &all);
            if all[ranking[0]].0 == "c" {
                moved += 1;
                assert_eq!(first(&object, &left), all[ranking[1]].0);
            } else {
                assert_eq!(first(&object, &left), all[ranking[0]].0);
            }
        }
        assert!((200..300).contains(&moved), "{moved}");
    }

    #[test]
    fn without_leaves_the_ranking_is_empty() {
        assert!(rank("block/t/1", &named(&[])).is_empty());
        assert_eq!(rank("block/t/1", &named(&["a"])), [0]);
    }
}
