//! Rows of objects in the catalog, and the parts of a directory that they keep.

use catalog::Batch;
use catalog::rows::{self, Block, Dataset, DatasetSummary, Quarantine, Row, Segment};
use storage::Key;

use crate::find::Object;
use crate::live::{LiveObject, ObjectKind};

/// Puts the row of an object itself. The datasets of a block have rows of their own.
pub(super) fn put_object(
    key: &Key,
    live: &LiveObject,
    object: &Object,
    quarantine: Option<Quarantine>,
    batch: &mut Batch,
) {
    let LiveObject { bytes, created_millis, floor, rows, .. } = *live;
    match &live.kind {
        ObjectKind::Segment { writer, seq } => Segment {
            writer: *writer,
            seq: *seq,
            created_millis,
            bytes,
            masked: object.masked.clone(),
            quarantine,
            datasets: object.datasets.clone(),
            floor,
            rows,
        }
        .put_into(batch),
        ObjectKind::Block { id, tenant, level, window } => Block {
            id: *id,
            key: key.clone(),
            tenant: tenant.clone(),
            level: *level,
            window: *window,
            bytes,
            created_millis,
            quarantine,
            floor,
            rows,
        }
        .put_into(batch),
    }
}

/// Deletes the rows of an object.
pub(super) fn delete_rows(live: &LiveObject, datasets: &[DatasetSummary], batch: &mut Batch) {
    match &live.kind {
        ObjectKind::Segment { writer, seq } => batch.delete(rows::segment_key(*writer, *seq)),
        ObjectKind::Block { id, tenant, level, window } => {
            batch.delete(rows::block_key(tenant, *window, *level, *id));
            for summary in datasets {
                batch.delete(rows::dataset_key(summary, window.day(), *id));
            }
        }
    }
}

/// Puts the rows of a new block.
pub(crate) fn put_block(block: &Block, datasets: &[DatasetSummary], batch: &mut Batch) {
    block.put_into(batch);
    for summary in datasets {
        let day = block.window.day();
        Dataset { block: block.id, day, summary: summary.clone(), has_own_key: true }.put_into(batch);
    }
}

/// Samples in all datasets of an object.
pub(crate) fn row_count(directory: &block::Directory) -> u64 {
    directory.datasets.iter().map(|entry| entry.rows.end - entry.rows.start).sum()
}

/// The part of each directory entry that the catalog keeps.
pub(crate) fn summaries(directory: &block::Directory) -> Vec<DatasetSummary> {
    let datasets = directory.datasets.iter().enumerate();
    datasets
        .map(|(position, entry)| DatasetSummary {
            position: position as u32,
            tenant: entry.tenant.clone(),
            service: entry.service.as_str().into(),
            times: entry.times,
            rows: entry.rows.end - entry.rows.start,
            profile_types: entry.profile_types.as_slice().into(),
        })
        .collect()
}
