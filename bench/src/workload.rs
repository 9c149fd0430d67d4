//! The pushed data, the same on every run but for their times.
//!
//! Two kinds of documents. *Fresh* ones are CPU profiles like those of busy Go services, one per pod: 300 stacks,
//! about 180 kB of pprof, 10 services with 20 pods each. *Back-filled* ones fill a past that cannot be pushed
//! document by document within a benchmark, so one document holds the stacks of all pods of a service, distinguished by
//! a label of the samples; the server makes one profile per pod of it.
//!
//! Owns: the shape of the data and of its requests. Does not own: how they are sent (`client`).

use bytes::Bytes;
use model::{Function, Line, Mapping, NONE, Profile, SampleLabel, Strings, ValueType};
use prost::Message;
use wire::push::v1::{PushRequest, RawProfileSeries, RawSample};
use wire::types::v1::LabelPair;

const FUNCTIONS: u64 = 1500;
const LINES_EACH: u64 = 4;
const NODES: u64 = 6000;
const DEPTH_MAX: u32 = 40;
/// One sample in this many has a leaf that its stack has not had before.
const NEW_LEAF_EVERY: u64 = 40;

const FRESH_SERVICES: u64 = 10;
const FRESH_PODS: u64 = 20;
const FRESH_SAMPLES: u64 = 300;

/// The service of the flame graphs.
pub(crate) const SERVICE: &str = "checkout";
const PODS: u64 = 100;
const POD_SAMPLES: u64 = 40;
/// The other, small services.
const SMALL_SERVICES: u64 = 19;
const SMALL_PODS: u64 = 5;

const MINUTE_NANOS: i64 = 60_000_000_000;
const DAY_MINUTES: i64 = 24 * 60;
pub(crate) const DAYS: i64 = 30;
/// Minutes between profiles of a pod: in the last day, before it, and of small services.
const LAST_DAY_MINUTES: i64 = 2;
const EARLIER_MINUTES: i64 = 60;
const SMALL_MINUTES: i64 = DAY_MINUTES;

/// The compression level of Go's profiles.
const GZIP_LEVEL: i32 = 1;

/// A push request.
pub(crate) struct Push {
    pub(crate) body: Bytes,
    /// Size of its pprof, uncompressed.
    pub(crate) bytes: u64,
    /// Sum of all CPU values, in nanoseconds.
    pub(crate) total: i64,
}

/// Documents of pods that are profiled now.
pub(crate) struct Fresh {
    programs: Vec<Program>,
    made: u64,
}

impl Fresh {
    pub(crate) fn new() -> Self {
        Self { programs: (0..FRESH_SERVICES).map(Program::new).collect(), made: 0 }
    }

    /// The uncompressed document of the next pod.
    pub(crate) fn document(&mut self, time_nanos: i64) -> Vec<u8> {
        self.next(time_nanos).1.0
    }

    /// A request of the next pod.
    pub(crate) fn push(&mut self, time_nanos: i64) -> Push {
        let (pod, document) = self.next(time_nanos);
        let service = self.made % FRESH_SERVICES;
        request(&fresh_service(service), Some(&format!("pod-{pod}")), document)
    }

    fn next(&mut self, time_nanos: i64) -> (u64, (Vec<u8>, i64)) {
        self.made += 1;
        let service = self.made % FRESH_SERVICES;
        let pod = self.made / FRESH_SERVICES % FRESH_PODS;
        (pod, self.programs[service as usize].document(time_nanos, &Shape::OnePod))
    }
}

/// The services of [`Fresh`].
pub(crate) fn fresh_services() -> impl Iterator<Item = String> {
    (0..FRESH_SERVICES).map(fresh_service)
}

fn fresh_service(number: u64) -> String {
    format!("fresh-{number}")
}

/// Requests that fill [`DAYS`] days up to `end_millis`, from the oldest to the newest.
pub(crate) fn back_fill(end_millis: i64) -> impl Iterator<Item = Push> {
    let mut program = Program::new(FRESH_SERVICES);
    let mut small = Program::new(FRESH_SERVICES + 1);
    let minutes = (1..=DAYS * DAY_MINUTES).rev();
    minutes.flat_map(move |before| {
        let time_nanos = end_millis * 1_000_000 - before * MINUTE_NANOS;
        let every = if before <= DAY_MINUTES { LAST_DAY_MINUTES } else { EARLIER_MINUTES };
        let large = (before % every == 0).then(|| {
            let shape = Shape::Pods { name: SERVICE.into(), pods: PODS, samples: POD_SAMPLES };
            request(SERVICE, None, program.document(time_nanos, &shape))
        });
        let others = if before % SMALL_MINUTES == 0 { SMALL_SERVICES } else { 0 };
        let mut pushes: Vec<Push> = large.into_iter().collect();
        pushes.extend((0..others).map(|number| {
            let name = format!("service-{number}");
            let shape = Shape::Pods { name: name.clone(), pods: SMALL_PODS, samples: POD_SAMPLES };
            request(&name, None, small.document(time_nanos, &shape))
        }));
        pushes
    })
}

