//! A [`Partial`], the answer of a leaf, as a message.

use std::sync::Arc;

use ::query::flamegraph::Part;
use ::query::kind::labels::{FoundLabels, LABELS_MAX};
use ::query::kind::{heatmap, profile, series};
use ::query::{Answer, Charge, Kind, Partial, Query, Stats, TooLarge};
use block::NameTree;
use block::codec::{Cursor, Delta, Malformed, decode_symbols, encode_symbols, put, put_signed};
use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use model::{Labels, Strings};
use wire::pyrograph::leaf::v1 as proto;
use wire::pyrograph::leaf::v1::scan_response::Answer as ProtoAnswer;

use super::Unreadable;
use super::columns::{LabelSetReader, LabelSetWriter, put_strings, put_values, strings, values};

/// Flame graph parts with more nodes than this in total are joined before they are sent, so that common names and nodes
/// are sent once.
const NODES_MAX: usize = 1 << 20;

/// Marks a name that no node has used yet.
const UNUSED: u32 = u32::MAX;

/// Very rough size of a partial as a message, in bytes.
pub(super) fn bytes(partial: &Partial) -> usize {
    match &partial.answer {
        Answer::MergeStacktraces(parts) => parts.iter().map(Part::nodes).sum::<usize>() * 4,
        Answer::MergeProfile(merged) => merged.symbols.byte_len(),
        Answer::Series(grouped) => grouped.groups().map(|(_, points)| points.len()).sum::<usize>() * 8,
        Answer::Heatmap(points) => points.as_slice().len() * 24,
        Answer::Labels(labels) => (labels.texts.len() + labels.sets.len()) * 24,
    }
}

pub(super) fn put_partial(partial: Partial) -> proto::ScanResponse {
    let answer = match partial.answer {
        Answer::MergeStacktraces(mut parts) => {
            if parts.len() > 1 && parts.iter().map(Part::nodes).sum::<usize>() > NODES_MAX {
                parts = vec![Part::join(&parts)];
            }
            ProtoAnswer::MergeStacktraces(put_parts(&parts).into())
        }
        Answer::MergeProfile(merged) => {
            let mut values = Vec::with_capacity(merged.values.len() * 2);
            put_values(&mut values, &merged.values);
            let symbols = encode_symbols(&merged.symbols).into();
            ProtoAnswer::MergeProfile(proto::scan_response::Profile { symbols, values: values.into() })
        }
        Answer::Series(grouped) => ProtoAnswer::Series(put_series(&grouped).into()),
        Answer::Heatmap(points) => ProtoAnswer::Heatmap(put_points(points.as_slice()).into()),
        Answer::Labels(found) => {
            let mut sets = LabelSetWriter::default();
            for set in &found.sets {
                sets.id(set);
            }
            let mut out = Vec::new();
            sets.put(&mut out);
            let texts = found.texts.into_iter().collect();
            ProtoAnswer::Labels(proto::scan_response::Labels { texts, sets: out.into() })
        }
    };
    let Stats { objects, datasets, summed, profiles, samples, bytes } = partial.stats;
    let stats = proto::Stats { objects, datasets, summed, profiles, samples, bytes };
    proto::ScanResponse { stats: Some(stats), answer: Some(answer), ..Default::default() }
}

