//! CPU profiles as a busy Go service would send them, the same ones on every run.
//!
//! Owns: the shape of the data. Does not own: labels and how profiles travel (`client`).

use model::{Function, Line, Mapping, NONE, Profile, Strings, ValueType};

const FUNCTIONS: u64 = 1500;
const LINES_EACH: u64 = 4;
const NODES: u64 = 6000;
const DEPTH_MAX: u32 = 40;
const SAMPLES: u64 = 550;
/// One sample in so many has a leaf that its stack has not had before.
const NEW_LEAF_EVERY: u64 = 40;

/// One call: its place in the code, and the call that made it.
struct Node {
    parent: Option<u32>,
    place: u32,
    depth: u32,
}

/// A program whose call tree every profile samples.
pub(crate) struct Program {
    nodes: Vec<Node>,
    random: Xorshift,
}

impl Program {
    pub(crate) fn new() -> Self {
        let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
        let mut nodes = vec![Node { parent: None, place: 0, depth: 1 }];
        let mut parent = 0;
        for index in 1..NODES {
            let depth = nodes[parent as usize].depth + 1;
            nodes.push(Node {
                parent: Some(parent),
                place: random.below(FUNCTIONS * LINES_EACH) as u32,
                depth,
            });
            let goes_deeper = depth < DEPTH_MAX && random.below(12) > 0;
            parent = if goes_deeper { index as u32 } else { random.below(index + 1) as u32 };
            if nodes[parent as usize].depth >= DEPTH_MAX {
                parent = 0;
            }
        }
        Self { nodes, random }
    }

    /// The next profile, taken at `time_nanos`, as an uncompressed pprof document; and its samples.
    pub(crate) fn profile(&mut self, time_nanos: i64) -> (Vec<u8>, u64) {
        let mut profile =
            Profile { time_nanos, duration_nanos: 15_000_000_000, period: 10_000_000, ..Profile::default() };
        let mut strings = Strings::default();
        let [_, samples, count, cpu, nanoseconds, binary] =
            ["", "samples", "count", "cpu", "nanoseconds", "/app/checkout"]
                .map(|s| strings.push(s.as_bytes()));
        let cpu_type = ValueType { r#type: cpu, unit: nanoseconds };
        profile.sample_types = vec![ValueType { r#type: samples, unit: count }, cpu_type];
        profile.period_type = Some(cpu_type);
        profile.symbols.strings = strings;
        profile.symbols.mappings = vec![Mapping {
            memory_start: 0x40_0000,
            memory_limit: 0x200_0000,
            filename: binary,
            has_functions: true,
            ..Mapping::default()
        }];
        let mut functions = vec![NONE; FUNCTIONS as usize];
        let mut locations = vec![NONE; (FUNCTIONS * LINES_EACH) as usize];
        let mut stack = Vec::new();
        for sample in 0..SAMPLES {
            stack.clear();
            if sample % NEW_LEAF_EVERY == 0 {
                let place = self.random.below(FUNCTIONS * LINES_EACH) as u32;
                stack.push(location(&mut profile, &mut functions, &mut locations, place));
            }
            // The smaller of two draws: some stacks are hot, in every profile.
            let node = self.random.below(NODES).min(self.random.below(NODES));
            let mut next = Some(node as u32);
            while let Some(node) = next {
                let Node { parent, place, .. } = self.nodes[node as usize];
                stack.push(location(&mut profile, &mut functions, &mut locations, place));
                next = parent;
            }
            profile.symbols.stacktraces.push(&stack);
            let hits = 1 + self.random.below(8) as i64;
            profile.samples.values.extend([hits, hits * profile.period]);
            profile.samples.label_offsets.push(0);
        }
        (formats::pprof::encode(&profile), SAMPLES)
    }
}

/// The profile's location for a place of the program, made at its first use, as Go does.
fn location(profile: &mut Profile, functions: &mut [u32], locations: &mut [u32], place: u32) -> u32 {
    let known = locations[place as usize];
    if known != NONE {
        return known;
    }
    let symbols = &mut profile.symbols;
    let (number, line) = (place / LINES_EACH as u32, place % LINES_EACH as u32);
    let function = &mut functions[number as usize];
    if *function == NONE {
        let package = number / 25;
        let name = symbols.strings.push(
            format!("github.com/acme/shop/internal/package{package}.(*Service{}).Handle{number}", number % 7)
                .as_bytes(),
        );
        let filename =
            symbols.strings.push(format!("/src/shop/internal/package{package}/file{number}.go").as_bytes());
        let start_line = i64::from(number % 300);
        symbols.functions.push(Function { name, system_name: name, filename, start_line });
        *function = symbols.functions.len() as u32 - 1;
    }
    let line = Line { function: *function, line: i64::from(number % 300 + 3 + line * 5) };
    let index = symbols.locations.push(0, 0x40_0000 + u64::from(place) * 32, false, &[line]);
    locations[place as usize] = index;
    index
}

struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}
