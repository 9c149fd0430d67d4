//! The object that says which cluster a bucket belongs to.

use bytes::Bytes;
use clock::Clock;
use serde::{Deserialize, Serialize};

use crate::{Created, Key, OpenError, Store};

/// Version of the key layout that this code writes and the only one it reads.
pub const LAYOUT_VERSION: u32 = 1;

/// What the object `cluster` holds, as JSON. Written by the first process, never changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// 128 random bits, as 32 hexadecimal digits.
    pub id: String,
    pub name: String,
    pub layout_version: u32,
}

/// Joins the cluster of this bucket, or founds it.
///
/// Also finds out whether the store keeps an existing object when it is asked to, by creating
/// `cluster` a second time with the bytes that it already has: harmless, whatever the store does.
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
        // A directory of which it is known that it keeps what is there.
        Err(error) if error.is_full() => {}
        Err(error) => return Err(error.into()),
    }
    let cluster: Cluster = serde_json::from_slice(&bytes)
        .map_err(|source| OpenError::Cluster { store: store.to_string(), source })?;
    let store = store.to_string();
    if cluster.layout_version != LAYOUT_VERSION {
        return Err(OpenError::Layout { store, found: cluster.layout_version });
    }
    if cluster.name != name {
        return Err(OpenError::Name { store, found: cluster.name, configured: name.to_owned() });
    }
    Ok(cluster)
}

async fn found(store: &Store, name: &str, clock: &Clock) -> Result<Bytes, OpenError> {
    let cluster = Cluster {
        id: format!("{:032x}", clock.random()),
        name: name.to_owned(),
        layout_version: LAYOUT_VERSION,
    };
    let mut bytes = serde_json::to_vec_pretty(&cluster)
        .map_err(|source| OpenError::Cluster { store: store.to_string(), source })?;
    bytes.push(b'\n');
    let bytes = Bytes::from(bytes);
    match store.settle_create(&Key::cluster(), bytes.clone()).await? {
        Created::Mine => Ok(bytes),
        Created::Other => Ok(store.get(&Key::cluster()).await?),
    }
}
