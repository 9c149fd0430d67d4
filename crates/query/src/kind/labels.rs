//! Label names, label values, label sets and profile types of matching series.
//!
//! Owns: the sets of an answer, answering from directory entries alone.
//! Does not own: which series match ([`crate::scan`]).

use std::borrow::Cow;
use std::collections::BTreeSet;

use hashbrown::HashSet;
use model::label_names::{DERIVED_SERVICE_NAME, PROFILE_TYPE, SERVICE_NAME, TYPE_PARTS, is_service_name};
use model::{Labels, LabelsBuilder, ProfileType};

use crate::fold::{Dataset, TooLarge};
use crate::query::Kind;
use crate::scan::{ColumnSelection, DerivedLabels};

/// Most distinct names, values or label sets in one answer.
pub const LABELS_MAX: usize = 1_000_000;

/// Memory of an entry in its tree, without the bytes of the text or set.
const ENTRY_BYTES: usize = 64;

/// The kind of query decides which of the two is filled.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FoundLabels {
    /// Names, values or ids of profile types.
    pub texts: BTreeSet<String>,
    pub sets: BTreeSet<Labels>,
}

impl FoundLabels {
    /// Bytes held in memory, roughly.
    pub(crate) fn byte_len(&self) -> usize {
        let texts: usize = self.texts.iter().map(|text| text.len() + ENTRY_BYTES).sum();
        let sets: usize = self.sets.iter().map(|set| set.byte_len() + ENTRY_BYTES).sum();
        texts + sets
    }

    pub(crate) fn fold(&mut self, kind: &Kind, dataset: Dataset<'_>) -> Result<(), TooLarge> {
        let index = dataset.index;
        let all_derived: Vec<(&ColumnSelection, DerivedLabels)> = dataset
            .selection
            .columns
            .iter()
            .map(|column| {
                let schema = &index.schemas[column.schema as usize];
                (column, DerivedLabels::new(schema, column.column as usize))
            })
            .collect();
        // A dataset has few distinct texts and sets in many series.
        let mut texts: HashSet<&str> = HashSet::new();
        let mut sets: HashSet<Vec<Option<&str>>> = HashSet::new();
        let mut values = Vec::new();
        for (column, derived) in &all_derived {
            let schema = &index.schemas[column.schema as usize];
            if matches!(kind, Kind::ProfileTypes) {
                self.text(&schema.profile_type(column.column as usize).to_string());
                continue;
            }
            let mut last = None;
            for run in &column.runs {
                if last == Some(run.series) {
                    continue;
                }
                last = Some(run.series);
                let labels = &index.series[run.series as usize].labels;
                match kind {
                    Kind::LabelNames => {
                        let own = labels.iter().map(|(name, _)| name).chain(derived.names());
                        let service = labels.get(SERVICE_NAME).map(|_| DERIVED_SERVICE_NAME);
                        texts.extend(own.chain(service));
                    }
                    Kind::LabelValues(name) => texts.extend(derived.get(labels, name)),
                    Kind::SeriesLabels(names) if names.is_empty() => {
                        self.sets.insert(schema.series_labels(column.column as usize, labels));
                    }
                    Kind::SeriesLabels(names) => {
                        values.clear();
                        values.extend(names.iter().map(|name| derived.get(labels, name)));
                        if !sets.contains(&values) {
                            sets.insert(values.clone());
                        }
                    }
                    _ => {}
                }
            }
        }
        texts.into_iter().for_each(|text| self.text(text));
        if let Kind::SeriesLabels(names) = kind {
            for values in sets {
                let mut set = LabelsBuilder::default();
                for (name, value) in names.iter().zip(values) {
                    if let Some(value) = value {
                        set.push(name.as_str(), value);
                    }
                }
                self.sets.insert(set.build());
            }
        }
        self.check()
    }

    /// Adds a dataset whose profiles all count, from its directory entry alone. Returns false, and adds nothing, if the
    /// entry is not sufficient.
    ///
    /// `names` are the names of its stored labels.
    pub fn add_known(
        &mut self,
        kind: &Kind,
        service: &str,
        types: &[ProfileType],
        names: Option<&[String]>,
    ) -> bool {
        match (kind, names) {
            (Kind::ProfileTypes, _) => types.iter().for_each(|t| self.text(&t.to_string())),
            (Kind::LabelValues(name), _) if is_service_name(name) => {
                Some(service).filter(|name| !name.is_empty()).into_iter().for_each(|name| self.text(name));
            }
            (Kind::SeriesLabels(wanted), _)
                if !wanted.is_empty()
                    && wanted.iter().all(|name| known_value(name, service, None).is_some()) =>
            {
                for profile_type in types {
                    let mut set = LabelsBuilder::default();
                    for name in wanted {
                        let value = known_value(name, service, Some(profile_type)).unwrap_or_default();
                        if !value.is_empty() {
                            set.push(name.as_str(), &*value);
                        }
                    }
                    self.sets.insert(set.build());
                }
            }
            (Kind::LabelNames, Some(names)) => {
                names.iter().for_each(|name| self.text(name));
                if names.iter().any(|name| name == SERVICE_NAME) {
                    self.text(DERIVED_SERVICE_NAME);
                }
                for profile_type in types {
                    self.text(PROFILE_TYPE);
                    let parts = TYPE_PARTS.into_iter().zip(profile_type.parts());
                    parts.filter(|(_, value)| !value.is_empty()).for_each(|(name, _)| self.text(name));
                }
            }
            _ => return false,
        }
        true
    }

    fn text(&mut self, text: &str) {
        if !self.texts.contains(text) {
            self.texts.insert(text.to_owned());
        }
    }

    pub(crate) fn merge(&mut self, other: Self) -> Result<(), TooLarge> {
        self.texts.extend(other.texts);
        self.sets.extend(other.sets);
        self.check()
    }

    fn check(&self) -> Result<(), TooLarge> {
        if self.texts.len() + self.sets.len() > LABELS_MAX {
            return Err(TooLarge { resource: "distinct labels", limit: LABELS_MAX });
        }
        Ok(())
    }
}

/// The value of a label that service and type alone determine; `None` for any other label.
fn known_value<'a>(
    name: &str,
    service: &'a str,
    profile_type: Option<&'a ProfileType>,
) -> Option<Cow<'a, str>> {
    match name {
        name if is_service_name(name) => Some(service.into()),
        PROFILE_TYPE => Some(profile_type.map(ToString::to_string).unwrap_or_default().into()),
        _ => None,
    }
}
