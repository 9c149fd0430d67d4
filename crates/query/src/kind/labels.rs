//! Label names, label values, label sets and profile types of matching series.

use std::collections::BTreeSet;

use model::{Labels, LabelsBuilder};

use crate::partial::{Dataset, TooLarge};
use crate::query::Kind;
use crate::scan::Derived;

/// Most distinct names, values or label sets in one answer.
pub const LABELS_MAX: usize = 1_000_000;

/// Which of the two is used depends on the question.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Names, values or ids of profile types.
    pub texts: BTreeSet<String>,
    pub sets: BTreeSet<Labels>,
}

impl Found {
    pub(crate) fn fold(&mut self, kind: &Kind, dataset: Dataset<'_>) -> Result<(), TooLarge> {
        for column in &dataset.selection.columns {
            let schema = &dataset.index.schemas[column.schema as usize];
            let derived = Derived::new(schema, column.column as usize);
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
                let labels = &dataset.index.series[run.series as usize].labels;
                match kind {
                    Kind::LabelNames => {
                        let own = labels.iter().chain(derived.iter()).map(|(name, _)| name);
                        let service = labels.get("service_name").map(|_| "__service_name__");
                        own.chain(service).for_each(|name| self.text(name));
                    }
                    Kind::LabelValues(name) => {
                        if let Some(value) = derived.get(labels, name) {
                            self.text(value);
                        }
                    }
                    Kind::SeriesLabels(names) if names.is_empty() => {
                        self.sets.insert(schema.series_labels(column.column as usize, labels));
                    }
                    Kind::SeriesLabels(names) => {
                        let mut set = LabelsBuilder::default();
                        for name in names {
                            if let Some(value) = derived.get(labels, name) {
                                set.push(name.as_str(), value);
                            }
                        }
                        self.sets.insert(set.build());
                    }
                    _ => {}
                }
            }
        }
        self.check()
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
            return Err(TooLarge { what: "distinct labels", limit: LABELS_MAX });
        }
        Ok(())
    }
}
