//! The check of a store at the start, before it is trusted with data.
//!
//! Owns: trying every kind of request that the roles rely on, and refusing the store.
//! Does not own: which cluster the store belongs to (`cluster`).
//!
//! A store that breaks a promise is refused here, because a broken promise could not be noticed later. About 160 small requests per
//! start, most of them creates that lose a race; a dozen on a local directory, which is known to keep its promises.

use std::time::Duration;

use bytes::Bytes;
use clock::{Clock, TaskEnded};
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt, join, stream};
use tracing::{error, warn};

use crate::{CreateOutcome, Error, Key, OpenError, Store, Tail};

/// Races of [`CREATES_AT_ONCE`] creates of one key. A store known to let several creates win did so in two of three
/// such races, so it passes all 8 about once in 6,500 starts.
const RACES: usize = 8;
const RACES_AT_ONCE: usize = 4;
const CREATES_AT_ONCE: usize = 16;
/// Time that the start waits for further winners once a create has won.
const STRAGGLERS_TIME: Duration = Duration::from_millis(250);
/// Bytes of an object's end that readers ask for; more than the probe has.
const TAIL_BYTES: u64 = 64 << 10;

/// Probes that an earlier start left behind are deleted at this age.
const LEFTOVER_AGE: Duration = Duration::from_secs(3_600);
const LEFTOVERS_MAX: usize = 100;
/// A larger difference between the clocks is logged as a warning; a few seconds more, and ages become wrong.
const SKEW_MAX: Duration = Duration::from_secs(60);

/// Creates, races, reads, lists and deletes one small object.
pub(crate) async fn check(store: &Store, clock: &Clock) -> Result<(), OpenError> {
    let key = Key::probe(clock.random());
    // Deleting an absent object needs the permission too, so a start without it leaves no probe behind.
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
        (CreateOutcome::Mine, CreateOutcome::Other) => one,
        (CreateOutcome::Other, CreateOutcome::Mine) => two,
        (CreateOutcome::Mine, CreateOutcome::Mine) => {
            return Err(OpenError::Overwrites { store: store.to_string() });
        }
        (CreateOutcome::Other, CreateOutcome::Other) => {
            return Err(inconsistent(store, "refused both creates of a new key"));
        }
    };
    if store.get(&key).await? != winner {
        return Err(inconsistent(store, "answered a read with other bytes than were just written"));
    }
    let part = 1..winner.len() as u64 - 1;
    let parts = store.get_ranges(&key, std::slice::from_ref(&part)).await?;
    if parts.first().is_none_or(|read| *read != winner.slice(1..winner.len() - 1)) {
        return Err(inconsistent(store, "answered a ranged read with other bytes than were asked for"));
    }
    check_tails(store, &key, &winner).await?;
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
    if !store.is_exclusive() {
        let races = (0..RACES).map(|_| race(store, clock));
        stream::iter(races).buffer_unordered(RACES_AT_ONCE).try_collect::<()>().await?;
    }
    let is_old = |modified: i64| clock.unix_millis() - modified > LEFTOVER_AGE.as_millis() as i64;
    for old in listed.iter().filter(|object| is_old(object.modified_millis)).take(LEFTOVERS_MAX) {
        store.delete(&old.key).await?;
    }
    Ok(())
}

/// Reads the end of `key`, which holds `whole`, also with a length above that of the object.
async fn check_tails(store: &Store, key: &Key, whole: &Bytes) -> Result<(), OpenError> {
    let is_right =
        |tail: &Tail, expected: &[u8]| tail.object_bytes == whole.len() as u64 && tail.bytes == expected;
    let short = store.get_tail(key, 2).await?;
    let is_short_right = is_right(&short, &whole[whole.len() - 2..]);
    if is_short_right && is_right(&store.get_tail(key, TAIL_BYTES).await?, whole) {
        return Ok(());
    }
    if is_short_right && store.has_suffix_ranges() {
        store.give_up_suffix_ranges(&"a suffix longer than the object was answered with other bytes");
        if is_right(&store.get_tail(key, TAIL_BYTES).await?, whole) {
            return Ok(());
        }
    }
    Err(inconsistent(store, "answered a read of an object's end with other bytes than it has"))
}

/// Creates of one key, sent at once.
#[derive(Default)]
struct Race {
    winners: usize,
    losers: usize,
    failure: Option<Error>,
}

impl Race {
    fn count(&mut self, created: Result<Result<bool, Error>, TaskEnded>) {
        match created {
            Ok(Ok(true)) => self.winners += 1,
            Ok(Ok(false)) => self.losers += 1,
            Ok(Err(error)) => self.failure = Some(error),
            Err(TaskEnded) => {}
        }
    }
}

/// Sends [`CREATES_AT_ONCE`] creates of one key at once, and decides soon after one has won. Some stores lock the key
/// and make losers wait for seconds: the rest is counted, and the key deleted, in the background.
async fn race(store: &Store, clock: &Clock) -> Result<(), OpenError> {
    let key = Key::probe(clock.random());
    let create = |number| {
        let (store, key) = (store.clone(), key.clone());
        let bytes = Bytes::from(format!("{number} {}\n", key.as_str()));
        clock.spawn(async move { store.try_create(&key, &bytes).await })
    };
    let mut creates: FuturesUnordered<_> = (0..CREATES_AT_ONCE).map(create).collect();
    let mut race = Race::default();
    while race.winners == 0
        && let Some(created) = creates.next().await
    {
        race.count(created);
    }
    let rest = async {
        while let Some(created) = creates.next().await {
            race.count(created);
        }
    };
    let is_over = clock.timeout(STRAGGLERS_TIME, rest).await.is_some();
    if race.winners > 1 {
        return Err(OpenError::Overwrites { store: store.to_string() });
    }
    if race.winners + race.losers == 0
        && let Some(error) = &race.failure
    {
        warn!(%error, "all creates of a race failed, so it proves nothing");
    }
    if is_over {
        store.delete(&key).await?;
        return Ok(());
    }
    let store = store.clone();
    clock.spawn(async move {
        while let Some(created) = creates.next().await {
            race.count(created);
        }
        if race.winners > 1 {
            let refusal = OpenError::Overwrites { store: store.to_string() };
            error!(%refusal, "stop this process: a create succeeded seconds after another one of the same key");
        }
        if let Err(error) = store.delete(&key).await {
            warn!(%error, "probe was not deleted, a later start will delete it");
        }
    });
    Ok(())
}

async fn list_only(store: &Store) -> Result<(), OpenError> {
    let listed = store.list_folders("").await?;
    tracing::debug!(folders = listed.len(), "listed the bucket");
    Ok(())
}

fn inconsistent(store: &Store, symptom: &'static str) -> OpenError {
    OpenError::Inconsistent { store: store.to_string(), symptom }
}
