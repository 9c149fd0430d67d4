//! A call graph as Graphviz text.
//!
//! Owns: the nodes and edges of the graph, its text, the units of its numbers. Does not own: the merge (`pprof`).

use std::fmt::Write;

use hashbrown::HashMap;
use model::{ProfileType, Symbols};
use query::kind::profile::MergedProfile;
use wire::querier::v1::SelectMergeStacktracesRequest;

use crate::http::pprof;
use crate::http::request::RequestLimits;
use crate::http::service::Answer;
use crate::{Client, Querier};

/// Nodes of the graph if the request sets no limit.
const NODES_DEFAULT: i64 = 100;

/// Least number of nodes of the tree that the graph is made of.
const TREE_NODES_MIN: usize = 512;

/// Answers with a graph of the functions with the largest totals; empty if no sample matches.
pub(crate) async fn merge(
    querier: &Querier,
    client: &Client,
    request: SelectMergeStacktracesRequest,
) -> Answer<String> {
    let requested = request.max_nodes.filter(|nodes| *nodes > 0).unwrap_or(NODES_DEFAULT);
    let nodes = RequestLimits::new(querier, client).nodes(Some(requested))?;
    let profile_type: ProfileType = request.profile_type_id.parse()?;
    pprof::merged(querier, client, &request, move |merged, memory| {
        let merged = merged.finish(None, nodes.max(TREE_NODES_MIN), memory)?;
        memory.grow(Graph::bytes(&merged))?;
        let text = Graph::new(&merged).write(&profile_type, nodes);
        memory.shrink_to(text.len() as u64 * 2);
        Ok(text)
    })
    .await
}

/// A function at a line, as a node of the graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Frame {
    function: u32,
    line: i64,
}

struct Graph<'a> {
    symbols: &'a Symbols,
    frames: Vec<Frame>,
    flat: Vec<i64>,
    total: Vec<i64>,
    /// Nodes of each stacktrace, root first, and its value.
    stacks: Vec<(Vec<u32>, i64)>,
    sum: i64,
}

impl<'a> Graph<'a> {
    /// Upper bound of the memory of the graph of a profile, roughly.
    fn bytes(merged: &MergedProfile) -> u64 {
        let Symbols { stacktraces, locations, .. } = &merged.symbols;
        let lines = (locations.lines.len() as u64).div_ceil(locations.len().max(1) as u64).max(1);
        stacktraces.locations.len() as u64 * lines * 4
            + stacktraces.len() as u64 * 40
            + locations.lines.len() as u64 * 64
    }

    fn new(merged: &'a MergedProfile) -> Self {
        let symbols = &merged.symbols;
        let mut graph = Self { symbols, frames: vec![], flat: vec![], total: vec![], stacks: vec![], sum: 0 };
        let mut nodes: HashMap<Frame, u32> = HashMap::new();
        for (stacktrace, value) in merged.values.iter().enumerate().filter(|(_, v)| **v > 0) {
            let mut path = Vec::new();
            for location in symbols.stacktraces.get(stacktrace as u32).iter().rev() {
                for line in symbols.locations.lines_of(*location).iter().rev() {
                    let frame = Frame { function: line.function, line: line.line };
                    path.push(*nodes.entry(frame).or_insert_with(|| {
                        graph.frames.push(frame);
                        graph.flat.push(0);
                        graph.total.push(0);
                        (graph.frames.len() - 1) as u32
                    }));
                }
            }
            let mut seen = path.clone();
            seen.sort_unstable();
            seen.dedup();
            for node in seen {
                let total = &mut graph.total[node as usize];
                *total = total.saturating_add(*value);
            }
            if let Some(leaf) = path.last() {
                let flat = &mut graph.flat[*leaf as usize];
                *flat = flat.saturating_add(*value);
            }
            graph.sum = graph.sum.saturating_add(*value);
            graph.stacks.push((path, *value));
        }
        graph
    }

    fn name(&self, node: u32) -> (String, String) {
        let frame = self.frames[node as usize];
        let Some(function) = self.symbols.functions.get(frame.function as usize) else {
            return ("?".into(), String::new());
        };
        let name = self.symbols.strings.text(function.name).into_owned();
        let file = self.symbols.strings.text(function.filename);
        let file = file.rsplit('/').next().unwrap_or_default();
        let place = match (file, frame.line) {
            ("", _) => String::new(),
            (file, 0) => file.to_owned(),
            (file, line) => format!("{file}:{line}"),
        };
        (name, place)
    }

