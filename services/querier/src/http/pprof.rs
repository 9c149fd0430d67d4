//! SelectMergeProfile, and every other answer that is a pprof.
//!
//! Owns: merging samples with their symbols, the pprof message and its memory. Does not own: the merge itself (`query`).

use std::sync::Arc;

use memory::{Lease, Refusal};
use model::{NONE, ProfileType, Strings};
use query::Kind;
use query::kind::profile::{GoPgo, MergedProfile, Parameters};
use wire::google::v1::{Function, Line, Location, Mapping, Profile, Sample, ValueType};
use wire::querier::v1::{SelectMergeProfileRequest, SelectMergeStacktracesRequest};

use crate::execute::Report;
use crate::http::request::{RequestLimits, parse_query, sample_filter};
use crate::http::service::Answer;
use crate::{Client, Error, Querier};

pub(crate) async fn select_merge_profile(
    querier: &Querier,
    client: &Client,
    request: SelectMergeProfileRequest,
) -> Answer<Profile> {
    let request = SelectMergeStacktracesRequest {
        profile_type_id: request.profile_type_id,
        label_selector: request.label_selector,
        start: request.start,
        end: request.end,
        max_nodes: request.max_nodes,
        stack_trace_selector: request.stack_trace_selector,
        profile_id_selector: request.profile_id_selector,
        trace_id_selector: request.trace_id_selector,
        ..SelectMergeStacktracesRequest::default()
    };
    merge(querier, client, request).await
}

/// Answers with one pprof; an empty message if no sample matches.
pub(crate) async fn merge(
    querier: &Querier,
    client: &Client,
    request: SelectMergeStacktracesRequest,
) -> Answer<Profile> {
    let nodes = RequestLimits::new(querier, client).profile_nodes(request.max_nodes)?;
    let pgo = go_pgo(&request);
    // A compiler needs all nodes.
    let nodes = if pgo.is_some() { 0 } else { nodes };
    let profile_type: ProfileType = request.profile_type_id.parse()?;
    let end = request.end;
    merged(querier, client, &request, move |merged, memory| {
        let merged = merged.finish(pgo, nodes, memory)?;
        let bytes = MessageBytes::estimate(&merged);
        memory.grow(bytes.message + bytes.encoded * ENCODED_COPIES)?;
        let profile = encode(merged, &profile_type, end);
        memory.shrink_to(bytes.message + bytes.encoded * ENCODED_COPIES);
        Ok(profile)
    })
    .await
}

/// Merges all matching samples with their symbols, and returns the result of `finish`; the default if the whole range is
/// before the lookback limit.
pub(crate) async fn merged<T: Default + Send + 'static>(
    querier: &Querier,
    client: &Client,
    request: &SelectMergeStacktracesRequest,
    finish: impl Fn(MergedProfile, &Lease) -> Result<T, Refusal> + Send + Sync + 'static,
) -> Result<(T, Report), Error> {
    let now = querier.clock.unix_millis();
    let range = RequestLimits::new(querier, client).range(request.start, request.end, now)?;
    let stacks = request.stack_trace_selector.as_ref();
    let filter = sample_filter(
        &request.span_selector,
        &request.trace_id_selector,
        &request.profile_id_selector,
        stacks,
    )?;
    let query = parse_query(
        range.unwrap_or_default(),
        &request.profile_type_id,
        &request.label_selector,
        Kind::MergeProfile(Parameters { filter, go_pgo: go_pgo(request) }),
    )?;
    if range.is_none() {
        return Ok(Default::default());
    }
    let (pool, finish) = (querier.pool.clone(), Arc::new(finish));
    let finished = querier.execute_and(client, query, |answer, memory| {
        let (pool, finish) = (pool.clone(), finish.clone());
        let work = move || match answer {
            query::Answer::MergeProfile(merged) => finish(*merged, &memory).map(Some),
            _ => Ok(None),
        };
        Box::pin(async move { pool.run(work).await })
    });
    match finished.await? {
        (Some(finished), report) => Ok((finished, report)),
        (None, _) => Err(Error::Internal("a profile was asked for, something else was answered".into())),
    }
}

/// Copies of the encoded message that exist at once: the growing buffer, its new allocation, and the compressed bytes.
const ENCODED_COPIES: u64 = 3;

/// Upper bounds, roughly, of the bytes of a profile as a message and encoded.
struct MessageBytes {
    message: u64,
    encoded: u64,
}

