//! Which leaves there are, and which of them an object belongs to.

use std::sync::Arc;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// A leaf and the name that it keeps for as long as its process lives: its cache is found by it.
pub type NamedLeaf = (String, Arc<dyn rpc::Leaf>);

/// Who scans. A root asks at each question, so leaves may come and go.
pub trait Leaves: Send + Sync {
    /// Those of this moment, in any order, each name once.
    fn leaves(&self) -> Arc<[NamedLeaf]>;
}

/// Leaves that never change.
pub struct FixedLeaves(pub Arc<[NamedLeaf]>);

impl Leaves for FixedLeaves {
    fn leaves(&self) -> Arc<[NamedLeaf]> {
        self.0.clone()
    }
}

/// The places of all `leaves`, the one that has `object` cached first, the one that would have it if that one
/// were gone next. A leaf that comes or goes changes the first place of its own share of objects only.
pub(crate) fn rank(object: &str, leaves: &[NamedLeaf]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..leaves.len()).collect();
    if places.len() > 1 {
        let weight = |place: &usize| {
            let name = &leaves[*place].0;
            (xxh3_64_with_seed(object.as_bytes(), xxh3_64(name.as_bytes())), name)
        };
        places.sort_by(|a, b| weight(b).cmp(&weight(a)));
    }
    places
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use rpc::{Error, ErrorKind, ScanRequest, Scanned};

    use super::*;

    struct Nobody;

    #[async_trait]
    impl rpc::Leaf for Nobody {
        async fn scan(&self, _: ScanRequest) -> Result<Scanned, Error> {
            Err(Error::new(ErrorKind::Unavailable, "nobody"))
        }
    }

    fn named(names: &[&str]) -> Arc<[NamedLeaf]> {
        names.iter().map(|name| (String::from(*name), Arc::new(Nobody) as _)).collect()
    }

    fn first(object: &str, leaves: &[NamedLeaf]) -> String {
        leaves[rank(object, leaves)[0]].0.clone()
    }

    #[test]
    fn a_leaf_that_goes_moves_only_its_own_objects_each_to_its_second_place() {
        let all = named(&["a", "b", "c", "d"]);
        let left = named(&["d", "a", "b"]);
        let mut moved = 0;
        for object in (0..1000).map(|at| format!("block/t/{at}")) {
            let places = rank(&object, &all);
            if all[places[0]].0 == "c" {
                moved += 1;
                assert_eq!(first(&object, &left), all[places[1]].0);
            } else {
                assert_eq!(first(&object, &left), all[places[0]].0);
            }
        }
        assert!((200..300).contains(&moved), "{moved}");
    }

    #[test]
    fn without_leaves_there_is_no_place() {
        assert!(rank("block/t/1", &named(&[])).is_empty());
        assert_eq!(rank("block/t/1", &named(&["a"])), [0]);
    }
}