    fn write(&self, profile_type: &ProfileType, max_nodes: usize) -> String {
        let mut out = String::new();
        if self.sum == 0 {
            return out;
        }
        let mut order: Vec<u32> = (0..self.frames.len() as u32).collect();
        order.sort_by_cached_key(|node| {
            let index = *node as usize;
            (-self.total[index], -self.flat[index], self.name(*node))
        });
        order.truncate(max_nodes);
        // Numbers of the shown nodes, from 1; 0: not shown.
        let mut number = vec![0usize; self.frames.len()];
        for (position, node) in order.iter().enumerate() {
            number[*node as usize] = position + 1;
        }
        let scale = Scale::new(&profile_type.sample_unit, self.sum);

        let binary = self.symbols.mappings.first().map(|mapping| mapping.filename);
        let binary = binary.map(|name| self.symbols.strings.text(name)).unwrap_or_default();
        let binary = escape(binary.rsplit('/').next().unwrap_or_default());
        let shown: i64 = order.iter().fold(0, |sum, node| self.flat[*node as usize].saturating_add(sum));
        let _ = writeln!(out, "digraph \"{binary}\" {{");
        let _ = writeln!(out, "node [style=filled fillcolor=\"#f8f8f8\"]");
        let mut legend = String::new();
        if !binary.is_empty() {
            let _ = write!(legend, "File: {binary}\\l");
        }
        let _ = write!(legend, "Type: {}\\l", escape(&profile_type.sample_type));
        let _ = write!(
            legend,
            "Showing nodes accounting for {}, {} of {} total\\l",
            scale.text(shown),
            percent(shown, self.sum),
            scale.text(self.sum)
        );
        if order.len() < self.frames.len() {
            let (some, all) = (order.len(), self.frames.len());
            let _ = write!(legend, "Showing top {some} nodes out of {all}\\l");
        }
        let _ = writeln!(
            out,
            "subgraph cluster_L {{ \"legend\" [shape=box fontsize=16 label=\"{legend}\" tooltip=\"{binary}\"] }}"
        );
        for node in &order {
            self.write_node(&mut out, *node, number[*node as usize], &scale);
        }
        self.write_edges(&mut out, &number, &scale);
        out.push_str("}\n");
        out
    }

    fn write_node(&self, out: &mut String, node: u32, number: usize, scale: &Scale) {
        let (flat, total) = (self.flat[node as usize], self.total[node as usize]);
        let (name, place) = self.name(node);
        let (name, place) = (escape(&name), escape(&place));
        let mut label = name.clone();
        if !place.is_empty() {
            let _ = write!(label, "\\n{place}");
        }
        let _ = write!(label, "\\n{}", scale.text(flat));
        if flat != 0 {
            let _ = write!(label, " ({})", percent(flat, self.sum));
        }
        if flat != total {
            let separator = if flat != 0 { "\\n" } else { " " };
            let (value, share) = (scale.text(total), percent(total, self.sum));
            let _ = write!(label, "{separator}of {value} ({share})");
        }
        // 8 to 24 points, by the square root of the node's own share.
        let size = 8 + (16.0 * (flat as f64 / self.sum as f64).sqrt()).round() as i64;
        let _ = writeln!(
            out,
            "N{number} [label=\"{label}\" id=\"node{number}\" fontsize={size} shape=box tooltip=\"{name} {place} ({})\" color=\"{}\" fillcolor=\"{}\"]",
            scale.text(total),
            heat(total, self.sum, 0.7),
            heat(total, self.sum, 0.93),
        );
    }

    /// Writes an edge from each shown node of a stacktrace to the next shown one; dotted if nodes between them are not
    /// shown.
    fn write_edges(&self, out: &mut String, number: &[usize], scale: &Scale) {
        let mut edges: HashMap<(usize, usize), (i64, bool)> = HashMap::new();
        let mut seen = Vec::new();
        for (path, value) in &self.stacks {
            seen.clear();
            let mut last: Option<(usize, usize)> = None;
            for (depth, node) in path.iter().enumerate() {
                let to = number[*node as usize];
                if to == 0 {
                    continue;
                }
                if let Some((from, from_depth)) = last
                    && from != to
                    && !seen.contains(&(from, to))
                {
                    seen.push((from, to));
                    let edge = edges.entry((from, to)).or_default();
                    edge.0 = edge.0.saturating_add(*value);
                    edge.1 |= from_depth + 1 != depth;
                }
                last = Some((to, depth));
            }
        }
        let mut edges: Vec<_> = edges.into_iter().collect();
        edges.sort_by_key(|((from, to), (value, _))| (-value, *from, *to));
        for ((from, to), (value, residual)) in edges {
            let text = scale.text(value);
            let style = if residual { " style=\"dotted\"" } else { "" };
            let weight = 1 + (i128::from(value) * 100 / i128::from(self.sum.max(1))) as i64;
            let color = heat(value, self.sum, 0.7);
            let _ = writeln!(
                out,
                "N{from} -> N{to} [label=\" {text}\" weight={weight} color=\"{color}\"{style}]"
            );
        }
    }
}

