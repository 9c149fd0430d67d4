//! Answers about labels without reading datasets: from the snapshot, or from the directory of an opened object.

use std::sync::Arc;

use block::Reader;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use model::ProfileType;
use query::{Answer, Partial, Query};
use rpc::{FoundDataset, FoundObject};

/// Answers from the snapshot where that is enough. Returns the objects that must be read, with the datasets to read.
pub(super) fn answer_from_snapshot(
    query: &Query,
    mut objects: Vec<FoundObject>,
    partial: &mut Partial,
) -> Vec<FoundObject> {
    let Answer::Labels(labels) = &mut partial.answer else { return objects };
    let mut added = AddedTypes::default();
    objects.retain_mut(|found| {
        let mut datasets = std::mem::take(&mut found.datasets);
        datasets.retain(|dataset| {
            let is_whole = found.masked.is_empty() && found.deletions_of(dataset).next().is_none();
            if !is_whole || !query.counts_all(dataset.times) {
                return true;
            }
            let types = if added.insert(dataset) { &*dataset.profile_types } else { &[] };
            !labels.add_known(&query.kind, &dataset.service, types, None)
        });
        found.datasets = datasets;
        !found.datasets.is_empty()
    });
    objects
}

/// Lists of profile types that were added to an answer, by service. Thousands of datasets share few lists, so a list is
/// recognised by identity (cheap), not by content. Adding an equal list again changes no answer.
#[derive(Default)]
struct AddedTypes(HashMap<Arc<str>, Vec<Arc<[ProfileType]>>, RandomState>);

impl AddedTypes {
    /// Returns whether the types of a dataset are new for its service.
    fn insert(&mut self, dataset: &FoundDataset) -> bool {
        let types = &dataset.profile_types;
        match self.0.get_mut(&dataset.service) {
            Some(lists) if lists.iter().any(|list| Arc::ptr_eq(list, types)) => false,
            Some(lists) => {
                lists.push(types.clone());
                true
            }
            None => {
                self.0.insert(dataset.service.clone(), vec![types.clone()]);
                true
            }
        }
    }
}

/// Answers for a dataset from the directory of its object. Only for datasets without exclusions. Returns false if the
/// dataset must be read.
pub(super) fn answer_from_directory(
    query: &Query,
    reader: &Reader,
    dataset: &FoundDataset,
    partial: &mut Partial,
) -> bool {
    let Answer::Labels(labels) = &mut partial.answer else { return false };
    let Some(entry) = reader.directory().datasets.get(dataset.position as usize) else { return false };
    entry.tenant == dataset.tenant
        && query.counts_all(dataset.times)
        && labels.add_known(&query.kind, &entry.service, &entry.profile_types, Some(&entry.label_names))
}
