//! Listings, without objects of other clusters.

use std::sync::atomic::Ordering;

use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::{ObjectMeta, ObjectStore};
use tracing::warn;

use super::meter::{READ_TIMEOUT, UNSIZED_TIMEOUT};
use super::{Store, path};
use crate::metrics::Operation;
use crate::{Error, Key};

/// Objects per request of a listing.
const PAGE_OBJECTS: u64 = 1_000;

/// An object in a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    pub key: Key,
    pub bytes: u64,
    pub modified_millis: i64,
}

impl Store {
    /// All objects below the folder `prefix` (empty: all objects of the store), sorted by key.
    ///
    /// # Errors
    /// The request failed, also when repeated.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        let folder = Key::from_text(prefix);
        let location = path(&folder)?;
        self.list_stream(&folder, || self.objects.list(Some(&location))).await
    }

    /// As [`Store::list`], but only keys greater than `after`.
    ///
    /// # Errors
    /// The request failed, also when repeated.
    pub async fn list_after(&self, prefix: &str, after: &Key) -> Result<Vec<Object>, Error> {
        let folder = Key::from_text(prefix);
        let (location, offset) = (path(&folder)?, path(after)?);
        self.list_stream(&folder, || self.objects.list_with_offset(Some(&location), &offset)).await
    }

    /// The folders directly below the folder `prefix`, sorted; one request, however full they are.
    ///
    /// # Errors
    /// The request failed, also when repeated.
    pub async fn list_folders(&self, prefix: &str) -> Result<Vec<Key>, Error> {
        let folder = Key::from_text(prefix);
        let location = path(&folder)?;
        let mut folders = self
            .read(&folder, Operation::list, READ_TIMEOUT, || async {
                let listed = self.objects.list_with_delimiter(Some(&location)).await?;
                let folders = listed.common_prefixes.iter();
                Ok((folders.map(|f| Key::from_text(f.to_string())).collect::<Vec<_>>(), 0))
            })
            .await?;
        self.retain_own(&mut folders, |folder| folder);
        folders.sort();
        Ok(folders)
    }

    async fn list_stream(
        &self,
        folder: &Key,
        start: impl Fn() -> BoxStream<'static, object_store::Result<ObjectMeta>>,
    ) -> Result<Vec<Object>, Error> {
        let listed = self
            .read(folder, Operation::list, UNSIZED_TIMEOUT, || async {
                Ok((start().map_ok(object).try_collect::<Vec<_>>().await?, 0))
            })
            .await;
        if let Ok(objects) = &listed {
            let pages = (objects.len() as u64).saturating_sub(1) / PAGE_OBJECTS;
            self.meter.metrics.more_requests(Operation::list, folder.as_str(), pages);
        }
        let mut objects = match listed {
            // A folder without objects is an empty list, whatever the store calls it.
            Err(Error::NotFound(_)) => Vec::new(),
            other => other?,
        };
        self.retain_own(&mut objects, |object| &object.key);
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(objects)
    }

    /// Removes entries of other clusters, whose objects were mixed with ours by mistake.
    fn retain_own<T>(&self, listed: &mut Vec<T>, key: impl Fn(&T) -> &Key) {
        let before = listed.len();
        let mut first = None;
        listed.retain(|entry| {
            let is_own = !self.is_of_another_cluster(key(entry));
            if !is_own && first.is_none() {
                first = Some(key(entry).clone());
            }
            is_own
        });
        let Some(first) = first else { return };
        if !self.has_logged_others.swap(true, Ordering::Relaxed) {
            let objects = before - listed.len();
            warn!(store = %self, objects, %first, "objects of another cluster are in the bucket: they are neither read nor deleted");
        }
    }

    /// Whether the key has the id of a log or a job of another cluster.
    fn is_of_another_cluster(&self, key: &Key) -> bool {
        self.id_tag.zip(key.id()).is_some_and(|(tag, id)| !tag.is_of(id))
    }
}

fn object(meta: ObjectMeta) -> Object {
    Object {
        key: Key::from_text(meta.location.to_string()),
        bytes: meta.size,
        modified_millis: meta.last_modified.timestamp_millis(),
    }
}
