//! The object `cluster`, which identifies the cluster of a bucket.

use bytes::Bytes;
use clock::Clock;
use serde::{Deserialize, Serialize};

use crate::{CreateOutcome, Key, OpenError, Store};

/// Version of the key layout that this code writes. It reads 1 as well, in which ids have no [`IdTag`].
pub const LAYOUT_VERSION: u32 = 2;

/// Content of the object `cluster`, as JSON. Written by the first process, never changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// 128 random bits, as 32 hexadecimal digits.
    pub id: String,
    pub name: String,
    pub layout_version: u32,
}

impl Cluster {
    pub(crate) fn id_tag(&self) -> Option<IdTag> {
        let id = u128::from_str_radix(&self.id, 16).ok().filter(|_| self.layout_version >= 2);
        id.map(|id| IdTag(id as u32))
    }
}

/// The last 32 bits of a cluster's id, and of the id of each of its logs and jobs. So keys show their cluster, and
/// objects of another cluster in the same bucket are left alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdTag(pub u32);

impl IdTag {
    /// The random `id` with this tag.
    pub fn mark(self, id: u128) -> u128 {
        id & !u128::from(u32::MAX) | u128::from(self.0)
    }

    /// Whether the id has this tag.
    pub fn is_of(self, id: u128) -> bool {
        id as u32 == self.0
    }
}

/// Joins the cluster of this bucket, or founds it.
///
/// Also checks that a create does not overwrite an existing object, by creating `cluster` a second time with the bytes
/// that it already has: harmless even if the store overwrites.
pub(crate) async fn join(store: &Store, name: &str, clock: &Clock) -> Result<Cluster, OpenError> {
    let key = Key::cluster();
    let bytes = match store.get(&key).await {
        Ok(bytes) => bytes,
        Err(crate::Error::NotFound(_)) => found(store, name, clock).await?,
        Err(error) => return Err(error.into()),
    };
    match store.overwrites(&key, &bytes).await {
        Ok(false) => {}
        Ok(true) => return Err(OpenError::Overwrites { store: store.to_string() }),
        // A full local directory; these are known not to overwrite.
        Err(error) if error.is_full() => {}
        Err(error) => return Err(error.into()),
    }
    let cluster: Cluster = serde_json::from_slice(&bytes)
        .map_err(|source| OpenError::Cluster { store: store.to_string(), source })?;
    let store = store.to_string();
    if !(1..=LAYOUT_VERSION).contains(&cluster.layout_version) {
        return Err(OpenError::Layout { store, found: cluster.layout_version });
    }
    if cluster.name != name {
        return Err(OpenError::Name { store, found: cluster.name, configured: name.to_owned() });
    }
    Ok(cluster)
}

async fn found(store: &Store, name: &str, clock: &Clock) -> Result<Bytes, OpenError> {
    // A bucket with data but without this object is an incomplete copy. Its ids have the tag of another cluster id.
    let folders = ["log", "block", "publish"].map(|folder| store.list_folders(folder));
    let is_empty = futures::future::try_join_all(folders).await?.iter().all(Vec::is_empty);
    let cluster = Cluster {
        id: format!("{:032x}", clock.random()),
        name: name.to_owned(),
        layout_version: if is_empty { LAYOUT_VERSION } else { 1 },
    };
    let mut bytes = serde_json::to_vec_pretty(&cluster)
        .map_err(|source| OpenError::Cluster { store: store.to_string(), source })?;
    bytes.push(b'\n');
    let bytes = Bytes::from(bytes);
    match store.settle_create(&Key::cluster(), bytes.clone()).await? {
        CreateOutcome::Mine => Ok(bytes),
        CreateOutcome::Other => Ok(store.get(&Key::cluster()).await?),
    }
}