fn request(service: &str, pod: Option<&str>, (pprof, total): (Vec<u8>, i64)) -> Push {
    let own = [("__name__", "process_cpu"), ("service_name", service)];
    let labels = own.into_iter().chain(pod.map(|pod| ("pod", pod)));
    let labels = labels.map(|(name, value)| LabelPair { name: name.into(), value: value.into() });
    let raw_profile = formats::gzip::compress(&pprof, GZIP_LEVEL).into();
    let samples = vec![RawSample { raw_profile, ..Default::default() }];
    let series = vec![RawProfileSeries { labels: labels.collect(), samples, ..Default::default() }];
    Push { body: PushRequest { series }.encode_to_vec().into(), bytes: pprof.len() as u64, total }
}

/// The pods whose stacks one document holds.
enum Shape {
    OnePod,
    /// Several pods, with a label and a number of samples each.
    Pods {
        name: String,
        pods: u64,
        samples: u64,
    },
}

/// One call: its place in the code, and the call that made it.
struct Node {
    parent: Option<u32>,
    place: u32,
    depth: u32,
}

/// A program whose call tree every profile samples.
struct Program {
    nodes: Vec<Node>,
    random: Xorshift,
    /// For each node, the number of the last document that sampled it.
    sampled: Vec<u64>,
    documents: u64,
}

impl Program {
    fn new(number: u64) -> Self {
        let mut random = Xorshift(0x9e37_79b9_7f4a_7c15 ^ number << 32);
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
        Self { nodes, random, sampled: vec![0; NODES as usize], documents: 0 }
    }

    /// The next document, as uncompressed pprof, and the sum of its CPU values. No two samples of a pod have the same stack.
    fn document(&mut self, time_nanos: i64, shape: &Shape) -> (Vec<u8>, i64) {
        let mut profile =
            Profile { time_nanos, duration_nanos: 15_000_000_000, period: 10_000_000, ..Profile::default() };
        let mut strings = Strings::default();
        let [_, samples, count, cpu, nanoseconds, binary, pod_key] =
            ["", "samples", "count", "cpu", "nanoseconds", "/app/server", "pod"]
                .map(|text| strings.push(text.as_bytes()));
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
        let mut places = Places::new();
        let mut total = 0;
        let (pods, samples) = match shape {
            Shape::OnePod => (1, FRESH_SAMPLES),
            Shape::Pods { pods, samples, .. } => (*pods, *samples),
        };
        for pod in 0..pods {
            self.documents += 1;
            let label = match shape {
                Shape::OnePod => None,
                Shape::Pods { name, .. } => {
                    let string = profile.symbols.strings.push(format!("{name}-{pod}").as_bytes());
                    Some(SampleLabel { key: pod_key, string, ..SampleLabel::default() })
                }
            };
            for sample in 0..samples {
                self.sample(sample, &mut profile, &mut places);
                let hits = 1 + self.random.below(8) as i64;
                total += hits * profile.period;
                profile.samples.values.extend([hits, hits * profile.period]);
                profile.samples.labels.extend(label);
                profile.samples.label_offsets.push(profile.samples.labels.len() as u32);
            }
        }
        (formats::pprof::encode(&profile), total)
    }

    /// Adds a stack that the document has not had from this pod yet.
    fn sample(&mut self, number: u64, profile: &mut Profile, places: &mut Places) {
        let mut stack = Vec::with_capacity(DEPTH_MAX as usize + 1);
        if number.is_multiple_of(NEW_LEAF_EVERY) {
            let place = self.random.below(FUNCTIONS * LINES_EACH) as u32;
            stack.push(places.location(profile, place));
        }
        // The smaller of two draws: some stacks are hot, in every profile.
        let mut node = self.random.below(NODES).min(self.random.below(NODES));
        while std::mem::replace(&mut self.sampled[node as usize], self.documents) == self.documents {
            node = (node + 1) % NODES;
        }
        let mut next = Some(node as u32);
        while let Some(node) = next {
            let Node { parent, place, .. } = self.nodes[node as usize];
            stack.push(places.location(profile, place));
            next = parent;
        }
        profile.symbols.stacktraces.push(&stack);
    }
}

/// The functions and locations that a document has so far, by place in the program.
struct Places {
    functions: Vec<u32>,
    locations: Vec<u32>,
}

impl Places {
    fn new() -> Self {
        Self {
            functions: vec![NONE; FUNCTIONS as usize],
            locations: vec![NONE; (FUNCTIONS * LINES_EACH) as usize],
        }
    }

    /// The profile's location for a place, added at its first use, as in Go's profiles.
    fn location(&mut self, profile: &mut Profile, place: u32) -> u32 {
        let known = self.locations[place as usize];
        if known != NONE {
            return known;
        }
        let symbols = &mut profile.symbols;
        let (number, line) = (place / LINES_EACH as u32, place % LINES_EACH as u32);
        let function = &mut self.functions[number as usize];
        if *function == NONE {
            let package = number / 25;
            let name = symbols.strings.push(
                format!(
                    "github.com/acme/shop/internal/package{package}.(*Service{}).Handle{number}",
                    number % 7
                )
                .as_bytes(),
            );
            let filename = symbols
                .strings
                .push(format!("/src/shop/internal/package{package}/file{number}.go").as_bytes());
            let start_line = i64::from(number % 300);
            symbols.functions.push(Function { name, system_name: name, filename, start_line });
            *function = symbols.functions.len() as u32 - 1;
        }
        let line = Line { function: *function, line: i64::from(number % 300 + 3 + line * 5) };
        let index = symbols.locations.push(0, 0x40_0000 + u64::from(place) * 32, false, &[line]);
        self.locations[place as usize] = index;
        index
    }
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
