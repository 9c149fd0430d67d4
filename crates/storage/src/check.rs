//! What a start finds out about a store before anything is entrusted to it.
//!
//! Owns: one round of the requests that every role relies on, with their outcomes settled.
//! Does not own: which cluster the store belongs to (`cluster`).
//!
//! A store that does not keep its promises is refused here, because afterwards nobody could tell. A dozen small
//! requests per start.

use std::time::Duration;

use bytes::Bytes;
use clock::Clock;
use futures::join;
use tracing::warn;

use crate::{Created, Error, Key, OpenError, Store};

/// What an earlier start left behind is deleted when it is this old.
const LEFTOVER_AGE: Duration = Duration::from_secs(3_600);
const LEFTOVERS_MAX: usize = 100;
/// A difference between the clocks that is worth a warning; a few seconds more, and ages get wrong.
const SKEW_MAX: Duration = Duration::from_secs(60);

/// Creates, races, reads, lists and deletes one small object.
pub(crate) async fn check(store: &Store, clock: &Clock) -> Result<(), OpenError> {
    let key = Key::probe(clock.random());
    // Deleting what is not there needs the permission too, and leaves nothing behind without it.
    match store.delete(&key).await {
        Ok(()) => {}
        Err(error) if error.is_denied() => {
            warn!(
                %error,
                "objects cannot be deleted: data stays in the bucket, and costs money, after its retention is over"
            );
            return list_only(store).await;
        }
        Err(error) => return Err(error.into()),
    }
    let [one, two] = ["one", "two"].map(|text| Bytes::from(format!("{text} {}\n", key.as_str())));
    let (first, second) =
        join!(store.settle_create(&key, one.clone()), store.settle_create(&key, two.clone()));
    let winner = match (first?, second?) {
        (Created::Mine, Created::Other) => one,
        (Created::Other, Created::Mine) => two,
        (Created::Mine, Created::Mine) => return Err(OpenError::Overwrites { store: store.to_string() }),
        (Created::Other, Created::Other) => return Err(inconsistent(store, "gave a create to nobody")),
    };
    if store.get(&key).await? != winner {
        return Err(inconsistent(store, "answered a read with other bytes than were just written"));
    }
    let part = 1..winner.len() as u64 - 1;
    let parts = store.get_ranges(&key, std::slice::from_ref(&part)).await?;
    if parts.first().is_none_or(|read| *read != winner.slice(1..winner.len() - 1)) {
        return Err(inconsistent(store, "answered a ranged read with other bytes than were asked for"));
    }
    let tail = store.get_tail(&key, 2).await?;
    if tail.object_bytes != winner.len() as u64 || tail.bytes != winner.slice(winner.len() - 2..) {
        return Err(inconsistent(store, "answered a read of an object's end with other bytes than it has"));
    }
    let listed = store.list("probe").await?;
    let Some(own) = listed.iter().find(|object| object.key == key) else {
        return Err(inconsistent(store, "does not list an object that was just written"));
    };
    let ahead_millis = clock.unix_millis() - own.modified_millis;
    if ahead_millis.unsigned_abs() > SKEW_MAX.as_millis() as u64 {
        warn!(ahead_millis, "the clock of this machine and that of the store differ: set it, best by NTP");
    }
    store.delete(&key).await?;
    if !matches!(store.get(&key).await, Err(Error::NotFound(_))) {
        return Err(inconsistent(store, "still answers a read of an object that was just deleted"));
    }
    let is_old = |modified: i64| clock.unix_millis() - modified > LEFTOVER_AGE.as_millis() as i64;
    for old in listed.iter().filter(|object| is_old(object.modified_millis)).take(LEFTOVERS_MAX) {
        store.delete(&old.key).await?;
    }
    Ok(())
}

async fn list_only(store: &Store) -> Result<(), OpenError> {
    let listed = store.list_folders("").await?;
    tracing::debug!(folders = listed.len(), "listed the bucket");
    Ok(())
}

fn inconsistent(store: &Store, what: &'static str) -> OpenError {
    OpenError::Inconsistent { store: store.to_string(), what }
}