/// Reads the answer of a leaf to `query`.
pub(super) fn read_partial(response: proto::ScanResponse, query: &Query) -> Result<Partial, Unreadable> {
    let stats = response.stats.unwrap_or_default();
    let answer = match response.answer.ok_or_else(|| Unreadable::missing("answer"))? {
        ProtoAnswer::MergeStacktraces(bytes) => {
            Answer::MergeStacktraces(parts(&bytes).map_err(Unreadable::columns("merge_stacktraces"))?)
        }
        ProtoAnswer::MergeProfile(merged) => Answer::MergeProfile(Box::new(profile(&merged)?)),
        ProtoAnswer::Series(bytes) => Answer::Series(series(&bytes)?),
        ProtoAnswer::Heatmap(bytes) => Answer::Heatmap(points(&bytes)?),
        ProtoAnswer::Labels(labels) => Answer::Labels(found(labels)?),
    };
    let is_asked = match (&answer, &query.kind) {
        (Answer::MergeStacktraces(_), Kind::MergeStacktraces(_))
        | (Answer::MergeProfile(_), Kind::MergeProfile(_))
        | (Answer::Series(_), Kind::Series(_))
        | (Answer::Heatmap(_), Kind::Heatmap(_)) => true,
        (Answer::Labels(_), kind) => matches!(
            kind,
            Kind::LabelNames | Kind::LabelValues(_) | Kind::SeriesLabels(_) | Kind::ProfileTypes
        ),
        _ => false,
    };
    if !is_asked {
        return Err(Unreadable::new("answer", "is one to another query"));
    }
    let proto::Stats { objects, datasets, summed, profiles, samples, bytes } = stats;
    let stats = Stats { objects, datasets, summed, profiles, samples, bytes };
    Ok(Partial { answer, stats, charge: Charge::default() })
}

/// Encodes parts as: the names of all parts; the number of parts; then for each part its names, as differences, its
/// nodes except the root (their number, their names, and for each the number of levels from the previous node up to
/// its parent), and the weight of every node. Nodes with a total weight of 0 are left out.
fn put_parts(parts: &[Part]) -> Vec<u8> {
    let mut ids: HashMap<&[u8], u32, RandomState> = HashMap::default();
    let mut names: Vec<&[u8]> = Vec::new();
    let mut rows = Vec::with_capacity(parts.iter().map(Part::nodes).sum::<usize>() * 4);
    put(&mut rows, parts.len() as u64);
    let (mut used, mut nodes, mut ups) = (Vec::new(), Vec::new(), Vec::new());
    let (mut own, mut path) = (Vec::new(), Vec::new());
    for part in parts {
        let tree = part.tree();
        let mut locals = vec![UNUSED; tree.names.len()];
        [&mut used, &mut nodes, &mut ups, &mut path].into_iter().for_each(Vec::clear);
        own.clear();
        own.push(part.own(0));
        path.push(0_u32);
        let mut node = 1;
        while node < tree.len() as u32 {
            if part.total(node) == 0 {
                node = tree.ends[node as usize];
                continue;
            }
            let local = &mut locals[tree.name[node as usize] as usize];
            if *local == UNUSED {
                *local = used.len() as u32;
                let name = tree.name_of(node);
                used.push(*ids.entry(name).or_insert_with(|| {
                    names.push(name);
                    names.len() as u32 - 1
                }));
            }
            nodes.push(*local);
            let before = path.len();
            while path.last().is_some_and(|above| tree.ends[*above as usize] <= node) {
                path.pop();
            }
            ups.push((before - path.len()) as u32);
            path.push(node);
            own.push(part.own(node));
            node += 1;
        }
        put(&mut rows, used.len() as u64);
        let mut delta = Delta::default();
        used.iter().for_each(|name| delta.put(&mut rows, i64::from(*name)));
        put(&mut rows, nodes.len() as u64);
        nodes.iter().for_each(|name| put(&mut rows, u64::from(*name)));
        ups.iter().for_each(|up| put(&mut rows, u64::from(*up)));
        put_values(&mut rows, &own);
    }
    let mut out = Vec::with_capacity(rows.len() + names.len() * 48);
    put_strings(&mut out, names.iter().copied());
    out.extend_from_slice(&rows);
    out
}

