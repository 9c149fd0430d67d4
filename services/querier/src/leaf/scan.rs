//! Scans one object: open, answer each dataset, merge.
//!
//! Owns: a second read past the cache for damaged bytes, and which objects are missing instead of failing the request.
//! Does not own: the answer of one dataset (`dataset`, `known`).

use std::sync::Arc;

use block::{Cache, Reader};
use memory::Account;
use query::{Partial, Query};
use rpc::{Error, ErrorKind, FoundObject, Missing};
use storage::Key;

use crate::leaf::Leaf;
use crate::leaf::dataset::Exclusions;
use crate::leaf::known::answer_from_directory;
use crate::leaf::meter::Meter;
use crate::reason::{is_damaged, reason, unmergeable, unreadable};

/// One scan request.
pub(super) struct Scan<'a> {
    pub(super) leaf: &'a Leaf,
    pub(super) query: Arc<Query>,
    pub(super) cache: Cache,
    pub(super) skip_gone: bool,
    pub(super) skip_unavailable: bool,
    /// Memory that the query holds.
    pub(super) memory: Account,
    pub(super) meter: Meter,
}

impl Scan<'_> {
    /// Returns the answer of the object, and the object as missing if the answer is not complete.
    pub(super) async fn object(&self, found: FoundObject) -> Result<(Partial, Option<Missing>), Error> {
        let mut partial = Partial::empty(&self.query);
        let mut missing: Option<Missing> = None;
        let mut opened = self.open(&found, &self.cache).await;
        // Wrong bytes in a cache say nothing about the object, only those of the store do. Each object is read again
        // from the store at most once.
        let mut is_reread = is_damaged(&opened);
        if is_reread {
            opened = self.open(&found, &self.cache.bypass()).await;
        }
        let mut reader = match opened {
            Ok(reader) => reader,
            Err(error) => return Ok((partial, Some(self.missing(&found.key, error)?))),
        };
        let masked: Arc<[u32]> = found.masked.as_slice().into();
        for dataset in &found.datasets {
            let exclusions = Exclusions {
                masked: masked.clone(),
                deletions: found.deletions_of(dataset).cloned().collect(),
            };
            if exclusions.is_empty() && answer_from_directory(&self.query, &reader, dataset, &mut partial) {
                partial.stats.objects = 1;
                continue;
            }
            let mut answer = self.dataset(&reader, &exclusions, dataset).await;
            if is_damaged(&answer) && !is_reread {
                answer = match self.open(&found, &self.cache.bypass()).await {
                    Ok(reopened) => {
                        (reader, is_reread) = (reopened, true);
                        self.dataset(&reader, &exclusions, dataset).await
                    }
                    Err(error) => Err(error),
                };
            }
            match answer {
                Ok(answer) => {
                    answer.map_or(Ok(()), |answer| partial.merge(answer)).map_err(unmergeable)?;
                    partial.stats.objects = 1;
                }
                Err(error) => {
                    let unread = self.missing(&found.key, error)?;
                    // One reason per object is named: damage, if any dataset is damaged.
                    if missing.as_ref().is_none_or(|named| unread.is_damaged && !named.is_damaged) {
                        missing = Some(unread);
                    }
                }
            }
        }
        Ok((partial, missing))
    }

    async fn open(&self, found: &FoundObject, cache: &Cache) -> Result<Reader, Error> {
        let open = Reader::open(&self.leaf.store, &found.key, found.bytes, cache);
        self.meter.time(|effort| &mut effort.fetch, open).await.map_err(unreadable)
    }

    /// Returns an object that cannot be read as missing, or the error if it fails the whole request.
    fn missing(&self, key: &Key, error: Error) -> Result<Missing, Error> {
        let is_skipped = match error.kind {
            ErrorKind::Corrupt => true,
            ErrorKind::NotFound => self.skip_gone,
            ErrorKind::Unavailable => self.skip_unavailable,
            _ => false,
        };
        match is_skipped {
            true => Ok(Missing {
                key: key.clone(),
                reason: reason(key, &error),
                is_damaged: error.kind == ErrorKind::Corrupt,
            }),
            false => Err(error),
        }
    }
}