impl MessageBytes {
    fn estimate(merged: &MergedProfile) -> Self {
        let symbols = &merged.symbols;
        let samples = symbols.stacktraces.len() as u64;
        let frames = symbols.stacktraces.locations.len() as u64;
        let locations = symbols.locations.len() as u64;
        let lines = symbols.locations.lines.len() as u64;
        let functions = symbols.functions.len() as u64;
        let strings = symbols.strings.len() as u64;
        let text = symbols.strings.iter().map(|text| text.len() as u64).sum::<u64>();
        let bytes = |count: u64, size: usize| count * size as u64;
        Self {
            message: bytes(samples, size_of::<Sample>() + size_of::<i64>() * 2)
                + bytes(frames, size_of::<u64>())
                + bytes(locations, size_of::<Location>())
                + bytes(lines, size_of::<Line>())
                + bytes(functions, size_of::<Function>())
                + bytes(strings, size_of::<String>() + 8)
                + text,
            encoded: samples * 16
                + frames * 3
                + locations * 24
                + lines * 10
                + functions * 24
                + strings * 3
                + text,
        }
    }
}

fn go_pgo(request: &SelectMergeStacktracesRequest) -> Option<GoPgo> {
    let pgo = request.stack_trace_selector.as_ref()?.go_pgo.as_ref()?;
    Some(GoPgo { keep_locations: pgo.keep_locations, aggregate_callees: pgo.aggregate_callees })
}

fn encode(merged: MergedProfile, profile_type: &ProfileType, end_millis: i64) -> Profile {
    if merged.is_empty() {
        return Profile::default();
    }
    let MergedProfile { symbols, values, .. } = merged;
    let mut texts = Texts::new(&symbols.strings);
    let mut value_type = |kind: &str, unit: &str| ValueType { r#type: texts.id(kind), unit: texts.id(unit) };
    let sample_type = value_type(&profile_type.sample_type, &profile_type.sample_unit);
    let period_type = value_type(&profile_type.period_type, &profile_type.period_unit);
    let samples = values.iter().enumerate().filter(|(_, value)| **value != 0);
    Profile {
        default_sample_type: sample_type.r#type,
        sample: samples
            .map(|(stacktrace, value)| Sample {
                location_id: symbols
                    .stacktraces
                    .get(stacktrace as u32)
                    .iter()
                    .map(|location| u64::from(*location) + 1)
                    .collect(),
                value: vec![*value],
                label: Vec::new(),
            })
            .collect(),
        sample_type: vec![sample_type],
        mapping: symbols
            .mappings
            .iter()
            .zip(1..)
            .map(|(mapping, id)| Mapping {
                id,
                memory_start: mapping.memory_start,
                memory_limit: mapping.memory_limit,
                file_offset: mapping.file_offset,
                filename: i64::from(mapping.filename),
                build_id: i64::from(mapping.build_id),
                has_functions: mapping.has_functions,
                has_filenames: mapping.has_filenames,
                has_line_numbers: mapping.has_line_numbers,
                has_inline_frames: mapping.has_inline_frames,
            })
            .collect(),
        location: (0..symbols.locations.len())
            .map(|index| Location {
                id: index as u64 + 1,
                mapping_id: one_based(symbols.locations.mapping[index]),
                address: symbols.locations.address[index],
                line: symbols
                    .locations
                    .lines_of(index as u32)
                    .iter()
                    .map(|line| Line { function_id: one_based(line.function), line: line.line })
                    .collect(),
                is_folded: symbols.locations.folded[index],
            })
            .collect(),
        function: symbols
            .functions
            .iter()
            .zip(1..)
            .map(|(function, id)| Function {
                id,
                name: i64::from(function.name),
                system_name: i64::from(function.system_name),
                filename: i64::from(function.filename),
                start_line: function.start_line,
            })
            .collect(),
        string_table: texts.table,
        // An absurd time wraps instead of failing.
        time_nanos: end_millis.wrapping_mul(1_000_000),
        period_type: Some(period_type),
        period: period_of(&profile_type.name),
        ..Profile::default()
    }
}

/// The usual sampling period of a profile type. Merging does not keep the periods of the profiles.
fn period_of(name: &str) -> i64 {
    match name {
        "process_cpu" => 1_000_000_000,
        "memory" => 524_288,
        _ => 1,
    }
}

fn one_based(index: u32) -> u64 {
    if index == NONE { 0 } else { u64::from(index) + 1 }
}

/// The string table of the answer: the strings of the symbols, and those of the types and units.
struct Texts {
    table: Vec<String>,
}

impl Texts {
    fn new(strings: &Strings) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { table: strings.iter().map(text).collect() }
    }

    fn id(&mut self, text: &str) -> i64 {
        let index = self.table.iter().position(|other| other == text).unwrap_or_else(|| {
            self.table.push(text.to_owned());
            self.table.len() - 1
        });
        index as i64
    }
}
