//! A decoded profile: samples as columns.

use crate::{StringId, Symbols};

/// `(type, unit)` of a value column or of the period.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ValueType {
    pub r#type: StringId,
    pub unit: StringId,
}

/// One collected document, decoded: symbols and samples as columns.
///
/// `symbols.stacktraces` holds one entry per sample, at the sample's index. Decoders keep the content that a client
/// sent, including dangling references ([`crate::NONE`]); validation and normalisation (`distributor`) decide which
/// of it counts.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    pub symbols: Symbols,
    pub samples: Samples,
    pub sample_types: Vec<ValueType>,
    pub default_sample_type: StringId,
    pub period_type: Option<ValueType>,
    pub period: i64,
    /// Unix nanoseconds; 0 if the document has none.
    pub time_nanos: i64,
    pub duration_nanos: i64,
    pub drop_frames: StringId,
    pub keep_frames: StringId,
    pub comments: Vec<StringId>,
}

/// The samples of a profile as columns.
#[derive(Clone, Debug)]
pub struct Samples {
    /// Row-major, `sample_types.len()` values per sample.
    pub values: Vec<i64>,
    /// Labels of sample `i` are `labels[label_offsets[i]..label_offsets[i + 1]]`.
    pub label_offsets: Vec<u32>,
    pub labels: Vec<SampleLabel>,
}

impl Default for Samples {
    fn default() -> Self {
        Self { values: Vec::new(), label_offsets: vec![0], labels: Vec::new() }
    }
}

impl Samples {
    pub fn len(&self) -> usize {
        self.label_offsets.len() - 1
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn labels_of(&self, sample: usize) -> &[SampleLabel] {
        &self.labels[self.label_offsets[sample] as usize..self.label_offsets[sample + 1] as usize]
    }
}

/// A label on one sample: text (`string` not 0) or a number with a unit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SampleLabel {
    pub key: StringId,
    pub string: StringId,
    pub number: i64,
    pub unit: StringId,
}
