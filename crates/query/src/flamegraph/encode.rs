//! The encodings of a finished flame graph: by levels, and as tree bytes.

use block::codec::put;

use super::Flame;

/// A flame graph by levels, as the API sends it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlameGraph {
    pub names: Vec<String>,
    /// Per level and node, for each side (offset from the end of the previous node of the level,
    /// total, own), then the index of the name.
    pub levels: Vec<Vec<i64>>,
    /// Total of all sides together.
    pub total: i64,
    pub max_self: i64,
    /// Total of each side.
    pub ticks: Vec<i64>,
}

/// Encodes by levels. The children of a node begin at its offset plus its own weight.
pub fn encode_levels<const S: usize>(flame: Flame<S>) -> FlameGraph {
    let Flame { names, nodes } = flame;
    let mut offsets = vec![[0i64; S]; nodes.len()];
    let mut levels = Vec::new();
    let mut max_self = 0;
    let mut level = 0..1;
    while !level.is_empty() {
        let mut values = Vec::with_capacity(level.len() * (3 * S + 1));
        let mut previous_end = [0i64; S];
        let first_below = level.end;
        let mut end_below = level.end;
        for index in level {
            let node = &nodes[index];
            for side in 0..S {
                let offset = offsets[index][side];
                values.push(offset.wrapping_sub(previous_end[side]));
                values.push(node.total[side]);
                values.push(node.own[side]);
                previous_end[side] = offset.wrapping_add(node.total[side]);
                max_self = max_self.max(node.own[side]);
            }
            values.push(i64::from(node.name));
            let mut offset = offsets[index];
            add(&mut offset, &node.own);
            let below = node.first_child as usize..(node.first_child + node.children) as usize;
            end_below = end_below.max(below.end);
            for child in below {
                offsets[child] = offset;
                add(&mut offset, &nodes[child].total);
            }
        }
        levels.push(values);
        level = first_below..end_below;
    }
    let ticks = nodes[0].total.to_vec();
    let total = ticks.iter().fold(0i64, |sum, side| sum.saturating_add(*side));
    FlameGraph { names, levels, total, max_self, ticks }
}

fn add<const S: usize>(to: &mut [i64; S], by: &[i64; S]) {
    to.iter_mut().zip(by).for_each(|(to, by)| *to = to.wrapping_add(*by));
}

/// The tree as bytes: per node the length of its name, its name, its own weight and the number of
/// its children, all numbers as unsigned LEB128; parents first, the last child first. The root has an
/// empty name. A tree without weight has no bytes.
pub fn encode_tree(flame: &Flame<1>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if flame.nodes[0].total == [0] {
        return bytes;
    }
    let mut stack = vec![0u32];
    while let Some(index) = stack.pop() {
        let node = &flame.nodes[index as usize];
        let name = if index == 0 { "" } else { &flame.names[node.name as usize] };
        put(&mut bytes, name.len() as u64);
        bytes.extend_from_slice(name.as_bytes());
        put(&mut bytes, node.own[0] as u64);
        put(&mut bytes, u64::from(node.children));
        stack.extend(node.first_child..node.first_child + node.children);
    }
    bytes
}