/// A Graphviz color: grey for a share of 0, red for the whole.
fn heat(part: i64, whole: i64, brightness: f64) -> String {
    let share = (part as f64 / whole.max(1) as f64).clamp(0.0, 1.0).sqrt();
    let channel = |value: f64| (value.clamp(0.0, 1.0) * 255.0) as u8;
    let pale = brightness * (1.0 - share * if brightness > 0.9 { 0.1 } else { 1.0 });
    format!("#{:02x}{:02x}{:02x}", channel(brightness), channel(pale), channel(pale))
}

fn percent(part: i64, whole: i64) -> String {
    let share = part as f64 * 100.0 / whole.max(1) as f64;
    match share {
        share if share >= 99.95 => "100%".into(),
        share if share <= 0.0 => "0%".into(),
        share => format!("{share:.2}%"),
    }
}

/// Escapes text for a quoted string of DOT. Replaces control characters: Graphviz ends a text at a NUL, and viewers obey
/// others.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            other if other.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The unit of all numbers of a graph.
struct Scale {
    per_unit: f64,
    unit: String,
}

impl Scale {
    /// The largest unit that suits the largest value.
    fn new(unit: &str, max: i64) -> Self {
        // Least value, size and name of each unit. Seconds are used from 0.01 s.
        const TIME: &[(f64, f64, &str)] =
            &[(1e7, 1e9, "s"), (1e6, 1e6, "ms"), (1e3, 1e3, "us"), (1.0, 1.0, "ns")];
        const BYTES: &[(f64, f64, &str)] = &[
            (1_099_511_627_776.0, 1_099_511_627_776.0, "TB"),
            (1_073_741_824.0, 1_073_741_824.0, "GB"),
            (1_048_576.0, 1_048_576.0, "MB"),
            (1024.0, 1024.0, "kB"),
            (1.0, 1.0, "B"),
        ];
        let (units, own): (&[(f64, f64, &str)], f64) = match unit {
            "nanoseconds" | "ns" => (TIME, 1.0),
            "microseconds" | "us" => (TIME, 1e3),
            "milliseconds" | "ms" => (TIME, 1e6),
            "seconds" | "s" => (TIME, 1e9),
            "bytes" | "B" => (BYTES, 1.0),
            _ => (&[], 1.0),
        };
        match units.iter().find(|(least, _, _)| max as f64 * own >= *least) {
            Some((_, size, name)) => Self { per_unit: size / own, unit: (*name).to_owned() },
            None if unit == "count" => Self { per_unit: 1.0, unit: String::new() },
            None => Self { per_unit: 1.0, unit: escape(unit) },
        }
    }

    fn text(&self, value: i64) -> String {
        if value == 0 {
            return "0".into();
        }
        let number = format!("{:.2}", value as f64 / self.per_unit);
        format!("{}{}", number.strip_suffix(".00").unwrap_or(&number), self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_in_the_unit_of_the_total() {
        let text = |unit: &str, max: i64, value: i64| Scale::new(unit, max).text(value);
        assert_eq!(text("nanoseconds", 1_584_000_000, 24_000_000), "0.02s");
        assert_eq!(text("nanoseconds", 1_584_000_000, 300_000_000), "0.30s");
        assert_eq!(text("bytes", 2048, 2048), "2kB");
        assert_eq!(text("count", 7, 7), "7");
        assert_eq!(text("count", 7, 0), "0");
        assert_eq!(text("objects", 7, 3), "3objects");
    }

    #[test]
    fn names_cannot_end_their_quotes() {
        assert_eq!(escape("a\"] b\\"), "a\\\"] b\\\\");
        assert_eq!(
            escape("a\nb\0c\u{1b}[2J\t\r\u{9b}ö"),
            "a\\nb\u{fffd}c\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}ö"
        );
        assert_eq!(Scale::new("x\"]", 1).text(1), "1x\\\"]");
    }

    #[test]
    fn shares_are_written_with_two_decimals() {
        assert_eq!(percent(780, 1584), "49.24%");
        assert_eq!(percent(1584, 1584), "100%");
        assert_eq!(percent(0, 1584), "0%");
    }
}
