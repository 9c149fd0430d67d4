//! Flame graphs of small trees, and of random ones against the definition.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Stacks<'a> = Vec<(&'a str, i64)>;

/// A part of stacks such as `a;b`, root first.
fn part(stacks: &[(&str, i64)]) -> Part {
    let mut strings = NameTree::default().names;
    let (mut name_of, mut parents, mut leaves) = (vec![0], vec![0], Vec::new());
    let mut nodes: BTreeMap<(u32, String), u32> = BTreeMap::new();
    let mut names: BTreeMap<String, u32> = BTreeMap::new();
    let mut weights = Vec::new();
    for (stack, weight) in stacks {
        let mut node = 0;
        for name in stack.split(';') {
            node = *nodes.entry((node, name.to_owned())).or_insert_with(|| {
                let id = *names.entry(name.to_owned()).or_insert_with(|| strings.push(name.as_bytes()));
                name_of.push(id);
                parents.push(node);
                (parents.len() - 1) as u32
            });
        }
        leaves.push(node);
        weights.push(*weight);
    }
    let tree = NameTree::from_parents(strings, &name_of, &parents, leaves);
    Part::new(Arc::new(tree), &weights, &[])
}

/// Every path with its total and own weight.
fn paths<const S: usize>(flame: &Flame<S>) -> BTreeMap<String, ([i64; S], [i64; S])> {
    let mut found = BTreeMap::new();
    let mut stack = vec![(0u32, String::new())];
    while let Some((index, path)) = stack.pop() {
        let node = &flame.nodes[index as usize];
        for child in node.first_child..node.first_child + node.children {
            let name = &flame.names[flame.nodes[child as usize].name as usize];
            let separator = if index == 0 { "" } else { ";" };
            stack.push((child, format!("{path}{separator}{name}")));
        }
        let before = found.insert(path, (node.total, node.own));
        assert!(before.is_none(), "children of one parent have distinct names");
    }
    found
}

fn flame_graph(stacks: Stacks) -> FlameGraph {
    encode_levels(finish([&[part(&stacks)]], 0, Real::Fold))
}

#[test]
fn levels_put_own_weight_before_children() {
    let graph = flame_graph(vec![("a;b", 10), ("a", 20)]);
    assert_eq!(graph.names, ["total", "a", "b"]);
    assert_eq!(graph.levels, [vec![0, 30, 0, 0], vec![0, 30, 20, 1], vec![20, 10, 10, 2]]);
    assert_eq!((graph.total, graph.max_self), (30, 20));
}

#[test]
fn names_are_numbered_from_the_right_and_children_sorted_from_the_left() {
    let graph = flame_graph(vec![("main;foo", 30_000_000), ("main;bar", 10_000_000)]);
    assert_eq!(graph.names, ["total", "main", "foo", "bar"]);
    assert_eq!(graph.levels[2], [0, 10_000_000, 10_000_000, 3, 0, 30_000_000, 30_000_000, 2]);
}

#[test]
fn joining_is_charged_for_and_refused_where_there_is_no_room() {
    let stacks: Vec<(String, i64)> = (0..20_000).map(|i| (format!("main;f{i}"), 1)).collect();
    let stacks: Vec<(&str, i64)> = stacks.iter().map(|(stack, weight)| (stack.as_str(), *weight)).collect();
    let parts = [part(&stacks)];
    let share = |limit| memory::Share::new("questions", "querier.max_memory_bytes", limit);
    let small = share(1 << 20).account().lease();
    let refused = finish_within([&parts], 0, Real::Keep, &small).unwrap_err();
    assert!(refused.needed > 1 << 20 && !refused.fits_alone(), "{refused}");
    let enough = share(16 << 20).account().lease();
    let flame = finish_within([&parts], 0, Real::Keep, &enough).unwrap();
    assert_eq!(paths(&flame), paths(&finish([&parts], 0, Real::Keep)));
    assert!(enough.bytes() > 20_000 * 100);
}

#[test]
fn no_weights_make_a_root_alone() {
    for graph in [flame_graph(vec![]), flame_graph(vec![("a", 0), ("b", -4)])] {
        assert_eq!(graph.names, ["total"]);
        assert_eq!(graph.levels, [[0, 0, 0, 0]]);
        assert_eq!((graph.total, graph.max_self), (0, 0));
    }
    assert_eq!(encode_tree(&finish([&[]], 0, Real::Keep)), b"");
    assert_eq!(encode_levels(finish([&[], &[]], 0, Real::Fold)).levels, [[0; 7]]);
}

#[test]
fn a_function_called_total_shares_the_name_of_the_root() {
    let graph = flame_graph(vec![("total", 1)]);
    assert_eq!(graph.names, ["total"]);
    assert_eq!(graph.levels, [[0, 1, 0, 0], [0, 1, 1, 0]]);
}

#[test]
fn a_diff_has_seven_numbers_per_node() {
    let (left, right) = ([part(&[("a", 4)])], [part(&[("a", 1), ("b", 2)])]);
    let graph = encode_levels(finish([&left[..], &right[..]], 0, Real::Fold));
    assert_eq!(graph.names, ["total", "b", "a"]);
    assert_eq!(graph.levels, [vec![0, 4, 0, 0, 3, 0, 0], vec![0, 4, 4, 0, 1, 1, 2, 0, 0, 0, 0, 2, 2, 1]]);
    assert_eq!((graph.total, graph.max_self, &graph.ticks[..]), (7, 4, &[4, 3][..]));
}

#[test]
fn tree_bytes_have_the_last_child_first() {
    let flame = finish([&[part(&[("main;foo", 3), ("main;bar", 1)])]], 0, Real::Keep);
    assert_eq!(encode_tree(&flame), b"\0\0\x01\x04main\0\x02\x03foo\x03\0\x03bar\x01\0");
}

