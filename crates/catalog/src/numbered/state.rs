//! The rows of one incarnation, and the files that hold them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use storage::CatalogFile;

use super::file::{Checkpoint, Commit, Content};
use crate::Row;

/// The state after commit `next - 1`.
#[derive(Default)]
pub(super) struct State {
    pub(super) rows: BTreeMap<Bytes, Bytes>,
    pub(super) next: u64,
    pub(super) epoch: u64,
    /// When commit `next - 1` was made, in Unix milliseconds.
    pub(super) committed_millis: i64,
    /// The incarnation that replaces this one, if any.
    pub(super) superseded_by: Option<u64>,
    /// Slots of recent openings, with their Unix milliseconds.
    pub(super) openings: Vec<(u64, i64)>,
    /// Files that may become superfluous.
    pub(super) files: VecDeque<KnownFile>,
    /// The first slot that the newest checkpoint does not cover.
    pub(super) covered: u64,
    pub(super) checkpoint_bytes: u64,
    /// Bytes of the commits after the newest checkpoint.
    pub(super) commit_bytes: u64,
}

#[derive(Clone, Copy)]
pub(super) struct KnownFile {
    pub(super) file: CatalogFile,
    /// When this process learned of it, by the monotonic clock.
    pub(super) since: Duration,
}

impl State {
    /// The state after commit 0, an opening.
    pub(super) fn first(epoch: u64, millis: i64, now: Duration) -> Self {
        Self {
            next: 1,
            epoch,
            openings: vec![(0, millis)],
            files: VecDeque::from([KnownFile { file: CatalogFile::Commit(0), since: now }]),
            ..Self::default()
        }
    }

    pub(super) fn from_checkpoint(checkpoint: Checkpoint, bytes: u64) -> Self {
        Self {
            rows: checkpoint.rows.into_iter().collect(),
            next: checkpoint.slot + 1,
            epoch: checkpoint.epoch,
            openings: checkpoint.openings,
            covered: checkpoint.slot + 1,
            checkpoint_bytes: bytes,
            ..Self::default()
        }
    }

    /// The checkpoint of this state.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            slot: self.next - 1,
            epoch: self.epoch,
            openings: self.openings.clone(),
            rows: self.rows.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        }
    }

    /// Applies commit `next`, whose file has `bytes` bytes.
    pub(super) fn apply(&mut self, commit: Commit, bytes: u64, now: Duration) {
        self.files.push_back(KnownFile { file: CatalogFile::Commit(commit.slot), since: now });
        self.next = commit.slot + 1;
        self.epoch = commit.epoch;
        self.committed_millis = commit.millis;
        self.commit_bytes += bytes;
        match commit.content {
            Content::Open => self.openings.push((commit.slot, commit.millis)),
            Content::Superseded(by) => self.superseded_by = Some(by),
            Content::Changes(batch) => {
                for (key, value) in batch.changes {
                    match value {
                        Some(value) => self.rows.insert(key, value),
                        None => self.rows.remove(&key),
                    };
                }
            }
        }
    }

    pub(super) fn range(&self, keys: Range<Bytes>) -> Vec<Row> {
        if keys.start >= keys.end {
            return Vec::new();
        }
        self.rows.range(keys).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    pub(super) fn is_opening(&self, slot: u64) -> bool {
        self.openings.iter().any(|(opening, _)| *opening == slot)
    }
}
