//! Placement of keys on members.

use std::cmp::Reverse;

use model::rendezvous;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::Member;

/// Members in the order of preference of `key`, best first, by [`rendezvous`].
///
/// It hashes names, so a restart moves no key; members with the same name are neighbours in the order, and share the
/// keys of the name.
pub fn place<'a>(key: u64, members: impl Iterator<Item = &'a Member>) -> Vec<&'a Member> {
    let hash = |text: &str| xxh3_64_with_seed(text.as_bytes(), key);
    rendezvous(members, |member| (hash(&member.name), hash(&member.node), Reverse(member.node.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    fn members(names: &str) -> Vec<Member> {
        let named = |name: char| Member::new(name, [Role::Ingester]);
        names.chars().map(named).collect()
    }

    fn order(key: u64, members: &[Member]) -> String {
        place(key, members.iter()).iter().map(|member| member.name.as_str()).collect()
    }

    #[test]
    fn processes_of_every_version_agree_on_the_order() {
        let mut all = members("abcde");
        let keys = [0, 1, 2, u64::MAX];
        assert_eq!(keys.map(|key| order(key, &all)), ["aecbd", "abdec", "bdaec", "ecbda"]);
        for member in &mut all[..3] {
            member.name = "same".into();
        }
        let nodes =
            |key| place(key, all.iter()).iter().map(|member| member.node.as_str()).collect::<String>();
        assert_eq!(keys.map(nodes), ["eacbd", "abcde", "bacde", "ecbad"]);
    }

    #[test]
    fn the_order_depends_on_the_key_only() {
        let (all, reversed) = (members("abcde"), members("edcba"));
        for key in 0..1000 {
            assert_eq!(order(key, &all), order(key, &reversed));
        }
        let distinct: std::collections::BTreeSet<String> = (0..1000).map(|key| order(key, &all)).collect();
        assert!(distinct.len() > 100, "{}", distinct.len());
    }

    #[test]
    fn a_member_that_leaves_does_not_change_the_order_of_the_others() {
        let (all, without) = (members("abcde"), members("abde"));
        for key in 0..1000 {
            assert_eq!(order(key, &all).replace('c', ""), order(key, &without));
        }
    }

    #[test]
    fn every_member_is_first_for_its_share_of_keys() {
        let all = members("abcde");
        let mut firsts = std::collections::BTreeMap::new();
        for key in 0..10_000 {
            *firsts.entry(order(key, &all).remove(0)).or_insert(0) += 1;
        }
        assert!(firsts.len() == 5 && firsts.values().all(|n| (1800..2200).contains(n)), "{firsts:?}");
    }

    #[test]
    fn a_restart_under_the_same_name_moves_no_key() {
        let mut all = members("abc");
        let before: Vec<String> = (0..100).map(|key| order(key, &all)).collect();
        all[1].node = "another start".into();
        assert_eq!((0..100).map(|key| order(key, &all)).collect::<Vec<_>>(), before);
    }

    #[test]
    fn members_with_the_same_name_share_its_keys() {
        let mut all = members("ab");
        all[0].name = "same".into();
        all[1].name = "same".into();
        let first = (0..1000).filter(|key| place(*key, all.iter())[0].node == "a").count();
        assert!((400..600).contains(&first), "{first}");
    }
}
