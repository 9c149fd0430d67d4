//! Grouping of series by labels.

use model::{Labels, LabelsBuilder};

use crate::scan::DerivedLabels;

/// The labels that name the group of a series; absent ones are left out.
pub(crate) fn group_labels(group_by: &[String], derived: &DerivedLabels, labels: &Labels) -> Labels {
    let mut key = LabelsBuilder::default();
    for name in group_by {
        if let Some(value) = derived.get(labels, name) {
            key.push(name.as_str(), value);
        }
    }
    key.build()
}