/// Reads the output of [`put_parts`]. Names share the bytes.
fn parts(bytes: &Bytes) -> Result<Vec<Part>, Malformed> {
    let mut cursor = Cursor::new(bytes);
    let cursor = &mut cursor;
    let (data, spans) = strings(cursor, bytes)?;
    let count = cursor.count()?;
    let mut parts = Vec::new();
    for _ in 0..count {
        // The first entry is the root, which has no name.
        let used = cursor.count()?;
        let mut own_spans = Vec::with_capacity(used + 1);
        own_spans.push((0, 0));
        let mut delta = Delta::default();
        for _ in 0..used {
            let span = usize::try_from(delta.read(cursor)?).ok().and_then(|name| spans.get(name));
            own_spans.push(*span.ok_or_else(|| cursor.malformed("a name does not exist"))?);
        }
        let names = Strings::new(data.clone(), own_spans);
        let count = cursor.count()?;
        let mut name = Vec::with_capacity(count + 1);
        name.push(0);
        for _ in 0..count {
            name.push(cursor.index(used, "a node's name does not exist")? + 1);
        }
        let mut ends = vec![count as u32 + 1; count + 1];
        let mut path = vec![0_u32];
        for node in 1..=count as u32 {
            for _ in 0..cursor.index(path.len(), "a node has no parent")? {
                if let Some(left) = path.pop() {
                    ends[left as usize] = node;
                }
            }
            path.push(node);
        }
        let own = values(cursor, count + 1)?;
        if own.iter().any(|weight| *weight < 0) {
            return Err(cursor.malformed("a weight is negative"));
        }
        let tree = NameTree { names, name, ends, leaves: Vec::new() };
        parts.push(Part::from_own(Arc::new(tree), &own));
    }
    cursor.end()?;
    Ok(parts)
}

fn profile(merged: &proto::scan_response::Profile) -> Result<profile::MergedProfile, Unreadable> {
    let symbols = decode_symbols(&merged.symbols).map_err(Unreadable::columns("symbols"))?;
    let wrong = Unreadable::columns("values");
    let mut cursor = Cursor::new(&merged.values);
    let values = values(&mut cursor, symbols.stacktraces.len()).map_err(&wrong)?;
    cursor.end().map_err(&wrong)?;
    Ok(profile::MergedProfile::from_columns(symbols, values)?)
}

/// Encodes all label sets; the number of groups; then for each group its labels and its points in the order of the
/// grid.
fn put_series(grouped: &series::GroupedSeries) -> Vec<u8> {
    let mut sets = LabelSetWriter::default();
    let mut rows = Vec::new();
    put(&mut rows, grouped.groups().len() as u64);
    for (labels, points) in grouped.groups() {
        put(&mut rows, u64::from(sets.id(labels)));
        put(&mut rows, points.len() as u64);
        let mut points: Vec<(i64, &series::Point)> =
            points.iter().map(|(time, point)| (*time, point)).collect();
        points.sort_unstable_by_key(|(time, _)| *time);
        let mut bucket = Delta::default();
        for (time, point) in points {
            bucket.put(&mut rows, time);
            put_signed(&mut rows, point.sum);
            // The lowest bit says whether an exemplar follows.
            put(&mut rows, point.count << 1 | u64::from(point.exemplar.is_some()));
            if let Some(exemplar) = &point.exemplar {
                put_signed(&mut rows, exemplar.value);
                put_signed(&mut rows, exemplar.time_nanos);
                rows.extend_from_slice(&exemplar.profile.to_le_bytes());
                put(&mut rows, u64::from(sets.id(&exemplar.labels)));
            }
        }
    }
    with_sets(&sets, &rows)
}

fn series(bytes: &Bytes) -> Result<series::GroupedSeries, Unreadable> {
    let wrong = Unreadable::columns("series");
    let mut cursor = Cursor::new(bytes);
    let cursor = &mut cursor;
    let mut sets = LabelSetReader::read(cursor, bytes).map_err(&wrong)?;
    let mut grouped = series::GroupedSeries::default();
    for _ in 0..cursor.count().map_err(&wrong)? {
        let labels = sets.copy(cursor).map_err(&wrong)?;
        let points = group(cursor, &mut sets).map_err(&wrong)?;
        grouped.add_group(labels, points)?;
    }
    cursor.end().map_err(&wrong)?;
    Ok(grouped)
}