#[test]
fn ties_at_the_threshold_are_all_kept() {
    let stacks = [("root;big", 50), ("root;x", 5), ("root;y", 5), ("root;z", 4)];
    let kept = |max_nodes| {
        let flame = finish([&[part(&stacks)]], max_nodes, Real::Fold);
        paths(&flame).into_keys().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(kept(1), " root root;other");
    assert_eq!(kept(2), " root root;big root;other");
    assert_eq!(kept(3), " root root;big root;other root;x root;y");
    assert_eq!(kept(5), " root root;big root;x root;y root;z");
}

#[test]
fn a_real_other_is_folded_in_flame_graphs_without_losing_weight() {
    let stacks = [("root;a", 30), ("root;b", 20), ("root;c", 1), ("root;other;deep", 50)];
    let whole = paths(&finish([&[part(&stacks)]], 0, Real::Fold));
    assert_eq!(whole["root;other"], ([50], [50]));
    assert!(!whole.contains_key("root;other;deep"));
    let cut = paths(&finish([&[part(&stacks)]], 4, Real::Fold));
    assert_eq!(cut["root;other"], ([71], [71]));
    let kept = paths(&finish([&[part(&stacks)]], 3, Real::Keep));
    assert_eq!(kept["root;other"], ([101], [51]));
    assert_eq!(kept["root;other;deep"], ([50], [50]));
}

#[test]
fn a_call_site_keeps_whole_stacks_below_it() {
    let mut names = NameTree::default().names;
    for name in ["main", "work", "x"] {
        names.push(name.as_bytes());
    }
    // root → main → work → x, and root → work
    let tree = NameTree::from_parents(names, &[0, 1, 2, 3, 2], &[0, 0, 1, 2, 0], vec![1, 2, 3, 4]);
    let tree = Arc::new(tree);
    let total = |site: &[&str]| {
        let site: Vec<Box<[u8]>> = site.iter().map(|name| name.as_bytes().into()).collect();
        Part::new(tree.clone(), &[1, 10, 100, 1000], &site).total(0)
    };
    assert_eq!(total(&[]), 1111);
    assert_eq!(total(&["main"]), 111);
    assert_eq!(total(&["main", "work"]), 110);
    assert_eq!(total(&["work"]), 1000);
    assert_eq!(total(&[""]), 0);
}

/// The same by the definition: join everything, sort all totals.
fn by_definition(sides: &[Vec<Vec<(String, i64)>>], max_nodes: usize) -> Vec<String> {
    let mut total: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (side, parts) in sides.iter().enumerate() {
        for (stack, weight) in parts.iter().flatten().filter(|(_, weight)| *weight > 0) {
            let names: Vec<&str> = stack.split(';').collect();
            for depth in 1..=names.len() {
                let path = names[..depth].join(";");
                total.entry(path).or_insert(vec![0; sides.len()])[side] += weight;
            }
        }
    }
    let size = |sides: &Vec<i64>| sides.iter().copied().max().unwrap_or_default();
    let mut sizes: Vec<i64> = total.values().map(size).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let least = if sizes.len() > max_nodes { sizes[max_nodes - 1] } else { 0 };
    total
        .iter()
        .filter(|(_, sides)| size(sides) >= least)
        .map(|(path, sides)| format!("{path} {sides:?}"))
        .collect()
}

fn stacks() -> impl Strategy<Value = Vec<(String, i64)>> {
    let stack = proptest::collection::vec(0..5u8, 1..5);
    let stack =
        stack.prop_map(|names| names.iter().map(|name| format!("f{name}")).collect::<Vec<_>>().join(";"));
    proptest::collection::vec((stack, -1..60i64), 0..25)
}

proptest! {
    #[test]
    fn truncation_is_exact_for_any_division_of_the_data(
        sides in proptest::collection::vec(proptest::collection::vec(stacks(), 0..5), 2),
        max_nodes in 1..20usize,
    ) {
        let parts: Vec<Vec<Part>> = sides
            .iter()
            .map(|parts| {
                let refs = |stacks: &Vec<(String, i64)>| {
                    part(&stacks.iter().map(|(s, w)| (s.as_str(), *w)).collect::<Vec<_>>())
                };
                parts.iter().map(refs).collect()
            })
            .collect();

        let flame = finish([&parts[0][..]], max_nodes, Real::Keep);
        let found = paths(&flame);
        let mut named = found.clone();
        named.retain(|path, _| !path.is_empty() && !path.ends_with("other"));
        let named: Vec<String> =
            named.iter().map(|(path, (total, _))| format!("{path} {total:?}")).collect();
        prop_assert_eq!(named, by_definition(&sides[..1], max_nodes));
        for (path, (total, own)) in &found {
            let below: i64 = found
                .iter()
                .filter(|(other, _)| {
                    let rest = if path.is_empty() { Some(other.as_str()) } else {
                        other.strip_prefix(path.as_str()).and_then(|r| r.strip_prefix(';'))
                    };
                    rest.is_some_and(|r| !r.is_empty() && !r.contains(';'))
                })
                .map(|(_, (total, _))| total[0])
                .sum();
            prop_assert_eq!(total[0], own[0] + below, "{}", path);
        }

        let flame = finish([&parts[0][..], &parts[1][..]], max_nodes, Real::Keep);
        let mut named = paths(&flame);
        named.retain(|path, _| !path.is_empty() && !path.ends_with("other"));
        let named: Vec<String> =
            named.iter().map(|(path, (total, _))| format!("{path} {total:?}")).collect();
        prop_assert_eq!(named, by_definition(&sides, max_nodes));
    }
}
