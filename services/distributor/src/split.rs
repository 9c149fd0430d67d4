//! Divides the samples of one profile into series by their text labels.
//!
//! Owns: grouping, the sample labels that become spans, merging groups whose labels end up equal.
//! Does not own: the rules of a label set (`labels`), the samples themselves: series only point at them.
//!
//! Most profiles have no text labels on samples; they are one series and need no grouping.

use std::sync::Arc;

use hashbrown::HashMap;
use limits::Limits;
use model::{Labels, Profile, SampleLabel, SeriesRows, Span, StringId, ValueSchema, label_names};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::error::{Error, shown};
use crate::labels;

/// Most bytes of labels of all series of one profile. Each sample can make a new series that repeats the longest
/// values, so a small profile could otherwise grow a thousandfold.
const SERIES_LABEL_BYTES_MAX: usize = 16 << 20;

/// The series of `profile`, made of the samples `counted`, for a document pushed with `pushed` labels.
///
/// Labels of the document win over those of samples; empty values are dropped. `span_id`, `trace_id` and
/// `profile_id` (an old name of `span_id`) never become labels.
///
/// # Errors
/// If a resulting label set breaks a rule.
pub(crate) fn split(
    profile: &Profile,
    counted: Vec<u32>,
    pushed: &Labels,
    limits: &Limits,
) -> Result<Vec<SeriesRows>, Error> {
    let mut pushed = pushed.clone();
    pushed.retain(|_, value| !value.is_empty());
    let mut series = SeriesSet::new(profile, limits);
    if !profile.samples.labels.iter().any(is_text) {
        let group = Group { samples: counted, ..Group::default() };
        series.add(pushed, group)?;
        return Ok(series.rows);
    }
    for (own, group) in group(profile, &counted) {
        series.add(with_sample_labels(&pushed, &own, profile), group)?;
    }
    Ok(series.rows)
}

/// One hash for each series that clients will see: each set of labels with each profile type.
pub(crate) fn series_hashes(series: &[SeriesRows]) -> Vec<u64> {
    let mut hashes = Vec::new();
    let mut text = Vec::new();
    for rows in series {
        text.clear();
        for (name, value) in rows.labels.iter() {
            add_text(&mut text, name);
            add_text(&mut text, value);
        }
        let labels = xxh3_64(&text);
        for column in 0..rows.schema.columns.len() {
            text.clear();
            rows.schema.type_parts(column).iter().for_each(|part| add_text(&mut text, part));
            hashes.push(xxh3_64_with_seed(&text, labels));
        }
    }
    hashes
}

/// Appends the length, then the text, so that different divisions into texts have different bytes.
fn add_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

fn is_text(label: &SampleLabel) -> bool {
    label.string != 0
}

/// Samples with equal labels, and their spans, which are empty if no sample has one.
#[derive(Default)]
struct Group {
    samples: Vec<u32>,
    spans: Vec<Span>,
}

impl Group {
    fn push(&mut self, sample: u32, span: Span) {
        if span != Span::default() && self.spans.is_empty() {
            self.spans.resize(self.samples.len(), Span::default());
        }
        self.samples.push(sample);
        if span != Span::default() || !self.spans.is_empty() {
            self.spans.push(span);
        }
    }

    fn append(&mut self, mut other: Self) {
        if !self.spans.is_empty() || !other.spans.is_empty() {
            self.spans.resize(self.samples.len(), Span::default());
            other.spans.resize(other.samples.len(), Span::default());
        }
        self.samples.append(&mut other.samples);
        self.spans.append(&mut other.spans);
    }
}

/// Text labels of a sample, `(key, value)`, sorted by key, each key once; without those that make its span.
type OwnLabels = Box<[(StringId, StringId)]>;

#[derive(Clone, Copy)]
enum Key {
    /// The first id that was met with this text.
    Label(StringId),
    Span,
    Trace,
}