fn group(cursor: &mut Cursor<'_>, sets: &mut LabelSetReader) -> Result<series::PointsByBucket, Malformed> {
    let count = cursor.count()?;
    let mut points = series::PointsByBucket::with_capacity(count);
    let mut bucket = Delta::default();
    for _ in 0..count {
        let time = bucket.read(cursor)?;
        let sum = cursor.signed()?;
        let count = cursor.varint()?;
        let exemplar = match count & 1 {
            0 => None,
            _ => Some(series::Exemplar {
                value: cursor.signed()?,
                time_nanos: cursor.signed()?,
                profile: u64::from_le_bytes(cursor.array()?),
                labels: sets.copy(cursor)?,
            }),
        };
        points.insert(time, series::Point { sum, count: count >> 1, exemplar });
    }
    Ok(points)
}

/// Encodes all label sets; the number of points; then each point.
fn put_points(points: &[heatmap::Point]) -> Vec<u8> {
    let mut sets = LabelSetWriter::default();
    let mut rows = Vec::with_capacity(points.len() * 20);
    put(&mut rows, points.len() as u64);
    let mut time = Delta::default();
    let mut group: Option<(&Arc<Labels>, u32)> = None;
    for point in points {
        // Neighbours often share a group, whose labels need not be hashed again.
        let id = match group {
            Some((labels, id)) if Arc::ptr_eq(labels, &point.group) => id,
            _ => sets.id(&point.group),
        };
        group = Some((&point.group, id));
        put(&mut rows, u64::from(id));
        time.put(&mut rows, point.time_nanos);
        put_signed(&mut rows, point.value);
        match point.id {
            heatmap::Id::Profile(profile) => {
                rows.push(0);
                rows.extend_from_slice(&profile.to_le_bytes());
            }
            heatmap::Id::Span { span, trace } => {
                rows.push(1);
                rows.extend_from_slice(&span.to_le_bytes());
                rows.extend_from_slice(&trace.to_le_bytes());
            }
        }
        put(&mut rows, u64::from(sets.id(&point.labels)));
    }
    with_sets(&sets, &rows)
}

fn points(bytes: &Bytes) -> Result<heatmap::Points, Unreadable> {
    Ok(heatmap::Points::new(read_points(bytes).map_err(Unreadable::columns("heatmap"))?)?)
}

fn read_points(bytes: &Bytes) -> Result<Vec<heatmap::Point>, Malformed> {
    let mut cursor = Cursor::new(bytes);
    let cursor = &mut cursor;
    let mut sets = LabelSetReader::read(cursor, bytes)?;
    // Few of the sets are groups; the points of a group share it.
    let mut groups: Vec<Option<Arc<Labels>>> = vec![None; sets.len()];
    let count = cursor.count()?;
    let mut points = Vec::new();
    let mut time = Delta::default();
    for _ in 0..count {
        let id = sets.id(cursor)?;
        let group = groups[id].get_or_insert_with(|| Arc::new(sets.get(id).clone())).clone();
        let time_nanos = time.read(cursor)?;
        let value = cursor.signed()?;
        let id = match cursor.byte()? {
            0 => heatmap::Id::Profile(u64::from_le_bytes(cursor.array()?)),
            1 => heatmap::Id::Span {
                span: u64::from_le_bytes(cursor.array()?),
                trace: u128::from_le_bytes(cursor.array()?),
            },
            _ => return Err(cursor.malformed("a point is of neither a profile nor a span")),
        };
        points.push(heatmap::Point { group, time_nanos, value, id, labels: sets.copy(cursor)? });
    }
    cursor.end()?;
    Ok(points)
}

fn found(labels: proto::scan_response::Labels) -> Result<FoundLabels, Unreadable> {
    let wrong = Unreadable::columns("sets");
    let mut cursor = Cursor::new(&labels.sets);
    let sets = LabelSetReader::read(&mut cursor, &labels.sets).map_err(&wrong)?.into_sets();
    cursor.end().map_err(&wrong)?;
    if labels.texts.len() + sets.len() > LABELS_MAX {
        return Err(TooLarge { resource: "distinct labels", limit: LABELS_MAX }.into());
    }
    Ok(FoundLabels { texts: labels.texts.into_iter().collect(), sets: sets.into_iter().collect() })
}

fn with_sets(sets: &LabelSetWriter<'_>, rows: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() + 1024);
    sets.put(&mut out);
    out.extend_from_slice(rows);
    out
}
