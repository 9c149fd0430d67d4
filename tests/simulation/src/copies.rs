//! Copies of the bucket made with a plain tool while it is written to.
//!
//! Owns: when and in which order objects are copied, when objects of another cluster are mixed in.
//! Does not own: the required content of a copy ([`crate::audit`]).

use std::sync::Arc;
use std::time::Duration;

use crate::audit::audit_copy;
use crate::bucket::Objects;
use crate::fleet::Fleet;
use crate::random::Random;

/// Saves the catalog alone now and then, for owners that find an old one, and copies the whole bucket.
pub(crate) async fn keep_copying(fleet: Arc<Fleet>, until: Duration, mut random: Random) {
    loop {
        fleet.executor.sleep(random.millis(10_000, 120_000)).await;
        if fleet.executor.now() >= until || fleet.oracle.has_failed() {
            return;
        }
        if random.chance(150) {
            fleet.note(format_args!("objects of another cluster are mixed in"));
            fleet.bucket.objects().mix_in_others();
            *fleet.others.lock() = fleet.bucket.objects().others();
        } else if random.chance(600) {
            *fleet.older_catalog.lock() = Some(fleet.bucket.objects().below("catalog/"));
        } else {
            copy(&fleet, &mut random).await;
        }
    }
}

/// Copies folder by folder, in random order: the objects listed at the start of each folder, unless deleted before
/// they are copied.
async fn copy(fleet: &Fleet, random: &mut Random) {
    let expected = fleet.oracle.expected();
    let copy = Objects::default();
    let mut folders = vec!["block/", "catalog/", "cluster", "delete/", "log/", "publish/"];
    let listed = fleet.bucket.objects().keys().len() as u64;
    // A copy takes less time than dead objects and old files of the catalog stay, as docs/operations.md demands.
    let settings = &fleet.settings;
    let stay = Duration::from(settings.metastore.sweep_grace).min(settings.catalog.options().collect_after);
    let pause = stay.as_millis() as u64 / 2 / (listed + folders.len() as u64 + 100);
    let pause = random.between(0, pause);
    fleet.note(format_args!("the bucket is copied, {pause} ms an object"));
    while !folders.is_empty() {
        let folder = folders.swap_remove(random.below(folders.len() as u64) as usize);
        for key in fleet.bucket.objects().below(folder).keys() {
            fleet.executor.sleep(Duration::from_millis(pause)).await;
            copy.take(&key, fleet.bucket.objects());
        }
    }
    audit_copy(fleet, &copy, &expected).await;
}
