//! Copies of the bucket that somebody makes with a plain tool while it is written to.
//!
//! Owns: when and in which order objects are copied, when objects of another cluster are mixed in. Does not own: what a copy has to hold ([`crate::audit`]).

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
            fleet.note(format_args!("somebody mixes in objects of another cluster"));
            fleet.bucket.objects().mix_in_others();
            *fleet.others.lock() = fleet.bucket.objects().others();
        } else if random.chance(600) {
            *fleet.older_catalog.lock() = Some(fleet.bucket.objects().below("catalog/"));
        } else {
            copy(&fleet, &mut random).await;
        }
    }
}

/// Folder by folder, in any order; of each what is listed when its turn comes, unless it is gone by then.
async fn copy(fleet: &Fleet, random: &mut Random) {
    let expected = fleet.oracle.expected();
    let copy = Objects::default();
    let mut folders = vec!["block/", "catalog/", "cluster", "delete/", "log/", "publish/"];
    let listed = fleet.bucket.objects().keys().len() as u64;
    // A copy takes less time than dead objects and old files of the catalog stay, as the operator's manual demands.
    let settings = &fleet.settings;
    let stay = Duration::from(settings.metastore.sweep_grace).min(settings.catalog.options().collect_after);
    let pause = stay.as_millis() as u64 / 2 / (listed + folders.len() as u64 + 100);
    let pause = random.between(0, pause);
    fleet.note(format_args!("somebody copies the bucket, {pause} ms an object"));
    while !folders.is_empty() {
        let folder = folders.swap_remove(random.below(folders.len() as u64) as usize);
        for key in fleet.bucket.objects().below(folder).keys() {
            fleet.executor.sleep(Duration::from_millis(pause)).await;
            copy.take(&key, fleet.bucket.objects());
        }
    }
    audit_copy(fleet, &copy, &expected).await;
}