/// Groups by string ids, in the order of their first samples. Of a key that a sample has twice, the value that was
/// sent last counts. Equal values may have several ids, so groups may have equal labels.
fn group(profile: &Profile, counted: &[u32]) -> Vec<(OwnLabels, Group)> {
    let strings = &profile.symbols.strings;
    let mut keys = HashMap::<StringId, Key>::new();
    let mut ids = HashMap::<&[u8], StringId>::new();
    let mut positions = HashMap::<OwnLabels, usize>::new();
    let mut groups = Vec::<(OwnLabels, Group)>::new();
    let mut own = Vec::new();
    for sample in counted {
        own.clear();
        let mut span = Span::default();
        for label in profile.samples.labels_of(*sample as usize).iter().filter(|label| is_text(label)) {
            let key = keys.entry(label.key).or_insert_with(|| match strings.get(label.key) {
                b"span_id" | b"profile_id" => Key::Span,
                b"trace_id" => Key::Trace,
                text => Key::Label(*ids.entry(text).or_insert(label.key)),
            });
            match key {
                Key::Label(key) => own.push((*key, label.string)),
                Key::Span => span.span_id = hex(strings.get(label.string), 16).unwrap_or(0) as u64,
                Key::Trace => span.trace_id = hex(strings.get(label.string), 32).unwrap_or(0),
            }
        }
        // The sort is stable, so values of one key stay in the order sent; the last one counts.
        own.sort_by_key(|(key, _)| *key);
        own.dedup_by(|later, kept| {
            let is_same = later.0 == kept.0;
            if is_same {
                kept.1 = later.1;
            }
            is_same
        });
        let position = match positions.get(own.as_slice()) {
            Some(position) => *position,
            None => {
                let new: OwnLabels = own.as_slice().into();
                positions.insert(new.clone(), groups.len());
                groups.push((new, Group::default()));
                groups.len() - 1
            }
        };
        groups[position].1.push(*sample, span);
    }
    groups
}

/// Parses exactly `digits` hexadecimal digits.
fn hex(text: &[u8], digits: usize) -> Option<u128> {
    if text.len() != digits {
        return None;
    }
    let mut number = 0;
    for byte in text {
        number = number << 4 | u128::from((*byte as char).to_digit(16)?);
    }
    Some(number)
}

fn with_sample_labels(pushed: &Labels, own: &OwnLabels, profile: &Profile) -> Labels {
    let strings = &profile.symbols.strings;
    let mut labels = pushed.clone();
    for (key, value) in own {
        let (key, value) = (strings.text(*key), strings.text(*value));
        if !value.is_empty() && pushed.get(&key).is_none() {
            labels.set(&key, &value);
        }
    }
    labels
}

/// Series by their name and stored labels.
struct SeriesSet<'a> {
    profile: &'a Profile,
    limits: &'a Limits,
    rows: Vec<SeriesRows>,
    positions: HashMap<(String, Labels), usize>,
    schemas: HashMap<String, Arc<ValueSchema>>,
    label_bytes: usize,
}

impl<'a> SeriesSet<'a> {
    fn new(profile: &'a Profile, limits: &'a Limits) -> Self {
        Self {
            profile,
            limits,
            rows: Vec::new(),
            positions: HashMap::new(),
            schemas: HashMap::new(),
            label_bytes: 0,
        }
    }

    fn add(&mut self, mut combined: Labels, group: Group) -> Result<(), Error> {
        labels::relabel(&mut combined);
        labels::check(&combined, self.limits)?;
        let name = combined.get(label_names::NAME).unwrap_or_default().to_owned();
        self.label_bytes += combined.byte_len();
        if self.label_bytes > SERIES_LABEL_BYTES_MAX {
            let labels = shown(&combined);
            return Err(Error::SeriesLabelBytes { labels, limit: SERIES_LABEL_BYTES_MAX });
        }
        let stored = labels::stored(combined);
        match self.positions.entry((name, stored)) {
            hashbrown::hash_map::Entry::Occupied(position) => {
                let rows = &mut self.rows[*position.get()];
                let mut merged = Group {
                    samples: std::mem::take(&mut rows.samples),
                    spans: std::mem::take(&mut rows.spans),
                };
                merged.append(group);
                (rows.samples, rows.spans) = (merged.samples, merged.spans);
            }
            hashbrown::hash_map::Entry::Vacant(position) => {
                let (name, labels) = position.key().clone();
                position.insert(self.rows.len());
                let profile = self.profile;
                let schema = self.schemas.entry(name).or_insert_with_key(|name| schema(profile, name));
                let schema = schema.clone();
                let Group { samples, spans } = group;
                self.rows.push(SeriesRows { labels, schema, samples, spans });
            }
        }
        Ok(())
    }
}

fn schema(profile: &Profile, name: &str) -> Arc<ValueSchema> {
    let text = |id| profile.symbols.strings.text(id).into_owned();
    let pair = |value_type: &model::ValueType| (text(value_type.r#type), text(value_type.unit));
    Arc::new(ValueSchema {
        name: name.to_owned(),
        columns: profile.sample_types.iter().map(pair).collect(),
        period: profile.period_type.as_ref().map(pair),
    })
}

#[cfg(test)]
mod tests;
